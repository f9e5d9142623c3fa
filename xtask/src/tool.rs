//! The commands that are packages of their own, in `xtask/tools` and `dashboards`: compiled on
//! first use, so that `cargo xtask run` never waits for them.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use portolan_kit::{build, shell, tree};

/// One of these packages.
#[derive(Clone, Copy, Debug)]
pub enum Tool {
    Bench,
    Dashboards,
    Demo,
    Package,
    Soak,
    Vm,
}

/// The arguments of the command, including `--help`.
#[derive(clap::Args)]
pub struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    arguments: Vec<OsString>,
}

impl Tool {
    /// Becomes the tool, so that signals reach it and nothing else.
    pub fn exec(self, passed: &Passed) -> Result<()> {
        become_it(self.command()?, passed)
    }

    /// Becomes one of the tool's commands.
    pub fn exec_with(self, name: &str, passed: &Passed) -> Result<()> {
        let mut command = self.command()?;
        command.arg(name);
        become_it(command, passed)
    }

    /// A command that compiles the tool if necessary and starts it; arguments follow.
    pub fn command(self) -> Result<Command> {
        let package = self.package();
        let mut cargo = shell::cargo();
        // Files in the arguments are relative to where the user is.
        cargo.current_dir(env::current_dir().context("finding the current folder")?);
        cargo.arg("run").arg("--manifest-path").arg(tree::root().join("Cargo.toml"));
        // Not the package alone: its libraries would have other features than for clippy and the
        // tests, and be compiled once more.
        cargo.args(["--bin", package]).args(build::locked());
        // The first build takes a while, and cargo shows its progress.
        if tree::target()?.join("debug").join(package).exists() {
            cargo.arg("--quiet");
        }
        cargo.arg("--");
        Ok(cargo)
    }

    const fn package(self) -> &'static str {
        match self {
            Self::Bench => "portolan-bench",
            Self::Dashboards => "portolan-dashboards",
            Self::Demo => "portolan-demo",
            Self::Package => "portolan-package",
            Self::Soak => "portolan-soak",
            Self::Vm => "portolan-vm",
        }
    }
}

fn become_it(mut command: Command, passed: &Passed) -> Result<()> {
    let error = command.args(&passed.arguments).exec();
    Err(anyhow::Error::new(error).context("starting cargo"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Args {
        #[command(subcommand)]
        command: Sub,
    }

    #[derive(clap::Subcommand)]
    enum Sub {
        #[command(disable_help_flag = true)]
        Bench(Passed),
    }

    #[test]
    fn arguments_reach_the_tool_as_they_are() {
        let check = |words: &[&str]| {
            let line = ["xtask", "bench"].iter().chain(words);
            let Sub::Bench(passed) = Args::try_parse_from(line).unwrap().command;
            assert_eq!(passed.arguments, words);
        };
        check(&[]);
        check(&["--help"]);
        check(&["-h"]);
        check(&["p1", "--rounds", "5", "-x"]);
        check(&["--rounds=5", "p1", "--help"]);
    }

    #[test]
    fn every_tool_is_a_package() {
        for tool in [Tool::Bench, Tool::Demo, Tool::Package, Tool::Soak, Tool::Vm] {
            let package = tool.package();
            let folder = package.trim_start_matches("portolan-");
            let manifest = tree::root().join("xtask/tools").join(folder).join("Cargo.toml");
            let manifest = std::fs::read_to_string(manifest).unwrap();
            assert!(manifest.contains(&format!("name = \"{package}\"")), "{manifest}");
        }
    }
}
