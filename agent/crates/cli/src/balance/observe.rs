//! A load balancer's intent from what the agent has observed of a service.
//!
//! Pure: answers of the API in, backends and settings with their figures out.

use std::collections::BTreeMap;
use std::time::Duration;

use api_types::{Balance, Edge, Edges, Role, ServiceStatus, Services, Timeouts};
use notation::duration::text as time;

use super::checked::Address;
use super::counts::mostly_fail;
use super::intent::{Algorithm, Backend, Intent, MOST_WEIGHT, Setting};
use crate::human;

/// So many requests without a response, and more than half, do it too.
const UNANSWERED: u64 = 10;
/// Below this number a quantile says little.
const REQUESTS: u64 = 20;

/// What the agent knows of a service.
pub(super) struct Observed {
    pub balance: Balance,
    pub edges: Edges,
    pub timeouts: Timeouts,
    pub services: Services,
}

/// The endpoints of a service on one port.
pub(super) struct Endpoints {
    /// Its name without namespace.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// Its port.
    pub port: u16,
    /// The healthy ones, by address.
    pub backends: Vec<Backend>,
    /// Why `backends` are those.
    pub reason: String,
    /// Those that are left out, and why.
    pub remarks: Vec<String>,
}

#[derive(Default)]
struct Tally {
    connections: u64,
    failed: u64,
    requests: u64,
    unanswered: u64,
    expected: f64,
    registered: bool,
}

// === impl Observed ===

impl Observed {
    /// The endpoints of `wanted` (`NAME` or `NAMESPACE/NAME`) on `port`, or on its only one.
    pub(super) fn endpoints(&self, wanted: &str, port: Option<u16>) -> Result<Endpoints, String> {
        let (namespace, service) = self.service(wanted)?;
        let mut ports: BTreeMap<u16, BTreeMap<Address, Tally>> = BTreeMap::new();
        let groups = self.balance.groups.iter();
        for group in groups.filter(|g| g.server == service && g.server_namespace == namespace) {
            for seen in &group.backends {
                // "other": those beyond the limit of the table.
                let Ok(address) = seen.backend.parse::<Address>() else { continue };
                let tally = ports.entry(group.port).or_default().entry(address).or_default();
                tally.connections += seen.connections;
                tally.failed += seen.failed;
                tally.requests += seen.requests;
                tally.unanswered += seen.unanswered;
                tally.expected = tally.expected.max(seen.expected_share);
            }
        }
        let registered = self.services.services.iter();
        let registered =
            registered.filter(|s| s.service == service && s.service_namespace == namespace);
        for text in registered.flat_map(|service| &service.registered) {
            // Networks and ports alone are no endpoints.
            if let Ok(address @ Address::Socket(socket)) = text.parse::<Address>() {
                let tally = ports.entry(socket.port()).or_default().entry(address).or_default();
                tally.registered = true;
            }
        }
        let full = human::full_name(&namespace, &service);
        let (port, tallies) = chosen(&full, ports, port)?;
        let (backends, remarks) = healthy(&tallies);
        if backends.is_empty() {
            return Err(format!(
                "no endpoint of {full} on port {port} is healthy: {}; write the backends into a file for --spec",
                remarks.join("; ")
            ));
        }
        let seen: u64 = tallies.values().map(|tally| tally.connections + tally.requests).sum();
        let reason = format!(
            "{} of {full}:{port}, {} of traffic in the last {}",
            human::counted(backends.len() as u64, "endpoint"),
            human::counted(seen, "sample"),
            human::span(self.balance.window.seconds)
        );
        Ok(Endpoints { service, namespace, port, backends, reason, remarks })
    }

    /// Sets what follows from the observed times, each with its figures.
    pub(super) fn apply(&self, endpoints: &Endpoints, intent: &mut Intent) {
        intent.reasons.insert(Setting::Backends, endpoints.reason.clone());
        intent.remarks.extend(endpoints.remarks.iter().cloned());
        let is_loopback = |backend: &Backend| match &backend.address {
            Address::Socket(socket) => socket.ip().is_loopback(),
            Address::Name(..) => false,
        };
        if endpoints.backends.iter().any(is_loopback) {
            intent.remarks.push("loopback addresses are the backends' only for a balancer in their network namespace".to_owned());
        }
        let edges: Vec<&Edge> = self
            .edges
            .edges
            .iter()
            .filter(|edge| {
                edge.server == endpoints.service
                    && edge.server_namespace == endpoints.namespace
                    && edge.port == endpoints.port
                    && matches!(edge.role, Role::Client | Role::Server)
                    && !edge.other_side
            })
            .collect();
        let span = human::span(self.edges.window.seconds);
        request_times(&edges, &span, intent);
        connect_times(&edges, &span, intent);
        let active: u64 = edges.iter().map(|edge| edge.active).sum();
        if active > 0 {
            let kept =
                u32::try_from(active).unwrap_or(u32::MAX).clamp(16, 4096).next_power_of_two();
            intent.keep_alive.connections = kept;
            let reason = format!("{} open now, rounded up", human::counted(active, "connection"));
            intent.reasons.insert(Setting::Connections, reason);
        }
        self.idle_times(endpoints, intent);
    }

    fn idle_times(&self, endpoints: &Endpoints, intent: &mut Intent) {
        let edges = self.timeouts.edges.iter().filter(|edge| {
            edge.server == endpoints.service
                && edge.server_namespace == endpoints.namespace
                && edge.port == endpoints.port
        });
        let mut closes: Option<(f64, u64)> = None;
        let mut used: Option<f64> = None;
        for edge in edges {
            if let Some(seconds) = edge.server_timeout_seconds
                && closes.is_none_or(|(least, _)| seconds < least)
            {
                closes = Some((seconds, edge.closed_by_server.count));
            }
            for seconds in [edge.client_timeout_seconds, edge.reuse.longest_seconds] {
                used = seconds.into_iter().chain(used).reduce(f64::max);
            }
        }
        if let Some((seconds, count)) = closes {
            intent.keep_alive.backend_idle = rounded(seconds * 0.8, 0.1);
            let reason = format!(
                "shorter than the {} after which {} closes idle connections ({count} seen): 4/5 of it",
                human::duration(seconds),
                endpoints.service
            );
            intent.reasons.insert(Setting::BackendIdle, reason);
        } else {
            let reason = "when the backends close idle connections was not observed; Node.js does after 5 s, most others later";
            intent.reasons.insert(Setting::BackendIdle, reason.to_owned());
        }
        if let Some(seconds) = used
            && seconds * 1.25 > intent.keep_alive.client_idle.as_secs_f64()
        {
            intent.keep_alive.client_idle = rounded(seconds * 1.25, 1.0);
            let reason = format!(
                "longer than the {} for which clients keep connections: 5/4 of it",
                human::duration(seconds)
            );
            intent.reasons.insert(Setting::ClientIdle, reason);
        }
    }

    /// Namespace and name of the only service that is called so.
    fn service(&self, wanted: &str) -> Result<(String, String), String> {
        let is_it = |namespace: &str, name: &str| {
            name == wanted || human::full_name(namespace, name) == wanted
        };
        let status = |one: &ServiceStatus| (one.service_namespace.clone(), one.service.clone());
        let mut found: Vec<(String, String)> = self.services.services.iter().map(status).collect();
        let groups = self.balance.groups.iter();
        found.extend(groups.map(|g| (g.server_namespace.clone(), g.server.clone())));
        found.retain(|(namespace, name)| is_it(namespace, name));
        found.sort();
        found.dedup();
        match found.as_slice() {
            [] => Err(format!(
                "no traffic to {wanted} was observed; write the backends into a file for --spec"
            )),
            [one] => Ok(one.clone()),
            many => {
                let names: Vec<String> = many
                    .iter()
                    .map(|(namespace, name)| human::full_name(namespace, name))
                    .collect();
                Err(format!("{wanted} is ambiguous; write one of {}", names.join(", ")))
            }
        }
    }
}

fn chosen(
    service: &str,
    mut ports: BTreeMap<u16, BTreeMap<Address, Tally>>,
    port: Option<u16>,
) -> Result<(u16, BTreeMap<Address, Tally>), String> {
    let listed = ports.keys().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let port = match (port, ports.len()) {
        (_, 0) => {
            return Err(format!(
                "no endpoint of {service} is known: nothing has connected to it; let traffic flow, register endpoints (`portolan services register`) or use --spec"
            ));
        }
        (Some(port), _) => port,
        (None, 1) => ports.keys().next().copied().unwrap_or_default(),
        (None, _) => return Err(format!("{service} has several ports ({listed}); add --port N")),
    };
    match ports.remove(&port) {
        Some(tallies) => Ok((port, tallies)),
        None => Err(format!("{service} was not seen on port {port}, but on {listed}")),
    }
}

/// The healthy endpoints, weighted as declared; and why the others are not among them.
fn healthy(tallies: &BTreeMap<Address, Tally>) -> (Vec<Backend>, Vec<String>) {
    let mut remarks = Vec::new();
    let mut healthy = Vec::new();
    for (address, tally) in tallies {
        let Tally { connections, failed, requests, unanswered, expected, registered } = tally;
        let asked = requests + unanswered;
        if mostly_fail(*connections, *failed) {
            let all = connections + failed;
            remarks.push(format!("{address} is left out: {failed} of {all} connects failed"));
        } else if *unanswered >= UNANSWERED && unanswered * 2 > asked {
            remarks.push(format!(
                "{address} is left out: {unanswered} of {asked} requests had no response"
            ));
        } else {
            if connections + requests == 0 {
                let how = if *registered { "registered" } else { "declared" };
                remarks.push(format!("{address} is {how}; no traffic to it was observed"));
            }
            healthy.push((address.clone(), *expected));
        }
    }
    let weights = weights(&healthy.iter().map(|(_, expected)| *expected).collect::<Vec<_>>());
    let backend = |((address, _), weight)| Backend { address, weight, backup: false };
    (healthy.into_iter().zip(weights).map(backend).collect(), remarks)
}

/// Small whole numbers in the proportion of these shares; without a share the weight is 1.
fn weights(shares: &[f64]) -> Vec<u32> {
    let least = shares.iter().copied().filter(|share| *share > 0.0).reduce(f64::min);
    let Some(least) = least else { return vec![1; shares.len()] };
    let ratios: Vec<f64> =
        shares.iter().map(|share| if *share > 0.0 { share / least } else { 1.0 }).collect();
    let scaled = |factor: u32| -> Vec<f64> {
        ratios.iter().map(|ratio| ratio * f64::from(factor)).collect()
    };
    let is_close = |values: &Vec<f64>| values.iter().all(|v| (v - v.round()).abs() < 0.01 * v);
    let values = (1..=20).map(scaled).find(is_close).unwrap_or_else(|| scaled(10));
    values.iter().map(|value| (value.round() as u32).clamp(1, MOST_WEIGHT)).collect()
}

/// How long to wait for a response, and whether requests are alike.
fn request_times(edges: &[&Edge], span: &str, intent: &mut Intent) {
    let count: u64 = edges.iter().map(|edge| edge.request.count).sum();
    let worst = |of: fn(&Edge) -> Option<f64>| {
        edges
            .iter()
            .filter(|edge| edge.request.count >= REQUESTS)
            .filter_map(|e| of(e))
            .reduce(f64::max)
    };
    let Some(p99) = worst(|edge| edge.request.p99_seconds) else { return };
    let figures = format!(
        "p99 {} of {}, last {span}",
        human::quantile(Some(p99)),
        human::counted(count, "request")
    );
    // Beyond ten seconds a quantile says only that.
    if p99 < 6.0 {
        let wait = rounded((p99 * 10.0).max(5.0), 1.0);
        intent.timeouts.request = wait;
        let why = if p99 * 10.0 < 5.0 { "5 s at least" } else { "10 times" };
        intent.reasons.insert(Setting::Request, format!("{why}: {figures}"));
    } else {
        intent.reasons.insert(
            Setting::Request,
            format!("10 times would be more than {}: {figures}", time(intent.timeouts.request)),
        );
    }
    let median = worst(|edge| edge.request.p50_seconds).unwrap_or_default();
    if p99 >= 0.1 && p99 >= 10.0 * median {
        intent.algorithm = Algorithm::LeastConnections;
        let reason = format!(
            "requests differ much in length: p50 {}, {figures}",
            human::quantile(Some(median))
        );
        intent.reasons.insert(Setting::Algorithm, reason);
    } else {
        let reason = format!(
            "requests are short or alike: p50 {}, {figures}",
            human::quantile(Some(median))
        );
        intent.reasons.insert(Setting::Algorithm, reason);
    }
}

fn connect_times(edges: &[&Edge], span: &str, intent: &mut Intent) {
    let count: u64 = edges.iter().map(|edge| edge.connect.count).sum();
    let p99 = edges.iter().filter_map(|edge| edge.connect.p99_seconds).reduce(f64::max);
    let Some(p99) = p99 else { return };
    // A lost SYN is sent again after one second: below that a connect has no second chance.
    let wait = rounded((p99 * 10.0).clamp(2.0, 10.0), 1.0);
    intent.timeouts.connect = wait;
    let reason = format!(
        "10 times, 2 s at least for a second SYN: p99 {} of {}, last {span}",
        human::quantile(Some(p99)),
        human::counted(count, "connect")
    );
    intent.reasons.insert(Setting::Connect, reason);
}

/// Down to a multiple of `step` seconds, and at least one step.
fn rounded(seconds: f64, step: f64) -> Duration {
    // A quotient like 39.99999 is meant as 40.
    let steps = (seconds / step + 1e-6).floor().max(1.0);
    Duration::from_millis((steps * step * 1000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_small_whole_weights() {
        let check =
            |shares: &[f64], expected: &[u32]| assert_eq!(weights(shares), expected, "{shares:?}");
        check(&[0.5, 0.5], &[1, 1]);
        check(&[10.0 / 11.0, 1.0 / 11.0], &[10, 1]);
        check(&[0.4, 0.6], &[2, 3]);
        check(&[0.0, 0.6], &[1, 1]);
        check(&[0.999, 0.001], &[MOST_WEIGHT, 1]);
        check(&[], &[]);
    }

    #[test]
    fn an_endpoint_that_fails_is_left_out_with_its_figures() {
        let tally = |connections, failed, requests, unanswered| Tally {
            connections,
            failed,
            requests,
            unanswered,
            expected: 0.2,
            registered: false,
        };
        let tallies = BTreeMap::from([
            ("10.0.0.1:80".parse().expect("an address"), tally(5, 2, 100, 0)),
            ("10.0.0.2:80".parse().expect("an address"), tally(1, 9, 2, 0)),
            ("10.0.0.3:80".parse().expect("an address"), tally(5, 0, 10, 30)),
            ("10.0.0.4:80".parse().expect("an address"), tally(0, 0, 0, 0)),
        ]);
        let (backends, remarks) = healthy(&tallies);
        let kept: Vec<String> = backends.iter().map(|one| one.address.to_string()).collect();
        assert_eq!(kept, ["10.0.0.1:80", "10.0.0.4:80"]);
        assert_eq!(
            remarks,
            [
                "10.0.0.2:80 is left out: 9 of 10 connects failed",
                "10.0.0.3:80 is left out: 30 of 40 requests had no response",
                "10.0.0.4:80 is declared; no traffic to it was observed",
            ]
        );
    }

    #[test]
    fn times_are_rounded_down_but_never_to_nothing() {
        assert_eq!(rounded(4.0, 0.1), Duration::from_secs(4));
        assert_eq!(rounded(4.008, 0.1), Duration::from_secs(4));
        assert_eq!(rounded(0.01, 0.1), Duration::from_millis(100));
    }
}
