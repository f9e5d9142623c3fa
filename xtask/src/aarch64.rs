//! Whether everything still compiles for aarch64, as far as this machine can tell.
//!
//! Types and system calls are checked, nothing is linked or run. What no aarch64 machine has shown
//! yet is in docs/deploy.md.

use std::env::consts::ARCH;
use std::process::Command;

use anyhow::Result;

use crate::{build, shell, tree};

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// ring has parts in C and assembly.
const COMPILER: &str = "aarch64-linux-gnu-gcc";

/// Checks for aarch64.
pub fn aarch64() -> Result<()> {
    if ARCH == "aarch64" {
        return Ok(());
    }
    if let Err(error) = standard_library() {
        println!("SKIPPED: rustup has no standard library for {TARGET} here: {error:#}");
        return Ok(());
    }
    let check = |package| {
        let mut cargo = shell::cargo();
        cargo.args(["check", "--quiet", "--target", TARGET, "--package", package]);
        // Other flags than the usual build's: in the same folder they would undo each other's work.
        cargo.arg("--target-dir").arg(tree::target()?.join("aarch64"));
        shell::loud(cargo.args(build::locked()))
    };
    check("agent-common")?;
    if !shell::exists(COMPILER) {
        println!(
            "SKIPPED: the agent for aarch64, only the contract: `apt-get install gcc-aarch64-linux-gnu` brings a compiler for what of it is C"
        );
        return Ok(());
    }
    check("agent")
}

fn standard_library() -> Result<()> {
    let listed = shell::probe(Command::new("rustup").args(["target", "list", "--installed"]));
    if listed.is_some_and(|listed| listed.lines().any(|line| line == TARGET)) {
        return Ok(());
    }
    println!("installing the standard library for {TARGET}");
    shell::quiet(Command::new("rustup").args(["target", "add", TARGET]))
}
