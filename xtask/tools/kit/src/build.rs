//! `cargo xtask build`: `target/release/portolan`, with the kernel programs inside.
//!
//! Everything comes from one tree, whether it is run, measured, tested or packed: the dependencies
//! are compiled once, optimised and statically linked (the binary runs on any distribution and FROM
//! scratch). Only our own crates exist twice there: as they are shipped, and as tests of all kinds
//! use them ([`Checks`]): not optimised, with checks of overflow and debug assertions, and compiled by
//! clippy, which is rustc with more lints. So `cargo xtask check` compiles what `cargo xtask test`
//! runs.

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{setup, shell, tree};

/// Builds the agent as it is shipped and returns the path that README names.
pub fn build() -> Result<PathBuf> {
    setup::setup()?;
    let built = compile(Checks::Off)?;
    let binary = tree::target()?.join("release/portolan");
    // A link: a build with checks, which takes the other name, leaves it alone.
    fs::create_dir_all(binary.parent().unwrap_or(Path::new("."))).context("making a folder")?;
    let _ = fs::remove_file(&binary);
    fs::hard_link(&built, &binary).with_context(|| tree::shown(&binary))?;
    println!("built {}", tree::shown(&binary));
    Ok(binary)
}

/// Builds the agent with the installed toolchain: as it is shipped, or as tests start it. The one takes
/// the returned path over from the other.
pub fn compile(checks: Checks) -> Result<PathBuf> {
    if checks == Checks::On {
        return Ok(Target::Host.tests("*")?.agent);
    }
    println!(
        "building the agent: minutes the first time; the step `loader(build)` compiles the kernel \
         programs and shows nothing meanwhile"
    );
    let mut cargo = Target::Host.release("build", Checks::Off)?;
    shell::loud(cargo.args(["--package", "agent"]))?;
    Ok(tree::target()?.join(host()).join("release/portolan"))
}

/// The command that compiles everything with [`Checks::On`]: libraries, programs, tests. It prints
/// cargo's messages, one JSON object a line.
pub fn everything() -> Result<Command> {
    let mut cargo = Target::Host.release("build", Checks::On)?;
    cargo.args(["--all-targets", "--message-format=json"]);
    Ok(cargo)
}

/// Whether our own crates are built with overflow checks and debug assertions, by clippy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checks {
    /// As shipped.
    Off,
    /// For tests.
    On,
}

/// The lints of clippy are in a compiler of their own.
const CLIPPY: &str = "clippy-driver";

/// The target of the build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// This machine.
    Host,
    /// 64 bit ARM, by a compiler on this machine.
    Aarch64,
}

/// The tests in `agent/tests`, and the agent that they start; both with [`Checks::On`].
#[derive(Debug, PartialEq, Eq)]
pub struct Tests {
    /// The agent.
    pub agent: PathBuf,
    /// Programs of tests, by their names.
    pub programs: Vec<(String, PathBuf)>,
}

/// The kernel programs: the loader's build script compiles them.
const KERNEL: &str = "agent-ebpf";
/// Optimised in tests too: it reads the kernel's types, megabytes of them, at each of the many starts.
const STARTER: &str = "loader";
/// rustc's name of it.
const AARCH64: &str = "aarch64-unknown-linux-gnu";
/// ring has parts in C and assembly, and a program must be linked.
pub const AARCH64_COMPILER: &str = "aarch64-linux-gnu-gcc";

impl Target {
    /// Compiles the tests in `agent/tests` of this name (`*` for all), and the agent that they start.
    pub fn tests(self, name: &str) -> Result<Tests> {
        println!(
            "building the live tests and their agent{}: minutes the first time",
            self.suffix()
        );
        let mut cargo = self.release("test", Checks::On)?;
        cargo.args(["--test", name, "--no-run", "--message-format=json-render-diagnostics"]);
        // Its progress, and what does not compile.
        cargo.stderr(Stdio::inherit());
        let messages = shell::output(&mut cargo)?;
        Tests::find(&messages).context("cargo names no agent that it built for the tests")
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

    /// A command of cargo's that compiles for it, in the one tree.
    pub fn release(self, command: &str, checks: Checks) -> Result<Command> {
        let mut cargo = self.cargo(command)?;
        cargo.arg("--release").args(locked());
        if self == Self::Host {
            let host = host();
            static_libc()?;
            cargo.args(["--target", &host]);
            // Without the second, examples in the documentation could not be linked with the rest.
            for flags in ["rustflags", "rustdocflags"] {
                let flags =
                    format!(r#"target.{host}.{flags}=["-C", "target-feature=+crt-static"]"#);
                cargo.arg("--config").arg(flags);
            }
        }
        if checks == Checks::On {
            for package in ours()? {
                // Optimisation is most of what they take to compile, and nothing is measured with
                // them.
                let optimised = if package == STARTER { "opt-level=3" } else { "opt-level=0" };
                for setting in ["overflow-checks=true", "debug-assertions=true", optimised] {
                    let key = format!("profile.release.package.{package}.{setting}");
                    cargo.arg("--config").arg(key);
                }
            }
            if self == Self::Host && has_clippy() {
                cargo.env("RUSTC_WORKSPACE_WRAPPER", CLIPPY);
            }
        }
        Ok(cargo)
    }

    /// A command of cargo's that compiles for it.
    pub fn cargo(self, command: &str) -> Result<Command> {
        let mut cargo = shell::cargo();
        cargo.arg(command);
        if self == Self::Aarch64 {
            cargo.args(["--target", AARCH64]);
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

// === impl Tests ===

impl Tests {
    /// The program of this name.
    pub fn program(self, name: &str) -> Result<PathBuf> {
        let found = self.programs.into_iter().find(|(program, _)| program == name);
        Ok(found.with_context(|| format!("there are no tests called {name} in agent/tests"))?.1)
    }

    /// Reads cargo's messages, one JSON object a line.
    fn find(messages: &str) -> Option<Self> {
        let (mut agent, mut programs) = (None, Vec::new());
        for line in messages.lines() {
            let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
            let Some(path) = message["executable"].as_str().map(PathBuf::from) else { continue };
            let target = &message["target"];
            match (target["kind"][0].as_str(), target["name"].as_str()) {
                (Some("bin"), Some("portolan")) => agent = Some(path),
                (Some("test"), Some(name)) => programs.push((name.to_owned(), path)),
                _ => {}
            }
        }
        Some(Self { agent: agent?, programs })
    }
}

/// rustc's name of this machine. Given to cargo, it keeps flags of ours from build scripts and
/// macros, which cannot be linked statically.
fn host() -> String {
    format!("{ARCH}-unknown-linux-gnu")
}

/// The packages of the workspace that run on the host.
fn ours() -> Result<Vec<String>> {
    let mut command = shell::cargo();
    command.args(["metadata", "--no-deps", "--format-version", "1"]).args(locked());
    let metadata: Value = serde_json::from_str(&shell::output(&mut command)?)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let names = packages.filter_map(|package| package["name"].as_str());
    let mut names: Vec<_> = names.filter(|name| *name != KERNEL).map(str::to_owned).collect();
    // In a fixed order, because for cargo another order of flags is another build.
    names.sort();
    Ok(names)
}

/// Whether clippy is here, installed if it is missing.
fn has_clippy() -> bool {
    static FOUND: LazyLock<bool> = LazyLock::new(|| match setup::component("clippy") {
        Ok(()) => true,
        Err(error) => {
            println!("compiling the tests without clippy's lints: {error:#}");
            false
        }
    });
    *FOUND
}

/// Debian has it in `libc6-dev`, which every machine that links has; others have a package for it.
fn static_libc() -> Result<()> {
    let found = shell::probe(Command::new("cc").arg("-print-file-name=libc.a"));
    // Without it the compiler prints the bare name.
    if found.is_some_and(|path| Path::new(path.trim()).is_absolute()) {
        return Ok(());
    }
    bail!(
        "the agent is linked statically, and there is no libc.a here: install it \
         (Debian, Ubuntu: libc6-dev; Fedora: glibc-static), then repeat this command"
    )
}

/// In CI the committed versions are the ones that count.
pub fn locked() -> Option<&'static str> {
    env::var_os("CI").map(|_| "--locked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_the_one_that_was_built_for_the_tests() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"agent"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"portolan"},"executable":"/t/release/portolan"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"live"},"executable":"/t/release/deps/live-1"}
{"reason":"build-finished","success":true}"#;
        let tests = Tests::find(messages).unwrap();
        assert_eq!(tests.agent, Path::new("/t/release/portolan"));
        assert_eq!(tests.program("live").unwrap(), Path::new("/t/release/deps/live-1"));
        assert!(Tests::find(messages).unwrap().program("dead").is_err());
        assert_eq!(Tests::find(""), None);
    }
}
