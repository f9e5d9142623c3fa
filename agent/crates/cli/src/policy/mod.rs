//! `portolan policy`: network policies from what was observed, and what a policy would cut.
//!
//! The commands read the flows of one agent, or those that `--save` wrote at several; they apply
//! nothing. What a format cannot express is reported in the file and on standard error, never
//! guessed.

mod answer;
mod calico;
mod cilium;
mod compose;
#[cfg(test)]
mod fixture;
mod kubernetes;
mod nftables;
pub(crate) mod observed;
mod selectors;
pub(crate) mod suggest;
mod verdict;
mod workloads;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use api_types::Flows;
use clap::{Args, Subcommand, ValueEnum};
use notation::{FullName, duration};

use self::observed::{Name, Observed};
pub use self::verdict::{SegmentEnd, SegmentFile, SegmentVerdicts};
use super::outcome::Report;
use super::target::Target;
use super::{Outcome, bounded, note, print};

const EXAMPLES: &str = "\
Examples:
  portolan policy generate --for nftables > policy.nft
  portolan policy generate --for nftables --service shop/db --dns 10.0.0.53
  portolan policy generate --for kubernetes --label app > policy.yaml
  portolan policy generate --for cilium > policy.yaml
  portolan policy generate --for docker-compose --project shop > compose.policy.yaml
  portolan policy test policy.nft --window 24h --exit-code
  portolan policy test deploy/networkpolicies.yaml
  portolan policy flows > node7.json              the flows of this agent, to be merged elsewhere
  portolan policy generate --for kubernetes --flows node7.json --flows node8.json

`generate` writes a default deny, and a rule for each edge that had a connection; a comment gives the
edge, its connections, and when it was seen first and last. `test` says which observed edges a policy
would cut. Nothing is applied, and the agent changes nothing.

An agent remembers flows from its start, at most 8192. A policy is as good as the time that was
observed: one day says nothing of the job that runs every month.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Write a policy that allows what was observed and denies the rest.
    Generate(GenerateArgs),
    /// Say which observed edges a policy would cut: segments (.toml), NetworkPolicies (.yaml), nftables
    /// made by `generate` (.nft).
    Test(TestArgs),
    /// Print the flows of the agent as JSON, for --flows of the other commands.
    Flows(FlowsArgs),
}

/// Which flows.
#[derive(Debug, Args)]
pub(crate) struct Scope {
    /// Only flows used in this time: 15m, 24h, 7d; start for all since the agent's start.
    #[arg(long, value_name = "WINDOW", default_value = "start", value_parser = parse_window)]
    window: Window,
    /// Only edges with this service at an end; may be repeated.
    #[arg(long = "service", value_name = "NAME", value_delimiter = ',')]
    services: Vec<FullName>,
    /// Read flows from this file instead of the agent; may be repeated, for several agents.
    #[arg(long = "flows", value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// The time in which flows must have been used; `None` for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window(Option<Duration>);

#[derive(Debug, Args)]
struct GenerateArgs {
    /// The system that enforces it.
    #[arg(long = "for", value_enum)]
    system: System,
    #[command(flatten)]
    scope: Scope,
    /// Label that selects the pods of a workload, for kubernetes, cilium and calico; may be repeated,
    /// the first that a workload has is used [default: app.kubernetes.io/name, app, k8s-app].
    #[arg(long = "label", value_name = "KEY", value_delimiter = ',')]
    labels: Vec<String>,
    /// DNS server to allow, for nftables; may be repeated [default: every server].
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    dns: Vec<IpAddr>,
    /// Project, for docker-compose, if services of several were observed.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    #[command(flatten)]
    connection: super::target::Connection,
}

#[derive(Debug, Args)]
struct TestArgs {
    /// The policy.
    file: PathBuf,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    report: Report,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct FlowsArgs {
    #[command(flatten)]
    connection: super::target::Connection,
}

/// A system that enforces policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum System {
    /// NetworkPolicies (networking.k8s.io/v1).
    Kubernetes,
    /// CiliumNetworkPolicies (cilium.io/v2): clients from outside and servers by name, too.
    Cilium,
    /// NetworkPolicies of Calico (projectcalico.org/v3).
    Calico,
    /// Networks for the services of a project, as a second file for `docker compose -f`.
    DockerCompose,
    /// A table for `nft --file`.
    Nftables,
}

const FLOWS: &str = "/api/v1/flows";

/// A file of flows or a policy at most, bytes.
const MOST_BYTES: u64 = 64 << 20;

pub(super) fn run(arguments: &PolicyArgs, segments: SegmentFile) -> anyhow::Result<Outcome> {
    match &arguments.command {
        PolicyCommand::Generate(arguments) => generate(arguments).map(|()| Outcome::Done),
        PolicyCommand::Test(TestArgs { file, scope, report, target }) => {
            let answers = scope.answers(&target.connection)?;
            let found = verdict::run(file, &answers, scope, target.output, segments)?;
            Ok(report.of(found))
        }
        PolicyCommand::Flows(FlowsArgs { connection }) => {
            let body = connection.text(FLOWS)?;
            print(&format!("{}\n", body.trim_end())).map(|()| Outcome::Done)
        }
    }
}

fn generate(arguments: &GenerateArgs) -> anyhow::Result<()> {
    let GenerateArgs { system, scope, labels, dns, project, connection } = arguments;
    let observed = scope.observed(connection)?;
    if observed.edges.is_empty() {
        bail!("no edge was observed in this window; a policy from nothing would deny everything");
    }
    let (text, missing) = match system {
        System::Kubernetes => kubernetes::text(&observed, labels),
        System::Cilium => cilium::text(&observed, labels),
        System::Calico => calico::text(&observed, labels),
        System::DockerCompose => compose::text(&observed, project.as_deref())?,
        System::Nftables => {
            let dns: BTreeSet<IpAddr> = dns.iter().map(IpAddr::to_canonical).collect();
            nftables::text(&observed, &dns)
        }
    };
    print(&text)?;
    if missing > 0 {
        note(&format!(
            "{missing} of {} edges are not allowed by this policy; NOT ALLOWED in it says which and why",
            observed.edges.len()
        ));
    }
    Ok(())
}

fn parse_window(text: &str) -> Result<Window, String> {
    match duration::parse(text) {
        _ if text == "start" => Ok(Window(None)),
        Some(window) if !window.is_zero() => Ok(Window(Some(window))),
        _ => Err(format!("write {}, or start", duration::FORM)),
    }
}

/// The text of a file of flows or of a policy.
fn read_text(path: &Path) -> anyhow::Result<String> {
    bounded::text(path, MOST_BYTES, "portolan policy")
}

// === impl Scope ===

impl Scope {
    /// What the agent, or the agents of the files, observed.
    fn answers(&self, connection: &super::target::Connection) -> anyhow::Result<Vec<Flows>> {
        if self.files.is_empty() {
            return Ok(vec![client::read(&connection.text(FLOWS)?)?]);
        }
        let read = |path: &PathBuf| {
            let text = read_text(path)?;
            serde_json::from_str(&text).with_context(|| {
                format!(
                    "reading {}: write it with `portolan policy flows > FILE` at an agent",
                    path.display()
                )
            })
        };
        self.files.iter().map(read).collect()
    }

    /// The same as edges.
    pub(crate) fn observed(
        &self,
        connection: &super::target::Connection,
    ) -> anyhow::Result<Observed> {
        let mut observed = Observed::of(&self.answers(connection)?, self.window.0);
        observed.only(&self.names());
        Ok(observed)
    }

    fn names(&self) -> Vec<Name> {
        let name = |FullName { namespace, name }: &FullName| {
            Name::new(namespace.as_deref().unwrap_or_default(), name)
        };
        self.services.iter().map(name).collect()
    }
}
