//! Lookups in /proc, other namespaces and sockets, on threads so that the core never waits for
//! them.
//!
//! A tenant can block a lookup: with arguments in a mapped file of its own FUSE file system, or
//! with a million sockets in a namespace. So the core loop hands each lookup to a thread of this
//! pool and takes the answer later. The queue is bounded, every lookup has a deadline, and a thread
//! that misses it is abandoned and replaced, up to a limit. Abandoned lookups are counted.

mod kind;
mod pending;
mod pool;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

pub use self::kind::{Kind, Outcome};
pub use self::pending::Pending;
use self::pool::{Job, LIMITS, Limits, Pool, Shared};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It could not be read.
    #[error(transparent)]
    Failed(#[from] io::Error),
    /// It took too long.
    #[error("timed out")]
    Deadline,
    /// Other lookups took so long that this one did not start in time.
    #[error("not started in time")]
    NotBegun,
    /// The queue was full.
    #[error("the queue of lookups is full")]
    QueueFull,
}

/// Statistics of the pool.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Lookups by kind and outcome, in the order of [`Kind::ALL`] and [`Outcome::ALL`].
    pub looks: [[u64; Outcome::ALL.len()]; Kind::ALL.len()],
    /// Threads stuck in a lookup past its deadline.
    pub stuck: usize,
}

/// The pool.
#[derive(Clone)]
pub struct Probes(Arc<Pool>);

// === impl Probes ===

impl Probes {
    /// Starts the threads.
    pub fn start() -> io::Result<Self> {
        Self::with_limits(LIMITS)
    }

    fn with_limits(limits: Limits) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            limits,
            state: Mutex::default(),
            work: Condvar::new(),
            answered: Notify::new(),
        });
        shared.fill_up(&mut shared.lock())?;
        Ok(Self(Arc::new(Pool { shared: Some(shared) })))
    }

    /// No threads: the caller runs the lookup and has the answer at once. For programs that may
    /// block.
    pub fn inline() -> Self {
        Self(Arc::new(Pool { shared: None }))
    }

    /// Queues a lookup. Never blocks.
    pub fn ask<T: Send + 'static>(
        &self,
        kind: Kind,
        look: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Pending<T> {
        let (reply, answer) = sync_channel(1);
        let begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&begun);
        let look = move || {
            begins.store(true, Ordering::Relaxed);
            let found = look();
            let is_ok = found.is_ok();
            // The receiver may have given up meanwhile.
            let _ = reply.try_send(found);
            is_ok
        };
        let asked = Instant::now();
        let Some(shared) = &self.0.shared else {
            look();
            return Pending { answer, deadline: asked, refused: false, begun };
        };
        let deadline = asked + shared.limits.deadline.unwrap_or(kind.deadline());
        let job = Job { kind, asked, deadline, look: Box::new(look) };
        Pending { answer, deadline, refused: !shared.enqueue(job), begun }
    }

    /// Whether a lookup that improves a snapshot was queued within `grace` and may still be
    /// answered.
    pub fn is_answer_due(&self, grace: Duration) -> bool {
        let Some(shared) = &self.0.shared else { return false };
        let now = Instant::now();
        let state = shared.lock();
        let waiting = state.queue.iter().map(|job| (job.kind, job.asked));
        let running = state.running.iter().map(|running| (running.kind, running.asked));
        waiting.chain(running).any(|(kind, asked)| kind.is_for_snapshots() && asked + grace > now)
    }

    /// Waits until a lookup of [`Self::is_answer_due`] is answered or abandoned.
    pub async fn answered(&self) {
        match &self.0.shared {
            Some(shared) => shared.answered.notified().await,
            None => std::future::pending().await,
        }
    }

    /// The statistics, after abandoning overdue lookups.
    pub fn counts(&self) -> Counts {
        let Some(shared) = &self.0.shared else { return Counts::default() };
        let mut state = shared.lock();
        shared.give_up(&mut state, Instant::now());
        state.counts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::process::Command;
    use std::thread;

    const SOON: Duration = Duration::from_millis(50);
    const SMALL: Limits = Limits { threads: 1, stuck: 1, queue: 2, deadline: Some(SOON) };

    fn looks(probes: &Probes, kind: Kind) -> [u64; 4] {
        probes.counts().looks[kind as usize]
    }

    /// Opening it waits for a writer, forever if there is none.
    struct Fifo(tempfile::TempDir);

    impl Fifo {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let made = Command::new("mkfifo").arg(directory.path().join("fifo")).status();
            assert!(made.unwrap().success());
            Self(directory)
        }

        fn open(&self) -> impl FnOnce() -> io::Result<File> + Send + use<> {
            let path = self.0.path().join("fifo");
            move || File::open(path)
        }

        /// Unblocks the reader.
        fn release(&self) {
            drop(File::options().read(true).write(true).open(self.0.path().join("fifo")));
        }
    }

    #[test]
    fn answers_are_counted_by_what_they_are() {
        let probes = Probes::start().unwrap();
        assert_eq!(probes.ask(Kind::Process, || Ok(7)).wait().unwrap(), 7);
        let gone = probes.ask(Kind::Process, || Err::<(), _>(io::ErrorKind::NotFound.into()));
        assert!(matches!(gone.wait(), Err(Failure::Failed(_))));
        let panics = probes.ask(Kind::Cgroup, || -> io::Result<()> { panic!("on purpose") });
        assert!(panics.wait().is_err());
        let counted = || (looks(&probes, Kind::Process), looks(&probes, Kind::Cgroup));
        while counted() != ([1, 1, 0, 0], [0, 1, 0, 0]) {
            thread::yield_now();
        }
    }

    #[test]
    fn one_that_asks_inline_has_the_answer_at_once() {
        let pending = Probes::inline().ask(Kind::Process, || Ok(7));
        assert!(matches!(pending.take(), Some(Ok(7))));
    }

    #[test]
    fn a_stuck_lookup_delays_no_other() {
        let probes = Probes::with_limits(SMALL).unwrap();
        let fifo = Fifo::new();
        let began = Instant::now();
        let hangs = probes.ask(Kind::Process, fifo.open());
        assert!(began.elapsed() < SOON, "asking does not wait");
        assert!(hangs.take().is_none());
        assert!(matches!(hangs.wait(), Err(Failure::Deadline)));
        // Its thread is replaced.
        assert_eq!(probes.counts().stuck, 1);
        assert_eq!(probes.ask(Kind::Cgroup, || Ok(7)).wait().unwrap(), 7);
        fifo.release();
        while probes.counts().stuck > 0 {
            thread::yield_now();
        }
        assert_eq!(looks(&probes, Kind::Process), [0, 0, 1, 0], "counts once");
    }

    #[test]
    fn when_too_many_hang_the_rest_is_given_up_and_counted() {
        let probes = Probes::with_limits(SMALL).unwrap();
        let fifo = Fifo::new();
        for _ in 0..2 {
            assert!(matches!(
                probes.ask(Kind::Process, fifo.open()).wait(),
                Err(Failure::Deadline)
            ));
            probes.counts();
        }
        let waiting: Vec<_> = (0..3).map(|_| probes.ask(Kind::Cgroup, || Ok(()))).collect();
        let [one, two, three] = waiting.try_into().ok().unwrap();
        assert!(matches!(three.take(), Some(Err(Failure::QueueFull))));
        assert!(matches!(one.wait(), Err(Failure::NotBegun)));
        assert!(matches!(two.wait(), Err(Failure::NotBegun)));
        assert_eq!(looks(&probes, Kind::Cgroup), [0, 0, 2, 1]);
        assert_eq!(probes.counts().stuck, 2);
        // A thread that returns works again.
        fifo.release();
        while probes.ask(Kind::Cgroup, || Ok(())).wait().is_err() {}
    }

    #[tokio::test]
    async fn a_task_that_waits_for_answers_is_woken_by_them() {
        let probes = Probes::start().unwrap();
        let grace = Duration::from_mins(1);
        assert!(!probes.is_answer_due(grace));
        let (go, wait) = sync_channel::<()>(0);
        let pending = probes.ask(Kind::Addresses, move || {
            let _ = wait.recv();
            Ok(())
        });
        assert!(probes.is_answer_due(grace));
        assert!(!probes.is_answer_due(Duration::ZERO), "not for ever");
        go.send(()).unwrap();
        probes.answered().await;
        assert!(!probes.is_answer_due(grace));
        assert!(matches!(pending.take(), Some(Ok(()))));
    }
}
