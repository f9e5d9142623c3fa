//! `cargo xtask bench`: see the library of this package, which the soak test uses too.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    portolan_kit::exit_code(portolan_bench::bench(&portolan_bench::Args::parse()))
}
