//! What is known of one pair of services and a port: from the agent, from probes, from the host.
//!
//! Every part may be missing. [`verdict`](super::verdict) and [`steps`](super::steps) read nothing
//! else, so both are functions of this.

mod host;
mod live;
mod probes;

use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;

pub(super) use self::host::{DeadLink, FullTable, Host, Killed};
pub(super) use self::live::{
    Changed, Hop, Listening, Live, OfBoth, Quantiles, SLOW_SECONDS, Uneven, is_polling,
};
pub(super) use self::probes::{
    Blocked, Connects, Hello, Http, Lookup, Path, Probes, Silence, hops_in_words,
};
pub(crate) use self::probes::{Certificate, TlsFault};
use crate::human;

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) struct Name {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// A client and a server. Without a client it is the command itself that connects.
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
    /// Full tables of connection tracking; searched for if connects time out.
    pub(super) full_tables: Vec<FullTable>,
    /// An interface of one end that carries nothing; searched for if connects get no answer.
    pub(super) dead_link: Option<DeadLink>,
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

    /// Why nothing is known of the server's host.
    pub(super) fn why_not_here(&self) -> &'static str {
        let named = self.pair.server.name.parse().ok();
        let address = self.address().map(|address| address.ip()).or(named);
        if address.is_some_and(|address| address.is_loopback()) {
            "the server is on the client's own host; the client's network namespace is not known (--pid names a process there)"
        } else {
            "the server is not on this host"
        }
    }
}

/// A result of connects in words, to follow their number.
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
    fn one_in_a_hundred_is_noteworthy() {
        let check = |n, all, expected| assert_eq!(is_noteworthy(n, all), expected, "{n} of {all}");
        check(0, 0, false);
        check(1, 1, true);
        check(1, 100, true);
        check(1, 101, false);
        check(5, 500, true);
    }

    #[test]
    fn a_loopback_address_is_of_no_other_host() {
        let check = |address: &str, name: &str, is_own: bool| {
            let addresses = address.parse::<SocketAddr>().into_iter().collect();
            let live = Some(Live { addresses, ..Live::default() });
            let pair = Pair { server: Name::new("", name), ..Pair::default() };
            let evidence = Evidence { pair, live, ..Evidence::default() };
            assert_eq!(evidence.why_not_here().contains("own host"), is_own, "{address} {name}");
        };
        check("127.0.0.1:11", "127.0.0.1", true);
        check("[::1]:11", "postgres", true);
        check("", "127.0.0.1", true);
        check("10.0.0.2:11", "10.0.0.2", false);
        check("", "db.example", false);
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
