//! `cargo xtask build`: `target/release/portolan`, with the kernel programs inside.

use std::env;
use std::path::PathBuf;

use anyhow::Result;

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

/// In CI the committed versions are the ones that count.
pub fn locked() -> Option<&'static str> {
    env::var_os("CI").map(|_| "--locked")
}
