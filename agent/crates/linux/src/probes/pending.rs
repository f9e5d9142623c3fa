//! An answer that may arrive later, or never.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use super::Failure;

/// An answer that may arrive later.
pub struct Pending<T> {
    pub(super) answer: Receiver<io::Result<T>>,
    pub(super) deadline: Instant,
    pub(super) refused: bool,
    pub(super) begun: Arc<AtomicBool>,
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
