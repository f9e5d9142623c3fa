//! Services of several hosts: those of one name are one.
//!
//! A service counts on its own hosts, where it listens; others see it as its clients. Only clients see
//! connects that fail (decision 18).

use std::collections::BTreeMap;

use api_types::{AcceptQueue, Health, HealthReason, HealthState, ServiceStatus, Services};
use serde::Serialize;

use super::addresses::{Book, Caller, Name};
use super::edges::higher;
use super::{Combine, Host, together};

/// Below this share of connects that succeed a service is failing, as for an agent.
const FAILING: f64 = 0.5;
/// Changes that are shown.
const MOST_CHANGES: usize = 5;

/// The answer as JSON.
#[derive(Serialize)]
struct Document<'a> {
    timestamp: api_types::Timestamp,
    window: api_types::Window,
    hosts: &'a [Host],
    services: Vec<Shown<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    service: &'a ServiceStatus,
    /// Who knows it.
    hosts: Vec<&'a str>,
}

impl Combine for Services {
    fn combine(
        answers: Vec<(usize, Self)>,
        book: &Book,
        hosts: &[Host],
    ) -> serde_json::Result<(Self, String)> {
        let timestamp = answers.iter().map(|(_, one)| one.timestamp).max();
        let window = together(answers.iter().map(|(_, one)| one.window));
        let (Some(timestamp), Some(window)) = (timestamp, window) else {
            return Err(serde::ser::Error::custom("no host has answered"));
        };
        let mut found: BTreeMap<Name, Vec<(usize, ServiceStatus)>> = BTreeMap::new();
        for (host, answer) in answers {
            for mut one in answer.services {
                let called = (one.service_namespace.clone(), one.service.clone());
                match book.service(host, &called) {
                    Some(Caller::Is(service)) => {
                        one.service.clone_from(&service.name);
                        one.service_namespace.clone_from(&service.namespace);
                        (one.kind, one.source) = (service.kind, service.source);
                    }
                    // Their host has each of them.
                    Some(Caller::IsOneOfSeveral) => continue,
                    None => {}
                }
                let name = (one.service_namespace.clone(), one.service.clone());
                found.entry(name).or_default().push((host, one));
            }
        }
        let name = |host: &usize| hosts.get(*host).map(|one| &*one.host);
        let all: Vec<(ServiceStatus, Vec<usize>)> =
            found.into_values().filter_map(one_of).collect();
        let shown = all.iter().map(|(service, seen_by)| Shown {
            service,
            hosts: seen_by.iter().filter_map(name).collect(),
        });
        let document = Document { timestamp, window, hosts, services: shown.collect() };
        let json = serde_json::to_string(&document)?;
        let services = all.into_iter().map(|(service, _)| service).collect();
        Ok((Self { timestamp, window, services }, json))
    }
}

/// What several hosts have of a service, made one.
fn one_of(mut seen: Vec<(usize, ServiceStatus)>) -> Option<(ServiceStatus, Vec<usize>)> {
    // Its own hosts first, then those with the surest name.
    seen.sort_by_key(|(host, one)| (one.listens.is_empty(), one.source, *host));
    let mut seen_by: Vec<usize> = seen.iter().map(|(host, _)| *host).collect();
    seen_by.sort_unstable();
    seen_by.dedup();
    let mut seen = seen.into_iter().map(|(_, one)| one);
    let mut one = seen.next()?;
    let is_home = !one.listens.is_empty();
    for other in seen {
        // If it listens somewhere, those hosts count what reached it.
        let counts = !is_home || !other.listens.is_empty();
        for (all, more) in [
            (&mut one.listens, other.listens),
            (&mut one.serves, other.serves),
            (&mut one.registered, other.registered),
        ] {
            all.extend(more);
            all.sort();
            all.dedup();
        }
        one.registration = one.registration.or(other.registration);
        one.changes_before.extend(other.changes_before);
        add(&mut one.health, other.health, counts);
    }
    one.changes_before.sort_by_key(|change| std::cmp::Reverse(change.time));
    one.changes_before.dedup();
    one.changes_before.truncate(MOST_CHANGES);
    Some((one, seen_by))
}

/// Adds what another host says of a service; `counts` if it saw what reached the service.
fn add(health: &mut Health, other: Health, counts: bool) {
    let Health {
        state,
        reasons,
        connects_ok,
        connects_failed,
        success_ratio: _,
        requests,
        waits,
        unanswered,
        responses,
        errors,
        p50_seconds,
        p99_seconds,
        resets,
        aborts,
        listen_overflows,
        stopping,
        accept_queue,
        as_client,
    } = other;
    if counts {
        health.connects_ok += connects_ok;
        health.requests += requests;
        health.waits += waits;
        health.responses += responses;
        health.errors += errors;
        health.p50_seconds = higher(health.p50_seconds, p50_seconds);
        health.p99_seconds = higher(health.p99_seconds, p99_seconds);
    }
    health.connects_failed += connects_failed;
    for (sum, n) in [
        (&mut health.unanswered, unanswered),
        (&mut health.resets, resets),
        (&mut health.aborts, aborts),
        (&mut health.stopping, stopping),
    ] {
        // The two sides of the same connections: one may know of more.
        *sum = if counts { *sum + n } else { (*sum).max(n) };
    }
    health.listen_overflows += listen_overflows;
    health.accept_queue = fuller(health.accept_queue, accept_queue);
    health.as_client.connects_ok += as_client.connects_ok;
    health.as_client.connects_failed += as_client.connects_failed;
    health.as_client.resets += as_client.resets;
    health.reasons.extend(reasons);
    health.reasons.sort_unstable();
    health.reasons.dedup();
    let attempts = health.connects_ok + health.connects_failed;
    health.success_ratio = (attempts > 0).then(|| health.connects_ok as f64 / attempts as f64);
    // A host on which all connects fail does not make a service failing that others reach.
    let only_connects = health.reasons.iter().all(|one| *one == HealthReason::ConnectsFail);
    let worst = health.state.min(state);
    health.state = match health.success_ratio {
        Some(ratio) if ratio < FAILING => HealthState::Failing,
        Some(_) if worst == HealthState::Failing && only_connects => HealthState::Degraded,
        _ => worst,
    };
}

/// The fuller of two queues, by their own measure.
fn fuller(a: Option<AcceptQueue>, b: Option<AcceptQueue>) -> Option<AcceptQueue> {
    match (a, b) {
        (Some(a), Some(b)) => {
            // Shares, without a division.
            let is_a = u64::from(a.length) * u64::from(b.limit)
                >= u64::from(b.length) * u64::from(a.limit);
            Some(if is_a { a } else { b })
        }
        (known, None) | (None, known) => known,
    }
}
