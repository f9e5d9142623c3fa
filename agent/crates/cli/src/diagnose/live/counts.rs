//! The counts of a pair, from the edges of its two sides.

use api_types::{Edge, Latency, Role};

use super::super::evidence::{Live, OfBoth, Quantiles};
use crate::edges;

/// Payload of a segment on Ethernet, as in the alert PortolanRetransmitsHigh.
const SEGMENT_BYTES: u64 = 1448;

/// Unread bytes of a client, as seconds of what it receives: the check PP205 has the same.
const UNREAD_SECONDS: f64 = 30.0;

impl Live {
    /// Adds the counts of an edge: those of the side that knows most, and those of both.
    pub(super) fn count(&mut self, main: &Edge, near: Option<&Edge>, far: Option<&Edge>) {
        self.ok = main.connects.get("ok").copied().unwrap_or_default();
        let failed = main.connects.iter().filter(|(result, n)| *result != "ok" && **n > 0);
        self.failed = failed.map(|(result, n)| (result.clone(), *n)).collect();
        self.active = main.active;
        self.opened = main.opened;
        self.requests = main.request.count;
        self.waits = main.waits;
        self.unverified_user = main.unverified_user;
        self.client = near.map(|edge| Quantiles::of(&edge.request)).unwrap_or_default();
        self.server = far.map(|edge| Quantiles::of(&edge.request)).unwrap_or_default();
        self.rtt = Quantiles::of(&main.rtt);
        let unread = |edge: Option<&Edge>| {
            edge.and_then(|edge| edge.receive_queue_bytes).unwrap_or_default()
        };
        // What a busy client receives waits for a moment.
        let seconds = near.map_or(0.0, |edge| edge.received_bytes as f64) / self.seconds.max(1.0);
        let is_stuck = unread(near) as f64 > UNREAD_SECONDS * seconds;
        self.unread =
            OfBoth { client: if is_stuck { unread(near) } else { 0 }, server: unread(far) };
        let close_wait =
            |edge: Option<&Edge>| edge.and_then(|edge| edge.close_wait).unwrap_or_default();
        self.close_wait = OfBoth { client: close_wait(near), server: close_wait(far) };
        // Seen at the server; the client's row of the same connections takes it from there.
        let answered = far.unwrap_or(main);
        self.responses = edges::responses(answered);
        for (protocol, statuses) in &answered.responses {
            let errors = statuses.iter().filter(|(status, _)| edges::is_error(status));
            self.errors.extend(errors.map(|(status, n)| (format!("{protocol} {status}"), *n)));
        }
        for edge in near.into_iter().chain(far) {
            self.unanswered = self.unanswered.max(edge.unanswered);
            let phase =
                |name: &str| edge.retransmits_by_phase.get(name).copied().unwrap_or_default();
            self.syn_retransmits += phase("syn");
            let again = phase("established") + phase("closing");
            self.retransmits += again;
            self.segments += again + edge.sent_bytes / SEGMENT_BYTES + edge.request.count;
            // Both sides count the same reset, each with the cause that it sees. A client that ends
            // a connection of its own with a reset (SO_LINGER 0), as proxies do with idle ones,
            // loses nothing by it; what it had asked for is counted as unanswered.
            if self.resets.is_empty() {
                let is_client = edge.role == Role::Client;
                let by_client = |cause: &str| cause == "aborted";
                let sent = edge.resets_sent.iter();
                let sent = sent.filter(|(cause, _)| !(is_client && by_client(cause)));
                let received = edge.resets_received.iter();
                let received = received.filter(|(cause, _)| is_client || !by_client(cause));
                for (cause, n) in sent.chain(received).filter(|(_, n)| **n > 0) {
                    *self.resets.entry(cause.clone()).or_default() += n;
                }
            }
            for (cause, n) in edge.aborts.iter().filter(|(_, n)| **n > 0) {
                let known = self.aborts.entry(cause.clone()).or_default();
                *known = (*n).max(*known);
            }
        }
    }
}

impl Quantiles {
    pub(super) fn of(latency: &Latency) -> Self {
        Self { p50: latency.p50_seconds, p99: latency.p99_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::live::edge::is_pair;
    use crate::diagnose::live::tests::answers;

    #[test]
    fn what_a_busy_client_has_not_read_yet_is_no_fault() {
        let answers = answers();
        let edge = answers.edges.edges.iter().find(|edge| is_pair(edge)).expect("an edge");
        let unread = |received_bytes| {
            let receive_queue_bytes = Some(200_000);
            let edge = Edge { receive_queue_bytes, received_bytes, ..edge.clone() };
            let mut live = Live { seconds: 60.0, ..Live::default() };
            live.count(&edge, Some(&edge), None);
            live.unread
        };
        assert_eq!(unread(100_000), OfBoth { client: 200_000, server: 0 });
        assert_eq!(unread(60_000_000), OfBoth::default());
    }

    #[test]
    fn a_client_that_resets_its_own_idle_connections_is_no_fault() {
        let answers = answers();
        let edge = answers.edges.edges.iter().find(|edge| is_pair(edge)).expect("an edge");
        let resets = |role, sent: u64, received: u64| {
            let of = |n| std::collections::BTreeMap::from([("aborted".to_owned(), n)]);
            let (sent, received) = (of(sent), of(received));
            let edge = Edge { role, resets_sent: sent, resets_received: received, ..edge.clone() };
            let mut live = Live::default();
            live.count(&edge, Some(&edge), None);
            live.resets.values().sum::<u64>()
        };
        assert_eq!((resets(Role::Client, 4, 0), resets(Role::Server, 0, 4)), (0, 0));
        assert_eq!((resets(Role::Client, 0, 4), resets(Role::Server, 4, 0)), (4, 4));
    }
}
