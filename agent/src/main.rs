//! The `portolan` binary.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    portolan::cli::run(portolan::pipeline::run)
}
