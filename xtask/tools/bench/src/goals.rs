//! The goals, and how far the figures are from them.

use anyhow::Result;

use crate::accuracy::{Accuracy, Compared};
use crate::binds::Idle;
use crate::daemon::Daemon;
use crate::hooks::Cost;
use crate::insertion::Insertion;
use crate::load::Load;
use crate::rounds::{Outcome, Ratios};
use crate::size::Size;
use crate::stats::Estimate;
use crate::subject::Subject;

/// A goal and its result.
pub struct Row {
    /// Its number in the list of goals.
    pub id: &'static str,
    pub what: String,
    pub goal: &'static str,
    /// The cost of empty programs on the same hooks in the same run: the lower bound.
    pub floor: String,
    pub result: String,
    pub interval: String,
    pub met: bool,
    /// The cost of other tools in the same run.
    pub others: String,
}

/// The rows about a load.
pub fn of_load(outcome: &Outcome) -> Result<Vec<Row>> {
    let portolan = outcome.of(Subject::Portolan)?;
    let bare = outcome.of(Subject::NoRequests)?;
    let cost = |ratios: &Ratios| ratios.cost;
    let throughput = |ratios: &Ratios| ratios.throughput;
    Ok(match outcome.load {
        Load::Connections => vec![
            row(
                "P1",
                "connection storm: connections per second",
                "≥ 0.97, low end ≥ 0.95",
                throughput,
                portolan,
                outcome,
                |e| e.median >= 0.97 && e.low >= 0.95,
            ),
            row(
                "P1",
                "connection storm: CPU time per connection",
                "≤ 1.04",
                cost,
                portolan,
                outcome,
                |e| e.median <= 1.04,
            ),
            all_in(outcome, portolan, "connections", "≤ 3", 3.0),
        ],
        Load::Stream => vec![row(
            "P4",
            "one connection at full speed: bytes per second",
            "≥ 0.99",
            throughput,
            portolan,
            outcome,
            |e| e.median >= 0.99,
        )],
        Load::FailedBinds => vec![added_to_a_bind(outcome, portolan, "that fails, in a storm")],
        Load::Binds => vec![added_to_a_bind(outcome, portolan, "that succeeds")],
        Load::Requests | Load::Bulk => vec![
            row(
                "P2",
                "keep-alive requests, timed: CPU time per request",
                "≤ 1.06",
                cost,
                portolan,
                outcome,
                |e| e.median <= 1.06,
            ),
            row(
                "P2",
                "keep-alive requests, timed: requests per second",
                "≥ 0.95",
                throughput,
                portolan,
                outcome,
                |e| e.median >= 0.95,
            ),
            row(
                "P3",
                "keep-alive requests, connections only: CPU time per request",
                "≤ 1.01, 1.00 within",
                cost,
                bare,
                outcome,
                |e| e.median <= 1.01 && e.low <= 1.0,
            ),
            all_in(outcome, portolan, "requests", "≤ 0.6", 0.6),
        ],
    })
}

/// The agent's addition to a million operations, kernel and daemon together.
fn all_in(outcome: &Outcome, of: &Ratios, what: &str, goal: &'static str, limit: f64) -> Row {
    let seconds = |ratio: f64| (ratio - 1.0) * outcome.off.cost * 1e6;
    let floor = outcome.of(Subject::Empty).map(|empty| seconds(empty.cost.median));
    let added = seconds(of.cost.median);
    Row {
        id: "P7",
        what: format!("CPU seconds per million {what}, in total, both sides"),
        goal,
        floor: floor.map_or_else(|_| String::new(), |floor| format!("{floor:.2}")),
        result: format!("{added:.2}"),
        interval: format!("{:.2} – {:.2}", seconds(of.cost.low), seconds(of.cost.high)),
        met: added <= limit,
        others: String::new(),
    }
}

/// The agent's addition to a bind.
fn added_to_a_bind(outcome: &Outcome, of: &Ratios, which: &str) -> Row {
    let nanoseconds = |ratio: f64| (ratio - 1.0) * outcome.off.cost * 1e9;
    let added = nanoseconds(of.cost.median);
    Row {
        id: "ports",
        what: format!(
            "nanoseconds of CPU time added to a bind {which} ({:.0} without)",
            outcome.off.cost * 1e9
        ),
        goal: "≤ 2000",
        floor: String::new(),
        result: format!("{added:.0}"),
        interval: format!("{:.0} – {:.0}", nanoseconds(of.cost.low), nanoseconds(of.cost.high)),
        met: added <= 2000.0,
        others: String::new(),
    }
}

/// The rows about a host that binds nothing.
pub fn of_idle(idle: &Idle) -> Vec<Row> {
    let Idle { runs, all_per_second, daemon_millicores } = idle;
    vec![counted(
        "ports",
        format!(
            "runs of the programs for binds in 10 s in which nothing binds ({all_per_second:.0} \
             runs per second of all programs, {daemon_millicores:.2} millicores of the daemon)"
        ),
        "0",
        runs.to_string(),
        *runs == 0,
    )]
}

/// The rows about the daemon at work.
pub fn of_daemon(daemon: &Daemon) -> Vec<Row> {
    let Daemon { per_million_connections, per_million_requests, paced } = daemon;
    let mut rows = Vec::new();
    for (what, seconds) in
        [("connections", per_million_connections), ("requests", per_million_requests)]
    {
        rows.push(counted(
            "P7",
            format!("CPU seconds of the daemon alone per million {what}"),
            "≤ 0.1",
            format!("{seconds:.3}"),
            *seconds <= 0.1,
        ));
    }
    let mut paced_row = counted(
        "P5",
        format!(
            "{:.0} requests per second: millicores of daemon ({:.1}) and programs ({:.1})",
            paced.rate, paced.daemon_millicores, paced.program_millicores
        ),
        "≤ 10",
        format!("{:.1}", paced.daemon_millicores + paced.program_millicores),
        paced.daemon_millicores + paced.program_millicores <= 10.0,
    );
    paced_row.floor = format!("{:.1}", paced.floor_millicores);
    rows.push(paced_row);
    rows
}

/// The rows about memory and scrapes.
pub fn of_size(size: &Size) -> Vec<Row> {
    let Size { start, steps, bytes_per_socket } = size;
    let mut rows = vec![memory("at the start", "≤ 12", *start, 12.0)];
    for (step, memory_goal, scrape_goal) in steps
        .iter()
        .zip([("≤ 25", 25.0), ("≤ 80", 80.0)])
        .zip([("≤ 3", 3.0), ("≤ 30", 30.0)])
        .map(|((step, memory), scrape)| (step, memory, scrape))
    {
        let with = format!("with {} series", step.series);
        rows.push(memory(&with, memory_goal.0, step.resident_mib, memory_goal.1));
        rows.push(counted(
            "P9",
            format!("milliseconds of a scrape of {} series, request to last byte", step.series),
            scrape_goal.0,
            format!("{:.1}", step.scrape_ms),
            step.scrape_ms <= scrape_goal.1,
        ));
    }
    rows.push(counted(
        "P8",
        "bytes of kernel memory per live socket".to_owned(),
        "≤ 400",
        format!("{bytes_per_socket:.0}"),
        *bytes_per_socket <= 400.0,
    ));
    rows
}

/// The rows about insertions.
pub fn of_insertion(insertion: &Insertion) -> Vec<Row> {
    let Insertion { rows, rows_ms, relations_ms, family_ms, drain_seconds } = insertion;
    let worst = rows_ms.max(*relations_ms);
    let mut row = counted(
        "P10",
        format!(
            "worst stall of one new row while tables grow to {rows}, milliseconds (a collection of \
             as many known rows takes {drain_seconds:.1} s)"
        ),
        "≤ 1",
        format!("{worst:.3}"),
        worst <= 1.0,
    );
    row.others = format!("prometheus-client {family_ms:.0}");
    vec![row]
}

/// The rows about accuracy.
pub fn of_accuracy(accuracy: &Accuracy) -> Vec<Row> {
    let Accuracy { latencies, counts, tests, failed, skipped: _ } = accuracy;
    let mut rows = Vec::new();
    for ((what, against), compared) in latencies {
        let Some(Compared { ours, truth }) = Compared::worst(compared) else { continue };
        rows.push(counted(
            "P11",
            format!(
                "mean latency, {what}, against {against}: largest difference of {} loads",
                compared.len()
            ),
            "within 5 % or 20 µs",
            format!("{:.1} µs, reference {:.1}", ours * 1e6, truth * 1e6),
            Compared { ours, truth }.of_allowed() <= 1.0,
        ));
    }
    for ((what, against), compared) in counts {
        let sum = |pick: fn(&Compared) -> f64| compared.iter().map(pick).sum::<f64>();
        let off: f64 = compared.iter().map(|pair| (pair.ours - pair.truth).abs()).sum();
        rows.push(counted(
            "P11",
            format!("{what} against the kernel's {against}, {} loads", compared.len()),
            "equal",
            format!("{} of {}", sum(|pair| pair.ours), sum(|pair| pair.truth)),
            off == 0.0,
        ));
    }
    rows.push(counted(
        "P11",
        format!("tests of accuracy that failed, of {tests}"),
        "0",
        failed.len().to_string(),
        failed.is_empty(),
    ));
    rows
}

fn memory(when: &str, goal: &'static str, mib: f64, limit: f64) -> Row {
    counted(
        "P8",
        format!("resident MiB of the daemon {when}"),
        goal,
        format!("{mib:.1}"),
        mib <= limit,
    )
}

/// The rows about the kernel programs.
pub fn of_hooks(costs: &[Cost]) -> Vec<Row> {
    let mut rows = Vec::new();
    for cost in costs {
        let operation = cost.load.operation();
        match cost.load {
            Load::Bulk => {
                for (timing, runs) in [("off", cost.bare_runs), ("on", cost.runs())] {
                    let each = runs / cost.segments;
                    rows.push(counted(
                        "P6",
                        format!(
                            "bulk transfer, request timing {timing}: program runs per TCP segment"
                        ),
                        "0",
                        format!("{each:.3}"),
                        each < 0.005,
                    ));
                }
            }
            Load::Connections | Load::Requests | Load::Stream | Load::Binds | Load::FailedBinds => {
                rows.push(counted(
                    "P6",
                    format!("nanoseconds of a run above an empty program, mean per {operation}"),
                    "≤ 150",
                    format!("{:.0}", cost.mean()),
                    cost.mean() <= 150.0,
                ));
                let worst =
                    cost.hooks.iter().max_by(|a, b| a.above_empty().total_cmp(&b.above_empty()));
                if let Some(worst) = worst {
                    rows.push(counted(
                        "P6",
                        format!("the same for the most expensive hook, {}", worst.name),
                        "≤ 1000",
                        format!("{:.0}", worst.above_empty()),
                        worst.above_empty() <= 1000.0,
                    ));
                }
                let (what, runs) = if cost.load == Load::Connections {
                    (
                        "life of a connection, request timing off: program runs per side",
                        cost.bare_runs,
                    )
                } else {
                    ("a request: program runs per side", cost.runs())
                };
                let each = runs / 2.0;
                rows.push(counted("P6", what.to_owned(), "≤ 6", format!("{each:.2}"), each <= 6.0));
            }
        }
    }
    rows
}

fn row(
    id: &'static str,
    what: &str,
    goal: &'static str,
    figure: impl Fn(&Ratios) -> Estimate,
    of: &Ratios,
    outcome: &Outcome,
    met: impl Fn(Estimate) -> bool,
) -> Row {
    let estimate = figure(of);
    let floor = outcome.of(Subject::Empty).map(|empty| format!("{:.3}", figure(empty).median));
    let others = outcome.subjects.iter().filter(|(subject, _)| subject.is_peer());
    let others =
        others.map(|(subject, ratios)| format!("{} {:.2}", subject.short(), figure(ratios).median));
    Row {
        id,
        what: what.to_owned(),
        goal,
        floor: floor.unwrap_or_default(),
        result: format!("{:.3}", estimate.median),
        interval: format!("{:.3} – {:.3}", estimate.low, estimate.high),
        met: met(estimate),
        others: others.collect::<Vec<_>>().join(", "),
    }
}

fn counted(id: &'static str, what: String, goal: &'static str, result: String, met: bool) -> Row {
    let (floor, interval, others) = (String::new(), String::new(), String::new());
    Row { id, what, goal, floor, result, interval, met, others }
}
