//! `cargo xtask build`: `target/release/portolan`, with the kernel programs inside.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{setup, shell, tree};

/// Builds the agent and tells where it lies.
pub fn build() -> Result<PathBuf> {
    setup::setup()?;
    let binary = compile()?;
    println!("built {}", tree::shown(&binary));
    Ok(binary)
}

/// Builds the agent with the toolchain that is there.
pub fn compile() -> Result<PathBuf> {
    println!("building the agent");
    shell::loud(shell::cargo().args(["build", "--release", "--package", "agent"]).args(locked()))?;
    Ok(tree::target()?.join("release/portolan"))
}

/// Compiles the live tests and tells where their program lies.
pub fn live_tests() -> Result<PathBuf> {
    println!("building the live tests");
    let mut cargo = shell::cargo();
    cargo.args(["test", "--release", "--package", "agent", "--test", "live", "--no-run"]);
    cargo.args(["--quiet", "--message-format=json"]).args(locked());
    let messages = shell::output(&mut cargo)?;
    let mut programs = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == "live";
        is_it.then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    programs.next_back().context("cargo does not tell where it put the live tests")
}

/// In CI the committed versions are the ones that count.
pub fn locked() -> Option<&'static str> {
    env::var_os("CI").map(|_| "--locked")
}
