//! The `portolan` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    portolan::cli::run(|_config| anyhow::bail!("this build has no pipeline"))
}
