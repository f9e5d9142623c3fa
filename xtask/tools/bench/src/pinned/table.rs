//! The results, as a readable table and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::figures::{self, Estimate, Rounds};
use super::{Outcome, PORTOLAN, Subject};
use crate::machine;

/// A fixed seed, so that the same slices give the same intervals.
const SEED: u64 = 7;

/// Properties of the machine that influence these figures.
const PROPERTIES: [&str; 5] =
    ["processor", "virtual machine", "kernel", "indirect branches", "commit"];

/// A variant's figures.
struct Row<'a> {
    subject: &'a Subject,
    level: f64,
    above_nothing: Option<Estimate>,
    /// Above the agent of this checkout in the same memory cgroup.
    above_portolan: Option<Estimate>,
    rounds: &'a Rounds,
}

/// The table.
pub fn table(outcome: &Outcome) -> String {
    let Outcome { operation, processor, seed, operations, cold_kib, other_programs, .. } = outcome;
    let operation = operation.as_str();
    let mut text = format!(
        "| variant | memory cgroup of its maps | ns per {operation} | above nothing | 95 % interval \
         | above portolan | 95 % interval | program runs |\n|---|---|---|---|---|---|---|---|\n"
    );
    for row in rows(outcome) {
        let (above, interval) = cells(row.above_nothing);
        let (compared, compared_interval) = cells(row.above_portolan);
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {above} | {interval} | {compared} | {compared_interval} | {:.1} |",
            row.subject.name,
            row.subject.memory_cgroup.map_or("", super::MemoryCgroup::as_str),
            row.level,
            row.subject.runs,
        );
    }
    text.push('\n');
    if let Some(control) = control(outcome) {
        let _ = writeln!(
            text,
            "Resolution: {:.0} ns. Nothing against nothing differs by {:+.0} [{:.0}, {:.0}]; a \
             smaller difference than this means nothing.",
            control.reach(),
            control.value,
            control.low,
            control.high
        );
    }
    let caches = cold_kib.map_or_else(
        || "warm caches".to_owned(),
        |kib| format!("cold caches ({kib} KiB walked before each {operation})"),
    );
    let (rounds, slices) = shape(outcome);
    let _ = writeln!(
        text,
        "10th percentile of {rounds} rounds × {slices} slices × {operations} operations; {caches}; \
         processor {processor}; --seed {seed}; {:.1} ms to attach and detach; {other_programs} \
         other tracing programs.",
        outcome.switch.as_secs_f64() * 1e3
    );
    for (name, value) in properties() {
        let _ = writeln!(text, "{name}: {value}");
    }
    text
}

/// The same, with every slice.
pub fn json(outcome: &Outcome) -> Value {
    let Outcome {
        operation,
        processor,
        seed,
        operations,
        cold_kib,
        other_programs,
        variants: _,
        switch,
    } = outcome;
    let variants = rows(outcome).into_iter().map(|row| {
        json!({
            "name": row.subject.name,
            "memory_cgroup": row.subject.memory_cgroup.map(super::MemoryCgroup::as_str),
            "nanoseconds": rounded(row.level),
            "above_nothing": row.above_nothing.as_ref().map(estimate),
            "above_portolan": row.above_portolan.as_ref().map(estimate),
            "program_runs": rounded(row.subject.runs),
            "slices": row.rounds.iter().map(|slices| {
                slices.iter().copied().map(rounded).collect::<Vec<_>>()
            }).collect::<Vec<_>>(),
        })
    });
    let machine: serde_json::Map<String, Value> =
        properties().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    json!({
        "operation": operation.as_str(),
        "processor": processor,
        "seed": seed,
        "operations_per_slice": operations,
        "cold_kib": cold_kib,
        "other_tracing_programs": other_programs,
        "switch_milliseconds": rounded(switch.as_secs_f64() * 1e3),
        "resolution_nanoseconds": control(outcome).map(|control| rounded(control.reach())),
        "machine": machine,
        "variants": variants.collect::<Vec<_>>(),
    })
}

fn rows(outcome: &Outcome) -> Vec<Row<'_>> {
    let variants = &outcome.variants;
    let Some((_, nothing)) = variants.first() else { return Vec::new() };
    let others = variants.iter().map(|(subject, rounds)| Row {
        subject,
        level: figures::level(rounds).unwrap_or(f64::NAN),
        above_nothing: figures::difference(rounds, nothing, SEED),
        above_portolan: portolan(variants, subject)
            .and_then(|portolan| figures::difference(rounds, portolan, SEED)),
        rounds,
    });
    let mut rows: Vec<Row<'_>> = others.collect();
    rows[0].above_nothing = None;
    rows
}

/// The baseline of another agent in the same memory cgroup.
fn portolan<'a>(variants: &'a [(Subject, Rounds)], of: &Subject) -> Option<&'a Rounds> {
    let is_it = |(other, _): &&(Subject, Rounds)| {
        other.name == PORTOLAN && other.memory_cgroup == of.memory_cgroup
    };
    let found = variants.iter().find(is_it).filter(|_| of.name != PORTOLAN);
    found.map(|(_, rounds)| rounds)
}

/// Nothing against nothing.
fn control(outcome: &Outcome) -> Option<Estimate> {
    let [(_, nothing), (_, again), ..] = &outcome.variants[..] else { return None };
    figures::difference(again, nothing, SEED)
}

/// How many rounds there were, and how many slices in a block.
fn shape(outcome: &Outcome) -> (usize, usize) {
    let rounds = outcome.variants.first().map(|(_, rounds)| rounds);
    let slices = rounds.and_then(|rounds| rounds.first()).map_or(0, Vec::len);
    (rounds.map_or(0, Vec::len), slices)
}

fn properties() -> impl Iterator<Item = (&'static str, String)> {
    machine::describe().into_iter().filter(|(name, _)| PROPERTIES.contains(name))
}

fn cells(estimate: Option<Estimate>) -> (String, String) {
    estimate.map_or_else(Default::default, |Estimate { value, low, high }| {
        (format!("{value:+.0}"), format!("{low:.0} – {high:.0}"))
    })
}

fn estimate(estimate: &Estimate) -> Value {
    let Estimate { value, low, high } = *estimate;
    json!({"value": rounded(value), "low": rounded(low), "high": rounded(high)})
}

/// Tenths of a nanosecond are more than can be measured.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryCgroup, NOTHING, Operation, What};
    use super::*;
    use std::time::Duration;

    fn variant(name: &str, memory_cgroup: Option<MemoryCgroup>, level: f64) -> (Subject, Rounds) {
        let subject =
            Subject { name: name.to_owned(), memory_cgroup, what: What::Nothing, runs: 14.0 };
        (subject, vec![vec![level, level + 5.0]; 4])
    }

    fn outcome() -> Outcome {
        Outcome {
            operation: Operation::Connection,
            processor: 1,
            seed: 5,
            operations: 200,
            cold_kib: None,
            other_programs: 0,
            variants: vec![
                variant(NOTHING, None, 10_000.0),
                variant("nothing again", None, 9_980.0),
                variant(PORTOLAN, Some(MemoryCgroup::Same), 11_000.0),
                variant(PORTOLAN, Some(MemoryCgroup::Other), 11_500.0),
                variant("before", Some(MemoryCgroup::Other), 13_000.0),
            ],
            switch: Duration::from_millis(6),
        }
    }

    #[test]
    fn another_agent_is_compared_with_portolan_in_the_same_memory_cgroup() {
        let table = table(&outcome());
        for line in [
            "| nothing |  | 10000 |  |  |  |  | 14.0 |",
            "| portolan | same | 11000 | +1000 | 1000 – 1000 |  |  | 14.0 |",
            "| portolan | other | 11500 | +1500 | 1500 – 1500 |  |  | 14.0 |",
            "| before | other | 13000 | +3000 | 3000 – 3000 | +1500 | 1500 – 1500 | 14.0 |",
        ] {
            assert!(table.contains(line), "{line} is not in\n{table}");
        }
    }

    #[test]
    fn the_resolution_is_how_far_nothing_may_be_from_nothing() {
        assert!(table(&outcome()).contains("Resolution: 20 ns."));
        assert_eq!(json(&outcome())["resolution_nanoseconds"], 20.0);
    }

    #[test]
    fn json_has_every_slice_and_the_same_figures() {
        let json = json(&outcome());
        let before = &json["variants"][4];
        assert_eq!(before["slices"].as_array().map(Vec::len), Some(4));
        assert_eq!(before["slices"][3], json!([13_000.0, 13_005.0]));
        assert_eq!(before["above_nothing"]["value"], 3000.0);
        assert_eq!(before["above_portolan"]["low"], 1500.0);
        assert_eq!(json["variants"][0]["above_nothing"], Value::Null);
    }
}
