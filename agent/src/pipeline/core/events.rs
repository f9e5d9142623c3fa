//! Events: what this collection found is reported one by one, to the list and to followers.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use agent_common::listener::ListenerRecord;

use super::Core;
use crate::pipeline::kernel::Kernel;
use crate::pipeline::labels::local_name;
use model::delta::Deltas;
use model::events::{Condition, EventsView, Listener, What};
use model::snapshot::{MapView, SourceState, SourceView};

impl<K: Kernel> Core<K> {
    /// Takes in what this collection found at `now`, seconds since the Unix epoch.
    pub(super) fn report(
        &mut self,
        deltas: &Deltas,
        maps: &[MapView],
        sources: &[SourceView],
        now: f64,
        now_us: u64,
    ) -> EventsView {
        let started = self.started(now_us);
        let conditions = self.conditions(maps, sources);
        let Self { reported, changes, ports, relate, feed, owners, .. } = self;
        let tenant = |owner| owners.tenant(owner);
        reported.begin(now);
        reported.add_changes(started);
        reported.add_changes(changes.of_edges(&deltas.closed, &deltas.edges, tenant));
        reported.add_edges(&deltas.edges, tenant);
        reported.add_conflicts(&ports.conflicts.take_grown());
        reported.add_violations(&std::mem::take(&mut relate.violations_found));
        reported.add_conditions(conditions);
        for event in reported.finish() {
            feed.publish(event);
        }
        EventsView {
            not_logged: feed.losses().not_logged(),
            not_followed: feed.losses().not_followed(),
            ..reported.view()
        }
    }

    /// Services that started or stopped, by their listening sockets, without those that users can
    /// have made up.
    fn started(&mut self, now_us: u64) -> Vec<What> {
        let Self { names, owners, listeners, changes, .. } = self;
        let id = |record: &ListenerRecord| (record.cookie, record.netns, record.port);
        let is_verified = |record: &&ListenerRecord| owners.user(record.owner).is_none();
        let verified = listeners.iter().filter(is_verified);
        if !changes.needs_names(now_us, verified.clone().map(id)) {
            return Vec::new();
        }
        let listener = verified.map(|record| {
            let (service, is_stable) = local_name(names, owners, record.owner, now_us);
            let command_line = owners.row(record.owner).map_or(0, |row| {
                let mut hasher = DefaultHasher::new();
                let length = row.argv.len().min(row.argv_len as usize);
                row.argv.get(..length).hash(&mut hasher);
                if length == 0 { 0 } else { hasher.finish() }
            });
            let tenant = owners.tenant(record.owner);
            Listener { socket: id(record), service, is_stable, command_line, tenant }
        });
        let listeners: Vec<_> = listener.collect();
        changes.of_services(now_us, &listeners)
    }

    /// The problems that the agent has now.
    fn conditions(&self, maps: &[MapView], sources: &[SourceView]) -> Vec<Condition> {
        let full = maps.iter().filter(|map| map.is_full()).map(|map| Condition {
            cause: "table_full",
            text: format!("the table {} is full: {}", map.name, map.consequence()),
            subject: map.name.clone(),
        });
        let down = sources.iter().filter(|source| source.state == SourceState::Down);
        let down = down.map(|SourceView { name, detail, .. }| Condition {
            cause: "names_missing",
            text: format!(
                "names from {name} are missing or out of date: {}",
                detail.as_deref().unwrap_or("no answer")
            ),
            subject: name.clone(),
        });
        let overflow = self.memory.overflow_mode.then(|| Condition {
            cause: "overflow_mode",
            text: "memory is short: new edges are counted in the rows `other`".to_owned(),
            subject: String::new(),
        });
        let log = self.feed.losses().log_problem().map(|text| Condition {
            cause: "log_failed",
            text,
            subject: String::new(),
        });
        full.chain(down).chain(overflow).chain(log).collect()
    }
}
