//! Shared by the commands of `cargo xtask`: the checkout, starting programs, installing packages
//! and toolchains, building the agent, and the sums of a test run.
//!
//! `xtask` itself stays small because a newcomer's first command compiles it; `xtask/tools` has the
//! commands that are programs of their own.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "for programs of a terminal")]

use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

pub mod apt;
pub mod build;
pub mod python;
pub mod report;
pub mod setup;
pub mod shell;
pub mod suites;
pub mod summary;
pub mod tracefs;
pub mod tree;

/// How a command ends: an error is printed with its causes.
#[must_use]
pub fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A heading on the terminal, with the time since the first.
pub fn heading(text: &str) {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let seconds = BEGAN.get_or_init(Instant::now).elapsed().as_secs();
    println!("\n== {text} ({} min {} s)", seconds / 60, seconds % 60);
}
