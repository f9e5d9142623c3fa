//! What people install: the static binary, an image, packages and the files of a release.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a terminal program")]

mod image;
mod package;
mod release;
mod reproducible;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build what people install
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the static binary, and an image that contains only it
    Image(image::Args),
    /// Build a .deb and an .rpm of the static binary, and its SBOM
    Package(package::Args),
    /// Make the files of a release: archive, packages, SBOM, install script, signed checksums
    Release(release::Args),
    /// Prove that the kernel object does not depend on where it is built
    Reproducible,
}

fn main() -> ExitCode {
    portolan_kit::exit_code(match Args::parse().command {
        Command::Image(args) => image::image(&args),
        Command::Package(args) => package::package(&args),
        Command::Release(args) => release::release(&args),
        Command::Reproducible => reproducible::reproducible(),
    })
}
