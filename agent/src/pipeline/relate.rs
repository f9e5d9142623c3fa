//! What follows from what edges did: relations (balance, map), flows and violations of segments.

use std::sync::Arc;

use super::backends::Backends;
use crate::config::Config;
use discovery::Names;
use model::balance::Weights;
use model::delta::Deltas;
use model::directory::Directory;
use model::flows::Flows;
use model::owners::Owners;
use model::registry::At;
use model::relations::{Ends, Relations};
use model::segments::Reason;
use model::snapshot::RelatedView;
use model::violations::{Between, Event, Found, Violations};

/// Keeps them up to date.
pub(super) struct Relate {
    relations: Relations,
    flows: Flows,
    violations: Option<Violations>,
    weights: Arc<Weights>,
    backends: Backends,
    /// Labels of pods and containers that are exported.
    exported_labels: Vec<String>,
    directory: Arc<Directory>,
    /// The version of the inventories that `directory` is made from.
    directory_version: u64,
    /// Violations of the last update.
    pub violations_found: Vec<Found>,
}

// === impl Relate ===

impl Relate {
    /// Nothing seen yet.
    pub(super) fn new(config: &Config, now_us: u64) -> Self {
        let policy = &config.segments;
        Self {
            relations: Relations::new(now_us),
            flows: Flows::default(),
            violations: (!policy.is_empty()).then(|| Violations::new(Arc::clone(policy))),
            weights: Arc::new(config.balance.weights.clone()),
            backends: Backends::default(),
            exported_labels: config.names.labels.clone(),
            directory: Arc::new(Directory {
                classes: config.names.classes(),
                ..Directory::default()
            }),
            directory_version: 0,
            violations_found: Vec::new(),
        }
    }

    /// Takes in what edges did until `now_us`, which is `now_seconds` since the Unix epoch. `names`
    /// are those of backends.
    pub(super) fn update(
        &mut self,
        now_us: u64,
        now_seconds: f64,
        deltas: &Deltas,
        names: (&Names, At<'_>),
        owners: &Owners,
    ) -> RelatedView {
        let Deltas { closed, edges, .. } = deltas;
        self.relations.update(now_us, closed, edges);
        self.flows.update(now_seconds as u64, closed, edges);
        let found = &mut self.violations_found;
        let segments = self.violations.as_mut().map(|violations| {
            let lines = violations.update(now_seconds, closed, edges, |owner| owners.tenant(owner));
            if lines.suppressed > 0 {
                tracing::warn!(
                    "{} more edges violated the segments in the last minute; `portolan segments violations` lists them",
                    lines.suppressed
                );
            }
            for event in &lines.events {
                warn(event);
            }
            *found = lines.found;
            violations.view()
        });
        let relations = self.relations.view(now_us);
        let known = self.backends.known(&relations, &self.weights, names.0, names.1);
        self.look_up_labels(names.0);
        let (weights, directory) = (Arc::clone(&self.weights), Arc::clone(&self.directory));
        let flows = self.flows.view();
        RelatedView { relations, flows, segments, known, weights, directory }
    }

    /// Reads the labels of containers again if there are other containers.
    fn look_up_labels(&mut self, names: &Names) {
        let version = names.inventory_version();
        if version != self.directory_version {
            self.directory_version = version;
            let labels = names.container_labels(&self.exported_labels);
            if labels != self.directory.labels {
                let classes = self.directory.classes.clone();
                self.directory = Arc::new(Directory { classes, labels });
            }
        }
    }
}

fn warn(event: &Event) {
    let Event { between, client_address, server_address, .. } = event;
    let Between { reason, client_segment, server_segment, ends } = between;
    let Ends { client, server, port, .. } = ends;
    let address = |address: &Option<std::net::IpAddr>| {
        address.map_or_else(|| "unknown".to_owned(), |address| address.to_string())
    };
    let (client_address, server_address) = (address(client_address), address(server_address));
    tracing::warn!(
        %client_segment, %server_segment, %client, client_address, %server, server_address, port,
        "{client} in segment {client_segment} connected to {server}:{port} in segment {server_segment}, which {}",
        match reason {
            Reason::NotAllowed => "is not allowed",
            Reason::Plaintext => "requires TLS, in plain text",
        }
    );
}
