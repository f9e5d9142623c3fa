//! `cargo xtask setup`: a toolchain that compiles Rust to BPF.
//!
//! There are two, and either becomes the rustup toolchain `portolan-bpf`, which the loader's build
//! script uses:
//! - Debian's packages, where they exist: a rustc with a prebuilt `core` for BPF ([`debian`]);
//! - rustup's nightly with the sources of `core` ([`nightly`]).
//!
//! Either also needs bpf-linker, built for the LLVM of this rustc. The working versions are written
//! to a stamp, so that the next run only compares versions.

mod debian;
mod nightly;
mod proof;

use std::process::Command;

use anyhow::{Result, anyhow, bail};

use crate::shell;
pub use proof::needs_own_core;

/// The rustup toolchain that the loader's build script uses.
pub const TOOLCHAIN: &str = "portolan-bpf";
/// The target of the BPF programs.
pub const TARGET: &str = "bpfel-unknown-none";
/// The crates that use unstable features; see the loader's build script.
pub const BOOTSTRAP: &str = "aya_ebpf,portolan_ebpf";

/// The bpf-linker releases that go with our rustc.
const LINKER: &str = "^0.13";

/// Arguments of `cargo xtask setup`.
#[derive(clap::Args)]
pub struct Args {
    /// Use only this toolchain
    #[arg(long, value_enum)]
    with: Option<Route>,
}

/// How to get to a toolchain.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Route {
    /// Debian's packages
    Debian,
    /// rustup's nightly
    Nightly,
}

/// The command: [`setup`], or the requested toolchain only.
pub fn run(args: &Args) -> Result<()> {
    let Args { with } = args;
    match with {
        Some(route) => route.take()?,
        None => return setup(),
    }
    println!("BPF toolchain: {}", described());
    Ok(())
}

/// Installs or chooses the toolchain for the kernel programs, and prints which.
pub fn setup() -> Result<()> {
    if !proof::is_fresh() {
        choose()?;
    }
    println!("BPF toolchain: {}", described());
    Ok(())
}

fn choose() -> Result<()> {
    if !shell::exists("rustup") {
        bail!("rustup is not installed: install it from rustup.rs, then repeat this command");
    }
    // A toolchain installed by an earlier run, or by the user, may work.
    if linked().is_some() && linker_is_here() && proof::prove().is_ok() {
        return Ok(());
    }
    let Err(no_debian) = Route::Debian.take() else { return Ok(()) };
    println!("not with Debian's packages: {no_debian:#}");
    let Err(no_nightly) = Route::Nightly.take() else { return Ok(()) };
    Err(anyhow!(
        "no toolchain compiles for the kernel here\n  \
         Debian's packages: {no_debian:#}\n  \
         rustup's nightly: {no_nightly:#}\n  \
         Fix one of the two, then repeat `cargo xtask setup`"
    ))
}

impl Route {
    fn take(self) -> Result<()> {
        match self {
            Self::Debian => debian::install()?,
            Self::Nightly => nightly::install()?,
        }
        proof::prove()
    }
}

/// A short description of the toolchain.
fn described() -> String {
    let rustc = shell::probe(toolchain("rustc").arg("--version")).unwrap_or_default();
    let version = rustc.split(' ').nth(1).unwrap_or("unknown").to_owned();
    let route =
        if linked().as_deref() == Some("/usr") { "Debian's rustc" } else { "rustup's rustc" };
    format!("{route} {version}")
}

/// The directory of the toolchain that our name stands for.
fn linked() -> Option<String> {
    let sysroot = shell::probe(toolchain("rustc").args(["--print", "sysroot"]))?;
    Some(sysroot.trim().to_owned())
}

/// A program of our toolchain.
pub fn toolchain(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", TOOLCHAIN, program]);
    // Cargo passes its own toolchain to its children by these variables; this is another one.
    for key in ["CARGO", "RUSTC", "RUSTDOC", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(key);
    }
    command.env("RUSTC_BOOTSTRAP", BOOTSTRAP).current_dir(crate::tree::root());
    command
}

/// Gives the toolchain in `folder` our name.
fn link(folder: &str) -> Result<()> {
    if linked().as_deref() == Some(folder) {
        return Ok(());
    }
    shell::quiet(Command::new("rustup").args(["toolchain", "link", TOOLCHAIN, folder]))
}

fn linker_is_here() -> bool {
    linker_version().is_some_and(|version| version.starts_with("bpf-linker 0.13."))
}

fn linker_version() -> Option<String> {
    shell::probe(Command::new("bpf-linker").arg("--version"))
}

/// Builds bpf-linker against LLVM `major` in `/usr/lib`.
fn build_linker(major: &str) -> Result<()> {
    println!("installing bpf-linker, for LLVM {major} (about a minute)");
    let prefix = format!("/usr/lib/llvm-{major}");
    let mut install = shell::cargo();
    install.args(["install", "bpf-linker", "--version", LINKER, "--force", "--quiet"]);
    install.args(["--no-default-features", "--features", &format!("llvm-{major}")]);
    install.env("LLVM_PREFIX", &prefix).env(format!("LLVM_SYS_{major}1_PREFIX"), &prefix);
    // It is installed for the user, and built in a folder of its own.
    install.env_remove("CARGO_TARGET_DIR");
    shell::quiet(&mut install)
}

/// A component of the running toolchain, installed if it is missing.
pub fn component(name: &str) -> Result<()> {
    let listed = shell::probe(Command::new("rustup").args(["component", "list", "--installed"]));
    if listed.is_some_and(|listed| listed.lines().any(|line| line.starts_with(name))) {
        return Ok(());
    }
    println!("installing {name}");
    shell::quiet(Command::new("rustup").args(["component", "add", name]))
}
