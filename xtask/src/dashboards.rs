//! `cargo xtask dashboards`: builds and runs the package in `dashboards/`.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::{build, shell};

#[derive(clap::Args)]
pub struct Args {
    /// Options of the program itself; --help lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub fn dashboards(args: &Args) -> Result<()> {
    shell::loud(program().args(&args.args))
}

/// The program; its arguments follow.
pub fn program() -> Command {
    let mut command = shell::cargo();
    command.args(["run", "--quiet", "--package", "portolan-dashboards"]).args(build::locked());
    command.arg("--");
    command
}
