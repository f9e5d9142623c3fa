//! Why an edge is not well, in words: what failed in the window, and what is stuck now.
//!
//! One list for the command line, the page and programs. What keeps a client from connecting is
//! first, then what happened to established connections, then what waits.

use agent_common::abort::ABORT_CAUSE_NAMES;
use agent_common::counters::EdgeCounters;
use agent_common::edge::{CONNECT_OK, CONNECT_RESULT_NAMES};
use agent_common::reset::{CAUSE_NAMES, is_of_connection};
use api_types::Cause;
use model::recent::WindowRow;

/// Unread or unacknowledged bytes from which on a queue is a cause; the alert
/// PortolanReceiverNotReading has the same floor, and asks how long.
const QUEUE_BYTES: u64 = 65_536;
/// Connections in CLOSE_WAIT from which on they are one: pools keep some.
const CLOSE_WAIT: u64 = 20;

/// Results of connects in words.
const CONNECTS: [(&str, &str); 12] = [
    ("refused", "refused"),
    ("timeout", "connect timed out"),
    ("unreachable", "unreachable"),
    ("reset", "reset while connecting"),
    ("denied", "denied"),
    ("aborted", "client gave up connecting"),
    ("ports_exhausted", "no local port free"),
    ("address_unavailable", "source address not on this host"),
    ("port_in_use", "source port in use"),
    ("time_wait", "source port in TIME_WAIT"),
    ("stopping", "refused while stopping"),
    ("other", "connect failed"),
];

/// Causes of resets in words.
const RESETS: [(&str, &str); 9] = [
    ("keepalive_timeout", "reset (keep-alive)"),
    ("idle_reuse", "reset (idle reuse)"),
    ("unread_data", "reset (unread data)"),
    ("linger", "reset (SO_LINGER 0)"),
    ("no_connection", "reset (no connection)"),
    ("aborted", "reset (by a program)"),
    ("protocol", "reset (protocol error)"),
    ("stopping", "reset while stopping"),
    ("unknown", "reset"),
];

/// Causes of aborts in words.
const ABORTS: [(&str, &str); 4] = [
    ("user_timeout", "died (user timeout)"),
    ("keepalive", "died (keep-alive)"),
    ("retransmission", "died (retransmission)"),
    ("unreachable", "died (unreachable)"),
];

/// What is wrong with `row`, what matters most first.
pub(super) fn why(row: &WindowRow) -> Vec<Cause> {
    let EdgeCounters { connects, resets_sent, resets_received, aborts, .. } = &*row.counters;
    let failed = CONNECT_RESULT_NAMES.iter().zip(connects).skip(usize::from(CONNECT_OK) + 1);
    let mut causes = of(&CONNECTS, "connect_", failed.map(|(name, n)| (*name, *n)));
    push(&mut causes, "listen_drop", "dropped by the listener", row.counters.listen_drops);
    push(&mut causes, "request_unanswered", "unanswered", row.counters.unanswered);
    let stopping = row.counters.unanswered_stopping;
    push(&mut causes, "request_unanswered_stopping", "unanswered while stopping", stopping);
    let aborted = ABORT_CAUSE_NAMES.iter().zip(aborts).map(|(name, n)| (*name, *n));
    causes.extend(of(&ABORTS, "abort_", aborted));
    let resets = CAUSE_NAMES.iter().zip(resets_sent.iter().zip(resets_received)).enumerate();
    let resets = resets.filter(|(cause, _)| is_of_connection(*cause));
    causes.extend(of(&RESETS, "reset_", resets.map(|(_, (name, (a, b)))| (*name, a + b))));
    if let Some(queues) = row.queues {
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

/// The most frequent first.
fn of<'a>(
    words: &[(&str, &str)],
    prefix: &str,
    counts: impl Iterator<Item = (&'a str, u64)>,
) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (name, count) in counts {
        let text = words.iter().find(|(known, _)| *known == name).map_or(name, |(_, text)| *text);
        push(&mut causes, &format!("{prefix}{name}"), text, count);
    }
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
    causes
}

fn push(causes: &mut Vec<Cause>, cause: &str, text: &str, count: u64) {
    if count > 0 {
        causes.push(Cause { cause: cause.to_owned(), text: text.to_owned(), count });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::edge::{CONNECT_REFUSED, CONNECT_TIMEOUT};
    use agent_common::queues::Queues;
    use agent_common::reset::NO_LISTENER;
    use model::fixture;
    use model::service::{Service, Source};
    use model::snapshot::Role;

    fn check(counters: &EdgeCounters, queues: Option<Queues>, expected: &[(&str, u64)]) {
        let service = Service::new("a", Source::Process);
        let edge = fixture::edge(service.clone(), service, 80, Role::Client, counters);
        let rows = fixture::snapshot().recent.since_start(&[edge]);
        let row = WindowRow { queues, ..rows.first().expect("one").clone() };
        let causes = why(&row);
        let found: Vec<_> = causes.iter().map(|cause| (&*cause.text, cause.count)).collect();
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
        let known =
            |words: &[(&str, &str)], name: &str| words.iter().any(|(word, _)| *word == name);
        assert!(CONNECT_RESULT_NAMES.iter().skip(1).all(|name| known(&CONNECTS, name)));
        let resets = CAUSE_NAMES.iter().enumerate().filter(|(cause, _)| is_of_connection(*cause));
        for (_, name) in resets {
            assert!(known(&RESETS, name), "{name}");
        }
        assert!(ABORT_CAUSE_NAMES.iter().all(|name| known(&ABORTS, name)));
    }
}
