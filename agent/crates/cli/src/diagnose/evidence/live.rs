//! What the agent has counted for one pair, and the state that it knows now.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use api_types::{Change, SegmentVerdict};
use serde::Serialize;

use super::{Name, Pair, is_noteworthy};
use crate::human;

/// Requests that take this long are slow, as for the health of services.
pub(crate) const SLOW_SECONDS: f64 = 0.5;

/// What the agent has counted in the window, and what it knows now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    /// Length of the window.
    pub(crate) seconds: f64,
    /// Attempts to connect that succeeded.
    pub(crate) ok: u64,
    /// Attempts that failed, by result, without zeros.
    pub(crate) failed: BTreeMap<String, u64>,
    /// Open connections, now.
    pub(crate) active: u64,
    /// Connections made.
    pub(crate) opened: u64,
    pub(crate) requests: u64,
    pub(crate) unanswered: u64,
    /// Responses whose status is known, and those of them that are errors of the server: protocol and
    /// status.
    pub(crate) responses: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    /// Requests that may wait on purpose (long polling).
    pub(crate) waits: u64,
    /// Request latency as the client saw it.
    pub(crate) client: Quantiles,
    /// Request latency as the server saw it; it includes what the server waits for.
    pub(crate) server: Quantiles,
    /// Request latency as the client saw it since the agent started.
    pub(crate) usual: Quantiles,
    pub(crate) rtt: Quantiles,
    /// Round-trip time since the agent started.
    pub(crate) usual_rtt: Quantiles,
    /// Retransmitted segments of established connections, of both sides.
    pub(crate) retransmits: u64,
    /// Retransmitted SYNs.
    pub(crate) syn_retransmits: u64,
    /// Segments sent, at least.
    pub(crate) segments: u64,
    /// Resets of connections by cause, without zeros.
    pub(crate) resets: BTreeMap<String, u64>,
    /// Connections that a kernel gave up, by cause, without zeros.
    pub(crate) aborts: BTreeMap<String, u64>,
    /// Connections that the other end has closed and the program has not (CLOSE_WAIT).
    pub(crate) close_wait: OfBoth,
    /// Bytes that the programs have not read; of the client, if they are more than it receives in a
    /// while.
    pub(crate) unread: OfBoth,
    /// Connection requests that listeners of the port dropped.
    pub(crate) listen_drops: u64,
    /// Where the client connects to, the busiest first.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Whether the server is on this host.
    pub(crate) is_here: bool,
    /// Whether the agent knows what listens on this host; it needs a hook for that.
    pub(crate) sees_listeners: bool,
    /// Sockets that listen on the port, in the server's network namespace.
    pub(crate) listeners: Vec<Listening>,
    /// Share of the client's local ports in use.
    pub(crate) local_ports: Option<f64>,
    /// What changed at the two services in the ten minutes before, latest first.
    pub(crate) changes: Vec<Changed>,
    /// What the server itself connects to.
    pub(crate) dependencies: Vec<Hop>,
    /// Other edges of the client or the server, with their share of retransmitted segments.
    pub(crate) others: Vec<(String, f64)>,
    /// The backend whose share of the client's load is furthest off, if the load is uneven.
    pub(crate) uneven: Option<Uneven>,
    /// Whether segments are declared.
    pub(crate) has_segments: bool,
    /// Segments of client and server, and the verdict of the rules, if it is known.
    pub(crate) segments_of: Option<(String, String, SegmentVerdict)>,
    /// The user who may have faked this.
    pub(crate) unverified_user: Option<u32>,
}

/// A count of each of the two programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OfBoth {
    pub(crate) client: u64,
    pub(crate) server: u64,
}

/// A backend that gets more or less than its share.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Uneven {
    /// Its address, and the container or pod if that is known.
    pub(crate) backend: String,
    /// What is shared: `requests` or `connections`.
    pub(crate) what: &'static str,
    /// Its part of the whole, 0 to 1, and the expected one.
    pub(crate) share: f64,
    pub(crate) expected: f64,
}

/// Quantiles in seconds, if anything was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Quantiles {
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listening {
    pub(crate) address: IpAddr,
    pub(crate) v6_only: bool,
    pub(crate) backlog: u32,
    pub(crate) max_backlog: u32,
    pub(crate) pid: u32,
    pub(crate) command: String,
}

/// A change, and how long ago it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Changed {
    /// The service.
    pub(crate) service: String,
    /// For programs.
    pub(crate) cause: String,
    /// In words.
    pub(crate) text: String,
    pub(crate) seconds_ago: f64,
}

/// An edge on the way: of a gateway, of a caller, to a dependency.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Hop {
    pub(crate) client: String,
    pub(crate) server: String,
    pub(crate) port: u16,
    /// Requests per second.
    pub(crate) requests_per_second: f64,
    pub(crate) p50_seconds: Option<f64>,
    pub(crate) p99_seconds: Option<f64>,
    /// Attempts to connect, and requests, in the window.
    pub(crate) attempts: u64,
    pub(crate) requests: u64,
    /// Attempts that failed, without those of a server that stops.
    pub(crate) failed: u64,
    pub(crate) unanswered: u64,
    /// Responses whose status is known, and those of them that are errors.
    pub(crate) responses: u64,
    pub(crate) errors: u64,
    /// Requests that may wait on purpose (long polling).
    #[serde(skip)]
    pub(crate) waits: u64,
    /// What is wrong, in words.
    pub(crate) why: String,
}

// === impl Live ===

impl Live {
    /// Attempts that failed with one of these results.
    pub(crate) fn failed(&self, results: &[&str]) -> u64 {
        results.iter().filter_map(|result| self.failed.get(*result)).sum()
    }

    /// All attempts that ended, without those that a stopping server refused.
    pub(crate) fn attempts(&self) -> u64 {
        let stopping = self.failed(&["stopping"]);
        self.ok + self.failed.values().sum::<u64>() - stopping
    }

    /// The share of segments that were retransmitted.
    pub(crate) fn loss(&self) -> f64 {
        if self.segments == 0 { 0.0 } else { self.retransmits as f64 / self.segments as f64 }
    }

    /// Whether anything happened in the window.
    pub(crate) fn is_busy(&self) -> bool {
        self.attempts() + self.requests + self.unanswered + self.active + self.opened > 0
    }

    /// The latest change of the server with one of these causes.
    pub(crate) fn change(&self, server: &Name, causes: &[&str]) -> Option<&Changed> {
        let full = human::full_name(&server.namespace, &server.name);
        let is_it =
            |change: &&Changed| change.service == full && causes.contains(&change.cause.as_str());
        self.changes.iter().find(is_it)
    }
}

// === impl OfBoth ===

impl OfBoth {
    /// The larger one, with the name of its program and that of the other.
    pub(crate) fn worst(self, pair: &Pair) -> (u64, String, String) {
        let (client, server) = (pair.client(), pair.server.to_string());
        if self.client > self.server {
            (self.client, client, server)
        } else {
            (self.server, server, client)
        }
    }
}

// === impl Listening ===

impl Listening {
    /// Whether the next connection request is dropped: the kernel admits one more than the limit.
    pub(crate) const fn is_full(&self) -> bool {
        self.backlog > self.max_backlog
    }

    /// How many more connections may wait: the kernel admits one more than the limit.
    pub(crate) const fn free(&self) -> u32 {
        self.max_backlog.saturating_add(1).saturating_sub(self.backlog)
    }

    /// Whether a connection to `address` reaches it.
    pub(crate) fn accepts(&self, address: IpAddr) -> bool {
        if self.address.is_unspecified() {
            return match (self.address, address) {
                (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => true,
                (IpAddr::V6(_), IpAddr::V4(_)) => !self.v6_only,
                (IpAddr::V4(_), IpAddr::V6(_)) => false,
            };
        }
        self.address == address
    }
}

// === impl Changed ===

impl Changed {
    /// A change as of `now`.
    pub(crate) fn of(change: &Change, now: api_types::Timestamp) -> Self {
        Self {
            service: human::full_name(&change.service_namespace, &change.service),
            cause: change.cause.clone(),
            text: change.text.clone(),
            seconds_ago: now.seconds_since(change.time).max(0.0),
        }
    }
}

// === impl Hop ===

impl Hop {
    /// Whether a noteworthy share fails.
    pub(crate) fn is_failing(&self) -> bool {
        is_noteworthy(self.failed, self.attempts)
            || is_noteworthy(self.unanswered, self.requests + self.unanswered)
            || is_noteworthy(self.errors, self.responses)
    }

    /// Whether its requests take long, and not on purpose.
    pub(crate) fn is_slow(&self) -> bool {
        self.p99_seconds.is_some_and(|p99| p99 >= SLOW_SECONDS)
            && !is_polling(self.waits, self.requests, self.p50_seconds)
    }

    /// How it is: never by colour alone.
    pub(crate) fn mark(&self) -> char {
        match (self.is_failing(), self.is_slow()) {
            (true, _) => '✗',
            (false, true) => '!',
            (false, false) => '✓',
        }
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, server, port, requests_per_second, p99_seconds, why, .. } = self;
        let server = if *port == 0 { server.clone() } else { format!("{server}:{port}") };
        write!(f, "{client} → {server}  {} requests/s", human::rate(*requests_per_second))?;
        if p99_seconds.is_some() {
            write!(f, ", p99 {}", human::quantile(*p99_seconds))?;
        }
        if why.is_empty() { Ok(()) } else { write!(f, ", {why}") }
    }
}

/// Whether requests wait on purpose: few of them wait, and others are fast.
pub(crate) fn is_polling(waits: u64, requests: u64, p50: Option<f64>) -> bool {
    waits > 0
        && waits.saturating_mul(100) >= requests
        && p50.is_some_and(|p50| p50 < SLOW_SECONDS / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_is_marked_as_slow_unless_it_waits_on_purpose() {
        let check = |p50, waits, failed, expected| {
            let (p50_seconds, p99_seconds) = (Some(p50), Some(0.9));
            let (attempts, requests) = (10, 100);
            let hop = Hop {
                p50_seconds,
                p99_seconds,
                attempts,
                requests,
                failed,
                waits,
                ..Hop::default()
            };
            assert_eq!(hop.mark(), expected, "{hop:?}");
        };
        check(0.7, 0, 0, '!');
        check(0.7, 90, 0, '!');
        check(0.002, 20, 0, '✓');
        check(0.7, 0, 5, '✗');
        assert_eq!(Hop { p99_seconds: Some(0.1), ..Hop::default() }.mark(), '✓');
    }

    #[test]
    fn a_listener_accepts_what_its_address_covers() {
        let check = |address: &str, v6_only, wanted: &str, expected| {
            let one = Listening {
                address: address.parse().expect("an address"),
                v6_only,
                backlog: 0,
                max_backlog: 8,
                pid: 1,
                command: String::new(),
            };
            assert_eq!(one.accepts(wanted.parse().expect("an address")), expected, "{address}");
        };
        check("0.0.0.0", false, "10.0.0.1", true);
        check("0.0.0.0", false, "fd00::1", false);
        check("::", false, "10.0.0.1", true);
        check("::", true, "10.0.0.1", false);
        check("127.0.0.1", false, "10.0.0.1", false);
        check("10.0.0.1", false, "10.0.0.1", true);
    }
}
