//! A one-line summary of a long run, passed from the tool to the command that started it: `cargo
//! xtask test --full` writes it into docs/proof.md.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

/// The environment variable with the path of the summary file.
const VARIABLE: &str = "PORTOLAN_SUMMARY";

/// Prints a summary, and passes it on if a parent command waits for it.
pub fn report(line: &str) -> Result<()> {
    println!("{line}");
    let Some(file) = env::var_os(VARIABLE) else { return Ok(()) };
    fs::write(&file, line).with_context(|| format!("writing {}", Path::new(&file).display()))
}

/// Has a command write its summary into `file`.
pub fn expect<'a>(command: &'a mut Command, file: &Path) -> &'a mut Command {
    command.env(VARIABLE, file)
}
