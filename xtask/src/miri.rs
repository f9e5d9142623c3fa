//! `cargo xtask miri`: the unsafe code that reads foreign bytes, under Miri, an interpreter that
//! detects undefined behaviour.
//!
//! That code is the wire macro of `agent-common`: every record and row of the kernel becomes a
//! value there and nowhere else; the modules in `agent-common/src/decode` have no unsafe block. The
//! other unsafe code is system calls, which Miri does not support.

use std::process::Command;

use anyhow::{Result, bail};
use portolan_kit::shell;

/// An interpreter is some hundred times slower: fewer cases of each property.
const CASES: &str = "8";

/// Runs them and returns a summary.
pub fn miri() -> Result<String> {
    let decoders = portolan_kit::tree::root().join("agent-common/src/decode");
    for entry in std::fs::read_dir(decoders)?.flatten() {
        let text = std::fs::read_to_string(entry.path())?;
        if text.contains("unsafe {") {
            bail!("{} has unsafe code that Miri does not see here", entry.path().display());
        }
    }
    if shell::probe(nightly().args(["miri", "--version"])).is_none() {
        let mut rustup = Command::new("rustup");
        rustup.args(["component", "add", "--toolchain", "nightly", "miri", "rust-src"]);
        if let Err(why) = shell::quiet(&mut rustup) {
            println!("SKIPPED: Miri comes with a nightly toolchain of rustup, and: {why}");
            return Ok("skipped: no Miri here".to_owned());
        }
    }
    println!("the tests of agent-common under Miri");
    // proptest's regression files are specific to this machine.
    let mut test = nightly();
    test.args(["miri", "test", "--package", "agent-common", "--features", "user"]);
    test.env("PROPTEST_CASES", CASES).env("MIRIFLAGS", "-Zmiri-disable-isolation");
    shell::loud(&mut test)?;
    Ok("the tests of agent-common passed".to_owned())
}

/// The cargo of the nightly toolchain, by way of rustup.
fn nightly() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.arg("+nightly").current_dir(portolan_kit::tree::root());
    // The parent's variables belong to another toolchain.
    for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        cargo.env_remove(variable);
    }
    cargo
}
