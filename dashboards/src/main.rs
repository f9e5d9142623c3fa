//! `cargo xtask dashboards`: writes the generated files below `dashboards/`, or checks them.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a terminal program")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use portolan_dashboards::{Dashboards, File, Look, draw, write};
use portolan_kit::tree;

/// Check the rules and generate the Grafana dashboards and Kubernetes objects.
///
/// The rules themselves are edited in dashboards/prometheus/. With --to they are written too, with
/// the given links and durations.
#[derive(Parser)]
#[command(name = "cargo xtask dashboards", bin_name = "cargo xtask dashboards")]
struct Args {
    /// Base URL of docs/: alerts link to their runbooks there
    #[arg(long, value_name = "URL", default_value = Look::DOCS, requires = "to")]
    docs: String,
    /// Base URL of Grafana: alerts link to their dashboards there
    #[arg(long, value_name = "URL", default_value = Look::GRAFANA, requires = "to")]
    grafana: String,
    /// Divide every duration in the rules by this, to try alerts without waiting
    #[arg(long, value_name = "N", default_value_t = 1, requires = "to", value_parser = clap::value_parser!(u64).range(1..=60))]
    faster: u64,
    /// Output directory, laid out like this checkout
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Write nothing; fail if a file is out of date
    #[arg(long)]
    check: bool,
    /// Write nothing; check the dashboards against Grafana's own types (needs node and npm)
    #[arg(long, conflicts_with_all = ["check", "to"])]
    grafana_types: bool,
}

fn main() -> ExitCode {
    portolan_kit::exit_code(run(Args::parse()))
}

fn run(args: Args) -> Result<()> {
    let Args { docs, grafana, faster, to, check, grafana_types } = args;
    if grafana_types {
        return draw::check_types();
    }
    let read = Dashboards::read(tree::root())?;
    let look = Look { docs, grafana, faster };
    let mut files = read.generated(&look);
    // In the checkout the rule files are the source.
    if to.is_some() {
        files.extend(read.rule_files(&look));
    }
    let folder = to.as_deref().unwrap_or(tree::root());
    let stale = stale(folder, &files);
    if !check {
        write(folder, &files)?;
        println!("{} of {} files changed", stale.len(), files.len());
    } else if !stale.is_empty() {
        bail!("{} not up to date: run `cargo xtask dashboards`", stale.join(", "));
    }
    let unread = read.unread_metrics(tree::root())?;
    if !unread.is_empty() {
        bail!(
            "no panel and no rule reads {}: add a panel in dashboards/src/boards/ or a rule in dashboards/prometheus/",
            unread.join(", ")
        );
    }
    Ok(())
}

/// The files that differ from their text.
fn stale<'a>(folder: &Path, files: &'a [File]) -> Vec<&'a str> {
    let differs =
        |(path, text): &&File| fs::read_to_string(folder.join(path)).ok().as_ref() != Some(text);
    files.iter().filter(differs).map(|(path, _)| path.as_str()).collect()
}
