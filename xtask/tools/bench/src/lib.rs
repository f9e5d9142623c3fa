//! `cargo xtask bench`: what the agent costs, next to what others cost, on this machine.
//!
//! Goals P1 (connection storm), P2 and P3 (keep-alive requests with and without request timing)
//! and P4 (one fast connection) are ratios of windows that lie beside each other, see [`rounds`];
//! P6 is read from the kernel's own statistics, see [`hooks`]; P5 and P7 are the daemon's own
//! time, see [`daemon`]; P8 and P9 its memory and its answers, see [`size`]; P10 is the agent's own
//! tables as they grow, see [`insertion`]; P11 is what live tests compare, see [`accuracy`]; what a
//! bind costs is in [`binds`].
//!
//! `cargo xtask bench connection` and `request` are commands of their own that resolve what the
//! ratios cannot (P1b): nanoseconds of one connection or request on one processor, see [`pinned`].

#![expect(unsafe_code, reason = "system calls that are measured")]
#![expect(clippy::print_stdout, reason = "a terminal program")]

mod accuracy;
pub mod agent;
mod binds;
mod bpf;
mod cpu;
mod daemon;
mod empty;
mod goals;
mod hooks;
mod insertion;
pub mod load;
mod machine;
mod pinned;
mod random;
mod report;
mod rounds;
mod size;
mod stats;
mod subject;
mod tool;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use portolan_kit::{apt, build, shell, tracefs, tree};

use load::{Load, Server};
use report::Report;
use rounds::Plan;
use subject::Subject;

const PACKAGES: [&str; 9] = [
    "bpftrace",
    "iperf3",
    "iproute2",
    "libbpf-tools",
    "nftables",
    "nginx-light",
    "tcpdump",
    "util-linux",
    "wrk",
];

/// Rounds for the hooks: their figures hardly scatter.
const HOOK_ROUNDS: u32 = 5;

/// Measure the overhead of the agent and of other tools on this machine
#[derive(clap::Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pinned: Option<Pinned>,
    /// What to measure (default: everything)
    scenario: Vec<Scenario>,
    /// How many rounds; each measures the agent once against its neighbours
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long a window lasts
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Where to write the figures as JSON
    #[arg(long, value_name = "FILE.json")]
    output: Option<PathBuf>,
    /// Measure this agent instead of building one
    #[arg(long, value_name = "BINARY")]
    agent: Option<PathBuf>,
    /// Leave the other tools out, where they cannot be installed
    #[arg(long)]
    no_peers: bool,
    /// Write docs/benchmarks.md and docs/benchmarks.json (needs all scenarios)
    #[arg(long, conflicts_with_all = ["scenario", "no_peers"])]
    publish: bool,
}

/// Measurements of one operation on one processor.
#[derive(clap::Subcommand)]
enum Pinned {
    /// Nanoseconds that agents add to a connection, both ends in one thread on one processor
    Connection(pinned::Args),
    /// Nanoseconds that agents add to a request on an open connection, likewise
    Request(pinned::Args),
}

/// Which load serves which scenarios.
const LOADS: [(Load, &[Scenario], &str); 5] = [
    (Load::Connections, &[Scenario::P1], "P1: connection storm"),
    (Load::Requests, &[Scenario::P2, Scenario::P3], "P2, P3: keep-alive requests"),
    (Load::Stream, &[Scenario::P4], "P4: one connection at full speed"),
    (Load::FailedBinds, &[Scenario::Ports], "ports: binds that fail"),
    (Load::Binds, &[Scenario::Ports], "ports: binds that do not fail"),
];

/// What can be measured, by the number of its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// A new connection for every request
    P1,
    /// Keep-alive requests, request timing on; measured together with P3
    P2,
    /// Keep-alive requests, connections only; measured together with P2
    P3,
    /// One connection at full speed
    P4,
    /// The daemon under 10 000 requests per second
    P5,
    /// Time and number of program runs
    P6,
    /// The daemon's time per million connections and requests; measured together with P5
    P7,
    /// Memory; measured together with P9
    P8,
    /// Scrapes of many series; measured together with P8
    P9,
    /// The worst stall when a new row is inserted
    P10,
    /// Latency and counts against a capture, wrk and the kernel
    P11,
    /// Binds that fail and binds that do not
    Ports,
}

/// Measures, prints the goals, and writes the requested files.
pub fn bench(args: &Args) -> Result<()> {
    let Args { pinned, scenario, rounds, seconds, output, agent, no_peers, publish } = args;
    match pinned {
        Some(Pinned::Connection(args)) => return pinned::connection(args),
        Some(Pinned::Request(args)) => return pinned::request(args),
        None => {}
    }
    if !shell::is_root() {
        bail!("tracing programs need root: run `cargo xtask bench` as root");
    }
    let wanted = wanted(scenario);
    install()?;
    if !no_peers {
        peers_are_there(&wanted)?;
    }
    let built = match agent {
        Some(binary) => binary.clone(),
        None => build::build()?,
    };
    let directory = tempfile::tempdir().context("creating a temporary directory")?;
    let directory = directory.path();
    // Another build may replace the binary during the measurement.
    let binary = directory.join("portolan");
    fs::copy(&built, &binary).with_context(|| format!("copying {}", tree::shown(&built)))?;

    let plan = Plan { rounds: *rounds, seconds: *seconds, peers: !no_peers };
    let report = measure(&wanted, plan, &binary, directory)?;
    println!("\n{}\n{}", report.goal_table(), report.not_measured());
    let json = serde_json::to_string_pretty(&report.json()).context("writing JSON")? + "\n";
    if let Some(path) = output {
        fs::write(path, &json).with_context(|| format!("writing {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    if report.is_incomplete() {
        bail!("not everything was measured, see above: fix it, or leave peers out by --no-peers");
    }
    if *publish {
        let docs = tree::root().join("docs");
        fs::write(docs.join("benchmarks.json"), &json).context("writing docs/benchmarks.json")?;
        fs::write(docs.join("benchmarks.md"), report.page())
            .context("writing docs/benchmarks.md")?;
        println!("wrote docs/benchmarks.md and docs/benchmarks.json");
    }
    Ok(())
}

fn measure(wanted: &[Scenario], plan: Plan, binary: &Path, directory: &Path) -> Result<Report> {
    let other_programs = bpf::tracing_programs().context("listing the kernel's programs")?;
    if other_programs > 0 {
        println!(
            "WARNING: {other_programs} other tracing programs are loaded (another agent, a test?): \
             they are part of every figure"
        );
    }
    let server = Server::start(directory)?;
    let mut report = Report {
        machine: machine::describe(),
        goals: Vec::new(),
        outcomes: Vec::new(),
        hooks: Vec::new(),
        daemon: None,
        size: None,
        insertion: None,
        accuracy: None,
        other_programs,
    };
    for (load, scenarios, title) in LOADS {
        if !scenarios.iter().any(|scenario| wanted.contains(scenario)) {
            continue;
        }
        println!("{title}");
        let outcome = rounds::measure(load, plan, &server, binary, directory)?;
        report.goals.extend(goals::of_load(&outcome)?);
        report.outcomes.push(outcome);
    }
    if wanted.contains(&Scenario::Ports) {
        println!("ports: nothing binds");
        report.goals.extend(goals::of_idle(&binds::idle(&server, binary, directory)?));
    }
    if wanted.contains(&Scenario::P6) {
        println!("P6: the kernel programs");
        let rounds = plan.rounds.min(HOOK_ROUNDS);
        report.hooks = hooks::measure(rounds, plan.seconds, &server, binary, directory)?;
        report.goals.extend(goals::of_hooks(&report.hooks));
    }
    if wanted.contains(&Scenario::P5) || wanted.contains(&Scenario::P7) {
        println!("P5, P7: the daemon");
        let daemon = daemon::measure(&server, binary, directory)?;
        report.goals.extend(goals::of_daemon(&daemon));
        report.daemon = Some(daemon);
    }
    if wanted.contains(&Scenario::P8) || wanted.contains(&Scenario::P9) {
        println!("P8, P9: memory and scrapes");
        let size = size::measure(&server, binary, directory)?;
        report.goals.extend(goals::of_size(&size));
        report.size = Some(size);
    }
    if wanted.contains(&Scenario::P10) {
        println!("P10: a million rows");
        let insertion = insertion::measure()?;
        report.goals.extend(goals::of_insertion(&insertion));
        report.insertion = Some(insertion);
    }
    if wanted.contains(&Scenario::P11) {
        println!("P11: accuracy");
        let accuracy = accuracy::measure(binary)?;
        report.goals.extend(goals::of_accuracy(&accuracy));
        report.accuracy = Some(accuracy);
    }
    // P2 comes before P10.
    report.goals.sort_by_key(|row| (row.id.len(), row.id));
    Ok(report)
}

fn wanted(given: &[Scenario]) -> Vec<Scenario> {
    if given.is_empty() { Scenario::value_variants().to_vec() } else { given.to_vec() }
}

/// Installs the load and the peers.
fn install() -> Result<()> {
    if !apt::is_here() {
        println!(
            "not a Debian system: nginx, wrk, libbpf-tools and bpftrace must be there already"
        );
        return Ok(());
    }
    let missing = apt::missing(&PACKAGES);
    let unknown = apt::unknown(&missing);
    let offered: Vec<&str> =
        missing.into_iter().filter(|package| !unknown.contains(package)).collect();
    apt::install(&offered)
}

/// Fails before anything is measured if a peer is missing: an absent row is easily overlooked.
fn peers_are_there(wanted: &[Scenario]) -> Result<()> {
    let loads = LOADS
        .into_iter()
        .filter(|(_, scenarios, _)| scenarios.iter().any(|scenario| wanted.contains(scenario)));
    let peers: Vec<Subject> = loads.flat_map(|(load, ..)| Subject::peers(load)).copied().collect();
    if peers.is_empty() {
        return Ok(());
    }
    tracefs::mount()?;
    for program in peers.into_iter().filter_map(Subject::program) {
        if !shell::exists(program) {
            bail!("{program} is not installed: install it, or leave peers out by --no-peers");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn parsed(words: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once(&"bench").chain(words))
    }

    #[test]
    fn goals_and_single_operations_have_flags_of_their_own() {
        let args = parsed(&["p1", "ports", "--rounds", "5"]).unwrap();
        assert_eq!((args.scenario, args.rounds), (vec![Scenario::P1, Scenario::Ports], 5));
        assert!(args.pinned.is_none());
        let args = parsed(&["connection", "--rounds", "2", "--memory-cgroup", "other"]).unwrap();
        assert!(matches!(args.pinned, Some(Pinned::Connection(_))));
        let args = parsed(&["request", "--cold", "--variant", "a=b"]).unwrap();
        assert!(matches!(args.pinned, Some(Pinned::Request(_))));
        assert!(parsed(&["request", "--variant", "a"]).is_err());
        assert!(parsed(&["connection", "p1"]).is_err());
        assert!(parsed(&["p1", "--cold"]).is_err());
    }
}
