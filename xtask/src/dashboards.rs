//! `cargo xtask dashboards`: builds and runs the package in `dashboards/`.

use std::env;
use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{build, shell};

#[derive(clap::Args)]
pub struct Args {
    /// Options of the program itself; --help lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub fn dashboards(args: &Args) -> Result<()> {
    shell::loud(program()?.args(&args.args))
}

/// The program; its arguments follow.
pub fn program() -> Result<Command> {
    let mut command = shell::cargo();
    // Paths in the arguments are relative to the user's folder.
    command.current_dir(env::current_dir().context("finding the current folder")?);
    command.args(["run", "--quiet", "--package", "portolan-dashboards"]).args(build::locked());
    command.arg("--");
    Ok(command)
}
