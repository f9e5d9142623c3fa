//! What is wrong with an edge, in words: what failed in the window, and what is stuck now.
//!
//! One list for the command line, the page, programs and [events](super::events). What keeps a client
//! from connecting is first, then what happened to established connections, then what waits.

use agent_common::abort::ABORT_CAUSE_NAMES;
use agent_common::counters::EdgeCounters;
use agent_common::edge::{CONNECT_OK, CONNECT_RESULT_NAMES};
use agent_common::lookup;
use agent_common::queues::Queues;
use agent_common::reset::{CAUSE_NAMES, is_of_connection};

/// Unread or unacknowledged bytes from which on a queue is a cause; the alert
/// PortolanReceiverNotReading has the same floor, and asks how long.
const QUEUE_BYTES: u64 = 65_536;
/// Connections in CLOSE_WAIT from which on they are one: pools keep some.
const CLOSE_WAIT: u64 = 20;

/// Results of connects in words.
const CONNECTS: [(&str, &str); 12] = [
    ("connect_refused", "refused"),
    ("connect_timeout", "connect timed out"),
    ("connect_unreachable", "unreachable"),
    ("connect_reset", "reset while connecting"),
    ("connect_denied", "denied"),
    ("connect_aborted", "client gave up connecting"),
    ("connect_ports_exhausted", "no local port free"),
    ("connect_address_unavailable", "source address not on this host"),
    ("connect_port_in_use", "source port in use"),
    ("connect_time_wait", "source port in TIME_WAIT"),
    ("connect_stopping", "refused while stopping"),
    ("connect_other", "connect failed"),
];

/// Causes of resets in words.
const RESETS: [(&str, &str); 9] = [
    ("reset_keepalive_timeout", "reset (keep-alive)"),
    ("reset_idle_reuse", "reset (idle reuse)"),
    ("reset_unread_data", "reset (unread data)"),
    ("reset_linger", "reset (SO_LINGER 0)"),
    ("reset_no_connection", "reset (no connection)"),
    ("reset_aborted", "reset (by a program)"),
    ("reset_protocol", "reset (protocol error)"),
    ("reset_stopping", "reset while stopping"),
    ("reset_unknown", "reset"),
];

/// Causes of aborts in words.
const ABORTS: [(&str, &str); 4] = [
    ("abort_user_timeout", "died (user timeout)"),
    ("abort_keepalive", "died (keep-alive)"),
    ("abort_retransmission", "died (retransmission)"),
    ("abort_unreachable", "died (unreachable)"),
];

/// Responses that are errors, in words: number in the contract, name, text.
const RESPONSES: [(usize, &str, &str); 4] = [
    (4, "response_http_5xx", "HTTP 5xx"),
    (6, "response_postgresql_error", "PostgreSQL errors"),
    (8, "response_mysql_error", "MySQL errors"),
    (10, "response_redis_error", "Redis errors"),
];

/// Results of DNS lookups that are errors, in words. That there is no such name is an answer.
const LOOKUPS: [(u32, &str, &str); 3] = [
    (lookup::TIMEOUT, "dns_timeout", "DNS timeouts"),
    (lookup::SERVFAIL, "dns_servfail", "DNS SERVFAIL"),
    (lookup::REFUSED, "dns_refused", "DNS REFUSED"),
];

/// Something that went wrong, or is wrong now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Its name, for programs: `connect_refused`, `reset_idle_reuse`, `close_wait`.
    pub cause: &'static str,
    /// In words.
    pub text: &'static str,
    /// How often, or how much.
    pub count: u64,
}

/// What is wrong with an edge that counted this and has these queues, what matters most first.
pub fn why(counters: &EdgeCounters, queues: Option<Queues>) -> Vec<Cause> {
    let EdgeCounters { connects, resets_sent, resets_received, aborts, .. } = counters;
    let failed = CONNECT_RESULT_NAMES.iter().zip(connects).skip(usize::from(CONNECT_OK) + 1);
    let mut causes = of(&CONNECTS, "connect_", failed.map(|(name, n)| (*name, *n)));
    push(&mut causes, "listen_drop", "dropped by the listener", counters.listen_drops);
    push(&mut causes, "request_unanswered", "unanswered", counters.unanswered);
    let stopping = counters.unanswered_stopping;
    push(&mut causes, "request_unanswered_stopping", "unanswered while stopping", stopping);
    for ((_, cause, text), count) in RESPONSES.iter().zip(error_responses(counters)) {
        push(&mut causes, cause, text, count);
    }
    for ((_, cause, text), count) in LOOKUPS.iter().zip(failed_lookups(counters)) {
        push(&mut causes, cause, text, count);
    }
    let aborted = ABORT_CAUSE_NAMES.iter().zip(aborts).map(|(name, n)| (*name, *n));
    causes.extend(of(&ABORTS, "abort_", aborted));
    let resets = CAUSE_NAMES.iter().zip(resets_sent.iter().zip(resets_received)).enumerate();
    let resets = resets.filter(|(cause, _)| is_of_connection(*cause));
    causes.extend(of(&RESETS, "reset_", resets.map(|(_, (name, (a, b)))| (*name, a + b))));
    if let Some(queues) = queues {
        let if_over = |n, least| if n > least { n } else { 0 };
        let closing = if_over(queues.close_wait, CLOSE_WAIT);
        push(&mut causes, "close_wait", "in CLOSE_WAIT", closing);
        let unread = if_over(queues.receive_bytes, QUEUE_BYTES);
        push(&mut causes, "receive_queue", "unread by the program", unread);
        let unsent = if_over(queues.send_bytes, QUEUE_BYTES);
        push(&mut causes, "send_queue", "not acknowledged", unsent);
    }
    causes
}

/// How many responses were errors, by [`RESPONSES`].
pub(super) fn error_responses(counters: &EdgeCounters) -> [u64; RESPONSES.len()] {
    RESPONSES.map(|(status, ..)| counters.responses.get(status).copied().unwrap_or(0))
}

/// How many DNS lookups failed, by [`LOOKUPS`].
pub(super) fn failed_lookups(counters: &EdgeCounters) -> [u64; LOOKUPS.len()] {
    LOOKUPS.map(|(result, ..)| lookup::ended(&counters.lookup_results, result))
}

/// The most frequent first.
fn of(
    words: &[(&'static str, &'static str)],
    prefix: &str,
    counts: impl Iterator<Item = (&'static str, u64)>,
) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (name, count) in counts {
        let is_it = |known: &str| known.strip_prefix(prefix) == Some(name);
        // A test proves that each has words.
        let (cause, text) =
            words.iter().find(|(known, _)| is_it(known)).copied().unwrap_or((name, name));
        push(&mut causes, cause, text, count);
    }
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
    causes
}

fn push(causes: &mut Vec<Cause>, cause: &'static str, text: &'static str, count: u64) {
    if count > 0 {
        causes.push(Cause { cause, text, count });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::edge::{CONNECT_REFUSED, CONNECT_TIMEOUT};
    use agent_common::reset::NO_LISTENER;

    fn check(counters: &EdgeCounters, queues: Option<Queues>, expected: &[(&str, u64)]) {
        let causes = why(counters, queues);
        let found: Vec<_> = causes.iter().map(|cause| (cause.text, cause.count)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_gravest_is_first_and_a_refused_connect_is_there_once() {
        check(&EdgeCounters::ZERO, Some(Queues::NONE), &[]);
        let mut counters = EdgeCounters { unanswered: 3, ..EdgeCounters::ZERO };
        counters.connects[usize::from(CONNECT_OK)] = 100;
        counters.connects[usize::from(CONNECT_REFUSED)] = 2;
        counters.connects[usize::from(CONNECT_TIMEOUT)] = 9;
        counters.resets_received[usize::from(NO_LISTENER)] = 2;
        counters.resets_received[1] = 1;
        counters.resets_sent[1] = 1;
        counters.aborts[1] = 4;
        check(
            &counters,
            None,
            &[
                ("connect timed out", 9),
                ("refused", 2),
                ("unanswered", 3),
                ("died (keep-alive)", 4),
                ("reset (idle reuse)", 2),
            ],
        );
    }

    #[test]
    fn what_waits_is_a_cause_once_it_is_much() {
        let queues = |n| Queues { receive_bytes: n, close_wait: 20, ..Queues::NONE };
        check(&EdgeCounters::ZERO, Some(queues(65_536)), &[]);
        let many = Queues { close_wait: 21, ..queues(70_000) };
        let expected = [("in CLOSE_WAIT", 21), ("unread by the program", 70_000)];
        check(&EdgeCounters::ZERO, Some(many), &expected);
    }

    #[test]
    fn every_result_and_cause_has_words() {
        let known = |words: &[(&str, &str)], prefix: &str, name: &str| {
            words.iter().any(|(word, _)| *word == format!("{prefix}{name}"))
        };
        let mut results = CONNECT_RESULT_NAMES.iter().skip(1);
        assert!(results.all(|name| known(&CONNECTS, "connect_", name)));
        let resets = CAUSE_NAMES.iter().enumerate().filter(|(cause, _)| is_of_connection(*cause));
        for (_, name) in resets {
            assert!(known(&RESETS, "reset_", name), "{name}");
        }
        assert!(ABORT_CAUSE_NAMES.iter().all(|name| known(&ABORTS, "abort_", name)));
    }
}
