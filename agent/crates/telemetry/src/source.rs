//! How HTTP handlers get a snapshot from the core loop, which owns all state.
//!
//! A scrape must include everything up to the time of its request. So it sends the request to the
//! core loop, which collects and answers. All requests that arrive before a collection starts share
//! it; a request during a collection waits for the next, because the current one may already have
//! passed a row that it needs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use model::snapshot::Snapshot;

/// A scraper times out after ten seconds; a later response would be lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// A loop that has not published for this long is considered stuck. The longest pause that a busy
/// host may stretch to is far below.
pub const STALE_AFTER: Duration = Duration::from_mins(3);

/// How many can be waiting. The server admits fewer connections than that.
const WAITING: usize = 256;

/// The readers' end.
#[derive(Clone, Debug)]
pub struct SnapshotSource {
    ask: mpsc::Sender<oneshot::Sender<Arc<Snapshot>>>,
    latest: watch::Receiver<Latest>,
}

/// The loop's end.
#[derive(Debug)]
pub struct SnapshotRequests {
    asked: mpsc::Receiver<oneshot::Sender<Arc<Snapshot>>>,
    latest: watch::Sender<Latest>,
    waiting: Vec<oneshot::Sender<Arc<Snapshot>>>,
}

/// The latest snapshot and its time.
#[derive(Clone, Copy, Debug)]
struct Latest {
    /// When it was published: at first, when we began.
    published: Instant,
    /// Whether there is one.
    is_there: bool,
    /// Threads that hung then.
    stuck: u64,
}

/// Why there is no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The loop has ended.
    #[error("the agent is stopping")]
    Stopping,
    /// The loop does not answer.
    #[error("the agent did not read the kernel's tables within {} s; its log may say why", PATIENCE.as_secs())]
    Late,
}

/// The two ends.
pub fn channel() -> (SnapshotSource, SnapshotRequests) {
    let (ask, asked) = mpsc::channel(WAITING);
    let (publish, latest) =
        watch::channel(Latest { published: Instant::now(), is_there: false, stuck: 0 });
    let requests = SnapshotRequests { asked, latest: publish, waiting: Vec::new() };
    (SnapshotSource { ask, latest }, requests)
}

// === impl SnapshotSource ===

impl SnapshotSource {
    /// A snapshot that was begun after this call.
    pub async fn fresh(&self) -> Result<Arc<Snapshot>, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.ask.send(reply).await.map_err(|_| Unavailable::Stopping)?;
            answer.await.map_err(|_| Unavailable::Stopping)
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or(Err(Unavailable::Late))
    }

    /// How long ago a snapshot was published last.
    pub fn since_published(&self) -> Duration {
        self.latest.borrow().published.elapsed()
    }

    /// Whether there has been a first snapshot.
    pub fn is_ready(&self) -> bool {
        self.latest.borrow().is_there
    }

    /// Probe threads that are stuck.
    pub fn stuck(&self) -> u64 {
        self.latest.borrow().stuck
    }
}

// === impl SnapshotRequests ===

impl SnapshotRequests {
    /// Waits for a request. Then collect and [`publish`](Self::publish). May be dropped and called
    /// again, as `select!` does, without losing a request.
    pub async fn asked(&mut self) {
        if self.waiting.is_empty() {
            match self.asked.recv().await {
                Some(reply) => self.waiting.push(reply),
                // All readers are dropped: no request can come.
                None => std::future::pending().await,
            }
        }
        while let Ok(reply) = self.asked.try_recv() {
            self.waiting.push(reply);
        }
    }

    /// Makes `snapshot` the latest and answers the requests that [`asked`](Self::asked) reported.
    pub fn publish(&mut self, snapshot: &Arc<Snapshot>) {
        for reply in self.waiting.drain(..) {
            // The receiver may be gone.
            let _ = reply.send(Arc::clone(snapshot));
        }
        let stuck = snapshot.probes.stuck;
        self.latest.send_replace(Latest { published: Instant::now(), is_there: true, stuck });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fixture::snapshot;

    #[tokio::test]
    async fn all_who_asked_before_a_read_share_it() {
        let (source, mut requests) = channel();
        let readers: Vec<_> = (0..10)
            .map(|_| {
                let source = source.clone();
                tokio::spawn(async move { source.fresh().await })
            })
            .collect();
        tokio::task::yield_now().await;
        let mut reads = 0;
        let shared = Arc::new(snapshot());
        let answering = async {
            loop {
                requests.asked().await;
                reads += 1;
                requests.publish(&shared);
            }
        };
        let waiting = async {
            for reader in readers {
                let answer = reader.await.expect("no panic").expect("an answer");
                assert!(Arc::ptr_eq(&answer, &shared));
            }
        };
        tokio::select! { () = answering => {}, () = waiting => {} }
        assert_eq!(reads, 1);
    }

    #[tokio::test]
    async fn who_asks_during_a_read_waits_for_the_next() {
        let (source, mut requests) = channel();
        let ask = |source: &SnapshotSource| {
            let source = source.clone();
            tokio::spawn(async move { source.fresh().await })
        };
        let first = ask(&source);
        requests.asked().await;
        let second = ask(&source);
        tokio::task::yield_now().await;
        let (one, two) = (Arc::new(snapshot()), Arc::new(snapshot()));
        requests.publish(&one);
        requests.asked().await;
        requests.publish(&two);
        assert!(Arc::ptr_eq(&first.await.expect("no panic").expect("an answer"), &one));
        assert!(Arc::ptr_eq(&second.await.expect("no panic").expect("an answer"), &two));
    }

    #[tokio::test]
    async fn a_loop_that_ended_is_reported() {
        let (source, requests) = channel();
        assert!(!source.is_ready());
        drop(requests);
        assert_eq!(source.fresh().await.expect_err("no loop"), Unavailable::Stopping);
    }
}
