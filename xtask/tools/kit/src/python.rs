//! Programs from Python's package index, where compiled ones are a download of seconds: each set in
//! a virtual environment of its own below cargo's target directory.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{apt, shell, tree};

/// Installs packages into the environment `name`, and returns the folder of its programs.
pub fn install(name: &str, packages: &[&str]) -> Result<PathBuf> {
    if apt::is_here() {
        apt::install(&apt::missing(&["python3-venv"]))?;
    }
    let home = tree::target()?.join(name);
    shell::quiet(Command::new("python3").args(["-m", "venv"]).arg(&home))
        .context("is python3-venv installed?")?;
    let programs = home.join("bin");
    let mut pip = Command::new(programs.join("pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    shell::quiet(pip.args(packages))?;
    Ok(programs)
}
