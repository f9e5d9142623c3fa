//! The `portolan` binary.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    portolan::commands::run(portolan::pipeline::run)
}
