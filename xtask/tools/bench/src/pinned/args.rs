//! Arguments of the commands on one CPU, and the agents that they measure.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use portolan_kit::build;

use super::memory::MemoryCgroup;
use super::programs::Programs;
use super::{CONTROL, EMPTY, NOTHING, PORTOLAN};
use crate::agent::Agent;

/// Arguments of both commands.
#[derive(clap::Args)]
pub struct Args {
    /// How many rounds; each has one block of every variant
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// How many slices a block has
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub slices: u32,
    /// How long a slice takes, in milliseconds, with nothing attached; longer than a tick of the
    /// kernel, which brings the work that programs put off
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub slice_ms: u32,
    /// Repeat the order of an earlier run (default: a new one, which is printed)
    #[arg(long)]
    pub seed: Option<u64>,
    /// Measure this agent as `portolan` instead of building one
    #[arg(long, value_name = "BINARY")]
    agent: Option<PathBuf>,
    /// Measure another agent, too: a build from before a change, or one with other flags
    #[arg(long, value_name = "NAME=BINARY[:FLAGS]")]
    variant: Vec<Variant>,
    /// Where the maps of agents are charged; each given one is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [MemoryCgroup::Same, MemoryCgroup::Other])]
    pub memory_cgroup: Vec<MemoryCgroup>,
    /// Empty the caches before each operation, by a walk through a buffer eight times as large
    /// as the second-level cache
    #[arg(long)]
    pub cold: bool,
    /// Size of the buffer of --cold, such as twice the last-level cache
    #[arg(long, value_name = "KIB", requires = "cold", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub cold_kib: Option<u32>,
    /// The processor to measure on (default: the last)
    #[arg(long, value_name = "NUMBER")]
    pub processor: Option<usize>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// The format of the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Readable text
    Table,
    /// For programs, with every slice
    Json,
}

/// An agent to measure beside that of this checkout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    pub name: String,
    binary: PathBuf,
    flags: Vec<String>,
}

/// The agents to measure, this checkout's first.
pub fn agents(args: &Args) -> Result<Vec<Variant>> {
    let mut names = vec![PORTOLAN, NOTHING, CONTROL, EMPTY];
    for variant in &args.variant {
        if names.contains(&variant.name.as_str()) {
            bail!("--variant {}=…: this name is taken, choose another", variant.name);
        }
        names.push(&variant.name);
    }
    let given = |binary: &Path| {
        // Without a folder it would be looked up in PATH.
        fs::canonicalize(binary).with_context(|| format!("the agent {}", binary.display()))
    };
    let others = args
        .variant
        .iter()
        .map(|variant| Ok(Variant { binary: given(&variant.binary)?, ..variant.clone() }));
    let others = others.collect::<Result<Vec<_>>>()?;
    let binary = match &args.agent {
        Some(binary) => given(binary)?,
        // Its messages would be part of the JSON.
        None if args.output == Output::Json => bail!("--output json needs --agent BINARY"),
        None => build::build()?,
    };
    let own = Variant { name: PORTOLAN.to_owned(), binary, flags: Vec::new() };
    Ok(std::iter::once(own).chain(others).collect())
}

impl Variant {
    /// Starts the agent, takes its programs over, and ends it.
    pub fn programs(&self) -> Result<Programs> {
        let directory = tempfile::tempdir().context("creating a temporary directory")?;
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let binary: &Path = &self.binary;
        let agent = Agent::start(binary, &flags, directory.path())?;
        let programs = Programs::of(agent.process())?;
        agent.stop()?;
        Ok(programs)
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('=').unwrap_or_default();
        let (binary, flags) = rest.split_once(':').unwrap_or((rest, ""));
        if name.is_empty() || binary.is_empty() {
            return Err("write NAME=BINARY, or NAME=BINARY:FLAGS as in \
                        before=/tmp/portolan:--no-requests"
                .to_owned());
        }
        let flags = flags.split_whitespace().map(str::to_owned).collect();
        Ok(Self { name: name.to_owned(), binary: binary.into(), flags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_a_name_a_binary_and_flags() {
        let check = |text: &str, (name, binary, flags): (&str, &str, &[&str])| {
            let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            let expected = Variant { name: name.to_owned(), binary: binary.into(), flags };
            assert_eq!(text.parse(), Ok(expected));
        };
        check("before=old/portolan", ("before", "old/portolan", &[]));
        check(
            "slow=a=b:--sweep-interval 1m  --no-requests",
            ("slow", "a=b", &["--sweep-interval", "1m", "--no-requests"]),
        );
        for wrong in ["", "name", "name=", "=path", "name=:--flag"] {
            assert!(wrong.parse::<Variant>().unwrap_err().contains("NAME=BINARY"), "{wrong}");
        }
    }
}
