//! The threads of the pool: a bounded queue, deadlines, and the replacement of threads that are stuck.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Counts, Kind, Outcome};

/// Limits of the pool.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) threads: usize,
    /// Stuck threads that were replaced.
    pub(super) stuck: usize,
    pub(super) queue: usize,
    /// For all kinds.
    pub(super) deadline: Option<Duration>,
}

/// Of the agent.
pub(super) const LIMITS: Limits = Limits { threads: 3, stuck: 16, queue: 1024, deadline: None };

/// Ends the threads with the last handle.
pub(super) struct Pool {
    /// `None`: the caller runs every lookup itself.
    pub(super) shared: Option<Arc<Shared>>,
}

pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) state: Mutex<State>,
    pub(super) work: Condvar,
    pub(super) answered: Notify,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) queue: VecDeque<Job>,
    pub(super) running: Vec<Running>,
    /// Threads that take jobs.
    pub(super) threads: usize,
    next_thread: u64,
    pub(super) closed: bool,
    pub(super) counts: Counts,
}

pub(super) struct Job {
    pub(super) kind: Kind,
    pub(super) asked: Instant,
    pub(super) deadline: Instant,
    /// Returns whether the lookup succeeded.
    pub(super) look: Box<dyn FnOnce() -> bool + Send>,
}

#[derive(Clone, Copy)]
pub(super) struct Running {
    thread: u64,
    pub(super) kind: Kind,
    pub(super) asked: Instant,
    pub(super) deadline: Instant,
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.lock().closed = true;
            shared.work.notify_all();
        }
    }
}

// === impl Shared ===

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Lookups run without the lock, so a panic cannot leave the state inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was room.
    pub(super) fn enqueue(self: &Arc<Self>, job: Job) -> bool {
        let mut state = self.lock();
        self.give_up(&mut state, job.asked);
        if state.queue.len() >= self.limits.queue {
            state.count(job.kind, Outcome::QueueFull);
            return false;
        }
        state.queue.push_back(job);
        self.work.notify_one();
        true
    }

    /// Abandons overdue lookups and replaces the threads stuck in them.
    pub(super) fn give_up(self: &Arc<Self>, state: &mut State, now: Instant) {
        let overdue = |deadline: Instant| deadline <= now;
        let mut given_up = Vec::new();
        state.queue.retain(|job| {
            let stays = !overdue(job.deadline);
            given_up.extend((!stays).then_some(job.kind));
            stays
        });
        state.running.retain(|running| {
            let stays = !overdue(running.deadline);
            if !stays {
                given_up.push(running.kind);
                state.threads -= 1;
                state.counts.stuck += 1;
            }
            stays
        });
        if given_up.is_empty() {
            return;
        }
        for kind in given_up {
            state.count(kind, Outcome::Deadline);
        }
        // If no thread can be started the others do all the work; the next call tries again.
        let _ = self.fill_up(state);
        self.answered.notify_one();
    }

    /// Starts missing threads, unless too many are stuck.
    pub(super) fn fill_up(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        while state.threads < self.limits.threads && state.counts.stuck <= self.limits.stuck {
            let (shared, thread) = (Arc::clone(self), state.next_thread);
            thread::Builder::new().name("probe".to_owned()).spawn(move || shared.work(thread))?;
            state.next_thread += 1;
            state.threads += 1;
        }
        Ok(())
    }

    /// The body of a thread.
    fn work(self: &Arc<Self>, thread: u64) {
        let mut state = self.lock();
        while !state.closed {
            let Some(job) = state.queue.pop_front() else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let Job { kind, asked, deadline, look } = job;
            if deadline <= Instant::now() {
                state.count(kind, Outcome::Deadline);
                continue;
            }
            state.running.push(Running { thread, kind, asked, deadline });
            drop(state);
            let is_ok = catch_unwind(AssertUnwindSafe(look)).unwrap_or(false);
            state = self.lock();
            if let Some(index) = state.running.iter().position(|one| one.thread == thread) {
                state.running.swap_remove(index);
                state.count(kind, if is_ok { Outcome::Ok } else { Outcome::Failed });
                if kind.is_for_snapshots() {
                    self.answered.notify_one();
                }
                continue;
            }
            // Abandoned meanwhile, and perhaps replaced.
            state.counts.stuck -= 1;
            if state.threads >= self.limits.threads {
                return;
            }
            state.threads += 1;
        }
    }
}

// === impl State ===

impl State {
    fn count(&mut self, kind: Kind, outcome: Outcome) {
        let looks = self.counts.looks.get_mut(kind as usize);
        if let Some(count) = looks.and_then(|looks| looks.get_mut(outcome as usize)) {
            *count += 1;
        }
    }
}
