//! `portolan status`: what the agent observes, what it cannot observe and why, and its losses.

use std::fmt::Write;

use clap::Args;

use super::outcome::Report;
use super::table::{self, Column};
use super::target::Target;
use super::{Outcome, Output, human, print};
use api_types::{
    Evidence, Finding, Hook, LedgerEntry, NameSource, NameSourceState, Severity, Status, Table,
};

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    report: Report,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &StatusArgs) -> anyhow::Result<Outcome> {
    let StatusArgs { report, target } = arguments;
    let body = target.text("/api/v1/status")?;
    let status: Status = client::read(&body)?;
    match target.output {
        Output::Json => print(&format!("{}\n", body.trim_end()))?,
        Output::Text => print(&text(&status))?,
    }
    let is_grave = |finding: &Finding| finding.severity != Severity::Info;
    Ok(report.of(status.findings.iter().any(is_grave)))
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "Portolan {} on kernel {}: {}, {}, {} unidentified {}, {}.",
        status.version,
        status.kernel,
        human::counted(status.edges, "edge"),
        human::counted(status.listeners, "listener"),
        human::count(status.unidentified_processes),
        if status.unidentified_processes == 1 { "process" } else { "processes" },
        human::counted(status.preexisting_sockets, "pre-existing socket"),
    );
    let each = match status.collections {
        0 => 0.0,
        collections => status.collection_seconds / collections as f64,
    };
    let _ = writeln!(
        text,
        "{} collections, {} each.\n",
        human::count(status.collections),
        human::duration(each)
    );
    if status.memory.overflow_mode {
        let (used, limit) = (status.memory.used_bytes, status.memory.limit_bytes);
        let mib = |bytes: Option<u64>| bytes.unwrap_or(0) >> 20;
        let _ = writeln!(
            text,
            "Overflow mode: {} of {} MiB are in use, so new edges are counted in the rows `other`.\n",
            mib(used),
            mib(limit)
        );
    }
    push_hooks(&mut text, status);
    if !status.findings.is_empty() {
        text.push('\n');
    }
    for Finding { code, title, evidence, remediation, .. } in &status.findings {
        let _ = write!(text, "{code} {title}");
        let _ = match evidence.get("reason") {
            Some(Evidence::Text(reason)) => writeln!(text, " ({reason})"),
            _ => writeln!(text),
        };
        if let Some(remediation) = remediation {
            let _ = writeln!(text, "  fix: {remediation}");
        }
    }
    push_sources(&mut text, status);
    text.push('\n');
    push_ledger(&mut text, status);
    text.push('\n');
    push_maps(&mut text, status);
    text
}

fn push_hooks(text: &mut String, status: &Status) {
    let timed = status.hooks.iter().any(|hook| hook.runs > 0);
    let mut columns = vec![Column::left("HOOK"), Column::left("STATE")];
    if timed {
        columns.extend([Column::right("RUNS"), Column::right("EACH"), Column::right("MISSED")]);
    }
    let row = |hook: &Hook| {
        let state = if hook.attached { "attached" } else { "off" };
        let mut row = vec![hook.name.clone(), state.to_owned()];
        if timed {
            let each = if hook.runs == 0 { 0.0 } else { hook.run_seconds / hook.runs as f64 };
            let nanoseconds = format!("{:.0} ns", each * 1e9);
            row.extend([human::count(hook.runs), nanoseconds, human::count(hook.misses)]);
        }
        row
    };
    let rows: Vec<_> = status.hooks.iter().map(row).collect();
    text.push_str(&table::render(&columns, &rows, None));
    // The consequence of a missing hook is a finding below.
    let is_below = |hook: &Hook| {
        status.findings.iter().any(|finding| match finding.evidence.get("reason") {
            Some(Evidence::Text(reason)) => {
                let hooks = reason.split(": ").next().unwrap_or_default();
                hooks.split(", ").any(|one| one == hook.name)
            }
            _ => false,
        })
    };
    for hook in status.hooks.iter().filter(|hook| !hook.attached && !is_below(hook)) {
        let reason = hook.reason.as_deref().unwrap_or("no reason known");
        let _ = writeln!(text, "  {}: {reason}; not available: {}", hook.name, hook.observes);
    }
}

fn push_sources(text: &mut String, status: &Status) {
    let there = |source: &&NameSource| source.state != NameSourceState::Absent;
    let columns = [
        Column::left("NAME SOURCE"),
        Column::left("STATE"),
        Column::right("ENTRIES"),
        Column::right("QUERIES"),
        Column::right("ERRORS"),
    ];
    let row = |source: &NameSource| {
        vec![
            source.name.clone(),
            source.state.as_str().to_owned(),
            human::count(source.entries),
            human::count(source.queries),
            human::count(source.errors),
        ]
    };
    let rows: Vec<_> = status.name_sources.iter().filter(there).map(row).collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table::render(&columns, &rows, None));
    }
    // Why one is down is a finding above.
    let is_down = |source: &&NameSource| source.state == NameSourceState::Down;
    for source in status.name_sources.iter().filter(there).filter(|source| !is_down(source)) {
        if let Some(detail) = &source.detail {
            let _ = writeln!(text, "  {}: {detail}", source.name);
        }
    }
}

fn push_ledger(text: &mut String, status: &Status) {
    let columns = [
        Column::left("EVENTS"),
        Column::right("SEEN"),
        Column::right("EXPORTED"),
        Column::right("DROPPED"),
        Column::left("REASON"),
    ];
    let row = |entry: &LedgerEntry| {
        let why: Vec<String> =
            entry.lost.iter().map(|(reason, n)| format!("{reason} {}", human::count(*n))).collect();
        vec![
            entry.class.clone(),
            human::count(entry.seen),
            human::count(entry.exported),
            human::count(entry.lost.values().sum()),
            why.join(", "),
        ]
    };
    let rows: Vec<_> = status.ledger.iter().map(row).collect();
    text.push_str(&table::render(&columns, &rows, None));
    if status.recursion_misses > 0 {
        let _ = writeln!(
            text,
            "  The kernel skipped {} of hooks because one was running on that CPU already.",
            human::counted(status.recursion_misses, "run")
        );
    }
}

fn push_maps(text: &mut String, status: &Status) {
    let columns = [
        Column::left("MAP"),
        Column::right("USED"),
        Column::right("CAPACITY"),
        Column::right("FULL"),
    ];
    let row = |map: &Table| {
        let full = if map.capacity == 0 { 0.0 } else { map.entries as f64 / map.capacity as f64 };
        vec![
            map.name.clone(),
            human::count(map.entries),
            human::count(map.capacity),
            format!("{:.0} %", full * 100.0),
        ]
    };
    let rows: Vec<_> = status.tables.iter().map(row).collect();
    text.push_str(&table::render(&columns, &rows, None));
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fixture::snapshot;
    use server::convert;
    use telemetry::Build;

    #[test]
    fn status_shows_what_is_observed_what_is_not_and_what_was_dropped() {
        let build = Build { version: "0.0.0".into(), kernel: "6.18.0".into() };
        assert_eq!(
            text(&convert::status(&build, &snapshot())),
            "\
Portolan 0.0.0 on kernel 6.18.0: 3 edges, 3 listeners, 1 unidentified process, 5 pre-existing sockets.
100 collections, 2.5 ms each.

Overflow mode: 42 of 47 MiB are in use, so new edges are counted in the rows `other`.

HOOK                 STATE     RUNS    EACH  MISSED
inet_sock_set_state  attached    90  500 ns       0
sock_send_length     off          0    0 ns       0

PA501 not observed on this host: request latency of clients (sock_send_length: this kernel has no such tracepoint)

NAME SOURCE  STATE  ENTRIES  QUERIES  ERRORS
docker       up          12       34       1

EVENTS      SEEN  EXPORTED  DROPPED  REASON
connection    18        18        0
request        8         8        0
reset          0         4        0
socket         0        15        0
edge           4         3        1  no_slot 1
owner          0         2        0
event          9         7        2  rate_limited 2
bind           0         0        0
dns_answer     0         0        0
response       6         5        1  unframed 1
dns_lookup     0         0        0
operation      6         5        1  gap 1
  The kernel skipped 1 run of hooks because one was running on that CPU already.

MAP     USED  CAPACITY  FULL
edges      7      4096   0 %
owners     3      1024   0 %
"
        );
    }
}
