//! The slow sources of names: each asks somebody, in a task of its own, and tells what it knows.
//!
//! | source | asks | tells |
//! |---|---|---|
//! | [`kubernetes`] | the API server | pods of this node, Services, their endpoints |
//! | [`docker`] | Docker, and podman, which speaks the same | containers, their addresses, published ports |
//! | [`cri`] | containerd or CRI-O | pods and their containers |
//! | [`conntrack`] | the kernel | who answered in the place of translated addresses |
//!
//! Each is optional: one that is not there is looked for again every few seconds, one that fails
//! is tried again after a pause that grows. A source leaves its newest table in a channel that
//! holds one; what it told last stays true until it tells anew. The core asks them to look again
//! ([`Sources::ask`]) when it misses a name.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use super::told::Told;
use linux::probes::Probes;
use model::snapshot::{SourceState, SourceView};

mod conntrack;
mod cri;
mod docker;
mod kubernetes;
mod workload;

pub use kubernetes::Cluster;

/// Shortest and longest pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_mins(1);
/// The pauses of a source.
const PAUSES: Pauses =
    Pauses { absent: Duration::from_secs(5), first: FIRST_PAUSE, last: LAST_PAUSE };
/// What happens to a container happens in bursts.
const SETTLE: Duration = Duration::from_millis(100);
/// Lists are made anew at least so often, in case an event was missed.
const REFRESH: Duration = Duration::from_mins(1);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Where the sources are.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Docker's socket.
    pub docker: Option<PathBuf>,
    /// Podman's socket.
    pub podman: Option<PathBuf>,
    /// Sockets of container runtimes that speak CRI; the first that is there is asked.
    pub cri: Vec<PathBuf>,
    /// The Kubernetes cluster.
    pub cluster: Cluster,
    /// This node's name in the cluster.
    pub node: Option<String>,
    /// Whether to ask the kernel for translated connections.
    pub conntrack: bool,
    /// Keys of the labels that rules look at.
    pub labels: Arc<[String]>,
}

/// All sources at work.
pub struct Sources {
    /// From the surest to the last resort.
    sources: Vec<Source>,
    runtime: Option<tokio::runtime::Runtime>,
}

struct Source {
    name: &'static str,
    tells_containers: bool,
    report: watch::Receiver<Report>,
    wanted: Arc<Notify>,
}

/// What is known of a source.
#[derive(Clone, Debug)]
struct Report {
    told: Arc<Told>,
    state: SourceState,
    detail: Option<String>,
    lookups: u64,
    errors: u64,
}

/// Where a source leaves what it has to tell.
pub(super) struct Outlet {
    name: &'static str,
    report: watch::Sender<Report>,
    wanted: Arc<Notify>,
}

/// How long to wait before a source is tried again.
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
pub(super) enum Trouble {
    /// It is not on this host.
    Absent(String),
    /// It does not answer as it should.
    Failed(String),
}

/// A source, as its task sees it.
pub(super) trait Teller: Send + 'static {
    /// Looks, tells, and goes on as long as that works.
    fn run(&mut self, outlet: &Outlet) -> impl Future<Output = Trouble> + Send;
}

impl Sources {
    /// Starts the task of every source, on a thread of their own.
    pub fn start(settings: Settings, probes: &Probes) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(2)
            .thread_name("names")
            .enable_all()
            .build()?;
        let mut sources = Self { sources: Vec::new(), runtime: Some(runtime) };
        let Settings { docker, podman, cri, cluster, node, conntrack, labels } = settings;
        if cluster != Cluster::Off {
            let teller = kubernetes::Kubernetes::new(cluster, node, labels.clone());
            sources.add("kubernetes", true, teller);
        }
        if let Some(socket) = docker {
            sources.add("docker", true, docker::Docker::at(socket, labels.clone()));
        }
        if let Some(socket) = podman {
            sources.add("podman", true, docker::Docker::podman(socket, labels.clone()));
        }
        if !cri.is_empty() {
            sources.add("cri", true, cri::Cri::new(cri, labels));
        }
        if conntrack {
            sources.add("conntrack", false, conntrack::Conntrack(probes.clone()));
        }
        Ok(sources)
    }

    /// No sources at all.
    pub fn none() -> Self {
        Self { sources: Vec::new(), runtime: None }
    }

    fn add(&mut self, name: &'static str, tells_containers: bool, teller: impl Teller) {
        let Some(runtime) = &self.runtime else { return };
        let (sender, report) = watch::channel(Report {
            told: Arc::default(),
            state: SourceState::Starting,
            detail: None,
            lookups: 0,
            errors: 0,
        });
        let wanted = Arc::new(Notify::new());
        let outlet = Outlet { name, report: sender, wanted: wanted.clone() };
        runtime.spawn(supervise(teller, outlet, PAUSES));
        self.sources.push(Source { name, tells_containers, report, wanted });
    }

    /// What they know now, the surest first, and whether some of them may yet tell of a container.
    pub fn told(&self) -> (Vec<Arc<Told>>, bool) {
        let told = self.sources.iter().map(|source| source.report.borrow().told.clone()).collect();
        let expecting = self.sources.iter().any(|source| {
            let state = source.report.borrow().state;
            source.tells_containers && matches!(state, SourceState::Starting | SourceState::Up)
        });
        (told, expecting)
    }

    /// A name is missing: they may look again.
    pub fn ask(&self) {
        for source in &self.sources {
            source.wanted.notify_one();
        }
    }

    /// How they are.
    pub fn views(&self) -> Vec<SourceView> {
        let view = |source: &Source| {
            let Report { told, state, detail, lookups, errors } = &*source.report.borrow();
            SourceView {
                name: source.name.to_owned(),
                state: *state,
                detail: detail.clone(),
                entries: told.len() as u64,
                dropped: told.dropped(),
                lookups: *lookups,
                errors: *errors,
            }
        };
        self.sources.iter().map(view).collect()
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        // A question that is under way may take its time; nobody waits for the answer any more.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Outlet {
    /// Everything that is known now.
    pub(super) fn tell(&self, told: Told, detail: Option<String>) {
        self.report.send_modify(|report| {
            // Readers tell news from a table that is the same.
            if *report.told != told {
                report.told = Arc::new(told);
            }
            if report.state != SourceState::Up {
                tracing::info!("names come from {}", self.name);
            }
            report.state = SourceState::Up;
            report.detail = detail;
        });
    }

    /// A question was asked.
    pub(super) fn looked_up(&self) {
        self.report.send_modify(|report| report.lookups += 1);
    }

    /// A question was not answered as it should.
    pub(super) fn failed(&self) {
        self.report.send_modify(|report| report.errors += 1);
    }

    /// Waits until the core misses a name.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Waits until a list should be made anew: something has happened, a name is missing, or it
    /// is time, and then until it has settled. `event` ends with the trouble if no more events come.
    pub(super) async fn wait(
        &self,
        event: impl Future<Output = Result<(), Trouble>>,
    ) -> Result<(), Trouble> {
        self.happened(event).await?;
        Self::settle().await;
        Ok(())
    }

    /// The first half of [`Self::wait`].
    pub(super) async fn happened(
        &self,
        event: impl Future<Output = Result<(), Trouble>>,
    ) -> Result<(), Trouble> {
        tokio::select! {
            happened = event => happened,
            () = self.wanted() => Ok(()),
            () = sleep(REFRESH) => Ok(()),
        }
    }

    /// The second half of [`Self::wait`].
    pub(super) async fn settle() {
        sleep(SETTLE).await;
    }

    fn stopped(&self, state: SourceState, why: &str) {
        self.report.send_modify(|report| {
            if report.state != state {
                let name = self.name;
                if state == SourceState::Absent {
                    tracing::debug!("no names from {name}: {why}");
                } else {
                    tracing::warn!("no news from {name}, what it told last stays: {why}");
                }
            }
            report.state = state;
            report.detail = Some(why.to_owned());
        });
    }
}

async fn supervise(mut teller: impl Teller, outlet: Outlet, pauses: Pauses) {
    let mut pause = pauses.first;
    loop {
        let began = Instant::now();
        match teller.run(&outlet).await {
            Trouble::Absent(why) => {
                outlet.stopped(SourceState::Absent, &why);
                sleep(pauses.absent).await;
            }
            Trouble::Failed(why) => {
                outlet.failed();
                outlet.stopped(SourceState::Down, &why);
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
    use agent_common::address;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Fails twice, then tells and waits.
    struct Shaky(Arc<AtomicU32>);

    impl Teller for Shaky {
        async fn run(&mut self, outlet: &Outlet) -> Trouble {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                0 => Trouble::Absent("not yet".into()),
                1 => Trouble::Failed("no answer".into()),
                _ => {
                    outlet.looked_up();
                    let mut told = Told::default();
                    told.add_answer((address::INTERNET, 1), (address::INTERNET, 2));
                    outlet.tell(told, None);
                    std::future::pending().await
                }
            }
        }
    }

    #[tokio::test]
    async fn a_source_that_is_away_or_fails_is_tried_again() {
        let (sender, mut report) = watch::channel(Report {
            told: Arc::default(),
            state: SourceState::Starting,
            detail: None,
            lookups: 0,
            errors: 0,
        });
        let outlet = Outlet { name: "shaky", report: sender, wanted: Arc::default() };
        let tries = Arc::new(AtomicU32::new(0));
        let soon = Duration::from_millis(20);
        let pauses = Pauses { absent: soon, first: soon, last: soon };
        let task = tokio::spawn(supervise(Shaky(tries.clone()), outlet, pauses));
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
        assert_eq!((report.lookups, report.errors, report.told.len()), (1, 1, 1));
        assert_eq!(tries.load(Ordering::Relaxed), 3);
    }
}
