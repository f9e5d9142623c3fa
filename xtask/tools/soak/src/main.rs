//! `cargo xtask soak --minutes N`: does anything grow? (goal R12)
//!
//! A mixed load without end: connections and requests by wrk against nginx, services with ever new
//! names that connect once and exit, refused connects. After every round, at rest, the agent is
//! measured from outside and scraped; the ledger must add up each time. At the end a line is fitted
//! to each figure.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a terminal program")]

mod slope;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use portolan_bench::agent::Agent;
use portolan_bench::load::{Load, Server};
use portolan_kit::build::{self, Checks};
use portolan_kit::{apt, setup, shell, summary, tree};

use slope::Series;

/// Load the agent for a long time and see whether anything grows
#[derive(clap::Parser)]
#[command(name = "cargo xtask soak", bin_name = "cargo xtask soak")]
struct Args {
    /// How long
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Use this agent instead of building one
    #[arg(long, value_name = "BINARY")]
    agent: Option<PathBuf>,
    /// Write the report as Markdown to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

const PACKAGES: [&str; 5] = ["bash", "iproute2", "nginx-light", "util-linux", "wrk"];

/// Memory may grow by this per hour once it is warm.
const MOST_MEMORY_KIB_PER_HOUR: f64 = 512.0;
/// A slope over less than this is noise: it is reported, not evaluated.
const EVALUATED_AFTER_HOURS: f64 = 0.5;
/// The part of the time that counts as warming up: the tables of 400 services fill.
const WARM_UP: f64 = 0.25;
/// Descriptors may vary by this: open scrape connections.
const DESCRIPTORS_VARY: f64 = 4.0;
/// Threads may vary by this: those for blocking calls end after some idle time.
const THREADS_VARY: f64 = 2.0;
/// Names of services, in rotation: more than a host has, less than there are rows.
const SERVICES: u64 = 400;
const SERVICES_PER_ROUND: u64 = 20;

/// A short-lived service: it has a name, sends one request, and tries a port without a listener.
const SERVICE: &str = "printf %s \"$0\" > /proc/self/comm
exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3
(exec 4<>/dev/tcp/127.0.0.1/9) 2>/dev/null
exit 0";

fn main() -> ExitCode {
    portolan_kit::exit_code(soak(&Args::parse()))
}

fn soak(args: &Args) -> Result<()> {
    let Args { minutes, agent, report: file } = args;
    if !shell::is_root() {
        bail!("loading programs into the kernel needs root");
    }
    setup::setup()?;
    apt::install(&apt::missing(&PACKAGES))?;
    let binary = agent.clone().map_or_else(|| build::compile(Checks::Off), Ok)?;
    let place = tempfile::tempdir().context("making a temporary folder")?;
    let server = Server::start(place.path())?;
    let agent = Agent::start(&binary, &[], place.path())?;
    let (began, length) = (Instant::now(), Duration::from_secs(minutes * 60));
    let mut figures: BTreeMap<String, Series> = BTreeMap::new();
    let (mut round, mut operations) = (0, 0);
    while began.elapsed() < length {
        let load = if round % 2 == 0 { Load::Connections } else { Load::Requests };
        operations += server.run(load, 3, &[])?.operations;
        for number in 0..SERVICES_PER_ROUND {
            let name = format!("soak-{}", (round * SERVICES_PER_ROUND + number) % SERVICES);
            let mut service = server.inside("bash");
            service.args(["-c", SERVICE, &name]).stdout(Stdio::null());
            shell::quiet(&mut service)?;
        }
        let scrape = at_rest(&agent)?;
        let hours = began.elapsed().as_secs_f64() / 3600.0;
        for (name, value) in sample(agent.process(), &scrape)? {
            figures.entry(name).or_default().push(hours, value);
        }
        if round % 20 == 0 {
            println!("{:>5.1} min, {operations} operations", hours * 60.0);
        }
        round += 1;
    }
    let hours = began.elapsed().as_secs_f64() / 3600.0;
    agent.stop()?;
    drop(server);
    let (text, problems) = evaluate(&figures, hours, operations);
    println!("\n{text}");
    let outcome = if problems.is_empty() { "nothing grew".to_owned() } else { problems.join("; ") };
    let minutes = hours * 60.0;
    summary::report(&format!("{minutes:.0} minutes, {operations} operations: {outcome}"))?;
    if let Some(file) = file {
        fs::write(file, &text).context("writing the report")?;
        println!("wrote {}", tree::shown(file));
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("; "));
    }
    Ok(())
}

/// A scrape in which every class of the ledger adds up; other programs of this host may be busy, so
/// it is retried for a while.
fn at_rest(agent: &Agent) -> Result<String> {
    let began = Instant::now();
    loop {
        let scrape = agent.scrape()?;
        let gaps = gaps(&scrape);
        if gaps.is_empty() {
            return Ok(scrape);
        }
        if began.elapsed() > Duration::from_secs(30) {
            bail!("the ledger does not add up (class, seen, exported + lost): {gaps:?}");
        }
        sleep(Duration::from_millis(50));
    }
}

/// Classes whose seen is not exported + lost.
fn gaps(scrape: &str) -> Vec<(String, u64, u64)> {
    let mut classes: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (name, labels, value) in samples(scrape) {
        let Some(event) = name.strip_prefix("portolan_events_") else { continue };
        let Some((_, class)) = labels.split_once("class=\"") else { continue };
        let class = class.split('"').next().unwrap_or_default();
        let entry = classes.entry(class.to_owned()).or_default();
        match event {
            "seen_total" => entry.0 += value as u64,
            "exported_total" | "lost_total" => entry.1 += value as u64,
            _ => {}
        }
    }
    // Runs that the kernel skipped are lost without having been seen.
    classes.remove("hook_run");
    let unequal = classes.into_iter().filter(|(_, (seen, accounted))| seen != accounted);
    unequal.map(|(class, (seen, accounted))| (class, seen, accounted)).collect()
}

/// Name, labels and value of every line.
fn samples(scrape: &str) -> impl Iterator<Item = (&str, &str, f64)> {
    scrape.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        Some((name, labels, value.parse().ok()?))
    })
}

/// The figures that are watched.
fn sample(process: u32, scrape: &str) -> Result<Vec<(String, f64)>> {
    let status = fs::read_to_string(format!("/proc/{process}/status"));
    let status = status.context("the agent has ended")?;
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
    };
    let descriptors = fs::read_dir(format!("/proc/{process}/fd"));
    let mut all = vec![
        ("memory_kib".to_owned(), field("VmRSS:")),
        ("threads".to_owned(), field("Threads:")),
        ("descriptors".to_owned(), descriptors.map_or(0, Iterator::count) as f64),
        ("series".to_owned(), samples(scrape).count() as f64),
    ];
    for (name, labels, value) in samples(scrape) {
        if name == "portolan_map_entries" {
            let map = labels.split('"').nth(1).unwrap_or_default();
            all.push((format!("rows_of_{map}"), value));
        }
    }
    Ok(all)
}

/// The report, and the failures.
fn evaluate(
    figures: &BTreeMap<String, Series>,
    hours: f64,
    operations: u64,
) -> (String, Vec<String>) {
    let mut text = format!(
        "# Soak test\n\nGenerated by `cargo xtask soak`: {:.0} minutes, {operations} connections and \
         requests, {SERVICES} services in rotation. In every round seen = exported + lost held. \
         The first quarter (warm-up) is excluded from minimum, maximum and slope.\n\n\
         | figure | first | last | min | max | per hour |\n\
         |---|---|---|---|---|---|\n",
        hours * 60.0
    );
    let mut problems = Vec::new();
    if figures.is_empty() {
        problems.push("too short a run: nothing was measured".to_owned());
    }
    for (name, series) in figures {
        let warm = series.after_warm_up(hours * WARM_UP);
        let (Some((first, last)), Some((least, most)), Some(slope)) =
            (series.ends(), warm.range(), warm.per_hour())
        else {
            problems.push(format!("{name}: too short a run"));
            continue;
        };
        let _ = writeln!(text, "| {name} | {first} | {last} | {least} | {most} | {slope:.1} |");
        let evaluated = hours * (1.0 - WARM_UP) >= EVALUATED_AFTER_HOURS;
        if name == "memory_kib" && evaluated && slope > MOST_MEMORY_KIB_PER_HOUR {
            problems.push(format!("memory grows by {slope:.0} KiB per hour"));
        }
        if name == "descriptors" && most - least > DESCRIPTORS_VARY {
            problems.push(format!("descriptors vary from {least} to {most}"));
        }
        if name == "threads" && most - least > THREADS_VARY {
            problems.push(format!("threads vary from {least} to {most}"));
        }
    }
    (text, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAPE: &str = "# TYPE portolan_events_seen_total counter\n\
        portolan_events_seen_total{class=\"edge\"} 5\n\
        portolan_events_exported_total{class=\"edge\"} 3\n\
        portolan_events_lost_total{class=\"edge\",reason=\"no_slot\"} 2\n\
        portolan_events_lost_total{class=\"hook_run\",reason=\"recursion\"} 7\n\
        portolan_map_entries{map=\"edges\"} 9\n";

    #[test]
    fn the_ledger_is_added_up_by_class() {
        assert_eq!(gaps(SCRAPE), []);
        let more = format!("{SCRAPE}portolan_events_seen_total{{class=\"reset\"}} 1\n");
        assert_eq!(gaps(&more), [("reset".to_owned(), 1, 0)]);
    }

    #[test]
    fn what_grows_is_found() {
        let mut figures: BTreeMap<String, Series> = BTreeMap::new();
        for at in 0..=10 {
            let hours = f64::from(at) / 10.0;
            figures.entry("memory_kib".into()).or_default().push(hours, 9000.0 + 2000.0 * hours);
            figures.entry("threads".into()).or_default().push(hours, 3.0);
            figures.entry("descriptors".into()).or_default().push(hours, 40.0 + 10.0 * hours);
        }
        let (text, problems) = evaluate(&figures, 1.0, 7);
        assert!(text.contains("| memory_kib | 9000 | 11000 |"), "{text}");
        assert_eq!(problems.len(), 2, "{problems:?}");
        // The same within a few minutes is noise.
        assert!(!evaluate(&figures, 0.1, 7).1.iter().any(|problem| problem.contains("memory")));
    }

    #[test]
    fn rows_are_watched_by_map() {
        let all = sample(std::process::id(), SCRAPE).unwrap();
        assert!(all.contains(&("rows_of_edges".to_owned(), 9.0)), "{all:?}");
    }
}
