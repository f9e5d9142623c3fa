//! The name sources: each queries an API in a task of its own and publishes an inventory.
//!
//! | source | queries | publishes |
//! |---|---|---|
//! | [`kubernetes`] | the API server | pods of this node, Services, their endpoints |
//! | [`docker`] | Docker, and podman, which has the same API | containers, their addresses,
//! published ports |
//! | [`cri`] | containerd or CRI-O | pods and their containers |
//! | [`conntrack`] | the kernel | where connections to translated addresses went |
//!
//! Each is optional: an absent one is looked for again every few seconds, a failed one is retried
//! with exponential backoff. A source publishes its inventory in a channel that holds only the
//! newest, which stays valid until the next. The core requests a refresh
//! ([`Sources::request_refresh`]) when it misses a name.

#![cfg_attr(
    not(feature = "default"),
    allow(
        dead_code,
        unused_imports,
        unused_variables,
        clippy::needless_pass_by_value,
        reason = "what the sources left out use"
    )
)]

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::inventory::Inventory;
use model::snapshot::{SourceState, SourceView};

#[cfg(feature = "conntrack")]
mod allowance;
mod cluster;
#[cfg(feature = "conntrack")]
mod conntrack;
#[cfg(any(feature = "cri", feature = "docker", feature = "kubernetes"))]
mod controller;
#[cfg(feature = "cri")]
mod cri;
#[cfg(feature = "docker")]
mod docker;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod publisher;
mod start;
mod supervise;

pub use cluster::Cluster;
use publisher::Publisher;

/// The source that lists connections.
pub(super) const CONNTRACK: &str = "conntrack";
/// Timeout of a response.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Which sources are used, and where they are.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Docker's socket.
    pub docker: Option<PathBuf>,
    /// Podman's socket.
    pub podman: Option<PathBuf>,
    /// Sockets of CRI runtimes; the first that exists is used.
    pub cri: Vec<PathBuf>,
    /// The Kubernetes cluster.
    pub cluster: Cluster,
    /// This node's name in the cluster.
    pub node: Option<String>,
    /// Whether to list translated connections of the kernel.
    pub conntrack: bool,
    /// Keys of the labels that rules match.
    pub labels: Arc<[String]>,
    /// Names of the sources that the operator configured: absent, they are down.
    pub expected: Vec<&'static str>,
}

/// All running sources.
pub struct Sources {
    /// From the most to the least reliable.
    sources: Vec<Handle>,
    runtime: Option<tokio::runtime::Runtime>,
}

struct Handle {
    name: &'static str,
    lists_containers: bool,
    report: watch::Receiver<Report>,
    refresh: Arc<Notify>,
}

/// The newest inventory and state of a source.
#[derive(Clone, Debug)]
struct Report {
    inventory: Arc<Inventory>,
    state: SourceState,
    detail: Option<String>,
    lookups: u64,
    errors: u64,
}

/// Why a source stopped.
pub(super) enum SourceError {
    /// It is not on this host.
    Absent(String),
    /// It failed, or gave an invalid response.
    Failed(String),
}

/// A source of names.
pub(super) trait NameSource: Send + 'static {
    /// Lists and publishes until something fails.
    fn run(&mut self, publisher: &Publisher) -> impl Future<Output = SourceError> + Send;
}

impl Sources {
    /// No sources at all.
    pub fn none() -> Self {
        Self { sources: Vec::new(), runtime: None }
    }

    /// All inventories, the most reliable first, and whether a source may still list new containers.
    pub fn inventories(&self) -> (Vec<Arc<Inventory>>, bool) {
        let inventory =
            self.sources.iter().map(|source| source.report.borrow().inventory.clone()).collect();
        let containers_pending = self.sources.iter().any(|source| {
            let state = source.report.borrow().state;
            source.lists_containers && matches!(state, SourceState::Starting | SourceState::Up)
        });
        (inventory, containers_pending)
    }

    /// A name is missing: the sources should list again.
    pub fn request_refresh(&self) {
        for source in &self.sources {
            source.refresh.notify_one();
        }
    }

    /// The destination of a client's connections is unknown: they should be listed again.
    pub fn request_connections(&self) {
        for source in self.sources.iter().filter(|source| source.name == CONNTRACK) {
            source.refresh.notify_one();
        }
    }

    /// Number of lists of connections begun; `None` if there will be no more.
    pub fn connection_lists(&self) -> Option<u64> {
        let source = self.sources.iter().find(|source| source.name == CONNTRACK)?;
        let report = source.report.borrow();
        let works = matches!(report.state, SourceState::Starting | SourceState::Up);
        works.then_some(report.lookups)
    }

    /// Waits until connections were listed.
    pub async fn connections_listed(&mut self) {
        if let Some(source) = self.sources.iter_mut().find(|source| source.name == CONNTRACK)
            && source.report.changed().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }

    /// The state of every source, for the status.
    pub fn views(&self) -> Vec<SourceView> {
        let view = |source: &Handle| {
            let Report { inventory, state, detail, lookups, errors } = &*source.report.borrow();
            SourceView {
                name: source.name.to_owned(),
                state: *state,
                detail: detail.clone(),
                entries: inventory.len() as u64,
                dropped: inventory.dropped(),
                lookups: *lookups,
                errors: *errors,
            }
        };
        self.sources.iter().map(view).collect()
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        // A pending request may take long; its result is no longer needed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The innermost error, which is the system's if there is one; the outer ones are messages of
/// libraries.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
