//! Programs from Python's package index, where compiled ones are a download of seconds: each set in
//! a virtual environment of its own below cargo's target directory.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{apt, shell, tree};

/// Installs packages into the environment `name`, and returns the folder of its programs.
pub fn install(name: &str, packages: &[&str]) -> Result<PathBuf> {
    pip(name, packages, &[])
}

/// Installs packages that only carry a program, without what they depend on.
pub fn install_alone(name: &str, packages: &[&str]) -> Result<PathBuf> {
    pip(name, packages, &["--no-deps"])
}

fn pip(name: &str, packages: &[&str], options: &[&str]) -> Result<PathBuf> {
    if apt::is_here() {
        apt::install(&apt::missing(&["python3-venv"]))?;
    }
    let home = tree::target()?.join(name);
    let programs = home.join("bin");
    if !programs.join("pip").is_file() {
        shell::quiet(Command::new("python3").args(["-m", "venv"]).arg(&home))
            .context("is python3-venv installed?")?;
    }
    let mut pip = Command::new(programs.join("pip"));
    // Few of the modules are ever imported: Python compiles those when they are.
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-compile"]);
    shell::quiet(pip.args(options).args(packages))?;
    Ok(programs)
}
