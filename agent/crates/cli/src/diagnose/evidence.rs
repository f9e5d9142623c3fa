//! What is known of one pair of services and a port: from the agent, from probes, from the host.
//!
//! Every part may be missing. [`verdict`](super::verdict) and [`steps`](super::steps) read nothing
//! else, so both are functions of this.
//! Long because each part of the evidence is a small type of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use api_types::{Change, SegmentVerdict};
use linux::hops::Hop as Passed;
use serde::Serialize;

use crate::human;

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) struct Name {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// Who connects to whom. Without a client it is the command itself that connects.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Pair {
    pub(super) client: Option<Name>,
    pub(super) server: Name,
    pub(super) port: u16,
}

/// All that is known of a pair.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    pub(super) pair: Pair,
    /// What the agent has counted; `None` without an agent, or if it has not seen the pair.
    pub(super) live: Option<Live>,
    pub(super) probes: Probes,
    pub(super) host: Host,
    /// Full tables of connection tracking; looked for if connects time out.
    pub(super) full_tables: Vec<FullTable>,
}

/// A network namespace of this host that can track no further connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FullTable {
    /// Its name, or its number as `net:[N]`.
    pub(super) namespace: String,
    pub(super) used: u64,
    pub(super) limit: u64,
    /// Whether the client or the server is in it; through others the way may lead.
    pub(super) is_of_an_end: bool,
}

/// What the agent has counted in the window, and what it knows now.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    /// Length of the window.
    pub(super) seconds: f64,
    /// Attempts to connect that succeeded.
    pub(super) ok: u64,
    /// Attempts that failed, by result, without zeros.
    pub(super) failed: BTreeMap<String, u64>,
    /// Open connections, now.
    pub(super) active: u64,
    /// Connections made.
    pub(super) opened: u64,
    pub(super) requests: u64,
    pub(super) unanswered: u64,
    /// Responses whose status is known, and those of them that are errors of the server: protocol and
    /// status.
    pub(super) responses: u64,
    pub(super) errors: BTreeMap<String, u64>,
    /// Requests that may wait on purpose (long polling).
    pub(super) waits: u64,
    /// Request latency as the client saw it.
    pub(super) client: Quantiles,
    /// Request latency as the server saw it; it includes what the server waits for.
    pub(super) server: Quantiles,
    /// Request latency as the client saw it since the agent started.
    pub(super) usual: Quantiles,
    pub(super) rtt: Quantiles,
    /// Round-trip time since the agent started.
    pub(super) usual_rtt: Quantiles,
    /// Retransmitted segments of established connections, of both sides.
    pub(super) retransmits: u64,
    /// Retransmitted SYNs.
    pub(super) syn_retransmits: u64,
    /// Segments sent, at least.
    pub(super) segments: u64,
    /// Resets of connections by cause, without zeros.
    pub(super) resets: BTreeMap<String, u64>,
    /// Connections that a kernel gave up, by cause, without zeros.
    pub(super) aborts: BTreeMap<String, u64>,
    /// Connections that the other end has closed and this program has not, at either side.
    pub(super) close_wait: u64,
    /// Bytes that the server has not read.
    pub(super) unread: u64,
    /// Connection requests that listeners of the port dropped.
    pub(super) listen_drops: u64,
    /// Where the client connects to, the busiest first.
    pub(super) addresses: Vec<SocketAddr>,
    /// Whether the server is on this host.
    pub(super) is_here: bool,
    /// Whether the agent sees what listens on this host: without its hook it sees nothing.
    pub(super) sees_listeners: bool,
    /// Sockets that listen on the port, in the server's network namespace.
    pub(super) listeners: Vec<Listening>,
    /// Share of the client's local ports in use.
    pub(super) local_ports: Option<f64>,
    /// What changed at the two services in the ten minutes before, latest first.
    pub(super) changes: Vec<Changed>,
    /// What the server itself connects to.
    pub(super) dependencies: Vec<Hop>,
    /// Other edges of the client or the server, with their share of retransmitted segments.
    pub(super) others: Vec<(String, f64)>,
    /// The backend whose share of the client's load is furthest off, if the load is uneven.
    pub(super) uneven: Option<Uneven>,
    /// Whether segments are declared.
    pub(super) has_segments: bool,
    /// Segments of client and server, and the verdict of the rules, if it is known.
    pub(super) segments_of: Option<(String, String, SegmentVerdict)>,
    /// The user who can have made this up.
    pub(super) unverified_user: Option<u32>,
}

/// A backend that gets more or less than its share.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Uneven {
    /// Its address, and the container or pod if that is known.
    pub(super) backend: String,
    /// What is shared: `requests` or `connections`.
    pub(super) what: &'static str,
    /// Its part of the whole, 0 to 1, and the expected one.
    pub(super) share: f64,
    pub(super) expected: f64,
}

/// Quantiles in seconds, if anything was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Quantiles {
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listening {
    pub(super) address: IpAddr,
    pub(super) v6_only: bool,
    pub(super) backlog: u32,
    pub(super) max_backlog: u32,
    pub(super) pid: u32,
    pub(super) command: String,
}

/// A change, and how long ago it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Changed {
    /// The service.
    pub(super) service: String,
    /// For programs.
    pub(super) cause: String,
    /// In words.
    pub(super) text: String,
    pub(super) seconds_ago: f64,
}

/// An edge on the way: of a gateway, of a caller, to a dependency.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Hop {
    pub(super) client: String,
    pub(super) server: String,
    pub(super) port: u16,
    /// Requests per second.
    pub(super) requests_per_second: f64,
    pub(super) p50_seconds: Option<f64>,
    pub(super) p99_seconds: Option<f64>,
    /// Attempts to connect, and requests, in the window.
    pub(super) attempts: u64,
    pub(super) requests: u64,
    /// Attempts that failed, without those of a server that stops.
    pub(super) failed: u64,
    pub(super) unanswered: u64,
    /// Responses whose status is known, and those of them that are errors.
    pub(super) responses: u64,
    pub(super) errors: u64,
    /// What is wrong, in words.
    pub(super) why: String,
}

/// What the command tried by itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    /// Where they were made from, in words.
    pub(super) from: String,
    /// Why there are none, or not all.
    pub(super) skipped: Option<String>,
    pub(super) name: Option<Lookup>,
    /// The route to the server; the error in words.
    pub(super) route: Option<Result<Path, Blocked>>,
    /// The route from the server back to the client.
    pub(super) back: Option<Result<Path, Blocked>>,
    pub(super) connect: Option<Connects>,
    /// The hops to the server; looked for if connects time out, are late or are rejected.
    pub(super) hops: Option<Vec<Passed>>,
    pub(super) tls: Option<Result<Certificate, TlsFault>>,
    pub(super) http: Option<Http>,
    pub(super) hello: Option<Hello>,
}

/// A name as the client would resolve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lookup {
    pub(super) name: String,
    /// What it has used: `hosts`, or a DNS server's address.
    pub(super) by: String,
    /// The addresses, or why there are none.
    pub(super) result: Result<Vec<IpAddr>, String>,
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path {
    /// `10.0.0.1 → 10.0.0.254 → 10.1.0.2`, `on the link`.
    pub(super) text: String,
    /// The address that the packets come from.
    pub(super) source: Option<IpAddr>,
    pub(super) mtu: Option<u32>,
    /// Nobody answers for the next hop on the link.
    pub(super) is_silent: bool,
}

/// Why there is no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocked {
    pub(super) text: String,
    /// Whether the kernel answered; otherwise it could not be asked.
    pub(super) is_certain: bool,
}

/// Attempts to connect.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Connects {
    pub(super) target: Option<SocketAddr>,
    pub(super) attempts: u64,
    /// How long those took that succeeded, shortest first.
    pub(super) times: Vec<f64>,
    /// Those that failed, by result, in the words of the API.
    pub(super) failed: BTreeMap<&'static str, u64>,
    /// A failure in the system's words.
    pub(super) error: Option<String>,
}

/// What a TLS server presented.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Certificate {
    pub(crate) version: String,
    pub(crate) seconds: f64,
    /// When its certificate expires.
    pub(crate) days_left: Option<i64>,
    /// Why this host would not trust it; the client may.
    pub(crate) untrusted: Option<String>,
}

/// Why a TLS handshake failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TlsFault {
    Expired { days_ago: Option<i64> },
    NotYetValid,
    OtherName { wanted: String, presented: Vec<String> },
    Alert(String),
    NotTls,
    Silent,
    Other(String),
}

/// An HTTP request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Http {
    pub(super) path: String,
    pub(super) seconds: f64,
    /// The status, or what happened instead.
    pub(super) result: Result<u16, Silence>,
}

/// The first exchange of a protocol.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hello {
    /// PostgreSQL, MySQL, Redis.
    pub(super) protocol: &'static str,
    pub(super) seconds: f64,
    pub(super) result: Result<String, Silence>,
}

/// Instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Nothing, for as long as it was waited for.
    Timeout,
    /// The connection was closed or reset.
    Closed,
    /// The server answers that it cannot serve, in its words.
    Refused(String),
    /// Not an answer of this protocol.
    Other(String),
}

/// The server's process and cgroup.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Host {
    /// Why it was not looked at.
    pub(super) skipped: Option<String>,
    pub(super) pid: u32,
    /// The state of the process, as in /proc/PID/stat.
    pub(super) state: Option<char>,
    /// Open descriptors and their limit.
    pub(super) descriptors: Option<(u64, u64)>,
    /// Periods while the command looked, and those of them in which the quota was used up.
    pub(super) throttled: Option<(u64, u64)>,
    /// Shares of the last ten seconds.
    pub(super) cpu_pressure: Option<f64>,
    pub(super) memory_pressure: Option<f64>,
    /// Processes of the cgroup that the OOM killer has ended.
    pub(super) oom_kills: Option<u64>,
    /// The server's process, or one that ended when the server did, if the OOM killer ended it.
    pub(super) killed: Option<Killed>,
}

/// A process that the OOM killer has ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Killed {
    pub(super) pid: u32,
    pub(super) command: String,
    pub(super) seconds_ago: f64,
    /// Whether it has the server's name; otherwise it is known by the time alone.
    pub(super) is_named: bool,
}

// === impl Name ===

impl Name {
    /// A service by its parts.
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Whether `wanted` means this service: NAME or NAMESPACE/NAME.
    pub(super) fn is_called(&self, wanted: &str) -> bool {
        let full = wanted.split_once('/');
        self.name == wanted || full == Some((self.namespace.as_str(), self.name.as_str()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&human::readable(&human::full_name(&self.namespace, &self.name)))
    }
}

// === impl Pair ===

impl Pair {
    /// The server and its port.
    pub(super) fn endpoint(&self) -> String {
        let Self { server: Name { namespace, name }, port, .. } = self;
        human::readable(&human::endpoint(namespace, name, *port))
    }

    /// The client, or that it is this command.
    pub(super) fn client(&self) -> String {
        self.client.as_ref().map_or_else(|| "this command".to_owned(), Name::to_string)
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.client {
            Some(client) => write!(f, "{client} → {}", self.endpoint()),
            None => f.write_str(&self.endpoint()),
        }
    }
}

// === impl Evidence ===

impl Evidence {
    /// Where the client connects to.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let probed = self.probes.connect.as_ref().and_then(|connect| connect.target);
        probed.or_else(|| self.live.as_ref()?.addresses.first().copied())
    }
}

// === impl Live ===

impl Live {
    /// Attempts that failed with one of these results.
    pub(super) fn failed(&self, results: &[&str]) -> u64 {
        results.iter().filter_map(|result| self.failed.get(*result)).sum()
    }

    /// All attempts that ended, without those that a stopping server refused.
    pub(super) fn attempts(&self) -> u64 {
        let stopping = self.failed(&["stopping"]);
        self.ok + self.failed.values().sum::<u64>() - stopping
    }

    /// The share of segments that had to be sent again.
    pub(super) fn loss(&self) -> f64 {
        if self.segments == 0 { 0.0 } else { self.retransmits as f64 / self.segments as f64 }
    }

    /// Whether anything happened in the window.
    pub(super) fn is_busy(&self) -> bool {
        self.attempts() + self.requests + self.unanswered + self.active + self.opened > 0
    }

    /// The latest change of the server with one of these causes.
    pub(super) fn change(&self, server: &Name, causes: &[&str]) -> Option<&Changed> {
        let full = human::full_name(&server.namespace, &server.name);
        let is_it =
            |change: &&Changed| change.service == full && causes.contains(&change.cause.as_str());
        self.changes.iter().find(is_it)
    }
}

// === impl Listening ===

impl Listening {
    /// Whether the next connection request is dropped: one more may wait than the limit.
    pub(super) const fn is_full(&self) -> bool {
        self.backlog > self.max_backlog
    }

    /// Whether a connection to `address` reaches it.
    pub(super) fn accepts(&self, address: IpAddr) -> bool {
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
    pub(super) fn of(change: &Change, now: api_types::Timestamp) -> Self {
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
    pub(super) fn is_failing(&self) -> bool {
        is_noteworthy(self.failed, self.attempts)
            || is_noteworthy(self.unanswered, self.requests + self.unanswered)
            || is_noteworthy(self.errors, self.responses)
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

// === impl Connects ===

impl Connects {
    /// Attempts that failed with one of these results.
    pub(super) fn failed(&self, results: &[&str]) -> u64 {
        results.iter().filter_map(|result| self.failed.get(*result)).sum()
    }

    /// Those that succeeded.
    pub(super) fn ok(&self) -> u64 {
        self.times.len() as u64
    }

    /// Those whose first SYN, or its answer, was lost: it is sent again after a second.
    pub(super) fn after_a_second(&self) -> u64 {
        self.times.iter().filter(|seconds| **seconds >= 0.9).count() as u64
    }

    /// Half of those that succeeded took at most this.
    pub(super) fn median(&self) -> Option<f64> {
        self.times.get(self.times.len() / 2).copied()
    }
}

// === impl Host ===

impl Host {
    /// Whether the process is stopped or traced.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.state, Some('T' | 't'))
    }

    /// The share of the periods, while the command looked, in which the CPU quota was used up.
    pub(super) fn throttled_share(&self) -> Option<f64> {
        let (periods, throttled) = self.throttled.filter(|(periods, _)| *periods > 0)?;
        Some(throttled as f64 / periods as f64)
    }

    /// Whether hardly any descriptor is left.
    pub(super) fn is_short_of_descriptors(&self) -> bool {
        self.descriptors
            .is_some_and(|(open, limit)| open.saturating_mul(100) >= limit.saturating_mul(95))
    }
}

/// The hops of a way: `1 10.0.0.1, 2 no answer, 3 the server`.
pub(super) fn hops_in_words(hops: &[Passed]) -> String {
    let hop = |(at, hop): (usize, &Passed)| {
        let number = at + 1;
        match hop {
            Passed::Router(by) => format!("{number} {by}"),
            Passed::Server => format!("{number} the server"),
            Passed::Rejected { by, why } => format!("{number} rejected by {by} ({why})"),
            Passed::Silent => format!("{number} no answer"),
        }
    };
    if hops.is_empty() {
        return "no hop answers".to_owned();
    }
    hops.iter().enumerate().map(hop).collect::<Vec<_>>().join(", ")
}

/// A result of connects, behind their number.
pub(super) fn in_words(result: &str) -> &str {
    match result {
        "timeout" => "timed out",
        "aborted" => "given up by the client",
        "ports_exhausted" => "without a free local port",
        "address_unavailable" => "without a source address",
        "port_in_use" => "with a source port in use",
        "time_wait" => "with a source port in TIME_WAIT",
        "stopping" => "refused while stopping",
        "other" => "failed",
        result => result,
    }
}

/// Whether `n` of `all` is more than a rare exception: one in a hundred.
pub(super) fn is_noteworthy(n: u64, all: u64) -> bool {
    n > 0 && n.saturating_mul(100) >= all
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn one_in_a_hundred_is_noteworthy() {
        let check = |n, all, expected| assert_eq!(is_noteworthy(n, all), expected, "{n} of {all}");
        check(0, 0, false);
        check(1, 1, true);
        check(1, 100, true);
        check(1, 101, false);
        check(5, 500, true);
    }

    #[test]
    fn names_are_found_with_their_namespace_or_without() {
        let shop = Name::new("prod", "shop");
        for (wanted, expected) in
            [("shop", true), ("prod/shop", true), ("test/shop", false), ("prod", false)]
        {
            assert_eq!(shop.is_called(wanted), expected, "{wanted}");
        }
    }
}
