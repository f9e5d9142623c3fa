//! Pushes the metrics to a collector, by OTLP over HTTP, where nothing scrapes the agent.
//!
//! A push collects like a scrape and sends the same metrics. Requests are sent one at a time while
//! the snapshot is walked, so memory grows neither with the host nor with a slow collector. A
//! failed request is tried twice more, then the rest of the push is dropped: values are cumulative,
//! and the next push contains the data of this one. So nothing is queued.

mod client;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use self::client::{Client, Refusal};
use crate::process::Process;
use crate::source::SnapshotSource;
use crate::{Exporter, PushResult, Pushes, Request, Resource, Scrape, Starts};

/// How often a request is tried, and the pause after the first failure; the next is twice as long.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// The last push must not delay the agent's shutdown.
const LAST_WITHIN: Duration = Duration::from_secs(2);

/// Where pushes go.
#[derive(Clone, Debug)]
pub struct Collector {
    /// The full URL of the OTLP/HTTP receiver.
    pub endpoint: Uri,
    /// Between two pushes.
    pub interval: Duration,
    /// Timeout of a request.
    pub timeout: Duration,
    /// Of every request; values are secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// Pushes until the agent stops.
pub struct Pusher {
    client: Client,
    every: Duration,
    source: SnapshotSource,
    exporter: Arc<Exporter>,
    resource: Resource,
    /// Held by the walk of a push. It must outlive an aborted one: with other start times the same
    /// totals would count twice.
    starts: Arc<Mutex<Starts>>,
    outcomes: Arc<Outcomes>,
    /// Whether the latest push failed, so that the log shows changes and not each push.
    failing: bool,
}

/// Counts of all pushes, for the metrics.
#[derive(Debug, Default)]
pub struct Outcomes(Mutex<Pushes>);

// === impl Outcomes ===

impl Outcomes {
    /// So far.
    pub fn so_far(&self) -> Pushes {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, result: PushResult, rejected: u64, took: Duration) {
        let mut pushes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pushes.count(result, rejected, took);
    }
}

// === impl Pusher ===

impl Pusher {
    /// A pusher to `collector`.
    pub fn new(
        collector: Collector,
        source: SnapshotSource,
        exporter: Exporter,
        host: &str,
    ) -> anyhow::Result<Self> {
        let began = Process::read().start_time_seconds.unwrap_or(0.0);
        Ok(Self {
            every: collector.interval,
            client: Client::new(collector)?,
            source,
            resource: Resource::new(&exporter.build().version, host),
            exporter: Arc::new(exporter),
            starts: Arc::new(Mutex::new(Starts::new((began * 1e9) as u64))),
            outcomes: Arc::default(),
            failing: false,
        })
    }

    /// Results of its pushes.
    pub fn outcomes(&self) -> Arc<Outcomes> {
        Arc::clone(&self.outcomes)
    }

    /// Pushes until dropped. May be dropped at any time.
    pub async fn run(&mut self) {
        tracing::info!("pushing metrics to {} every {:?}", self.client.endpoint(), self.every);
        let mut ticks = interval_at(Instant::now() + self.every, self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.push(TRIES).await;
        }
    }

    /// Pushes once more before the agent ends, if that is quick.
    pub async fn last(&mut self) {
        if timeout(LAST_WITHIN, self.push(1)).await.is_err() {
            tracing::warn!(
                "the last push before shutdown timed out: counts since the previous push are lost to the collector"
            );
        }
    }

    async fn push(&mut self, tries: u32) {
        let began = Instant::now();
        let (result, rejected, said) = self.sent(tries).await;
        self.outcomes.count(result, rejected, began.elapsed());
        let endpoint = self.client.endpoint();
        match result {
            PushResult::Ok if self.failing => tracing::info!("{endpoint} accepts metrics again"),
            PushResult::Ok => {}
            PushResult::Partial => {
                tracing::warn!("{endpoint} rejected {rejected} data points: {said}");
            }
            _ if self.failing => tracing::debug!("another push failed: {said}"),
            _ => tracing::warn!(
                "metrics were not pushed to {endpoint}, the next push carries their totals: {said}"
            ),
        }
        self.failing = !matches!(result, PushResult::Ok | PushResult::Partial);
    }

    /// One snapshot, request by request: the result, rejected points, and the collector's message.
    async fn sent(&mut self, tries: u32) -> (PushResult, u64, String) {
        let snapshot = match self.source.fresh().await {
            Ok(snapshot) => snapshot,
            Err(why) => return (PushResult::Unavailable, 0, why.to_string()),
        };
        let (give, mut requests) = mpsc::channel::<Request>(1);
        let (exporter, starts) = (Arc::clone(&self.exporter), Arc::clone(&self.starts));
        let resource = self.resource.clone();
        let pushes = Some(self.outcomes.so_far());
        // Tens of milliseconds of work on a large host: not on a thread of the runtime.
        let walk = tokio::task::spawn_blocking(move || {
            let scrape = Scrape { previous: None, process: Process::read(), pushes };
            let mut starts = starts.lock().unwrap_or_else(PoisonError::into_inner);
            exporter.push(&snapshot, scrape, &resource, &mut starts, &mut |request| {
                give.blocking_send(request).map_err(|_| std::fmt::Error)
            })
        });
        let mut outcome = (PushResult::Ok, 0, String::new());
        while let Some(Request { body, points }) = requests.recv().await {
            match self.tried(Bytes::from(body), tries).await {
                Ok(taken) if taken.rejected == 0 => {}
                Ok(taken) => {
                    let rejected = taken.rejected.min(points);
                    outcome = (PushResult::Partial, outcome.1 + rejected, taken.said);
                }
                Err(refusal) => {
                    let (result, message) = result(refusal);
                    outcome = (result, outcome.1, message);
                    break;
                }
            }
        }
        // The loop ends when the receiver is dropped.
        drop(requests);
        match walk.await {
            Ok(Err(_)) if outcome.0 == PushResult::Ok => {
                outcome = (PushResult::Unavailable, 0, "they could not be encoded".into());
            }
            Ok(_) => {}
            Err(error) => outcome = (PushResult::Unavailable, 0, error.to_string()),
        }
        outcome
    }

    async fn tried(&self, body: Bytes, tries: u32) -> Result<client::Taken, Refusal> {
        let mut pause = PAUSE;
        for _ in 1..tries {
            match self.client.send(body.clone()).await {
                Err(refusal) if refusal.may_pass() => sleep(pause).await,
                answer => return answer,
            }
            pause *= 2;
        }
        self.client.send(body).await
    }
}

fn result(refusal: Refusal) -> (PushResult, String) {
    match refusal {
        Refusal::Unreachable(why) => (PushResult::Unreachable, why),
        Refusal::Timeout => (PushResult::Timeout, "timed out".to_owned()),
        Refusal::Busy(said) => (PushResult::Busy, said),
        Refusal::Refused(said) => (PushResult::Refused, said),
    }
}

#[cfg(test)]
mod tests;
