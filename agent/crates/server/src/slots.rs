//! A fixed number of connections, and which of them is closed when a new one arrives.
//!
//! A slow client costs one slot. New connections are never refused: when all slots are taken, the
//! connection that has been idle longest is closed, of the address with the most connections. So a
//! thousand slow clients displace each other, and a scraper gets its response. Connections with a
//! running request are not closed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::task::{AbortHandle, Id};

/// Connections at the same time.
pub(super) const SLOTS: usize = 128;

/// Connections that are served.
#[derive(Default)]
pub(super) struct Slots(HashMap<Id, Slot>);

struct Slot {
    peer: IpAddr,
    since: Instant,
    phase: Phase,
    task: AbortHandle,
}

/// The side that a connection waits for: the client's request, or the agent's response.
#[derive(Clone, Debug, Default)]
pub(super) struct Phase(Arc<AtomicBool>);

/// Held while a response is being made.
pub(super) struct Answering(Phase);

impl Slots {
    /// Makes room for one more; false if all are being answered.
    pub(super) fn make_room(&mut self) -> bool {
        if self.0.len() < SLOTS {
            return true;
        }
        let mut taken: HashMap<IpAddr, usize> = HashMap::new();
        for slot in self.0.values() {
            *taken.entry(slot.peer).or_default() += 1;
        }
        let waiting = self.0.iter().filter(|(_, slot)| !slot.phase.is_answering());
        let rank = |slot: &Slot| (taken.get(&slot.peer).copied(), slot.since.elapsed());
        let slowest = waiting.max_by_key(|(_, slot)| rank(slot)).map(|(id, _)| *id);
        let Some(gone) = slowest.and_then(|id| self.0.remove(&id)) else { return false };
        gone.task.abort();
        true
    }

    pub(super) fn add(&mut self, peer: IpAddr, phase: Phase, task: AbortHandle) {
        self.0.insert(task.id(), Slot { peer, since: Instant::now(), phase, task });
    }

    pub(super) fn ended(&mut self, task: Id) {
        self.0.remove(&task);
    }
}

impl Phase {
    /// From here until the response is ready.
    pub(super) fn answering(&self) -> Answering {
        self.0.store(true, Ordering::Relaxed);
        Answering(self.clone())
    }

    fn is_answering(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    async fn occupy(slots: &mut Slots, last: u8) -> (Phase, tokio::task::JoinHandle<()>) {
        let phase = Phase::default();
        let task = tokio::spawn(std::future::pending());
        slots.add(peer(last), phase.clone(), task.abort_handle());
        // Ages differ.
        tokio::time::sleep(std::time::Duration::from_micros(100)).await;
        (phase, task)
    }

    #[tokio::test]
    async fn the_one_that_kept_us_waiting_longest_of_the_busiest_address_goes() {
        let mut slots = Slots::default();
        let (_, alone) = occupy(&mut slots, 1).await;
        let (answered, first) = occupy(&mut slots, 2).await;
        let (_, second) = occupy(&mut slots, 2).await;
        for _ in 3..SLOTS {
            assert!(slots.make_room());
            occupy(&mut slots, 2).await;
        }
        let answering = answered.answering();
        assert!(slots.make_room());
        assert!(second.await.expect_err("ended").is_cancelled());
        assert!(!alone.is_finished() && !first.is_finished());
        drop(answering);
        occupy(&mut slots, 3).await;
        assert!(slots.make_room());
        assert!(first.await.expect_err("ended").is_cancelled());
        assert!(!alone.is_finished());
    }

    #[tokio::test]
    async fn no_connection_is_closed_while_all_are_answered() {
        let mut slots = Slots::default();
        let mut answering = Vec::new();
        for _ in 0..SLOTS {
            let (phase, _) = occupy(&mut slots, 1).await;
            answering.push(phase.answering());
        }
        assert!(!slots.make_room());
        answering.pop();
        assert!(slots.make_room());
    }
}
