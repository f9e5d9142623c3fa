//! Lookups in /proc, other namespaces and sockets, on threads that the core never waits for.
//!
//! A tenant can block a lookup: with arguments in a mapped file of its own FUSE file system, or
//! with a million sockets in a namespace. So the core loop hands each lookup to a thread of this
//! pool and takes the answer later. The queue is bounded, every lookup has a deadline, and a thread
//! that misses it is abandoned and replaced, up to a limit. Abandoned lookups are counted.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

mod kind;

pub use kind::{Kind, Outcome};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It could not be read.
    #[error(transparent)]
    Failed(#[from] io::Error),
    /// It took too long.
    #[error("timed out")]
    Deadline,
    /// Others took so long that it was not begun in time.
    #[error("not begun in time")]
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

/// An answer that may arrive later.
pub struct Pending<T> {
    answer: Receiver<io::Result<T>>,
    deadline: Instant,
    refused: bool,
    begun: Arc<AtomicBool>,
}

/// Limits of the pool.
#[derive(Clone, Copy)]
struct Limits {
    threads: usize,
    /// Stuck threads that were replaced.
    stuck: usize,
    queue: usize,
    /// For all kinds.
    deadline: Option<Duration>,
}

const LIMITS: Limits = Limits { threads: 3, stuck: 16, queue: 1024, deadline: None };

/// Ends the threads with the last handle.
struct Pool {
    /// `None`: the caller runs every lookup itself.
    shared: Option<Arc<Shared>>,
}

struct Shared {
    limits: Limits,
    state: Mutex<State>,
    work: Condvar,
    answered: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    running: Vec<Running>,
    /// Threads that take jobs.
    threads: usize,
    next_thread: u64,
    closed: bool,
    counts: Counts,
}

struct Job {
    kind: Kind,
    asked: Instant,
    deadline: Instant,
    /// Returns whether the lookup succeeded.
    look: Box<dyn FnOnce() -> bool + Send>,
}

#[derive(Clone, Copy)]
struct Running {
    thread: u64,
    kind: Kind,
    asked: Instant,
    deadline: Instant,
}

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

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.lock().closed = true;
            shared.work.notify_all();
        }
    }
}

// === impl Pending ===

impl<T> Pending<T> {
    /// An answer that is not from a thread of a pool. Dropping the sender means no answer.
    pub fn channel() -> (SyncSender<io::Result<T>>, Self) {
        let (reply, answer) = sync_channel(1);
        let deadline = Instant::now() + Duration::from_hours(1);
        (reply, Self { answer, deadline, refused: false, begun: Arc::default() })
    }

    /// The answer, if it has arrived. There is none after an answer or a failure.
    pub fn take(&self) -> Option<Result<T, Failure>> {
        match self.answer.try_recv() {
            Ok(answer) => Some(answer.map_err(Failure::from)),
            Err(TryRecvError::Disconnected) => Some(Err(self.given_up())),
            Err(TryRecvError::Empty) if Instant::now() >= self.deadline => {
                Some(Err(self.given_up()))
            }
            Err(TryRecvError::Empty) => None,
        }
    }

    /// Waits for the answer until the deadline. Not for the core loop.
    pub fn wait(self) -> Result<T, Failure> {
        let deadline = self.deadline;
        self.wait_until(deadline)
    }

    /// As [`Self::wait`], until `limit` at most.
    pub fn wait_until(self, limit: Instant) -> Result<T, Failure> {
        let limit = self.deadline.min(limit);
        match self.answer.recv_timeout(limit.saturating_duration_since(Instant::now())) {
            Ok(answer) => answer.map_err(Failure::from),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(self.given_up()),
        }
    }

    /// The sender is gone, or late.
    fn given_up(&self) -> Failure {
        match self.begun.load(Ordering::Relaxed) {
            _ if self.refused => Failure::QueueFull,
            true => Failure::Deadline,
            false => Failure::NotBegun,
        }
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Lookups run without the lock, so a panic cannot leave the state inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was room.
    fn enqueue(self: &Arc<Self>, job: Job) -> bool {
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
    fn give_up(self: &Arc<Self>, state: &mut State, now: Instant) {
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
    fn fill_up(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::process::Command;

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
