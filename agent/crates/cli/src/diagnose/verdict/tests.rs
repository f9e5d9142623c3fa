//! The table of verdicts: evidence of each fault, and what is said about it.

use std::net::{IpAddr, SocketAddr};

use super::super::evidence::{
    Blocked, Certificate, Changed, Connects, FullTable, Hello, Host, Http, Killed, Listening, Live,
    Lookup, Name, Pair, Path, Probes, Quantiles, Silence, TlsFault, Uneven,
};
use super::*;
use crate::diagnose::cause::Step;
use api_types::SegmentVerdict;
use linux::hops::Hop as Passed;

/// A pair on one host with ordinary traffic, and probes that succeed.
fn well() -> Evidence {
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
        full_tables: Vec::new(),
    }
}

fn address() -> SocketAddr {
    "10.0.0.2:3002".parse().expect("an address")
}

fn quantiles(p50: f64, p99: f64) -> Quantiles {
    Quantiles { p50: Some(p50), p99: Some(p99) }
}

fn listening(address: &str, backlog: u32) -> Listening {
    Listening {
        address: address.parse().expect("an address"),
        v6_only: false,
        backlog,
        max_backlog: 8,
        pid: 42,
        command: "node".to_owned(),
    }
}

fn live(evidence: &mut Evidence) -> &mut Live {
    evidence.live.as_mut().expect("live")
}

/// Live connects that end so.
fn fails(evidence: &mut Evidence, result: &str, n: u64, ok: u64) {
    let live = live(evidence);
    live.ok = ok;
    live.failed = [(result.to_owned(), n)].into();
}

/// Probes that end so.
fn probes(evidence: &mut Evidence, result: &'static str, n: u64) {
    let connect = evidence.probes.connect.as_mut().expect("probes");
    connect.times.truncate((20 - n) as usize);
    connect.failed = [(result, n)].into();
}

fn router(address: &str) -> Passed {
    Passed::Router(address.parse().expect("an address"))
}

fn full_table(is_of_an_end: bool) -> FullTable {
    let namespace = if is_of_an_end { "end" } else { "router" };
    FullTable { namespace: namespace.to_owned(), used: 262_144, limit: 262_144, is_of_an_end }
}

fn hop(p99: f64, failed: u64) -> Hop {
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

/// What is changed about [`well`], and the verdict: its cause, a part of its text, its certainty.
type Case = (&'static str, fn(&mut Evidence), Cause, &'static str, Certainty);

const CASES: &[Case] = &[
    (
        "nothing",
        |_| {},
        Cause::Healthy,
        "nothing is wrong in the last 60 s and in 20 probes",
        Certainty::High,
    ),
    (
        "a rare failure",
        |all| fails(all, "refused", 1, 1000),
        Cause::Healthy,
        "nothing is wrong",
        Certainty::High,
    ),
    (
        "a server that refused while it stopped",
        |all| fails(all, "stopping", 50, 50),
        Cause::Healthy,
        "nothing is wrong",
        Certainty::High,
    ),
    (
        "no traffic and no probe",
        |all| {
            all.live = Some(Live::default());
            all.probes = Probes { skipped: Some("--no-probe".to_owned()), ..Probes::default() };
        },
        Cause::NotEnoughData,
        "nothing can be said",
        Certainty::Low,
    ),
    (
        "SIGSTOP, and its consequences",
        |all| {
            all.host.state = Some('T');
            live(all).listeners = vec![listening("0.0.0.0", 9)];
            fails(all, "timeout", 10, 0);
            probes(all, "timeout", 20);
            live(all).unanswered = 50;
        },
        Cause::ProcessStopped,
        "catalog (pid 42) is stopped",
        Certainty::High,
    ),
    (
        "a name that does not resolve",
        |all| {
            all.probes.name = Some(Lookup {
                name: "db.example".to_owned(),
                by: "DNS server 10.0.0.53".to_owned(),
                result: Err("there is no such name (NXDOMAIN)".to_owned()),
            });
            all.probes.connect = None;
            all.live = None;
        },
        Cause::NameNotResolved,
        "db.example does not resolve: there is no such name (NXDOMAIN) (DNS server 10.0.0.53)",
        Certainty::High,
    ),
    (
        "local ports run out",
        |all| {
            fails(all, "ports_exhausted", 30, 70);
            live(all).local_ports = Some(1.0);
            probes(all, "ports_exhausted", 20);
        },
        Cause::NoLocalPort,
        "gateway has no local port left (100% of its local ports are in use)",
        Certainty::High,
    ),
    (
        "a source port in use",
        |all| fails(all, "port_in_use", 30, 0),
        Cause::SourceAddress,
        "30 with a source port in use",
        Certainty::Medium,
    ),
    (
        "a firewall on the client's host",
        |all| {
            fails(all, "denied", 3, 0);
            probes(all, "denied", 20);
        },
        Cause::Denied,
        "the client's own host refuses the connect",
        Certainty::High,
    ),
    (
        "no route",
        |all| {
            let text = "no route to 10.0.0.2".to_owned();
            all.probes.route = Some(Err(Blocked { text, is_certain: true }));
            fails(all, "unreachable", 3, 0);
            probes(all, "unreachable", 20);
        },
        Cause::NoRoute,
        "the client has no route to the server: no route to 10.0.0.2",
        Certainty::High,
    ),
    (
        "a router that answers",
        |all| {
            fails(all, "unreachable", 3, 0);
            probes(all, "unreachable", 20);
        },
        Cause::NoRoute,
        "a router or a firewall on the way answers",
        Certainty::High,
    ),
    (
        "a host that is gone",
        |all| {
            all.probes.route = Some(Ok(Path { is_silent: true, ..Path::default() }));
            fails(all, "timeout", 3, 0);
            probes(all, "unreachable", 20);
        },
        Cause::HostGone,
        "nobody answers for the next hop",
        Certainty::High,
    ),
    (
        "a server that ended",
        |all| {
            fails(all, "refused", 12, 3);
            probes(all, "refused", 20);
            live(all).listeners.clear();
            live(all).changes = vec![Changed {
                service: "catalog".to_owned(),
                cause: "service_stopped".to_owned(),
                text: "stopped".to_owned(),
                seconds_ago: 39.2,
            }];
        },
        Cause::NothingListens,
        "nothing listens on port 3002 of catalog: it stopped 39 seconds ago",
        Certainty::High,
    ),
    (
        "a server that was killed",
        |all| {
            fails(all, "refused", 12, 3);
            probes(all, "refused", 20);
            live(all).listeners.clear();
            let command = "node".to_owned();
            all.host.killed = Some(Killed { pid: 42, command, seconds_ago: 39.2, is_named: false });
        },
        Cause::OomKilled,
        "the OOM killer has ended catalog (node, pid 42) 39 seconds ago, and nothing listens since",
        Certainty::Medium,
    ),
    (
        "a server elsewhere that refuses",
        |all| {
            fails(all, "refused", 12, 0);
            probes(all, "refused", 20);
            live(all).is_here = false;
            live(all).listeners.clear();
        },
        Cause::NothingListens,
        "nothing listens there, or a firewall rejects them",
        Certainty::High,
    ),
    (
        "the loopback",
        |all| {
            fails(all, "refused", 12, 0);
            live(all).listeners = vec![listening("127.0.0.1", 0)];
            probes(all, "refused", 20);
        },
        Cause::LoopbackOnly,
        "node (pid 42) listens on the loopback only (127.0.0.1:3002)",
        Certainty::High,
    ),
    (
        "another family",
        |all| {
            live(all).addresses = vec!["[fd00::2]:3002".parse().expect("an address")];
            all.probes.connect = None;
            fails(all, "refused", 12, 0);
        },
        Cause::OtherAddress,
        "listens for IPv4 only (0.0.0.0:3002)",
        Certainty::High,
    ),
    (
        "another address",
        |all| {
            fails(all, "refused", 12, 0);
            live(all).listeners = vec![listening("10.0.0.3", 0)];
            probes(all, "refused", 20);
        },
        Cause::OtherAddress,
        "listens on 10.0.0.3:3002 only",
        Certainty::High,
    ),
    (
        "a firewall that rejects",
        |all| {
            fails(all, "refused", 12, 0);
            probes(all, "refused", 20);
        },
        Cause::Rejected,
        "although node (pid 42) listens on 0.0.0.0:3002",
        Certainty::High,
    ),
    (
        "a server that came back",
        |all| {
            fails(all, "refused", 12, 30);
            live(all).changes = vec![Changed {
                service: "catalog".to_owned(),
                cause: "service_restarted".to_owned(),
                text: "restarted".to_owned(),
                seconds_ago: 20.0,
            }];
        },
        Cause::WasNotListening,
        "refused connects in the window and accepts them now; restarted 20 seconds ago",
        Certainty::High,
    ),
    (
        "descriptors used up, and a queue that fills",
        |all| {
            all.host.descriptors = Some((1024, 1024));
            live(all).listeners = vec![listening("0.0.0.0", 9)];
            probes(all, "timeout", 20);
        },
        Cause::OutOfDescriptors,
        "has 1024 of 1024 descriptors open",
        Certainty::High,
    ),
    (
        "a full queue, and connects that time out",
        |all| {
            live(all).listeners = vec![listening("0.0.0.0", 9)];
            live(all).listen_drops = 12;
            fails(all, "timeout", 12, 0);
            probes(all, "timeout", 20);
        },
        Cause::AcceptQueueFull,
        "9 connections wait for accept(), 8 may",
        Certainty::High,
    ),
    (
        "no way back",
        |all| {
            let text = "no route to 10.0.0.1".to_owned();
            all.probes.back = Some(Err(Blocked { text, is_certain: true }));
            fails(all, "timeout", 12, 0);
            probes(all, "timeout", 20);
        },
        Cause::NoRouteBack,
        "the server has no route back to the client: no route to 10.0.0.1",
        Certainty::High,
    ),
    (
        "dropped SYNs",
        |all| {
            fails(all, "timeout", 12, 0);
            live(all).syn_retransmits = 30;
            probes(all, "timeout", 20);
        },
        Cause::Dropped,
        "packets to 10.0.0.2:3002 are dropped silently",
        Certainty::High,
    ),
    (
        "one lost probe among others is loss",
        |all| {
            let connect = all.probes.connect.as_mut().expect("probes");
            connect.times[19] = 1.04;
            fails(all, "aborted", 12, 88);
            live(all).retransmits = 200;
        },
        Cause::Loss,
        "packets between them are lost: 5% of the segments are retransmitted, 12 of 100 connects time out, the SYN of 1 of 20 probes was lost",
        Certainty::High,
    ),
    (
        "retransmissions alone",
        |all| live(all).retransmits = 200,
        Cause::Loss,
        "it is loss, not congestion",
        Certainty::Medium,
    ),
    (
        "an expired certificate",
        |all| all.probes.tls = Some(Err(TlsFault::Expired { days_ago: Some(3) })),
        Cause::CertificateExpired,
        "the certificate of catalog:3002 has expired 3 days ago",
        Certainty::High,
    ),
    (
        "another name",
        |all| {
            let presented = vec!["shop.example".to_owned()];
            let wanted = "catalog.example".to_owned();
            all.probes.tls = Some(Err(TlsFault::OtherName { wanted, presented }));
        },
        Cause::CertificateName,
        "is for shop.example, not for catalog.example",
        Certainty::High,
    ),
    (
        "an alert",
        |all| all.probes.tls = Some(Err(TlsFault::Alert("HandshakeFailure".to_owned()))),
        Cause::TlsFails,
        "the alert HandshakeFailure",
        Certainty::High,
    ),
    (
        "a certificate that this host does not trust",
        |all| {
            let untrusted = Some("unknown issuer".to_owned());
            all.probes.tls = Some(Ok(Certificate { untrusted, ..Certificate::default() }));
        },
        Cause::Healthy,
        "nothing is wrong",
        Certainty::High,
    ),
    (
        "idle connections used again",
        |all| live(all).resets = [("idle_reuse".to_owned(), 4)].into(),
        Cause::KeepaliveMismatch,
        "catalog closes idle connections while gateway still uses them: 4 requests",
        Certainty::High,
    ),
    (
        "a reader that is stuck",
        |all| {
            live(all).unread = 200_000;
            live(all).unanswered = 500;
        },
        Cause::NotReading,
        "catalog does not read: 200 kB wait",
        Certainty::High,
    ),
    (
        "no answers",
        |all| {
            live(all).unanswered = 500;
            let (path, seconds) = ("/".to_owned(), 5.0);
            all.probes.http = Some(Http { path, seconds, result: Err(Silence::Timeout) });
        },
        Cause::NeverAnswers,
        "catalog does not answer: 500 of 1500 requests in the window got no answer",
        Certainty::High,
    ),
    (
        "no answers because of a database",
        |all| {
            live(all).unanswered = 500;
            live(all).dependencies = vec![hop(0.001, 10)];
        },
        Cause::SlowDependency,
        "because of a service that it calls: postgres:5432",
        Certainty::Medium,
    ),
    (
        "connections that die",
        |all| live(all).aborts = [("keepalive".to_owned(), 4)].into(),
        Cause::ConnectionsDie,
        "4 connections up because the other end did not answer (4 keepalive)",
        Certainty::High,
    ),
    (
        "resets",
        |all| live(all).resets = [("aborted".to_owned(), 40)].into(),
        Cause::Resets,
        "cut with a reset: 40 resets (40 aborted)",
        Certainty::Medium,
    ),
    (
        "an error in HTTP",
        |all| {
            let (path, seconds) = ("/healthz".to_owned(), 0.002);
            all.probes.http = Some(Http { path, seconds, result: Ok(503) });
        },
        Cause::ServerError,
        "GET /healthz is answered with 503",
        Certainty::High,
    ),
    (
        "errors in live traffic",
        |all| {
            live(all).responses = 400;
            live(all).errors = [("http 5xx".to_owned(), 100)].into();
        },
        Cause::ServerError,
        "answers with an error: 100 http 5xx of 400 responses in the window",
        Certainty::High,
    ),
    (
        "errors of a service whose database fails",
        |all| {
            live(all).responses = 400;
            live(all).errors = [("http 5xx".to_owned(), 100)].into();
            live(all).dependencies = vec![hop(0.004, 60)];
        },
        Cause::SlowDependency,
        "and a service that it calls fails",
        Certainty::Medium,
    ),
    (
        "a database that is full",
        |all| {
            let result = Err(Silence::Refused("sorry, too many clients already".to_owned()));
            all.probes.hello = Some(Hello { protocol: "PostgreSQL", seconds: 0.001, result });
        },
        Cause::ServerError,
        "PostgreSQL says: sorry, too many clients already",
        Certainty::High,
    ),
    (
        "a slow server",
        |all| {
            live(all).client = quantiles(0.3, 0.9);
            live(all).server = quantiles(0.3, 0.88);
            live(all).dependencies = vec![hop(0.004, 0)];
        },
        Cause::SlowServer,
        "catalog itself is slow: p99 900 ms",
        Certainty::High,
    ),
    (
        "long polling",
        |all| {
            live(all).client = quantiles(0.002, 0.9);
            live(all).server = quantiles(0.002, 0.88);
            live(all).waits = 20;
        },
        Cause::Healthy,
        "nothing is wrong",
        Certainty::High,
    ),
    (
        "a server that waits",
        |all| {
            live(all).client = quantiles(0.3, 0.9);
            live(all).server = quantiles(0.3, 0.88);
            live(all).dependencies = vec![hop(0.004, 0), hop(0.8, 0)];
        },
        Cause::SlowDependency,
        "catalog is slow (p99 900 ms, median 300 ms instead of 2 ms) because it waits for postgres:5432 (p99 800 ms)",
        Certainty::Medium,
    ),
    (
        "a throttled server",
        |all| {
            live(all).client = quantiles(0.3, 0.9);
            live(all).server = quantiles(0.3, 0.88);
            all.host.throttled = Some((10, 8));
        },
        Cause::CpuThrottled,
        "its cgroup has used up its CPU quota in 80% of the periods",
        Certainty::High,
    ),
    (
        "a slow network",
        |all| {
            live(all).client = quantiles(0.3, 0.9);
            live(all).rtt = quantiles(0.2, 0.4);
        },
        Cause::SlowPath,
        "a round trip takes 200 ms instead of 50 µs",
        Certainty::High,
    ),
    (
        "time between the two programs",
        |all| live(all).client = quantiles(0.3, 0.9),
        Cause::SlowPath,
        "catalog itself answers in 9 ms",
        Certainty::Medium,
    ),
    (
        "a throttled server that nobody notices yet",
        |all| all.host.throttled = Some((10, 9)),
        Cause::CpuThrottled,
        "90% of the periods",
        Certainty::Medium,
    ),
    (
        "connections that are not closed",
        |all| live(all).close_wait = 300,
        Cause::NotClosed,
        "300 connections in CLOSE_WAIT",
        Certainty::High,
    ),
    (
        "a forbidden connection that works",
        |all| {
            let ends = ("frontend".to_owned(), "database".to_owned(), SegmentVerdict::Violation);
            live(all).has_segments = true;
            live(all).segments_of = Some(ends);
        },
        Cause::Forbidden,
        "the segments do not allow it: frontend → database",
        Certainty::High,
    ),
    (
        "a backend with a tenth of its weight",
        |all| {
            live(all).uneven = Some(Uneven {
                backend: "10.0.0.5:3003".to_owned(),
                what: "requests",
                share: 0.05,
                expected: 1.0 / 3.0,
            });
        },
        Cause::Uneven,
        "10.0.0.5:3003 gets 5% of the requests, expected 33.3%",
        Certainty::High,
    ),
    (
        "a full table of connection tracking at the server",
        |all| {
            fails(all, "timeout", 10, 2);
            probes(all, "timeout", 20);
            all.full_tables = vec![full_table(false), full_table(true)];
        },
        Cause::TrackingFull,
        "connection tracking of end is full (262k of 262k entries)",
        Certainty::High,
    ),
    (
        "a full table somewhere on this host",
        |all| {
            probes(all, "timeout", 20);
            fails(all, "timeout", 10, 0);
            all.full_tables = vec![full_table(false)];
        },
        Cause::TrackingFull,
        "connection tracking of router is full",
        Certainty::Medium,
    ),
    (
        "a full table, and nothing times out",
        |all| all.full_tables = vec![full_table(true)],
        Cause::Healthy,
        "nothing is wrong",
        Certainty::High,
    ),
    (
        "packets that are lost behind the second hop",
        |all| {
            fails(all, "timeout", 10, 0);
            probes(all, "timeout", 20);
            all.probes.hops =
                Some(vec![router("10.0.0.254"), Passed::Silent, router("10.1.0.254")]);
        },
        Cause::Dropped,
        "The last hop that answers is 10.1.0.254: they are lost behind it.",
        Certainty::High,
    ),
    (
        "a refusal, and an agent that cannot list what listens",
        |all| {
            fails(all, "refused", 30, 0);
            probes(all, "refused", 20);
            (live(all).sees_listeners, live(all).listeners) = (false, Vec::new());
        },
        Cause::NothingListens,
        "catalog:3002 refuses connects: nothing listens there, or a firewall rejects them",
        Certainty::High,
    ),
    (
        "a late probe beside live connects that are well, and requests without an answer",
        |all| {
            live(all).unanswered = 900;
            live(all).requests = 100;
            let connect = all.probes.connect.as_mut().expect("probes");
            *connect.times.last_mut().expect("one") = 1.03;
        },
        Cause::NeverAnswers,
        "catalog does not answer: 900 of 1000 requests",
        Certainty::Medium,
    ),
    (
        "a router that rejects",
        |all| {
            fails(all, "unreachable", 10, 0);
            probes(all, "unreachable", 20);
            let (by, why) = (IpAddr::from([10, 0, 0, 254]), "a rule prohibits it");
            all.probes.hops = Some(vec![Passed::Rejected { by, why }]);
        },
        Cause::NoRoute,
        "10.0.0.254 rejects the connects (ICMP: a rule prohibits it)",
        Certainty::High,
    ),
];

#[test]
fn each_fault_has_its_verdict() {
    for (name, change, cause, text, certainty) in CASES {
        let mut evidence = well();
        change(&mut evidence);
        let verdict = judge(&evidence);
        assert_eq!((verdict.cause, verdict.certainty), (*cause, *certainty), "{name}: {verdict:?}");
        assert!(verdict.text.contains(text), "{name}: {}", verdict.text);
        assert!(
            verdict.cause == Cause::Healthy || !verdict.look_at.is_empty(),
            "{name}: {verdict:?}"
        );
        assert!(!verdict.reason.is_empty(), "{name}");
    }
}

#[test]
fn the_step_of_a_fault_is_marked_and_only_good_steps_are_ruled_out() {
    use super::super::report::{Report, step};
    use super::super::steps::State;
    for (name, change, cause, ..) in CASES {
        let mut evidence = well();
        change(&mut evidence);
        let report = Report::of(evidence, Vec::new());
        assert_eq!(report.steps.len(), Step::ALL.len(), "{name}");
        if let Some(wanted) = cause.step() {
            assert_eq!(step(&report, wanted).state, State::Failed, "{name}");
            assert!(!report.is_not.contains(&wanted.subject()), "{name}");
        }
        for line in &report.steps {
            assert!(!line.text.is_empty(), "{name}: {line:?}");
        }
    }
}

#[test]
fn a_verdict_that_probes_contradict_is_less_certain() {
    let mut evidence = well();
    fails(&mut evidence, "unreachable", 30, 0);
    let verdict = judge(&evidence);
    assert_eq!((verdict.cause, verdict.certainty), (Cause::NoRoute, Certainty::Medium));
    assert!(verdict.reason.contains("it has passed or comes and goes"), "{}", verdict.reason);
    let mut evidence = well();
    probes(&mut evidence, "denied", 20);
    let verdict = judge(&evidence);
    assert_eq!((verdict.cause, verdict.certainty), (Cause::Denied, Certainty::Low));
}

#[test]
fn probes_alone_are_enough_without_an_agent() {
    let mut evidence = well();
    evidence.live = None;
    evidence.host = Host { skipped: Some("no agent".to_owned()), ..Host::default() };
    assert_eq!(judge(&evidence).cause, Cause::Healthy);
    assert_eq!(judge(&evidence).certainty, Certainty::Medium);
    probes(&mut evidence, "refused", 20);
    assert_eq!(judge(&evidence).cause, Cause::NothingListens);
    probes(&mut evidence, "timeout", 20);
    assert_eq!(judge(&evidence).cause, Cause::Dropped);
}
