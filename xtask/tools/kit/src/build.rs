//! `cargo xtask build`: `target/release/portolan`, with the kernel programs inside.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{setup, shell, tree};

/// Builds the agent and returns its path.
pub fn build() -> Result<PathBuf> {
    setup::setup()?;
    let binary = compile()?;
    println!("built {}", tree::shown(&binary));
    Ok(binary)
}

/// Builds the agent with the toolchain that is there.
pub fn compile() -> Result<PathBuf> {
    Target::Host.agent()
}

/// The target of the build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// This machine.
    Host,
    /// 64 bit ARM, by a compiler on this machine.
    Aarch64,
}

/// rustc's name of it.
const AARCH64: &str = "aarch64-unknown-linux-gnu";
/// ring has parts in C and assembly, and a program must be linked.
pub const AARCH64_COMPILER: &str = "aarch64-linux-gnu-gcc";

impl Target {
    /// Builds the agent and returns its path.
    pub fn agent(self) -> Result<PathBuf> {
        println!(
            "building the agent{}: minutes the first time; the step `loader(build)` compiles the \
             kernel programs and shows nothing meanwhile",
            self.suffix()
        );
        let mut cargo = self.cargo("build")?;
        shell::loud(cargo.args(["--release", "--package", "agent"]).args(locked()))?;
        let folder = match self {
            Self::Host => tree::target()?,
            Self::Aarch64 => folder()?.join(AARCH64),
        };
        Ok(folder.join("release/portolan"))
    }

    /// Compiles the live tests and returns the path of their program.
    pub fn live_tests(self) -> Result<PathBuf> {
        println!("building the live tests{}", self.suffix());
        let mut cargo = self.cargo("test")?;
        cargo.args(["--release", "--package", "agent", "--test", "live", "--no-run"]);
        cargo.args(["--quiet", "--message-format=json"]).args(locked());
        let messages = shell::output(&mut cargo)?;
        let mut programs = messages.lines().filter_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            let is_it = message["target"]["name"] == "live";
            is_it.then(|| message["executable"].as_str().map(PathBuf::from))?
        });
        programs.next_back().context("cargo does not name the program of the live tests")
    }

    /// Brings the standard library that it takes.
    pub fn prepare(self) -> Result<()> {
        if self == Self::Host {
            return Ok(());
        }
        let listed = shell::probe(Command::new("rustup").args(["target", "list", "--installed"]));
        if listed.is_some_and(|listed| listed.lines().any(|line| line == AARCH64)) {
            return Ok(());
        }
        println!("installing the standard library for {AARCH64}");
        shell::quiet(Command::new("rustup").args(["target", "add", AARCH64]))
    }

    /// A command of cargo's that compiles for it.
    pub fn cargo(self, command: &str) -> Result<Command> {
        let mut cargo = shell::cargo();
        cargo.arg(command);
        if self == Self::Aarch64 {
            cargo.args(["--target", AARCH64]).arg("--target-dir").arg(folder()?);
            cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", AARCH64_COMPILER);
        }
        Ok(cargo)
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Host => "",
            Self::Aarch64 => " for aarch64",
        }
    }
}

/// A separate target folder: other flags would invalidate the build's objects.
fn folder() -> Result<PathBuf> {
    Ok(tree::target()?.join("aarch64"))
}

/// In CI the committed versions are the ones that count.
pub fn locked() -> Option<&'static str> {
    env::var_os("CI").map(|_| "--locked")
}
