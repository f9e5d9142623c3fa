//! Events on their way from the core to their readers: streams of the API, and `events.log`.
//!
//! The core never waits: the feed keeps the last [`WAITING`] events, and a follower that is slower
//! misses some; it learns how many, and they are counted. Without followers nothing is kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use model::events::Event;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// Events that wait for the slowest follower, at most.
pub const WAITING: usize = 4096;

/// The feed; clones are the same one.
#[derive(Clone, Debug)]
pub struct EventFeed {
    events: broadcast::Sender<Arc<Event>>,
    losses: Losses,
}

/// What followers missed; clones are the same one. It does not keep the feed open.
#[derive(Clone, Debug, Default)]
pub struct Losses(Arc<State>);

#[derive(Debug, Default)]
struct State {
    not_logged: AtomicU64,
    not_followed: AtomicU64,
    log_problem: Mutex<Option<String>>,
}

/// A follower's end.
#[derive(Debug)]
pub struct Follower {
    events: broadcast::Receiver<Arc<Event>>,
}

/// The next thing that a follower gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// An event.
    Event(Arc<Event>),
    /// It was too slow and missed this many.
    Missed(u64),
    /// The agent stops.
    End,
}

// === impl EventFeed ===

impl Default for EventFeed {
    fn default() -> Self {
        Self { events: broadcast::Sender::new(WAITING), losses: Losses::default() }
    }
}

impl EventFeed {
    /// Hands an event to every follower, if there are any.
    pub fn publish(&self, event: Arc<Event>) {
        if self.events.receiver_count() > 0 {
            // The last follower may have gone meanwhile.
            let _ = self.events.send(event);
        }
    }

    /// Follows from now on.
    pub fn follow(&self) -> Follower {
        Follower { events: self.events.subscribe() }
    }

    /// What followers missed.
    pub fn losses(&self) -> &Losses {
        &self.losses
    }
}

// === impl Losses ===

impl Losses {
    /// Counts events that `events.log` did not get.
    pub fn count_not_logged(&self, events: u64) {
        self.0.not_logged.fetch_add(events, Ordering::Relaxed);
    }

    /// Counts events that a follower did not get.
    pub fn count_not_followed(&self, events: u64) {
        self.0.not_followed.fetch_add(events, Ordering::Relaxed);
    }

    /// Says that `events.log` cannot be written and why, or that it can.
    pub fn set_log_problem(&self, problem: Option<String>) {
        *self.0.log_problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Events that `events.log` did not get.
    pub fn not_logged(&self) -> u64 {
        self.0.not_logged.load(Ordering::Relaxed)
    }

    /// Events that followers did not get.
    pub fn not_followed(&self) -> u64 {
        self.0.not_followed.load(Ordering::Relaxed)
    }

    /// Why `events.log` cannot be written, if it cannot.
    pub fn log_problem(&self) -> Option<String> {
        self.0.log_problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

// === impl Follower ===

impl Follower {
    /// Waits for the next event.
    pub async fn next(&mut self) -> Next {
        Next::of(self.events.recv().await)
    }

    /// The next one that is there already.
    pub fn next_now(&mut self) -> Option<Next> {
        match self.events.try_recv() {
            Err(TryRecvError::Empty) => None,
            Ok(event) => Some(Next::Event(event)),
            Err(TryRecvError::Lagged(missed)) => Some(Next::Missed(missed)),
            Err(TryRecvError::Closed) => Some(Next::End),
        }
    }

    /// The same, on a thread that may block.
    pub fn blocking_next(&mut self) -> Next {
        Next::of(self.events.blocking_recv())
    }
}

// === impl Next ===

impl Next {
    fn of(received: Result<Arc<Event>, RecvError>) -> Self {
        match received {
            Ok(event) => Self::Event(event),
            Err(RecvError::Lagged(missed)) => Self::Missed(missed),
            Err(RecvError::Closed) => Self::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fixture;

    #[tokio::test]
    async fn a_slow_follower_learns_how_many_it_missed_and_delays_nothing() {
        let events = fixture::snapshot().events;
        let event =
            Arc::clone(events.ring.after(0, |_| true).first().expect("the fixture has one"));
        let feed = EventFeed::default();
        feed.publish(Arc::clone(&event));
        let mut follower = feed.follow();
        for _ in 0..WAITING + 3 {
            feed.publish(Arc::clone(&event));
        }
        assert_eq!(follower.next().await, Next::Missed(3));
        for _ in 0..WAITING {
            assert_eq!(follower.next().await, Next::Event(Arc::clone(&event)));
        }
        drop(feed);
        assert_eq!(follower.next().await, Next::End);
    }
}
