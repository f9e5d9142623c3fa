//! One line that says what a long run showed, from the tool that ran to the command that started
//! it: `cargo xtask test --full` writes it into docs/proof.md.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

/// The environment variable with the file that the line goes to.
const VARIABLE: &str = "PORTOLAN_SUMMARY";

/// Prints what a run showed, and hands it on if another command waits for it.
pub fn report(line: &str) -> Result<()> {
    println!("{line}");
    let Some(file) = env::var_os(VARIABLE) else { return Ok(()) };
    fs::write(&file, line).with_context(|| format!("writing {}", Path::new(&file).display()))
}

/// Has a command write its summary into `file`.
pub fn expect<'a>(command: &'a mut Command, file: &Path) -> &'a mut Command {
    command.env(VARIABLE, file)
}
