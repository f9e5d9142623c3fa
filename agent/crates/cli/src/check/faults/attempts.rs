//! What failed attempts to connect mean: given up without an answer, lost a race, or rejected; and
//! whether the server listens all the same.

use std::net::IpAddr;

use api_types::Role;

use super::{Answers, Pair};

/// What is said of a server that runs and refuses all the same.
pub(super) const ON_LOOPBACK: &str = "the server listens on the loopback only";
const LISTENS: &str = "the server listens there now";

/// Where a server listens that refuses connects, if it is on this host and does.
pub(super) fn listens(pair: &Pair<'_>, answers: &Answers) -> Option<&'static str> {
    let all = answers.listeners.listeners.iter().filter(|one| {
        one.port == pair.port
            && (&*one.service_namespace, &*one.service)
                == (&*pair.server.namespace, &*pair.server.name)
    });
    let mut addresses = all.map(|one| one.address).peekable();
    addresses.peek()?;
    Some(if addresses.all(|address| address.is_loopback()) { ON_LOOPBACK } else { LISTENS })
}

/// Connects without an answer: those that ran into a timeout, and those that the client gave up
/// before. It has waited for nothing if its SYN was sent again, or if hardly any connect succeeds:
/// an address that nobody answers for (ARP, neighbour discovery) gets no SYN that could be repeated.
pub(super) fn silent(pair: &Pair<'_>, answers: &Answers) -> u64 {
    let aborted = pair.connects(&["aborted"]);
    let is_silent = aborted > pair.connects(&["ok"]) && !is_race(pair, aborted, answers);
    let given_up = if is_silent { aborted } else { aborted.min(pair.syn_retransmits()) };
    pair.connects(&["timeout"]) + given_up
}

/// Whether a client that connects over IPv6 and IPv4 at once gave these up because the other family
/// was faster (Happy Eyeballs, RFC 8305): it made as many connects to its other servers at the port.
fn is_race(pair: &Pair<'_>, aborted: u64, answers: &Answers) -> bool {
    let family = |server: &str| server.parse::<IpAddr>().ok().map(|address| address.is_ipv6());
    let Some(slower) = family(&pair.server.name) else { return false };
    let won = answers.edges.edges.iter().filter(|edge| {
        edge.role == Role::Client
            && edge.port == pair.port
            && (&*edge.client_namespace, &*edge.client)
                == (&*pair.client.namespace, &*pair.client.name)
            && family(&edge.server) != Some(slower)
    });
    won.filter_map(|edge| edge.connects.get("ok")).sum::<u64>() >= aborted
}

/// Whether connects are rejected, or have no route: one in ten of those that fail. A host answers few
/// packets a second with ICMP (`icmp_ratelimit`), so others of them get no answer.
pub(super) fn is_rejected(pair: &Pair<'_>) -> bool {
    let rejected = pair.connects(&["unreachable", "denied"]);
    let failed = rejected + pair.connects(&["timeout", "aborted"]);
    rejected > 0 && rejected.saturating_mul(10) >= failed
}
