//! Keeps a source running: an absent one is looked for again, a failed one is retried with backoff.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::publisher::Publisher;
use super::{NameSource, SourceError};
use model::snapshot::SourceState;

/// Shortest and longest pause after a failure.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);
pub(super) const LAST_PAUSE: Duration = Duration::from_mins(1);
/// The pauses of a source.
pub(super) const PAUSES: Pauses =
    Pauses { absent: Duration::from_secs(5), first: FIRST_PAUSE, last: LAST_PAUSE };

/// How long to wait before a retry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    /// It was not there.
    pub(super) absent: Duration,
    /// It failed for the first time; doubles with each.
    pub(super) first: Duration,
    /// It keeps failing.
    pub(super) last: Duration,
}

/// `absent` is the state of a source that is not there.
pub(super) async fn supervise(
    mut source: impl NameSource,
    publisher: Publisher,
    pauses: Pauses,
    absent: SourceState,
) {
    let mut pause = pauses.first;
    loop {
        let began = Instant::now();
        match source.run(&publisher).await {
            SourceError::Absent(why) => {
                publisher.stopped(absent, &why);
                sleep(pauses.absent).await;
            }
            SourceError::Failed(why) => {
                publisher.failed();
                publisher.stopped(SourceState::Down, &why);
                if began.elapsed() > pauses.last {
                    pause = pauses.first;
                }
                sleep(pause).await;
                pause = (pause * 2).min(pauses.last);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Frontend, Inventory};
    use crate::sources::Report;
    use agent_common::address;
    use model::service::{Service, Source};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::watch;

    /// Fails twice, then publishes and waits.
    struct Shaky(Arc<AtomicU32>);

    impl NameSource for Shaky {
        async fn run(&mut self, publisher: &Publisher) -> SourceError {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                0 => SourceError::Absent("not yet".into()),
                1 => SourceError::Failed("no answer".into()),
                _ => {
                    publisher.looked_up();
                    let mut inventory = Inventory::default();
                    let backends = vec![address::INTERNET];
                    let service = Service::new("shaky", Source::ServiceAddress);
                    inventory.add_frontend(address::INTERNET, 1, Frontend { service, backends });
                    publisher.publish(inventory, None);
                    std::future::pending().await
                }
            }
        }
    }

    #[tokio::test]
    async fn a_source_that_is_absent_or_fails_is_retried() {
        let (sender, mut report) = watch::channel(Report {
            inventory: Arc::default(),
            state: SourceState::Starting,
            detail: None,
            lookups: 0,
            errors: 0,
        });
        let publisher = Publisher { name: "shaky", report: sender, refresh: Arc::default() };
        let tries = Arc::new(AtomicU32::new(0));
        let soon = Duration::from_millis(20);
        let pauses = Pauses { absent: soon, first: soon, last: soon };
        let task =
            tokio::spawn(supervise(Shaky(tries.clone()), publisher, pauses, SourceState::Absent));
        let mut states = Vec::new();
        while states.last() != Some(&SourceState::Up) {
            report.changed().await.unwrap();
            let state = report.borrow_and_update().state;
            if states.last() != Some(&state) {
                states.push(state);
            }
        }
        task.abort();
        assert!(states.ends_with(&[SourceState::Down, SourceState::Up]), "{states:?}");
        let report = report.borrow();
        assert_eq!((report.lookups, report.errors, report.inventory.len()), (1, 1, 1));
        assert_eq!(tries.load(Ordering::Relaxed), 3);
    }
}
