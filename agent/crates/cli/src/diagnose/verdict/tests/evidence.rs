//! Evidence of an ordinary pair, and of parts of it that fail.

use std::net::SocketAddr;

use linux::hops::Hop as Passed;

use super::{Cause, Certainty};
use crate::diagnose::evidence::{
    Connects, DeadLink, Evidence, FullTable, Hop, Host, Listening, Live, Name, Pair, Path, Probes,
    Quantiles,
};

/// A pair on one host with ordinary traffic, and probes that succeed.
pub(super) fn well() -> Evidence {
    let target = Some(address());
    Evidence {
        pair: Pair {
            client: Some(Name::new("", "gateway")),
            server: Name::new("", "catalog"),
            port: 3002,
        },
        live: Some(Live {
            seconds: 60.0,
            ok: 100,
            opened: 100,
            requests: 1000,
            client: quantiles(0.002, 0.010),
            server: quantiles(0.002, 0.009),
            usual: quantiles(0.002, 0.010),
            rtt: quantiles(0.000_05, 0.000_1),
            usual_rtt: quantiles(0.000_05, 0.000_1),
            segments: 4000,
            addresses: vec![address()],
            is_here: true,
            sees_listeners: true,
            listeners: vec![listening("0.0.0.0", 0)],
            ..Live::default()
        }),
        probes: Probes {
            from: "here".to_owned(),
            route: Some(Ok(Path { text: "10.0.0.1 → 10.0.0.2".to_owned(), ..Path::default() })),
            connect: Some(Connects {
                target,
                attempts: 20,
                times: vec![0.000_06; 20],
                ..Connects::default()
            }),
            ..Probes::default()
        },
        host: Host { pid: 42, state: Some('S'), ..Host::default() },
        ..Evidence::default()
    }
}

/// What is changed about [`well`], and the verdict: its cause, a part of its text, its certainty.
pub(super) type Case = (&'static str, fn(&mut Evidence), Cause, &'static str, Certainty);

pub(super) fn address() -> SocketAddr {
    "10.0.0.2:3002".parse().expect("an address")
}

pub(super) fn quantiles(p50: f64, p99: f64) -> Quantiles {
    Quantiles { p50: Some(p50), p99: Some(p99) }
}

pub(super) fn listening(address: &str, backlog: u32) -> Listening {
    Listening {
        address: address.parse().expect("an address"),
        v6_only: false,
        backlog,
        max_backlog: 8,
        pid: 42,
        command: "node".to_owned(),
    }
}

pub(super) fn live(evidence: &mut Evidence) -> &mut Live {
    evidence.live.as_mut().expect("live")
}

/// Live connects that end so.
pub(super) fn fails(evidence: &mut Evidence, result: &str, n: u64, ok: u64) {
    let live = live(evidence);
    live.ok = ok;
    live.failed = [(result.to_owned(), n)].into();
}

/// Probes that end so.
pub(super) fn probes(evidence: &mut Evidence, result: &'static str, n: u64) {
    let connect = evidence.probes.connect.as_mut().expect("probes");
    connect.times.truncate((20 - n) as usize);
    connect.failed = [(result, n)].into();
}

pub(super) fn router(address: &str) -> Passed {
    Passed::Router(address.parse().expect("an address"))
}

pub(super) fn full_table(is_of_an_end: bool) -> FullTable {
    let namespace = if is_of_an_end { "end" } else { "router" };
    FullTable { namespace: namespace.to_owned(), used: 262_144, limit: 262_144, is_of_an_end }
}

pub(super) fn dead_link(is_up: bool) -> DeadLink {
    let (interface, namespace) = ("eth0".to_owned(), "shop".to_owned());
    DeadLink { interface, namespace, address: address().ip(), is_up }
}

pub(super) fn hop(p99: f64, failed: u64) -> Hop {
    Hop {
        client: "catalog".to_owned(),
        server: "postgres".to_owned(),
        port: 5432,
        p99_seconds: Some(p99),
        attempts: 10,
        failed,
        ..Hop::default()
    }
}
