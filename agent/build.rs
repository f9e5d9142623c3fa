//! Builds the kernel programs and lays them where `aya::include_bytes_aligned!` finds them.
//!
//! They are compiled by the rustup toolchain `portolan-bpf`, which `cargo xtask setup` provides:
//! rustup's nightly, or a stable rustc with a prebuilt `core` for BPF. For the stable one the
//! crates with unstable features are named in `RUSTC_BOOTSTRAP`; a plain `1` there would make
//! aya-build compile `core` too.

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

const TOOLCHAIN: &str = "portolan-bpf";
const BOOTSTRAP_KEY: &str = "RUSTC_BOOTSTRAP";
const BOOTSTRAP: &str = "aya_ebpf,portolan_ebpf";

/// What the kernel programs are made of, besides their own package.
const SOURCES: [&str; 4] =
    ["agent-common/src", "agent-common/Cargo.toml", "Cargo.toml", "Cargo.lock"];

fn main() -> Result<ExitCode> {
    if env::var_os(BOOTSTRAP_KEY).is_none_or(|names| names != BOOTSTRAP) {
        return start_again();
    }
    let here = env::var("CARGO_MANIFEST_DIR").context("cargo names no manifest")?;
    let root = Path::new(&here).parent().context("the agent lies outside a workspace")?;
    for source in SOURCES {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
    }
    if !toolchain_is_here() {
        bail!("the toolchain for the kernel programs is missing: run `cargo xtask setup`");
    }
    let programs = root.join("agent-ebpf");
    let root_dir = programs.to_str().context("the path of the checkout is not UTF-8")?;
    let package = Package { name: "agent-ebpf", root_dir, ..Package::default() };
    aya_build::build_ebpf([package], Toolchain::Custom(TOOLCHAIN))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs this script with the environment that the compiler needs: changing one's own is unsafe.
fn start_again() -> Result<ExitCode> {
    let script = env::current_exe().context("finding this build script")?;
    let status = Command::new(script)
        .env(BOOTSTRAP_KEY, BOOTSTRAP)
        // aya-build shows every line of the compiler as a warning: let there be only warnings.
        .env("CARGO_TERM_QUIET", "true")
        .status()
        .context("starting this build script again")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn toolchain_is_here() -> bool {
    let mut rustc = Command::new("rustup");
    rustc
        .args(["run", TOOLCHAIN, "rustc", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    rustc.status().is_ok_and(|status| status.success())
}
