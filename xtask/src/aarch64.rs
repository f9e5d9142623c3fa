//! Whether everything still compiles for aarch64: types and system calls. `cargo xtask vm
//! 6.12-arm64` links it and runs the live tests there.

use std::env::consts::ARCH;

use anyhow::{Result, bail};
use portolan_kit::build::{AARCH64_COMPILER, Checks, Target};
use portolan_kit::{apt, shell};

/// Checks for aarch64.
pub fn aarch64() -> Result<()> {
    if ARCH == "aarch64" {
        return Ok(());
    }
    if let Err(error) = Target::Aarch64.prepare() {
        println!("SKIPPED: rustup has no standard library for aarch64 here: {error:#}");
        return Ok(());
    }
    let check = |package| {
        // As released: what runs on this machine, macros and build scripts, is compiled already.
        let mut cargo = Target::Aarch64.release("check", Checks::Off)?;
        shell::loud(cargo.args(["--quiet", "--package", package]))
    };
    check("agent-common")?;
    if let Err(error) = compiler() {
        println!("SKIPPED: the agent for aarch64, only the contract is checked: {error:#}");
        return Ok(());
    }
    check("agent")
}

/// A C compiler for aarch64, for the parts of our libraries that are C; installed where possible.
fn compiler() -> Result<()> {
    if shell::exists(AARCH64_COMPILER) {
        return Ok(());
    }
    if !apt::is_here() {
        bail!("{AARCH64_COMPILER} is not installed");
    }
    apt::install(&["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"])
}
