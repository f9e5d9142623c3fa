//! The `portolan` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    portolan::cli::run(portolan::pipeline::run)
}
