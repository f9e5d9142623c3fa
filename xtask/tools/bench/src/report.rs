//! The results, as JSON and as a Markdown page.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::accuracy::{Accuracy, Compared};
use crate::daemon::Daemon;
use crate::goals::Row;
use crate::hooks::Cost;
use crate::insertion::Insertion;
use crate::machine::Properties;
use crate::rounds::Outcome;
use crate::size::Size;
use crate::stats::Estimate;

/// The page's text; figures replace the marks.
const PAGE: &str = include_str!("benchmarks.md");

/// Everything measured in one run of the command.
pub struct Report {
    pub machine: Properties,
    pub goals: Vec<Row>,
    pub outcomes: Vec<Outcome>,
    pub hooks: Vec<Cost>,
    pub daemon: Option<Daemon>,
    pub size: Option<Size>,
    pub insertion: Option<Insertion>,
    pub accuracy: Option<Accuracy>,
    /// Programs of others at tracepoints during the measurement.
    pub other_programs: usize,
}

impl Report {
    /// All figures.
    pub fn json(&self) -> Value {
        let Self {
            machine,
            goals,
            outcomes,
            hooks,
            daemon,
            size,
            insertion,
            accuracy,
            other_programs,
        } = self;
        let machine: serde_json::Map<String, Value> =
            machine.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        json!({
            "machine": machine,
            "other_tracing_programs": other_programs,
            "goals": goals.iter().map(goal_json).collect::<Vec<_>>(),
            "loads": outcomes.iter().map(outcome_json).collect::<Vec<_>>(),
            "hooks": hooks.iter().map(cost_json).collect::<Vec<_>>(),
            "daemon": daemon.as_ref().map(daemon_json),
            "size": size.as_ref().map(size_json),
            "insertion": insertion.as_ref().map(insertion_json),
            "accuracy": accuracy.as_ref().map(accuracy_json),
        })
    }

    /// The page.
    pub fn page(&self) -> String {
        let mut loads = String::new();
        for outcome in &self.outcomes {
            loads.push_str(&load_section(outcome));
        }
        let mut hooks = String::new();
        for cost in &self.hooks {
            hooks.push_str(&hook_section(cost));
        }
        PAGE.replace("{{goals}}", self.goal_table().trim_end())
            .replace("{{loads}}", loads.trim_end())
            .replace("{{hooks}}", hooks.trim_end())
            .replace("{{machine}}", self.machine_table().trim_end())
            .replace("{{unavailable}}", self.not_measured().trim_end())
    }

    /// The table that decides.
    pub fn goal_table(&self) -> String {
        let mut table =
            "| goal | what | goal | floor | result | 95 % interval | | other tools in the same run |\n\
                         |---|---|---|---|---|---|---|---|\n"
                .to_owned();
        for Row { id, what, goal, floor, result, interval, met, others } in &self.goals {
            let verdict = if *met { "met" } else { "**missed**" };
            let _ = writeln!(
                table,
                "| {id} | {what} | {goal} | {floor} | {result} | {interval} | {verdict} | {others} |"
            );
        }
        table
    }

    fn machine_table(&self) -> String {
        let mut table = "| | |\n|---|---|\n".to_owned();
        for (name, value) in &self.machine {
            let _ = writeln!(table, "| {name} | {value} |");
        }
        let _ = writeln!(table, "| other tracing programs loaded | {} |", self.other_programs);
        table
    }

    /// Whether a requested row is missing.
    pub fn is_incomplete(&self) -> bool {
        self.outcomes.iter().any(|outcome| !outcome.unavailable.is_empty())
    }

    /// What is missing, and why.
    pub fn not_measured(&self) -> String {
        let all = self.outcomes.iter().flat_map(|outcome| &outcome.unavailable);
        let peers = all.map(|(subject, why)| format!("{}: {why}", subject.as_str()));
        let tests = self.accuracy.iter().flat_map(|accuracy| accuracy.skipped.clone());
        let left_out = self.outcomes.iter().any(|outcome| !outcome.plan.peers);
        let left_out = left_out.then(|| "other tools (--no-peers)".to_owned());
        let lines: Vec<String> = peers
            .chain(tests)
            .chain(left_out)
            .map(|line| format!("**NOT MEASURED: {line}**\n"))
            .collect();
        if lines.is_empty() { "Everything was measured.".to_owned() } else { lines.join("\n") }
    }
}

fn load_section(outcome: &Outcome) -> String {
    let Outcome { load, plan, off, subjects, unavailable: _, errors } = outcome;
    let operation = load.operation();
    let mut section = format!(
        "### One {operation} at a time: {:.0} {operation} per second, {:.1} µs of CPU time \
         each, baseline\n\n\
         {} rounds of {} s windows; {errors} operations failed; other programs used {:.1} % of \
         the busy time, the hypervisor took {:.1} %.\n\n\
         | loaded | CPU time | 95 % interval | participants only | per second | \
         95 % interval | windows |\n|---|---|---|---|---|---|---|\n",
        off.throughput,
        off.cost * 1e6,
        plan.rounds,
        plan.seconds,
        off.foreign * 100.0,
        off.stolen * 100.0,
    );
    for (subject, ratios) in subjects {
        let discarded = match ratios.discarded {
            _ if ratios.is_doubtful => " **on a busy machine**".to_owned(),
            0 => String::new(),
            n => format!(" ({n} discarded)"),
        };
        let _ = writeln!(
            section,
            "| {} | {:.3} | {} | {:.3} | {:.3} | {} | {}{discarded} |",
            subject.as_str(),
            ratios.cost.median,
            interval(&ratios.cost),
            ratios.own_cost.median,
            ratios.throughput.median,
            interval(&ratios.throughput),
            ratios.cost.count,
        );
    }
    section.push('\n');
    section
}

fn hook_section(cost: &Cost) -> String {
    let operation = cost.load.operation();
    let name = match cost.load {
        crate::load::Load::Connections => "New connection for every request",
        crate::load::Load::Requests => "Keep-alive request",
        crate::load::Load::Bulk => "Response of 16 MiB",
        crate::load::Load::Stream => "Stream",
        crate::load::Load::Binds | crate::load::Load::FailedBinds => "Bind",
    };
    let mut section = format!(
        "### {name}: {:.1} runs and {:.0} ns per {operation}, both sides\n\n\
         | hook | runs per {operation} | ns per run | empty program | difference | 95 % interval |\n\
         |---|---|---|---|---|---|\n",
        cost.runs(),
        cost.nanoseconds(),
    );
    for hook in &cost.hooks {
        let (low, high) = (hook.full.low - hook.empty, hook.full.high - hook.empty);
        let _ = writeln!(
            section,
            "| {} | {:.2} | {:.0} | {:.0} | {:.0} | {low:.0} – {high:.0} |",
            hook.name,
            hook.runs,
            hook.full.median,
            hook.empty,
            hook.above_empty(),
        );
    }
    section.push('\n');
    section
}

fn interval(estimate: &Estimate) -> String {
    format!("{:.3} – {:.3}", estimate.low, estimate.high)
}

fn goal_json(row: &Row) -> Value {
    let Row { id, what, goal, floor, result, interval, met, others } = row;
    json!({
        "id": id, "what": what, "goal": goal, "floor": floor, "result": result,
        "interval": interval, "met": met, "others": others,
    })
}

fn outcome_json(outcome: &Outcome) -> Value {
    let Outcome { load, plan, off, subjects, unavailable, errors } = outcome;
    let subjects = subjects.iter().map(|(subject, ratios)| {
        json!({
            "subject": subject.as_str(),
            "processor_time": estimate_json(&ratios.cost),
            "processor_time_of_participants": estimate_json(&ratios.own_cost),
            "throughput": estimate_json(&ratios.throughput),
            "foreign_share": rounded(ratios.foreign),
            "discarded": ratios.discarded,
            "doubtful": ratios.is_doubtful,
        })
    });
    let unavailable =
        unavailable.iter().map(|(subject, why)| json!({"subject": subject.as_str(), "why": why}));
    json!({
        "operation": load.operation(),
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "failed_operations": errors,
        "off": {
            "operations_per_second": rounded(off.throughput),
            "processor_microseconds_per_operation": rounded(off.cost * 1e6),
            "foreign_share": rounded(off.foreign),
            "stolen_share": rounded(off.stolen),
        },
        "subjects": subjects.collect::<Vec<_>>(),
        "unavailable": unavailable.collect::<Vec<_>>(),
    })
}

fn cost_json(cost: &Cost) -> Value {
    let hooks = cost.hooks.iter().map(|hook| {
        json!({
            "hook": hook.name,
            "runs_per_operation": rounded(hook.runs),
            "nanoseconds_per_run": estimate_json(&hook.full),
            "nanoseconds_per_empty_run": rounded(hook.empty),
        })
    });
    json!({
        "operation": format!("{:?}", cost.load).to_lowercase(),
        "segments_per_operation": rounded(cost.segments),
        "hooks": hooks.collect::<Vec<_>>(),
    })
}

fn daemon_json(daemon: &Daemon) -> Value {
    let Daemon { per_million_connections, per_million_requests, paced } = daemon;
    json!({
        "seconds_per_million_connections": rounded(*per_million_connections),
        "seconds_per_million_requests": rounded(*per_million_requests),
        "paced": {
            "requests_per_second": rounded(paced.rate),
            "daemon_millicores": rounded(paced.daemon_millicores),
            "program_millicores": rounded(paced.program_millicores),
            "floor_millicores": rounded(paced.floor_millicores),
        },
    })
}

fn size_json(size: &Size) -> Value {
    let Size { start, steps, bytes_per_socket } = size;
    let steps = steps.iter().map(|step| {
        json!({
            "series": step.series,
            "resident_mib": rounded(step.resident_mib),
            "scrape_milliseconds": rounded(step.scrape_ms),
        })
    });
    json!({
        "resident_mib_at_start": rounded(*start),
        "steps": steps.collect::<Vec<_>>(),
        "kernel_bytes_per_socket": rounded(*bytes_per_socket),
    })
}

fn insertion_json(insertion: &Insertion) -> Value {
    let Insertion { rows, rows_ms, relations_ms, family_ms, drain_seconds } = insertion;
    json!({
        "rows": rows,
        "worst_milliseconds_of_rows": rounded(*rows_ms),
        "worst_milliseconds_of_relations": rounded(*relations_ms),
        "worst_milliseconds_of_prometheus_client": rounded(*family_ms),
        "drain_seconds": rounded(*drain_seconds),
    })
}

fn accuracy_json(accuracy: &Accuracy) -> Value {
    let Accuracy { latencies, counts, tests, failed, skipped } = accuracy;
    let list = |((what, against), compared): (&(String, String), &Vec<Compared>), unit: f64| {
        let figures = compared.iter().map(
            |pair| json!({"ours": rounded(pair.ours * unit), "truth": rounded(pair.truth * unit)}),
        );
        json!({"what": what, "against": against, "compared": figures.collect::<Vec<_>>()})
    };
    json!({
        "latencies_microseconds": latencies.iter().map(|row| list(row, 1e6)).collect::<Vec<_>>(),
        "counts": counts.iter().map(|row| list(row, 1.0)).collect::<Vec<_>>(),
        "tests": tests,
        "failed": failed,
        "skipped": skipped,
    })
}

fn estimate_json(estimate: &Estimate) -> Value {
    let Estimate { median, low, high, count } = *estimate;
    json!({
        "median": rounded(median), "low": rounded(low), "high": rounded(high), "count": count,
    })
}

/// More than four digits are beyond the resolution.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
