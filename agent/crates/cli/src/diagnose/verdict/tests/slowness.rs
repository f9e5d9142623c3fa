//! Evidence of requests that take long: packet loss, the server, what it waits for, the network.

use super::evidence::{Case, fails, hop, live, quantiles};
use super::{Cause, Certainty};
use crate::diagnose::evidence::Hop;

pub(super) const CASES: &[Case] = &[
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
        "a slow server",
        |all| {
            live(all).client = quantiles(0.3, 0.9);
            live(all).server = quantiles(0.3, 0.88);
        },
        Cause::SlowServer,
        "catalog itself is slow: p99 900 ms",
        Certainty::Medium,
    ),
    (
        "a slow server, or a body that comes late",
        |all| {
            live(all).client = quantiles(0.3, 0.9);
            live(all).server = quantiles(0.3, 0.88);
            let called = |requests| Hop { requests, ..hop(0.004, 0) };
            let rarely = Hop { server: "cache".to_owned(), ..called(3) };
            live(all).dependencies = vec![called(900), rarely];
        },
        Cause::SlowServer,
        "so it is catalog itself, or the rest of a response that it reads comes late, as of postgres:5432 (p99 4 ms)",
        Certainty::Medium,
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
];
