//! Conditions: has network namespaces read every few collections, and names what was read.
//!
//! A probe reads them ([`linux::conditions`]); the core takes the answer with a later collection.

use std::sync::Arc;
use std::time::Duration;

use linux::conditions::{Condition, Conditions as Read, Interface, Memory, Unread};
use linux::probes::Pending;
use model::conditions::{
    Conditions, ConditionsView, Coverage, Fill, InterfaceCounters, MemoryCounters, Reading,
};

/// Collections between two readings.
const COLLECTIONS: u32 = 10;
/// Readings may take this fraction of one CPU (one part in N).
const SHARE: u64 = 50;

/// Readings, and what they add up to.
pub(super) struct Watch {
    every_us: u64,
    asked_us: Option<u64>,
    pending: Option<Pending<Read>>,
    /// CPU time that the last one took.
    cost_us: u64,
    /// Whether the last one failed.
    has_failed: bool,
    conditions: Conditions,
}

impl Watch {
    /// No reading yet; collections are so far apart.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            every_us: interval.saturating_mul(COLLECTIONS).as_micros() as u64,
            asked_us: None,
            pending: None,
            cost_us: 0,
            has_failed: false,
            conditions: Conditions::default(),
        }
    }

    /// Takes in a reading that was answered, and asks for one if it is time; `name` says which service
    /// acts in a network namespace.
    pub(super) fn update(
        &mut self,
        now_us: u64,
        ask: impl FnOnce() -> Pending<Read>,
        mut name: impl FnMut(u32) -> Arc<str>,
    ) -> Arc<ConditionsView> {
        if let Some(answer) = self.pending.as_ref().and_then(Pending::take) {
            self.pending = None;
            match answer {
                Ok(read) => {
                    self.has_failed = false;
                    self.cost_us = read.cost.as_micros() as u64;
                    let Read { namespaces, unread, .. } = read;
                    let coverage = coverage(namespaces.len(), unread);
                    let named = |one: Condition| reading(name(one.inode), one);
                    self.conditions.update(
                        now_us,
                        namespaces.into_iter().map(named).collect(),
                        coverage,
                    );
                }
                // Once: it is repeated until it succeeds.
                Err(error) if !self.has_failed => {
                    self.has_failed = true;
                    tracing::warn!(
                        "connection tracking, interfaces and TCP memory of network namespaces stay as they were: {error}"
                    );
                }
                Err(_) => {}
            }
        }
        let pause = self.every_us.max(self.cost_us.saturating_mul(SHARE));
        let is_due = self.asked_us.is_none_or(|at| now_us.saturating_sub(at) >= pause);
        if is_due && self.pending.is_none() {
            self.asked_us = Some(now_us);
            self.pending = Some(ask());
        }
        self.conditions.view()
    }
}

fn coverage(read: usize, unread: Unread) -> Coverage {
    let Unread { denied, untrusted, over_share, over_limit } = unread;
    Coverage { read: read as u64, denied, untrusted, over_share, over_limit }
}

/// A namespace as the model has it.
fn reading(netns_of: Arc<str>, condition: Condition) -> Reading {
    let Condition { inode, cookie, conntrack, interfaces, memory } = condition;
    let interface = |Interface { index, name, counters }| {
        let linux::links::Counters { packets, errors, drops } = counters;
        (index, name, InterfaceCounters { packets, drops, errors })
    };
    let counters =
        |Memory { pressures, aborted, pruned }| MemoryCounters { pressures, aborted, pruned };
    Reading {
        identity: (inode, cookie),
        netns_of,
        conntrack: conntrack.map(|fill| Fill { used: fill.used, limit: fill.limit }),
        interfaces: interfaces.into_iter().map(interface).collect(),
        memory: memory.map(counters),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use linux::links::Counters;
    use linux::network::Fill as Filled;

    use super::*;

    const SECOND_US: u64 = 1_000_000;

    fn of_shop(used: u64, drops: u64) -> Read {
        let counters = Counters { packets: 1000, errors: 0, drops };
        let eth0 = Interface { index: 2, name: "eth0".to_owned(), counters };
        let condition = Condition {
            inode: 7,
            conntrack: Some(Filled { used, limit: 100 }),
            interfaces: vec![eth0],
            ..Condition::default()
        };
        Read { namespaces: vec![condition], ..Read::default() }
    }

    /// The pending answer of one question, and how to give it.
    fn question() -> (std::sync::mpsc::SyncSender<io::Result<Read>>, Pending<Read>) {
        Pending::channel()
    }

    fn shop(netns: u32) -> Arc<str> {
        assert_eq!(netns, 7);
        "shop".into()
    }

    #[test]
    fn an_answer_is_taken_later_and_one_that_fails_changes_nothing() {
        let mut watch = Watch::new(Duration::from_secs(1));
        let mut at = 0;
        let mut round = |answer: io::Result<Read>| {
            let (reply, pending) = question();
            let view = watch.update(at, || pending, shop);
            // While it is pending nobody asks again, and nothing changes.
            at += 100 * SECOND_US;
            assert_eq!(watch.update(at, || unreachable!("one at a time"), shop), view);
            reply.send(answer).expect("it is waited for");
            at += SECOND_US;
            let view = watch.update(at, || question().1, shop);
            at += 100 * SECOND_US;
            // Dropped without an answer.
            let same = watch.update(at, || question().1, shop);
            assert_eq!(same, view);
            watch.pending = None;
            at += 100 * SECOND_US;
            view
        };
        let shown = |view: &ConditionsView| {
            let row = view.rows.get("shop")?;
            Some((row.conntrack?.used, row.interfaces.get("eth0")?.drops))
        };
        let failed = || -> io::Result<Read> { Err(io::ErrorKind::PermissionDenied.into()) };
        assert_eq!(shown(&round(failed())), None);
        assert_eq!(shown(&round(Ok(of_shop(10, 500)))), Some((10, 0)));
        assert_eq!(shown(&round(failed())), Some((10, 0)));
        assert_eq!(shown(&round(Ok(of_shop(90, 507)))), Some((90, 7)));
        let Coverage { read, denied, .. } = round(Ok(of_shop(90, 507))).coverage.expect("read");
        assert_eq!((read, denied), (1, 0));
    }

    #[test]
    fn it_is_read_every_ten_collections_and_less_often_if_that_takes_long() {
        let check = |interval_ms: u64, cost_ms: u64, expected_ms: u64| {
            let mut watch = Watch::new(Duration::from_millis(interval_ms));
            let mut asked = Vec::new();
            for at_ms in (0..40_000).step_by(100) {
                watch.update(
                    at_ms * 1000,
                    || {
                        asked.push(at_ms);
                        let (reply, pending) = question();
                        let cost = Duration::from_millis(cost_ms);
                        reply.send(Ok(Read { cost, ..of_shop(1, 1) })).expect("it is waited for");
                        pending
                    },
                    shop,
                );
            }
            let [first, second, third, ..] = asked[..] else { panic!("{asked:?}") };
            let pauses = (second - first, third - second);
            assert_eq!(pauses, (expected_ms, expected_ms), "{interval_ms} {cost_ms}");
        };
        check(1000, 0, 10_000);
        check(100, 1, 1000);
        check(100, 50, 2500);
        check(1000, 240, 12_000);
    }
}
