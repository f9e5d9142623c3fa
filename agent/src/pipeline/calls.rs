//! Wake-ups by the kernel half, which requests a collection before the timer does.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

/// Calls are answered at most so often: services often end many at once.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// Pauses can be made up for later, as long as they are not more than this together.
const CREDIT: Duration = Duration::from_secs(10);

/// Where they come from, and when the next one is answered.
pub(super) struct Calls {
    ring: AsyncFd<OwnedFd>,
    not_before: Instant,
    /// When all pauses so far have been made.
    paid: Instant,
}

impl Calls {
    /// Of a ring buffer; within a tokio runtime.
    pub(super) fn new(ring: OwnedFd) -> io::Result<Self> {
        let ring = linux::readiness::watch(ring)?;
        let now = Instant::now();
        Ok(Self { ring, not_before: now, paid: now })
    }

    /// Returns when there is one and its time has come.
    pub(super) async fn next(&self) {
        sleep_until(self.not_before).await;
        match self.ring.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            // The runtime ends.
            Err(_) => pending().await,
        }
    }

    /// There was a drain, after which should be a pause: now, or after the next calls.
    pub(super) fn answered(&mut self, pause: Duration) {
        let now = Instant::now();
        self.paid = self.paid.max(now) + pause;
        self.not_before = now + SHORTEST_PAUSE.max((self.paid - now).saturating_sub(CREDIT));
    }
}
