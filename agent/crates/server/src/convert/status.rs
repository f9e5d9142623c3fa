//! The status: what is observed, what is not, and the losses.

use agent_common::ledger::{CLASS_NAMES, REASON_NAMES};
use api_types::{
    Finding, Hook, LedgerEntry, Memory, NameSource, Severity, Status, Table, Timestamp, code,
};
use model::snapshot::{Disabled, HookView, MapView, Snapshot, SourceState, SourceView};
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
        conditions: _,
        conflicts: _,
        conflict_totals: _,
        unverified_conflicts: _,
        unverified_connects: _,
        reservations: _,
        probes: _,
        traffic: _,
        recent: _,
        events: _,
    } = snapshot;
    let classes = CLASS_NAMES.iter().zip(ledger.kernel.seen).zip(ledger.exported);
    let entries = classes.zip(&ledger.kernel.lost).map(|(((class, seen), exported), lost)| {
        let lost = named(&REASON_NAMES, lost);
        LedgerEntry { class: (*class).to_owned(), seen, exported, lost }
    });
    let full = maps.iter().filter(|map| map.is_full()).map(is_full);
    let down = sources.iter().filter(|source| source.state == SourceState::Down);
    let silent = down.map(is_down);
    Status {
        version: build.version.clone(),
        kernel: build.kernel.clone(),
        timestamp: Timestamp::from_seconds(*taken_seconds),
        hooks: hooks.iter().map(ToApi::to_api).collect(),
        findings: off(disabled).into_iter().chain(full).chain(silent).collect(),
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
        // The route adds what is configured.
        check_skip: Vec::new(),
    }
}

/// Everything that is off on this host, as findings. What is missing for IPv4 and for IPv6 with the
/// same reason is one.
pub fn off(disabled: &[Disabled]) -> Vec<Finding> {
    let mut merged: Vec<Disabled> = Vec::new();
    for one in disabled {
        let twin = merged.iter_mut().find_map(|other| Some((both_families(other, one)?, other)));
        match twin {
            Some((both, other)) => *other = both,
            None => merged.push(one.clone()),
        }
    }
    merged.iter().map(is_off).collect()
}

/// The two as one, if they differ only in the family of addresses and the hook.
fn both_families(four: &Disabled, six: &Disabled) -> Option<Disabled> {
    let (hook_four, why_four) = four.why.split_once(": ")?;
    let (hook_six, why_six) = six.why.split_once(": ")?;
    let matches = four.what.contains("IPv4")
        && four.what.replace("IPv4", "IPv6") == six.what
        && why_four.replace(hook_four, "") == why_six.replace(hook_six, "")
        && four.is_observed == six.is_observed;
    matches.then(|| Disabled {
        what: four.what.replace("IPv4", "IPv4 and IPv6"),
        why: format!("{hook_four}, {hook_six}: {why_four}"),
        is_observed: four.is_observed,
    })
}

fn is_off(disabled: &Disabled) -> Finding {
    let Disabled { what, why, is_observed } = disabled;
    let (code, problem) = if *is_observed {
        (code::MORE_CPU_TIME, "takes more CPU time on this host")
    } else {
        (code::NOT_OBSERVED, "not observed on this host")
    };
    let title = format!("{problem}: {what}");
    Finding::new(code, Severity::Info, what, title).with("reason", why.as_str())
}

/// A source of names that fails, as a finding.
fn is_down(source: &SourceView) -> Finding {
    let SourceView { name, detail, .. } = source;
    let title = format!("names from {name} are missing or out of date");
    let mut finding = Finding::new(code::NAMES_MISSING, Severity::Warning, name, title)
        .with("reason", detail.as_deref().unwrap_or("no answer"));
    let off = if name == "conntrack" { "false" } else { "off" };
    finding.remediation = Some(format!("repair it, or correct names.{name} ({off} disables it)"));
    finding
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_for_both_families_is_one_finding() {
        let disabled = |what: &str, why: &str| Disabled {
            what: what.to_owned(),
            why: why.to_owned(),
            is_observed: false,
        };
        let titles = |all: &[Disabled]| {
            let finding = |one: Finding| (one.title, one.evidence.get("reason").cloned());
            off(all).into_iter().map(finding).collect::<Vec<_>>()
        };
        let four = disabled("the errno of IPv4 binds", "inet_bind_sk: no fexit for inet_bind_sk");
        let six = disabled("the errno of IPv6 binds", "inet6_bind_sk: no fexit for inet6_bind_sk");
        let other = disabled("latency", "sk_data_ready: not there");
        assert_eq!(
            titles(&[four.clone(), other, six.clone()]),
            [
                (
                    "not observed on this host: the errno of IPv4 and IPv6 binds".to_owned(),
                    Some("inet_bind_sk, inet6_bind_sk: no fexit for inet_bind_sk".into())
                ),
                (
                    "not observed on this host: latency".to_owned(),
                    Some("sk_data_ready: not there".into())
                ),
            ]
        );
        let another = Disabled { why: "inet6_bind_sk: disabled".to_owned(), ..six };
        assert_eq!(titles(&[four, another]).len(), 2, "the reasons differ");
    }

    #[test]
    fn a_source_that_is_down_is_a_finding() {
        let mut snapshot = model::fixture::snapshot();
        let source = snapshot.sources.first_mut().expect("a source");
        (source.state, source.detail) = (SourceState::Down, Some("/x does not exist".to_owned()));
        let build = Build { version: String::new(), kernel: String::new() };
        let findings = status(&build, &snapshot).findings;
        let finding = findings.iter().find(|one| one.code == code::NAMES_MISSING).expect("PA504");
        assert_eq!(finding.title, "names from docker are missing or out of date");
        assert_eq!(finding.evidence.get("reason"), Some(&"/x does not exist".into()));
    }
}
