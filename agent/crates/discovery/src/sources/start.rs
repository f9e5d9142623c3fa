//! Which sources this build has, and the start of those that the settings name.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

#[cfg(feature = "conntrack")]
use super::conntrack;
#[cfg(feature = "cri")]
use super::cri;
#[cfg(feature = "docker")]
use super::docker;
#[cfg(feature = "kubernetes")]
use super::kubernetes;
use super::publisher::Publisher;
use super::supervise::{PAUSES, supervise};
use super::{CONNTRACK, Cluster, Handle, NameSource, Report, Settings, Sources};
use crate::connections::OwnerOf;
use linux::probes::Probes;
use model::snapshot::SourceState;

impl Sources {
    /// Starts the task of every source, on a thread of their own. `owner_of` finds the clients of
    /// tracked connections.
    pub fn start(settings: Settings, probes: &Probes, owner_of: OwnerOf) -> std::io::Result<Self> {
        let Settings { docker, podman, cri, cluster, node, conntrack, labels, expected } = settings;
        let mut sources = Self { sources: Vec::new(), runtime: Some(runtime()?) };
        let absent = |name| {
            if expected.contains(&name) { SourceState::Down } else { SourceState::Absent }
        };
        // Starts a source: its name, that in messages, the cargo feature that it is part of, whether it
        // lists containers, and what it is.
        macro_rules! add {
            ($name:expr, $support:literal, $feature:literal, $lists_containers:literal, $source:expr) => {
                #[cfg(feature = $feature)]
                sources.add($name, $lists_containers, absent($name), $source);
                #[cfg(not(feature = $feature))]
                sources.add_missing($name, $support, $feature);
            };
        }
        if cluster != Cluster::Off {
            let labels = labels.clone();
            add!(
                "kubernetes",
                "Kubernetes",
                "kubernetes",
                true,
                kubernetes::Kubernetes::new(cluster, node, labels)
            );
        }
        if let Some(socket) = docker {
            add!("docker", "Docker", "docker", true, docker::Docker::at(socket, labels.clone()));
        }
        if let Some(socket) = podman {
            add!(
                "podman",
                "podman",
                "docker",
                true,
                docker::Docker::podman(socket, labels.clone())
            );
        }
        if !cri.is_empty() {
            add!("cri", "CRI", "cri", true, cri::Cri::new(cri, labels));
        }
        if conntrack {
            let probes = probes.clone();
            add!(
                CONNTRACK,
                "conntrack",
                "conntrack",
                false,
                conntrack::Conntrack::new(probes, owner_of)
            );
        }
        Ok(sources)
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

#[cfg(test)]
mod tests {
    use super::super::SourceError;
    use super::*;

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
