//! What the agent has counted of a load balancer: at its backends, and for its clients.
//!
//! Totals since the agent started, so that the difference of two readings is exact. A backend whose
//! service has a name is in `/api/v1/balance`, by address; one that is known by its address alone is
//! a server of its own in `/api/v1/edges`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use api_types::{Balance, Edge, Edges, Latency, Role};

use super::checked::Address;
use super::intent::Intent;
use crate::human;
use crate::target::Connection;

/// Fewer failures are chance.
pub(super) const FAILURES: u64 = 3;

/// Counts of one moment, or between two.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counts {
    /// What the balancer sent to each backend of the intent, by address.
    pub backends: BTreeMap<String, Back>,
    /// What clients sent to the balancer.
    pub front: Front,
}

/// Of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Back {
    /// Established connections.
    pub connections: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Requests with a response.
    pub requests: u64,
    /// Requests without one.
    pub unanswered: u64,
}

/// Of the balancer's port.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Front {
    /// Established connections.
    pub connections: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Requests with a response.
    pub requests: u64,
    /// Requests without one.
    pub unanswered: u64,
    /// How long those with a response took, together.
    pub seconds: f64,
    /// So many were timed.
    pub timed: u64,
}

/// Reads the counts of a balancer.
pub(super) struct Counter<'a> {
    /// The agent to ask.
    pub agent: &'a Connection,
    /// What it calls the balancer: `NAME` or `NAMESPACE/NAME`.
    pub balancer: &'a str,
    /// Its backends and its port.
    pub intent: &'a Intent,
}

// === impl Counter ===

impl Counter<'_> {
    /// All counts until now.
    pub(super) fn read(&self) -> anyhow::Result<Counts> {
        let balance: Balance = client::read(&self.agent.text("/api/v1/balance?window=start")?)?;
        let edges = self.edges("start")?;
        Ok(Counts { backends: self.backends(&balance, &edges), front: self.front_of(&edges) })
    }

    /// The clients' counts of a window.
    pub(super) fn front(&self, window: &str) -> anyhow::Result<Front> {
        Ok(self.front_of(&self.edges(window)?))
    }

    fn edges(&self, window: &str) -> anyhow::Result<Edges> {
        Ok(client::read(&self.agent.text(&format!("/api/v1/edges?window={window}"))?)?)
    }

    fn front_of(&self, edges: &Edges) -> Front {
        let mut front = Front::default();
        for edge in edges.edges.iter().filter(|edge| self.is_front(edge)) {
            front.add(edge);
        }
        front
    }

    fn backends(&self, balance: &Balance, edges: &Edges) -> BTreeMap<String, Back> {
        let known = self.intent.backends.iter().filter_map(|backend| match backend.address {
            Address::Socket(socket) => Some((socket.to_string(), Back::default())),
            Address::Name(..) => None,
        });
        let mut backends: BTreeMap<String, Back> = known.collect();
        let groups = balance.groups.iter().filter(|group| {
            group.role == Role::Client && self.is_balancer(&group.client_namespace, &group.client)
        });
        for seen in groups.flat_map(|group| &group.backends) {
            if let Some(back) = backends.get_mut(&seen.backend) {
                back.connections += seen.connections;
                back.failed += seen.failed;
                back.requests += seen.requests;
                back.unanswered += seen.unanswered;
            }
        }
        let sent = edges.edges.iter().filter(|edge| {
            edge.role == Role::Client && self.is_balancer(&edge.client_namespace, &edge.client)
        });
        for edge in sent {
            let Ok(address) = edge.server.parse::<IpAddr>() else { continue };
            let address = SocketAddr::new(address, edge.port).to_string();
            if let Some(back) = backends.get_mut(&address) {
                let (ok, failed) = connects(edge);
                back.connections += ok;
                back.failed += failed;
                back.requests += edge.request.count;
                back.unanswered += edge.unanswered;
            }
        }
        backends
    }

    fn is_front(&self, edge: &Edge) -> bool {
        edge.port == self.intent.listen.port()
            && self.is_balancer(&edge.server_namespace, &edge.server)
    }

    fn is_balancer(&self, namespace: &str, name: &str) -> bool {
        name == self.balancer || human::full_name(namespace, name) == self.balancer
    }
}

// === impl Counts ===

impl Counts {
    /// What was counted since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let back = |(address, now): (&String, &Back)| {
            let then = before.backends.get(address).copied().unwrap_or_default();
            (address.clone(), now.since(then))
        };
        Self {
            backends: self.backends.iter().map(back).collect(),
            front: self.front.since(before.front),
        }
    }

    /// What the shares are of: requests if there are any, else connections.
    pub(super) fn shared(&self) -> (&'static str, u64) {
        let requests: u64 = self.backends.values().map(|back| back.requests).sum();
        if requests > 0 {
            return ("request", requests);
        }
        ("connection", self.backends.values().map(|back| back.connections).sum())
    }

    /// What each backend got of that, and its share.
    pub(super) fn shares(&self) -> Vec<(&str, u64, f64)> {
        let (what, total) = self.shared();
        let is_requests = what == "request";
        let mut shares = Vec::new();
        for (address, back) in &self.backends {
            let count = if is_requests { back.requests } else { back.connections };
            shares.push((address.as_str(), count, count as f64 / total.max(1) as f64));
        }
        shares
    }
}

// === impl Back ===

impl Back {
    fn since(self, then: Self) -> Self {
        Self {
            connections: self.connections.saturating_sub(then.connections),
            failed: self.failed.saturating_sub(then.failed),
            requests: self.requests.saturating_sub(then.requests),
            unanswered: self.unanswered.saturating_sub(then.unanswered),
        }
    }
}

// === impl Front ===

impl Front {
    /// The mean time of a request; `None` if fewer than `least` were timed.
    pub(super) fn mean_seconds(&self, least: u64) -> Option<f64> {
        (self.timed >= least.max(1)).then(|| self.seconds / self.timed as f64)
    }

    /// The balancer's own side has all that reached it; what did not, its clients have.
    fn add(&mut self, edge: &Edge) {
        match edge.role {
            Role::Server => {
                let Latency { count, sum_seconds, .. } = edge.request;
                self.connections += edge.opened;
                self.requests += count;
                self.unanswered += edge.unanswered;
                self.timed += count;
                self.seconds += sum_seconds;
            }
            Role::Client => self.failed += connects(edge).1,
            Role::Listener | Role::Unknown => {}
        }
    }

    fn since(self, then: Self) -> Self {
        Self {
            connections: self.connections.saturating_sub(then.connections),
            failed: self.failed.saturating_sub(then.failed),
            requests: self.requests.saturating_sub(then.requests),
            unanswered: self.unanswered.saturating_sub(then.unanswered),
            seconds: (self.seconds - then.seconds).max(0.0),
            timed: self.timed.saturating_sub(then.timed),
        }
    }
}

/// Whether a backend refuses more than it takes, and not by chance.
pub(super) fn mostly_fail(connections: u64, failed: u64) -> bool {
    failed >= FAILURES && failed > connections
}

/// Attempts to connect that succeeded, and those that did not.
fn connects(edge: &Edge) -> (u64, u64) {
    let ok = edge.connects.get("ok").copied().unwrap_or_default();
    let all: u64 = edge.connects.values().sum();
    (ok, all.saturating_sub(ok))
}
