//! Wake-ups that request a collection before the timer does: by the kernel half, when a service
//! ends, and by the table of mounts, when a network namespace may have come or gone.

use std::fs::File;
use std::future::{Future as _, pending};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use linux::readiness::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

/// Calls are answered at most so often: services often end many at once.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// Pauses can be made up for later, as long as they are not more than this together.
const CREDIT: Duration = Duration::from_secs(10);

/// Where they come from, and when the next one is answered.
pub(super) struct Calls {
    source: AsyncFd<OwnedFd>,
    interest: Interest,
    not_before: Instant,
    /// When all pauses so far have been made.
    paid: Instant,
}

impl Calls {
    /// Of a ring buffer; within a tokio runtime.
    pub(super) fn new(ring: OwnedFd) -> io::Result<Self> {
        Self::watch(ring, Interest::READABLE)
    }

    /// Of a table of mounts; within a tokio runtime.
    pub(super) fn of_mounts(table: File) -> io::Result<Self> {
        Self::watch(table.into(), Interest::PRIORITY)
    }

    fn watch(source: OwnedFd, interest: Interest) -> io::Result<Self> {
        let source = linux::readiness::watch(source, interest)?;
        let now = Instant::now();
        Ok(Self { source, interest, not_before: now, paid: now })
    }

    /// Returns when there is one and its time has come.
    pub(super) async fn next(&self) {
        sleep_until(self.not_before).await;
        match self.source.ready(self.interest).await {
            Ok(mut ready) => ready.clear_ready(),
            // The runtime ends.
            Err(_) => pending().await,
        }
    }

    /// Whether there is one, even if its time has not come.
    pub(super) fn is_there(&self) -> bool {
        let ready = pin!(self.source.ready(self.interest));
        ready.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// There was a drain, after which should be a pause: now, or after the next calls.
    pub(super) fn answered(&mut self, pause: Duration) {
        let now = Instant::now();
        self.paid = self.paid.max(now) + pause;
        self.not_before = now + SHORTEST_PAUSE.max((self.paid - now).saturating_sub(CREDIT));
    }
}
