//! The status: what is observed, what is not, and the losses.

use agent_common::ledger::{CLASS_NAMES, REASON_NAMES};
use api_types::{
    Finding, Hook, LedgerEntry, Memory, NameSource, Severity, Status, Table, Timestamp, code,
};
use model::snapshot::{Disabled, HookView, MapView, Snapshot, SourceView};
use telemetry::Build;

use super::ToApi;
use super::edges::named;

/// The status that `snapshot` shows.
pub fn status(build: &Build, snapshot: &Snapshot) -> Status {
    let Snapshot {
        taken_seconds,
        edges,
        listeners,
        ledger,
        hooks,
        disabled,
        maps,
        memory,
        unresolved_owners,
        sources,
        preexisting_sockets,
        related: _,
        drains,
        drain_seconds,
        ports: _,
        ephemeral: _,
        conflicts: _,
        conflict_totals: _,
        reservations: _,
        probes: _,
        health: _,
    } = snapshot;
    let classes = CLASS_NAMES.iter().zip(ledger.kernel.seen).zip(ledger.exported);
    let entries = classes.zip(&ledger.kernel.lost).map(|(((class, seen), exported), lost)| {
        let lost = named(&REASON_NAMES, lost);
        LedgerEntry { class: (*class).to_owned(), seen, exported, lost }
    });
    let full = maps.iter().filter(|map| map.is_full()).map(is_full);
    Status {
        version: build.version.clone(),
        kernel: build.kernel.clone(),
        timestamp: Timestamp::from_seconds(*taken_seconds),
        hooks: hooks.iter().map(ToApi::to_api).collect(),
        findings: disabled.iter().map(off).chain(full).collect(),
        ledger: entries.collect(),
        recursion_misses: ledger.recursion_misses,
        tables: maps.iter().map(ToApi::to_api).collect(),
        memory: Memory {
            used_bytes: memory.usage.map(|usage| usage.used),
            limit_bytes: memory.usage.map(|usage| usage.limit),
            overflow_mode: memory.overflow_mode,
            withheld_rows: memory.held_rows,
        },
        edges: edges.len() as u64,
        listeners: listeners.len() as u64,
        unidentified_processes: *unresolved_owners,
        name_sources: sources.iter().map(ToApi::to_api).collect(),
        preexisting_sockets: *preexisting_sockets,
        collections: *drains,
        collection_seconds: *drain_seconds,
    }
}

/// Something that is off on this host, as a finding.
pub fn off(disabled: &Disabled) -> Finding {
    let Disabled { what, why, is_observed } = disabled;
    let (code, problem) = if *is_observed {
        (code::MORE_CPU_TIME, "takes more CPU time on this host")
    } else {
        (code::NOT_OBSERVED, "not observed on this host")
    };
    let title = format!("{problem}: {what}");
    Finding::new(code, Severity::Info, what, title).with("reason", why.as_str())
}

/// A full table, as a finding.
fn is_full(map: &MapView) -> Finding {
    let MapView { name, entries, capacity } = map;
    let title = format!("the table {name} is full: {}", map.consequence());
    let mut finding = Finding::new(code::TABLE_FULL, Severity::Warning, name, title)
        .with("entries", *entries)
        .with("capacity", *capacity);
    finding.remediation = Some(
        match name.as_str() {
            "owners" => "raise limits.owners, or find who starts so many programs",
            "bind_failures" => "portolan ports conflicts shows who fails to bind",
            _ => "raise limits.edges, or find who opens so many connections: portolan edges",
        }
        .to_owned(),
    );
    finding
}

impl ToApi for HookView {
    type Shape = Hook;

    fn to_api(&self) -> Hook {
        let Self { name, attached, reason, lost_without, runs, run_seconds, misses } = self;
        Hook {
            name: name.clone(),
            attached: *attached,
            reason: reason.clone(),
            observes: lost_without.clone(),
            runs: *runs,
            run_seconds: *run_seconds,
            misses: *misses,
        }
    }
}

impl ToApi for MapView {
    type Shape = Table;

    fn to_api(&self) -> Table {
        let Self { name, entries, capacity } = self;
        Table { name: name.clone(), entries: *entries, capacity: *capacity }
    }
}

impl ToApi for SourceView {
    type Shape = NameSource;

    fn to_api(&self) -> NameSource {
        let Self { name, state, detail, entries, dropped, lookups, errors } = self;
        NameSource {
            name: name.clone(),
            state: state.to_api(),
            detail: detail.clone(),
            entries: *entries,
            dropped: *dropped,
            queries: *lookups,
            errors: *errors,
        }
    }
}
