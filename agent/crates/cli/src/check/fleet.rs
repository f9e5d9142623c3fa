//! Several hosts in one report.
//!
//! What is wrong with connections is judged from the edges and services of all hosts together: each end
//! adds what it alone saw, and a slow caller on one host has its cause on another. What is about a host
//! is judged for each, and named by it.

use api_types::{Edges, Evidence, Finding, Services};

use super::answers::{Answers, Remembered};
use super::report::{Baseline, Checks, Report};
use super::section::Section;
use super::{CheckArgs, Done, causes, faults, of_host, pairs};
use crate::fleet::{Book, Combine as _, Heard, Host, flows};
use crate::human;

/// Why nothing is read from this host.
const SEVERAL: &str = "several hosts were asked: run `portolan check` on each";

/// Asks the hosts, and makes the report.
pub(super) fn look(arguments: &CheckArgs, baseline: &Baseline) -> anyhow::Result<Done> {
    let window = arguments.window;
    let Heard { answers, hosts } = arguments
        .agents
        .ask(move |agent| Ok((Answers::ask(agent, window, Remembered::Faults)?, flows(agent)?)))?;
    let (mut said, mut seen) = (Vec::new(), Vec::new());
    for (host, (answers, flows)) in answers {
        said.push((host, answers));
        seen.push((host, flows));
    }
    let mut checks = Checks::default();
    for (host, answers) in &said {
        if let Some(host) = hosts.get(*host) {
            add_host(&host.host, answers, &mut checks);
        }
    }
    let all = together(said, &Book::of(&seen), &hosts)?;
    if let Some(all) = &all {
        faults::check(all, &pairs::pairs(&all.edges.edges), &mut checks);
        arguments.not_tried(all, SEVERAL, &mut checks);
    }
    checks.skip(Section::Network, "network namespaces", SEVERAL);
    causes::link(&mut checks.found);
    let (checks, known) = arguments.chosen(checks, all.as_ref(), baseline)?;
    let (findings, passed, skipped, summary) = checks.finish(known);
    let report = Report {
        host: human::counted(hosts.len() as u64, "host"),
        incomplete: missing(&hosts),
        hosts,
        timestamp: all.as_ref().map(|all| all.edges.timestamp),
        window_seconds: all.as_ref().map(|all| all.edges.window.seconds),
        version: None,
        kernel: None,
        summary,
        findings,
        passed,
        skipped,
    };
    Ok(Done { report, answers: all, seen: None })
}

/// What is wrong with one host, by its name.
fn add_host(host: &str, answers: &Answers, checks: &mut Checks) {
    let mut own = Checks::default();
    let pairs = pairs::pairs(&answers.edges.edges);
    of_host(answers, &pairs, Err(SEVERAL), false, &mut own);
    own.leave_out_configured(&answers.status.check_skip);
    let Checks { found, passed, skipped } = own;
    for mut one in found {
        let Finding { title, subject, evidence, .. } = &mut one.finding;
        *title = format!("{host}: {title}");
        // A finding is known again by this: that of another host is another one.
        *subject = format!("{subject} on {host}");
        evidence.insert(causes::HOST.to_owned(), Evidence::Text(host.to_owned()));
        checks.found.push(one);
    }
    for one in passed {
        checks.pass(one.section, format!("{host}: {}", one.text));
    }
    for one in skipped {
        checks.skip(one.section, &format!("{host}: {}", one.check), one.reason);
    }
}

/// The answers of all hosts made one, as far as connections go.
fn together(
    said: Vec<(usize, Answers)>,
    book: &Book,
    hosts: &[Host],
) -> anyhow::Result<Option<Answers>> {
    let (mut edges, mut services) = (Vec::new(), Vec::new());
    let mut all: Option<Answers> = None;
    for (host, answers) in said {
        edges.push((host, answers.edges.clone()));
        services.push((host, answers.services.clone()));
        let Some(all) = &mut all else {
            all = Some(answers);
            continue;
        };
        all.listeners.listeners.extend(answers.listeners.listeners);
        all.ports.ports.extend(answers.ports.ports);
        all.balance.groups.extend(answers.balance.groups);
        all.events.events.extend(answers.events.events);
        match (&mut all.timeouts, answers.timeouts) {
            (Some(all), Some(more)) => {
                all.edges.extend(more.edges);
                all.waits.extend(more.waits);
            }
            (none, more) => *none = none.take().or(more),
        }
    }
    if let Some(all) = &mut all {
        all.edges = Edges::combine(edges, book, hosts)?.0;
        all.services = Services::combine(services, book, hosts)?.0;
        all.events.events.sort_by_key(|event| event.last_seen);
    }
    Ok(all)
}

/// Who did not answer, if anybody did not.
fn missing(hosts: &[Host]) -> Option<String> {
    let all: Vec<String> = hosts
        .iter()
        .filter_map(|host| host.error.as_ref().map(|error| format!("{}: {error}", host.host)))
        .collect();
    (!all.is_empty()).then(|| all.join("; "))
}
