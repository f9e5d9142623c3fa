//! Where a source publishes its inventory and its state, and when it looks again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::{Report, SourceError};
use crate::inventory::Inventory;
use model::snapshot::SourceState;

/// Events of containers come in bursts: a list waits this long for the rest of a burst.
pub const DEBOUNCE: Duration = Duration::from_millis(100);
/// Longest time between two lists, in case an event was missed.
const REFRESH: Duration = Duration::from_mins(1);

/// Where a source publishes its inventory.
pub struct Publisher {
    pub(super) name: &'static str,
    pub(super) report: watch::Sender<Report>,
    pub(super) refresh: Arc<Notify>,
}

// === impl Publisher ===

impl Publisher {
    /// Publishes the current inventory.
    pub fn publish(&self, inventory: Inventory, detail: Option<String>) {
        self.report.send_modify(|report| {
            // Readers detect a change by the pointer, so an equal inventory must keep it.
            if *report.inventory != inventory {
                report.inventory = Arc::new(inventory);
            }
            if report.state != SourceState::Up {
                tracing::info!("names come from {}", self.name);
            }
            report.state = SourceState::Up;
            report.detail = detail;
        });
    }

    /// Counts a request.
    pub fn looked_up(&self) {
        self.report.send_if_modified(|report| {
            report.lookups += 1;
            // Nothing waits for this.
            false
        });
    }

    /// Counts a failed request.
    pub fn failed(&self) {
        self.report.send_modify(|report| report.errors += 1);
    }

    /// Waits until the core requests a refresh.
    pub async fn refresh(&self) {
        self.refresh.notified().await;
    }

    /// Waits until a new list is needed (an event, a missing name, or [`REFRESH`]), and then for
    /// [`DEBOUNCE`]. `event` ends with an error if no more events can come.
    pub async fn wait(
        &self,
        event: impl Future<Output = Result<(), SourceError>>,
    ) -> Result<(), SourceError> {
        self.happened(event).await?;
        Self::debounce().await;
        Ok(())
    }

    /// The first half of [`Self::wait`].
    pub async fn happened(
        &self,
        event: impl Future<Output = Result<(), SourceError>>,
    ) -> Result<(), SourceError> {
        tokio::select! {
            happened = event => happened,
            () = self.refresh() => Ok(()),
            () = sleep(REFRESH) => Ok(()),
        }
    }

    /// The second half of [`Self::wait`].
    pub async fn debounce() {
        sleep(DEBOUNCE).await;
    }

    pub(super) fn stopped(&self, state: SourceState, why: &str) {
        self.report.send_modify(|report| {
            if report.state != state {
                let name = self.name;
                if state == SourceState::Absent {
                    tracing::debug!("no names from {name}: {why}");
                } else {
                    tracing::warn!("names.{name} failed, its last inventory stays in use: {why}");
                }
            }
            report.state = state;
            report.detail = Some(why.to_owned());
        });
    }
}
