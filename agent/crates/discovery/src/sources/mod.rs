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
use tokio::time::{Instant, sleep};

use super::connections::OwnerOf;
use super::inventory::Inventory;
use linux::probes::Probes;
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

pub use cluster::Cluster;
use publisher::Publisher;

/// The source that lists connections.
pub(super) const CONNTRACK: &str = "conntrack";
/// Shortest and longest pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_mins(1);
/// The pauses of a source.
const PAUSES: Pauses =
    Pauses { absent: Duration::from_secs(5), first: FIRST_PAUSE, last: LAST_PAUSE };
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

/// How long to wait before a retry.
#[derive(Clone, Copy, Debug)]
struct Pauses {
    /// It was not there.
    absent: Duration,
    /// It failed for the first time; doubles with each.
    first: Duration,
    /// It keeps failing.
    last: Duration,
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
    /// Starts the task of every source, on a thread of their own. `owner_of` finds the clients of
    /// tracked connections.
    pub fn start(settings: Settings, probes: &Probes, owner_of: OwnerOf) -> std::io::Result<Self> {
        let Settings { docker, podman, cri, cluster, node, conntrack, labels, expected } = settings;
        let mut sources = Self { sources: Vec::new(), runtime: Some(runtime()?) };
        let absent = |name| {
            if expected.contains(&name) { SourceState::Down } else { SourceState::Absent }
        };
        if cluster != Cluster::Off {
            #[cfg(feature = "kubernetes")]
            let source = kubernetes::Kubernetes::new(cluster, node, labels.clone());
            #[cfg(feature = "kubernetes")]
            sources.add("kubernetes", true, absent("kubernetes"), source);
            #[cfg(not(feature = "kubernetes"))]
            sources.add_missing("kubernetes", "Kubernetes", "kubernetes");
        }
        if let Some(socket) = docker {
            #[cfg(feature = "docker")]
            sources.add(
                "docker",
                true,
                absent("docker"),
                docker::Docker::at(socket, labels.clone()),
            );
            #[cfg(not(feature = "docker"))]
            sources.add_missing("docker", "Docker", "docker");
        }
        if let Some(socket) = podman {
            #[cfg(feature = "docker")]
            sources.add(
                "podman",
                true,
                absent("podman"),
                docker::Docker::podman(socket, labels.clone()),
            );
            #[cfg(not(feature = "docker"))]
            sources.add_missing("podman", "podman", "docker");
        }
        if !cri.is_empty() {
            #[cfg(feature = "cri")]
            sources.add("cri", true, absent("cri"), cri::Cri::new(cri, labels));
            #[cfg(not(feature = "cri"))]
            sources.add_missing("cri", "CRI", "cri");
        }
        if conntrack {
            #[cfg(feature = "conntrack")]
            sources.add(
                CONNTRACK,
                false,
                absent(CONNTRACK),
                conntrack::Conntrack::new(probes.clone(), owner_of),
            );
            #[cfg(not(feature = "conntrack"))]
            sources.add_missing(CONNTRACK, CONNTRACK, CONNTRACK);
        }
        Ok(sources)
    }

    /// No sources at all.
    pub fn none() -> Self {
        Self { sources: Vec::new(), runtime: None }
    }

    /// `absent` is the state of the source if it is not there.
    fn add(
        &mut self,
        name: &'static str,
        lists_containers: bool,
        absent: SourceState,
        source: impl NameSource,
    ) {
        let Some(runtime) = &self.runtime else { return };
        let (sender, report) = watch::channel(Report {
            inventory: Arc::default(),
            state: SourceState::Starting,
            detail: None,
            lookups: 0,
            errors: 0,
        });
        let refresh = Arc::new(Notify::new());
        let publisher = Publisher { name, report: sender, refresh: refresh.clone() };
        runtime.spawn(supervise(source, publisher, PAUSES, absent));
        self.sources.push(Handle { name, lists_containers, report, refresh });
    }

    /// A source that is configured but not part of this build: reported in the log and in the list
    /// of sources.
    #[cfg_attr(
        all(feature = "default", not(test)),
        expect(dead_code, reason = "every source is part of this build")
    )]
    fn add_missing(&mut self, name: &'static str, support: &str, feature: &str) {
        let why = format!("this build has no {support} support; build with --features {feature}");
        tracing::warn!("names.{name}: {why}, or turn names.{name} off");
        let (_, report) = watch::channel(Report {
            inventory: Arc::default(),
            state: SourceState::Absent,
            detail: Some(why),
            lookups: 0,
            errors: 0,
        });
        self.sources.push(Handle {
            name,
            lists_containers: false,
            report,
            refresh: Arc::default(),
        });
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

    /// It is not known where the connections of a client went: they should be listed again.
    pub fn request_connections(&self) {
        for source in self.sources.iter().filter(|source| source.name == CONNTRACK) {
            source.refresh.notify_one();
        }
    }

    /// How many lists of connections were begun; none if there will be no more.
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

/// The thread of the sources.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(2)
        .thread_name("names")
        .enable_all()
        .build()
}

/// The innermost error: the system's, if there is one; the others are words of libraries.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// `absent` is the state of a source that is not there.
async fn supervise(
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
    use crate::inventory::Frontend;
    use agent_common::address;
    use model::service::{Service, Source};
    use std::sync::atomic::{AtomicU32, Ordering};

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

    #[test]
    fn a_source_that_is_not_built_in_names_its_feature() {
        let mut sources = Sources::none();
        sources.add_missing("podman", "podman", "docker");
        let views = sources.views();
        assert_eq!((&*views[0].name, views[0].state), ("podman", SourceState::Absent));
        let expected = "this build has no podman support; build with --features docker";
        assert_eq!(views[0].detail.as_deref(), Some(expected));
        assert!(!sources.inventories().1, "nothing is expected of it");
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

    /// Not there.
    struct Missing;

    impl NameSource for Missing {
        async fn run(&mut self, _: &Publisher) -> SourceError {
            SourceError::Absent("/x does not exist".to_owned())
        }
    }

    #[tokio::test]
    async fn a_source_that_is_expected_is_down_where_another_is_absent() {
        for state in [SourceState::Absent, SourceState::Down] {
            let mut sources = Sources { sources: Vec::new(), runtime: Some(runtime().unwrap()) };
            sources.add("docker", true, state, Missing);
            let report = &mut sources.sources[0].report;
            report.wait_for(|report| report.state != SourceState::Starting).await.unwrap();
            let view = sources.views().remove(0);
            assert_eq!((view.state, view.detail.as_deref()), (state, Some("/x does not exist")));
        }
    }
}
