//! Evidence of a server that accepts connections and does not serve: TLS, answers, resets, policy.

use api_types::SegmentVerdict;

use super::evidence::{Case, fails, hop, listening, live, probes};
use super::{Cause, Certainty};
use crate::diagnose::evidence::{Hello, Http, OfBoth, Silence, TlsFault, Uneven};

pub(super) const CASES: &[Case] = &[
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
        "idle connections used again",
        |all| live(all).resets = [("idle_reuse".to_owned(), 4)].into(),
        Cause::KeepaliveMismatch,
        "catalog closes idle connections while gateway still uses them: 4 requests",
        Certainty::High,
    ),
    (
        "a reader that is stuck",
        |all| {
            live(all).unread.server = 200_000;
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
        "a client that is stuck in reading",
        |all| live(all).unread.client = 200_000,
        Cause::NotReading,
        "gateway does not read: 200 kB wait",
        Certainty::High,
    ),
    (
        "connections that the server does not close",
        |all| live(all).close_wait.server = 300,
        Cause::NotClosed,
        "catalog does not close its connections: 300 connections in CLOSE_WAIT, which gateway has closed",
        Certainty::High,
    ),
    (
        "connections that the client does not close",
        |all| live(all).close_wait = OfBoth { client: 300, server: 21 },
        Cause::NotClosed,
        "gateway does not close its connections: 300 connections in CLOSE_WAIT, which catalog has closed",
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
];
