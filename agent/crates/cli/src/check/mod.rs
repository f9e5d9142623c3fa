//! `portolan check`: what is wrong, section by section, with causes, fixes and stable codes.
//!
//! The agent's answers and what this command reads of network namespaces ([`gather`]) go through the
//! checks of each section, then effects are linked to their causes ([`causes`]), and the report is
//! written in one of several formats ([`Format`]). Nothing is sent to any service.

mod answers;
mod causes;
mod coverage;
mod dns;
mod faults;
mod fleet;
mod format;
mod limits;
mod name;
mod network;
mod pairs;
mod ports;
mod probe;
mod report;
mod section;
mod security;
mod since;

use std::path::PathBuf;
use std::time::Duration;

use api_types::{Severity, Skip, WindowChoice};
use clap::{Args, ValueEnum};
use client::Class;
use notation::FullName;

use self::dns::Resolver;
use self::format::Format;
use self::network::{Reading, Seen};
use self::probe::Probed;
use self::report::{Baseline, Checks, Report};
use self::section::Section;
use super::fleet::Connections;
use super::target::Connection;
use super::{Outcome, human, known, print, watch, window};

pub use self::answers::{Answers, Remembered};
pub use self::name::Name;
pub use self::pairs::segments;
pub use self::report::Found;

const EXAMPLES: &str = "\
Examples:
  portolan check                                    the last five minutes of this host
  portolan check --window 1m --only connectivity,performance
  portolan check --service shop/cart                one service, and the causes of what is wrong there
  portolan check --skip PO301=legacy.js --skip PS410
  portolan check -o json > before.json; portolan check --baseline before.json
  portolan check -o html > report.html              one file: to read, to print, to attach
  portolan check -o junit > report.xml              for a pipeline
  portolan check --url http://node1:10062 --url http://node2:10062
                                                    both hosts: a fault between them is one finding
  portolan check --probe                            also certificates and DNS servers, by trying
  portolan check --list                             every code and its limit
  portolan explain PC103                            what a code means, and what to do

✗ is an error, ! a warning, · for information, ✓ passed, – skipped. A finding that follows from
another names it; fix the one that follows from none. Numbers are of the traffic in the window;
nothing is sent to any service, except with --probe: one TLS handshake with each listener of this
host on a port that is known for TLS, and one question to each DNS server. Connection tracking,
interfaces, routes and addresses are read by this command: as root for every network namespace,
else for its own.

Of several hosts, faults of connections are judged together, by what both ends saw; a finding about
one host has its name. Section Network and --probe are of the host that they run on, and left out.

Exit codes: 0 nothing at or above --fail-on; 1 findings; 2 invalid command line; 3 the agent, or one
of several, cannot be reached.";

/// Arguments of `portolan check`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct CheckArgs {
    /// Only these sections.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SECTIONS")]
    only: Vec<Section>,
    /// The same as --only ports.
    #[arg(long, conflicts_with = "only")]
    ports_only: bool,
    /// The same as --only network.
    #[arg(long, conflicts_with_all = ["only", "ports_only"])]
    network_only: bool,
    /// Only findings about this service, and their causes: NAME or NAMESPACE/NAME.
    #[arg(long, value_name = "SERVICE")]
    service: Option<FullName>,
    /// Time that the numbers cover: 10s, 1m, 5m (at most), or start, since the agent started.
    #[arg(long, value_name = "WINDOW", default_value = "5m", value_parser = window::parse)]
    window: WindowChoice,
    /// Check again every so many seconds, until the reader closes the pipe.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
    /// A report as JSON (-o json) of an earlier run: show only what is new.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Leave out findings with this code, or those of them whose subject matches (* for any text);
    /// may be repeated.
    #[arg(long, value_name = "CODE[=SUBJECT]")]
    skip: Vec<Skip>,
    /// Exit with 1 from this severity on.
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t)]
    fail_on: FailOn,
    /// Show findings for information too, and every section even if nothing is wrong.
    #[arg(long)]
    all: bool,
    /// Try as well: certificates of this host's TLS servers, and whether its DNS servers answer.
    #[arg(long)]
    probe: bool,
    /// List every code with its limit, and check nothing.
    #[arg(long)]
    list: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    agents: Connections,
}

/// From which severity on the exit code is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Warnings and errors.
    Warning,
    /// Errors.
    #[default]
    Error,
}

/// What was gathered: the agent's answers or why there are none, and what was read on this host.
struct Gathered {
    answers: Result<Answers, String>,
    seen: Option<Seen>,
    resolver: Option<Resolver>,
    /// With `--probe`, on the agent's host.
    probed: Option<Probed>,
}

/// A report and what its tables are made of.
struct Done {
    report: Report,
    answers: Option<Answers>,
    seen: Option<Seen>,
}

/// Runs the command.
pub(super) fn run(arguments: &CheckArgs) -> anyhow::Result<Outcome> {
    let CheckArgs { baseline, watch, list, output, fail_on, .. } = arguments;
    if *list {
        let text = limits::list(*output == Format::Json)?;
        return print(&text).map(|()| Outcome::Done);
    }
    let baseline = match baseline {
        Some(path) => Baseline::read(path)?,
        None => Baseline::default(),
    };
    let shown = |done: &Done| output.text(done, arguments.all);
    if let Some(seconds) = watch {
        arguments.agents.live("--watch")?;
        let look = || shown(&arguments.look(&baseline)?);
        return watch::every(Duration::from_secs(*seconds), look).map(|()| Outcome::Done);
    }
    let done = arguments.look(&baseline)?;
    print(&shown(&done)?)?;
    let least = match fail_on {
        FailOn::Warning => Severity::Warning,
        FailOn::Error => Severity::Error,
    };
    Ok(match &done.report {
        report if report.incomplete.is_some() => Outcome::Incomplete,
        report if report.has(least) => Outcome::Found,
        _ => Outcome::Done,
    })
}

// === impl CheckArgs ===

impl CheckArgs {
    fn sections(&self) -> Vec<Section> {
        match (self.ports_only, self.network_only) {
            (true, _) => vec![Section::Ports],
            (_, true) => vec![Section::Network],
            _ if self.only.is_empty() => Section::ALL.to_vec(),
            _ => self.only.clone(),
        }
    }

    fn look(&self, baseline: &Baseline) -> anyhow::Result<Done> {
        match self.agents.only() {
            Some(agent) => self.judge(agent, self.gather(agent)?, baseline),
            None => fleet::look(self, baseline),
        }
    }

    /// What `--probe` would have tried.
    fn not_tried(&self, answers: &Answers, why: &str, checks: &mut Checks) {
        if self.probe {
            checks.skip(Section::Security, "--probe", why);
        } else if !probe::tls_listeners(answers).is_empty() {
            let check = "certificates of TLS servers";
            checks.skip(Section::Security, check, "--probe tries them");
        }
    }

    /// Asks the agent, and reads what is on this host if the agent is here.
    fn gather(&self, agent: &Connection) -> anyhow::Result<Gathered> {
        let is_here = agent.elsewhere().is_none();
        let reads_network = is_here && self.sections().contains(&Section::Network);
        let reading = reads_network.then(Reading::begin);
        let answers = match Answers::ask(agent, self.window, Remembered::Faults) {
            Ok(answers) => Ok(answers),
            // The network can be looked at without the agent.
            Err(error) if reads_network && super::class(&error) == Some(Class::Unreached) => {
                Err(format!("{error:#}"))
            }
            Err(error) => return Err(error),
        };
        let resolver = is_here.then(Resolver::read);
        let probed = match &answers {
            Ok(answers) if self.probe && is_here => {
                let servers = resolver.as_ref().map_or(&[][..], Resolver::servers);
                Some(probe::run(answers, servers))
            }
            _ => None,
        };
        Ok(Gathered { answers, seen: reading.map(Reading::finish), resolver, probed })
    }

    /// Makes the report.
    fn judge(
        &self,
        agent: &Connection,
        gathered: Gathered,
        baseline: &Baseline,
    ) -> anyhow::Result<Done> {
        let Gathered { answers, mut seen, resolver, probed } = gathered;
        let mut checks = Checks::default();
        let (answers, incomplete) = match answers {
            Ok(answers) => (Some(answers), None),
            Err(reason) => (None, Some(reason)),
        };
        if let Some(answers) = &answers {
            let resolver = resolver.as_ref().ok_or(agent.why_not_here());
            of_agent(answers, resolver, probed.is_some(), &mut checks);
            match &probed {
                Some(probed) => probe::check(probed, &mut checks),
                None => self.not_tried(answers, agent.why_not_here(), &mut checks),
            }
        } else {
            for section in Section::ALL.into_iter().filter(|one| *one != Section::Network) {
                checks.skip(section, "all of it", "no agent answers");
            }
        }
        match &mut seen {
            Some(seen) => {
                seen.name_by(answers.as_ref());
                network::check(seen, answers.as_ref(), &mut checks);
            }
            None => {
                checks.skip(Section::Network, "network namespaces", agent.why_not_here());
            }
        }
        causes::link(&mut checks.found);
        if let Some(answers) = &answers {
            checks.leave_out_configured(&answers.status.check_skip);
        }
        let (checks, known) = self.chosen(checks, answers.as_ref(), baseline)?;
        let (findings, passed, skipped, summary) = checks.finish(known);
        let report = Report {
            host: agent.elsewhere().unwrap_or_else(host_name),
            hosts: Vec::new(),
            timestamp: answers.as_ref().map(|answers| answers.edges.timestamp),
            window_seconds: answers.as_ref().map(|answers| answers.edges.window.seconds),
            version: answers.as_ref().map(|answers| answers.status.version.clone()),
            kernel: answers.as_ref().map(|answers| answers.status.kernel.clone()),
            incomplete,
            summary,
            findings,
            passed,
            skipped,
        };
        Ok(Done { report, answers, seen })
    }

    /// What was asked for, and how many findings of that the baseline has.
    fn chosen(
        &self,
        mut checks: Checks,
        answers: Option<&Answers>,
        baseline: &Baseline,
    ) -> anyhow::Result<(Checks, u64)> {
        if let Some(service) = &self.service {
            if let Some(answers) = answers {
                is_known(service, answers, &checks)?;
            }
            checks.keep_service(service);
        }
        checks.keep(&self.sections());
        checks.leave_out(&self.skip);
        let known = checks.leave_known(baseline);
        Ok((checks, known))
    }
}

/// What a report says about the agent's answers alone: findings, those of errors first, with what
/// each follows from.
pub fn findings(answers: &Answers) -> Vec<Found> {
    let mut checks = Checks::default();
    of_agent(answers, Err("nothing is read from hosts here"), false, &mut checks);
    causes::link(&mut checks.found);
    checks.leave_out_configured(&answers.status.check_skip);
    let mut found = checks.found;
    found.sort_by_key(|one| {
        (std::cmp::Reverse(one.finding.severity), Section::of(&one.finding.code))
    });
    found
}

/// The sections that the agent's answers are enough for. `is_tried`: the DNS servers were asked.
fn of_agent(
    answers: &Answers,
    resolver: Result<&Resolver, &str>,
    is_tried: bool,
    checks: &mut Checks,
) {
    let pairs = pairs::pairs(&answers.edges.edges);
    faults::check(answers, &pairs, checks);
    of_host(answers, &pairs, resolver, is_tried, checks);
}

/// Those of them that are about a host, not about its connections.
fn of_host(
    answers: &Answers,
    pairs: &[pairs::Pair<'_>],
    resolver: Result<&Resolver, &str>,
    is_tried: bool,
    checks: &mut Checks,
) {
    ports::check(answers, checks);
    security::check(answers, checks);
    dns::check(answers, resolver, is_tried, checks);
    coverage::check(answers, pairs, checks);
}

/// An error if neither the agent nor a finding knows a service of the name.
fn is_known(service: &FullName, answers: &Answers, checks: &Checks) -> anyhow::Result<()> {
    let services = answers.services.services.iter();
    let mut names: Vec<Name> =
        services.map(|one| Name::new(&one.service_namespace, &one.service)).collect();
    for edge in &answers.edges.edges {
        names.push(Name::new(&edge.client_namespace, &edge.client));
        names.push(Name::new(&edge.server_namespace, &edge.server));
    }
    names
        .extend(checks.found.iter().flat_map(|one| one.clients.iter().chain(&one.server)).cloned());
    if names.iter().any(|name| name.is(service)) {
        return Ok(());
    }
    let names: Vec<String> =
        names.iter().map(|name| human::full_name(&name.namespace, &name.name)).collect();
    anyhow::bail!("{}", known::message(&service.to_string(), &names))
}

/// The name of this host.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "this host".to_owned() } else { name }
}

#[cfg(test)]
mod tests;
