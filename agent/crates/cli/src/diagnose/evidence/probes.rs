//! What the command found out by connecting as the client would: each result is a small type.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use linux::hops::Hop;

/// What the command itself tried.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probes {
    /// Where they were made from, in words.
    pub(crate) from: String,
    /// Why there are none, or fewer than asked for.
    pub(crate) skipped: Option<String>,
    pub(crate) name: Option<Lookup>,
    /// The route to the server; the error in words.
    pub(crate) route: Option<Result<Path, Blocked>>,
    /// The route from the server back to the client.
    pub(crate) back: Option<Result<Path, Blocked>>,
    pub(crate) connect: Option<Connects>,
    /// The hops to the server; looked for if connects time out, are late or are rejected.
    pub(crate) hops: Option<Vec<Hop>>,
    pub(crate) tls: Option<Result<Certificate, TlsFault>>,
    pub(crate) http: Option<Http>,
    pub(crate) hello: Option<Hello>,
}

/// A name as the client would resolve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lookup {
    pub(crate) name: String,
    /// What it has used: `hosts`, or a DNS server's address.
    pub(crate) by: String,
    /// The addresses, or why there are none.
    pub(crate) result: Result<Vec<IpAddr>, String>,
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path {
    /// `10.0.0.1 → 10.0.0.254 → 10.1.0.2`, `on the link`.
    pub(crate) text: String,
    /// The address that the packets come from.
    pub(crate) source: Option<IpAddr>,
    pub(crate) mtu: Option<u32>,
    /// Whether the path has no router: the server is on the link, or in the same namespace.
    pub(crate) is_direct: bool,
    /// No answer for the next hop on the link (ARP, neighbour discovery).
    pub(crate) is_silent: bool,
}

/// Why there is no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocked {
    pub(crate) text: String,
    /// Whether the kernel said so; otherwise it could not be queried.
    pub(crate) is_certain: bool,
}

/// Attempts to connect.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Connects {
    pub(crate) target: Option<SocketAddr>,
    pub(crate) attempts: u64,
    /// Durations of those that succeeded, shortest first.
    pub(crate) times: Vec<f64>,
    /// Those that failed, by result, named as in the API.
    pub(crate) failed: BTreeMap<&'static str, u64>,
    /// The system's message for one of the failures.
    pub(crate) error: Option<String>,
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
pub(crate) struct Http {
    pub(crate) path: String,
    pub(crate) seconds: f64,
    /// The status, or what happened instead.
    pub(crate) result: Result<u16, Silence>,
}

/// The first exchange of a protocol.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hello {
    /// PostgreSQL, MySQL, Redis.
    pub(crate) protocol: &'static str,
    pub(crate) seconds: f64,
    pub(crate) result: Result<String, Silence>,
}

/// Instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Nothing within the time limit.
    Timeout,
    /// The connection was closed or reset.
    Closed,
    /// The server answers that it cannot serve; its message.
    Refused(String),
    /// Not an answer of this protocol.
    Other(String),
}

// === impl Connects ===

impl Connects {
    /// Attempts that failed with one of these results.
    pub(crate) fn failed(&self, results: &[&str]) -> u64 {
        results.iter().filter_map(|result| self.failed.get(*result)).sum()
    }

    /// Those that succeeded.
    pub(crate) fn ok(&self) -> u64 {
        self.times.len() as u64
    }

    /// Whether there were some, and all failed.
    pub(crate) fn none_succeeds(&self) -> bool {
        self.attempts > 0 && self.ok() == 0
    }

    /// Those whose first SYN, or its answer, was lost: it is retransmitted after a second.
    pub(crate) fn after_a_second(&self) -> u64 {
        self.times.iter().filter(|seconds| **seconds >= 0.9).count() as u64
    }

    /// Half of those that succeeded took at most this.
    pub(crate) fn median(&self) -> Option<f64> {
        self.times.get(self.times.len() / 2).copied()
    }
}

/// The hops of a path: `1 10.0.0.1, 2 no answer, 3 the server`.
pub(crate) fn hops_in_words(hops: &[Hop]) -> String {
    let hop = |(at, hop): (usize, &Hop)| {
        let number = at + 1;
        match hop {
            Hop::Router(by) => format!("{number} {by}"),
            Hop::Server => format!("{number} the server"),
            Hop::Rejected { by, why } => format!("{number} rejected by {by} ({why})"),
            Hop::Silent => format!("{number} no answer"),
        }
    };
    if hops.is_empty() {
        return "no hop answers".to_owned();
    }
    hops.iter().enumerate().map(hop).collect::<Vec<_>>().join(", ")
}
