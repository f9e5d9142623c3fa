//! Balance: how a service's connections and requests spread over the backends of another.
//!
//! The share of a backend is its part of what all backends of the same client, server and port got
//! within a window. The expected share is even, or follows the declared weights. The deviation is
//! the difference, in parts of the whole: 0.05 is five percentage points.
//!
//! Chance alone moves shares: with n samples a backend with the expected share p has a standard
//! deviation of √(p(1-p)/n). Below the number for which twice that is the tolerance, a balance is
//! unbalanced only if it is off by three standard deviations more than that; otherwise there are
//! too few samples.

mod known;
mod weights;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::known::Known;
pub use self::weights::Weights;
use super::relations::{Backend, MAX_BACKENDS, RelationsView, ServiceName};
use super::service::Service;
use super::snapshot::Role;

/// Up to this deviation a service is balanced.
pub const TOLERANCE: f64 = 0.05;

/// The backends of one server for one client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The client.
    pub client: ServiceName,
    /// The server.
    pub server: ServiceName,
    /// The server's port.
    pub port: u16,
    /// The side that counted: the client's, or the server's for clients of other hosts.
    pub role: Role,
    /// The backends, by their address.
    pub backends: Vec<Share>,
    /// How connections spread.
    pub connections: Spread,
    /// How requests spread.
    pub requests: Spread,
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Address and port; `other` for those beyond the cap.
    pub backend: String,
    /// The pod or container with the address, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Expected share, 0 to 1.
    pub expected_share: f64,
    /// Connections in the window.
    pub connections: u64,
    /// Their part of all connections; null without any.
    pub connections_share: Option<f64>,
    /// Attempts to connect to it that failed.
    pub failed: u64,
    /// Requests in the window.
    pub requests: u64,
    /// Their part of all requests; null without any.
    pub requests_share: Option<f64>,
    /// Requests that it did not answer.
    pub unanswered: u64,
}

/// What one backend got.
#[derive(Clone, Copy, Debug, Default)]
struct Got {
    connections: u64,
    failed: u64,
    requests: u64,
    unanswered: u64,
}

/// How something spreads over backends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// All of it in the window.
    pub total: u64,
    /// Below this, chance alone may move a share by the tolerance.
    pub minimum: u64,
    /// The largest deviation of a backend from its expected share; null without samples.
    pub deviation: Option<f64>,
    /// The verdict.
    pub verdict: Verdict,
}

/// The verdict on a spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every share is within the tolerance.
    Balanced,
    /// Some share is not.
    Unbalanced,
    /// Too few samples to exclude chance.
    TooFew,
}

/// The balance of every named service of `view` in the last `window` seconds, or since the start,
/// and the seconds really covered. Known backends without traffic have zero.
pub fn groups(
    view: &RelationsView,
    window: Option<u64>,
    weights: &Weights,
    known: &Known,
) -> (Vec<Group>, u64) {
    type Key<'a> = (&'a ServiceName, &'a ServiceName, u16, Role);
    let mut groups: BTreeMap<Key<'_>, BTreeMap<Backend, Got>> = BTreeMap::new();
    // The overflow row stands for many servers.
    let many = ServiceName::from(&Service::other());
    let counted = view.rows.iter().filter(|(relation, _)| relation.counts && relation.named);
    let counted = counted.filter(|(relation, _)| relation.server != many);
    for (relation, history) in counted.filter(|(relation, _)| relation.role != Role::Unknown) {
        let key = (&relation.client, &relation.server, relation.port, relation.role);
        let got = groups.entry(key).or_default().entry(relation.backend).or_default();
        let tally = history.within(view.now, window);
        got.connections += tally.connections;
        got.failed += tally.failed;
        got.requests += tally.requests.count();
        got.unanswered += tally.unanswered;
    }
    let groups = groups.into_iter().map(|((client, server, port, role), mut backends)| {
        // Traffic from clients of other hosts is counted there.
        if role == Role::Client {
            for backend in known.there(server, port, &backends) {
                if backends.len() < MAX_BACKENDS {
                    backends.entry(backend).or_default();
                }
            }
        }
        let (client, server) = (client.clone(), server.clone());
        group((client, server, port, role), &backends, weights, known)
    });
    (groups.collect(), view.seconds(window))
}

fn group(
    (client, server, port, role): (ServiceName, ServiceName, u16, Role),
    backends: &BTreeMap<Backend, Got>,
    weights: &Weights,
    known: &Known,
) -> Group {
    let weight = |backend: &Backend| f64::from(weights.of(backend));
    // If all weights are zero, expect an even spread.
    let sum: f64 = backends.keys().map(weight).sum();
    let even = 1.0 / backends.len() as f64;
    let expected = |backend: &Backend| if sum > 0.0 { weight(backend) / sum } else { even };
    let connections: u64 = backends.values().map(|got| got.connections).sum();
    let requests: u64 = backends.values().map(|got| got.requests).sum();
    let part = |n: u64, of: u64| (of > 0).then(|| n as f64 / of as f64);
    let shares: Vec<Share> = backends
        .iter()
        .map(|(backend, got)| Share {
            backend: backend.to_string(),
            instance: backend.ip().and_then(|ip| known.instances.get(&ip)).map(ToString::to_string),
            expected_share: expected(backend),
            connections: got.connections,
            connections_share: part(got.connections, connections),
            failed: got.failed,
            requests: got.requests,
            requests_share: part(got.requests, requests),
            unanswered: got.unanswered,
        })
        .collect();
    let spread = |total, of: fn(&Share) -> Option<f64>| Spread::new(total, &shares, of);
    Group {
        client,
        server,
        port,
        role,
        connections: spread(connections, |share| share.connections_share),
        requests: spread(requests, |share| share.requests_share),
        backends: shares,
    }
}

// === impl Spread ===

impl Spread {
    fn new(total: u64, shares: &[Share], of: fn(&Share) -> Option<f64>) -> Self {
        let deviation = |share: &Share| of(share).map(|part| (part - share.expected_share).abs());
        let deviation = shares.iter().filter_map(deviation).reduce(f64::max);
        let variance = |share: &Share| share.expected_share * (1.0 - share.expected_share);
        let variance = shares.iter().map(variance).fold(0.0, f64::max);
        let minimum = ((4.0 * variance / (TOLERANCE * TOLERANCE)).round() as u64).max(1);
        let by_chance = if total >= minimum { 0.0 } else { 3.0 * (variance / total as f64).sqrt() };
        let verdict = match deviation {
            // A share of 55 % where 50 % is expected is within five points, whatever its last bit.
            Some(deviation) if deviation > TOLERANCE + by_chance + f64::EPSILON => {
                Verdict::Unbalanced
            }
            Some(_) if total >= minimum => Verdict::Balanced,
            _ => Verdict::TooFew,
        };
        Self { total, minimum, deviation, verdict }
    }
}

// === impl Verdict ===

impl Verdict {
    /// As it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Unbalanced => "unbalanced",
            Self::TooFew => "too few",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relations::tests::{after, edge, labels};
    use proptest::prelude::*;
    use std::net::SocketAddr;

    fn balance(requests: &[u64], weights: &Weights) -> Group {
        let edges = requests
            .iter()
            .enumerate()
            .map(|(i, n)| edge(4 + i as u32, 2, &format!("10.0.0.{}", i + 2), *n / 10, *n))
            .collect();
        let view = after(&[(edges, labels("web", "api"))]);
        let (mut groups, _) = groups(&view, Some(300), weights, &Known::default());
        assert_eq!(groups.len(), 1);
        groups.remove(0)
    }

    #[test]
    fn even_shares_are_balanced_and_skewed_ones_are_not() {
        let check = |requests: &[u64], expected: Verdict| {
            let group = balance(requests, &Weights::default());
            assert_eq!(group.requests.verdict, expected, "{requests:?}: {:?}", group.requests);
        };
        check(&[500, 500], Verdict::Balanced);
        check(&[550, 450], Verdict::Balanced);
        check(&[551, 449], Verdict::Unbalanced);
        check(&[1000, 100], Verdict::Unbalanced);
        check(&[200, 200], Verdict::Balanced);
        check(&[200, 199], Verdict::TooFew);
        // Chance does not give one of two all but one of 41, nor three quarters of ninety.
        check(&[40, 1], Verdict::Unbalanced);
        check(&[10, 1], Verdict::TooFew);
        check(&[68, 22], Verdict::Unbalanced);
        check(&[54, 36], Verdict::TooFew);
        check(&[1000], Verdict::Balanced);
    }

    #[test]
    fn declared_weights_are_what_is_due() {
        let mut weights = Weights::default();
        weights.insert("10.0.0.2".parse().expect("an address"), Some(80), 10);
        let group = balance(&[1000, 100], &weights);
        assert_eq!(group.requests.verdict, Verdict::Balanced);
        assert!(group.requests.deviation.expect("samples") < 1e-9);
        assert_eq!((group.connections.total, group.connections.minimum), (110, 132));
        assert_eq!(group.connections.verdict, Verdict::TooFew);
        assert_eq!(balance(&[500, 500], &weights).requests.verdict, Verdict::Unbalanced);
        // A port of its own beats the address.
        weights.insert("10.0.0.2".parse().expect("an address"), None, 1);
        assert_eq!(balance(&[1000, 100], &weights).requests.verdict, Verdict::Balanced);
        assert_eq!(weights.declared(), ["10.0.0.2 = 1", "10.0.0.2:80 = 10"]);
    }

    #[test]
    fn a_window_without_samples_has_no_verdict() {
        let mut view = after(&[(vec![edge(4, 2, "10.0.0.2", 9, 900)], labels("web", "api"))]);
        view.now += 1000;
        let (groups, _) = groups(&view, Some(300), &Weights::default(), &Known::default());
        assert_eq!((groups[0].requests.total, groups[0].requests.deviation), (0, None));
        assert_eq!(groups[0].requests.verdict, Verdict::TooFew);
        assert_eq!(groups[0].backends[0].requests_share, None);
    }

    #[test]
    fn a_backend_without_traffic_is_listed_with_zero_unless_it_is_unknown() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let api = ServiceName { namespace: "".into(), name: "api".into() };
        let view = after(&[(vec![edge(4, 2, "10.0.0.2", 90, 900)], labels("web", "api"))]);
        let mut known = Known::default();
        known.add(api.clone(), address("10.0.0.2:80"));
        known.add(api.clone(), address("10.0.0.3:80"));
        known.add(api, address("10.0.0.4:8080"));
        known.call(address("10.0.0.3:80").ip(), "api-1".into());
        let (found, _) = groups(&view, Some(300), &Weights::default(), &known);
        let shares: Vec<_> = found[0]
            .backends
            .iter()
            .map(|share| (share.backend.as_str(), share.instance.as_deref(), share.requests))
            .collect();
        assert_eq!(shares, [("10.0.0.2:80", None, 900), ("10.0.0.3:80", Some("api-1"), 0)]);
        assert_eq!(found[0].requests.deviation, Some(0.5));
        assert_eq!(found[0].requests.verdict, Verdict::Unbalanced);
        // A backend with weight zero and no traffic.
        let mut weights = Weights::default();
        weights.insert("10.0.0.3".parse().expect("an address"), None, 0);
        let (found, _) = groups(&view, Some(300), &weights, &known);
        assert_eq!(found[0].requests.verdict, Verdict::Balanced);
        // Backends answer for it.
        known.add_front(address("10.0.0.2:80"));
        let (found, _) = groups(&view, Some(300), &Weights::default(), &known);
        assert_eq!(found[0].backends.len(), 1);
    }

    proptest! {
        #[test]
        fn shares_are_parts_of_a_whole(
            requests in prop::collection::vec(0u64..2000, 1..8),
            weight in 0u32..20,
        ) {
            prop_assume!(requests.iter().sum::<u64>() > 0);
            let mut weights = Weights::default();
            weights.insert("10.0.0.2".parse().expect("an address"), None, weight);
            let group = balance(&requests, &weights);
            let sum = |of: fn(&Share) -> f64| group.backends.iter().map(of).sum::<f64>();
            prop_assert!((sum(|share| share.requests_share.unwrap_or(0.0)) - 1.0).abs() < 1e-9);
            prop_assert!((sum(|share| share.expected_share) - 1.0).abs() < 1e-9);
            prop_assert!(group.requests.deviation.expect("samples") <= 1.0);
        }
    }
}
