//! The commands that build, start and check Portolan: `cargo xtask --help` lists them.
//!
//! A newcomer needs rustup and root, nothing else: a command installs whatever else it needs,
//! reports that, and does it once.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a terminal program")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use portolan_kit::{build, setup};
use tool::{Passed, Tool};

mod aarch64;
mod check;
mod deploy;
mod fuzz;
mod miri;
mod page;
mod run;
mod test;
mod tidy;
mod tool;

/// Build, start and check Portolan.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install or choose the toolchain that compiles the BPF programs
    Setup(setup::Args),
    /// Build target/release/portolan
    Build,
    /// Build, then start the agent in the foreground on 127.0.0.1:10062
    Run(run::Args),
    /// Run all tests, including those that need root and the running kernel
    Test(test::Args),
    /// Run the live tests on other kernels, in QEMU
    #[command(disable_help_flag = true)]
    Vm(Passed),
    /// Fuzz every parser with libFuzzer
    Fuzz(fuzz::Args),
    /// Run the unsafe decoding code under Miri
    Miri,
    /// Run the agent under load for a long time and check that nothing grows
    #[command(disable_help_flag = true)]
    Soak(Passed),
    /// Measure the overhead of the agent and of other tools on this machine
    #[command(disable_help_flag = true)]
    Bench(Passed),
    /// Check the rules and generate dashboards and Kubernetes objects
    #[command(disable_help_flag = true)]
    Dashboards(Passed),
    /// Start a shop of real programs with monitoring, and inject faults
    #[command(disable_help_flag = true)]
    Demo(Passed),
    /// Make the script of the agent's web page from its source
    Page,
    /// Check format, lints, tidy rules and licences
    Check,
    /// Check only the tidy rules
    Tidy,
    /// Build the static binary, and an image that contains only it
    #[command(disable_help_flag = true)]
    Image(Passed),
    /// Build a .deb and an .rpm of the static binary, and its SBOM
    #[command(disable_help_flag = true)]
    Package(Passed),
    /// Make the files of a release: archive, packages, SBOM, install script, signed checksums
    #[command(disable_help_flag = true)]
    Release(Passed),
    /// Check deploy/ with the tools that consume it
    Deploy(deploy::Args),
}

fn main() -> ExitCode {
    portolan_kit::exit_code(match Args::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Build => build::build().map(drop),
        Command::Run(args) => run::run(&args),
        Command::Test(args) => test::test(&args),
        Command::Vm(args) => Tool::Vm.exec(&args),
        Command::Fuzz(args) => fuzz::fuzz(&args).map(drop),
        Command::Miri => miri::miri().map(drop),
        Command::Soak(args) => Tool::Soak.exec(&args),
        Command::Bench(args) => Tool::Bench.exec(&args),
        Command::Dashboards(args) => Tool::Dashboards.exec(&args),
        Command::Demo(args) => Tool::Demo.exec(&args),
        Command::Page => page::page(),
        Command::Check => check::check(),
        Command::Tidy => tidy::tidy(),
        Command::Image(args) => Tool::Package.exec_with("image", &args),
        Command::Package(args) => Tool::Package.exec_with("package", &args),
        Command::Release(args) => Tool::Package.exec_with("release", &args),
        Command::Deploy(args) => deploy::deploy(&args),
    })
}
