//! Events.

use std::collections::HashMap;

use api_types::{Change, Event, Events, Severity, Timestamp};
use model::events::{self, CHANGES_BEFORE, EventsView, Kind};
use model::service::Service;
use model::snapshot::Snapshot;

use super::ToApi;

/// Changes that an event names, at most.
const CHANGES: usize = 5;

/// Which part of the list.
#[derive(Clone, Copy, Debug)]
pub struct EventRange {
    /// Only events with a larger cursor.
    pub after: Option<u64>,
    /// Events at most: with `after` the first, else the last ones.
    pub limit: usize,
}

/// The events of `snapshot` in a range that are `wanted`.
pub fn events(
    snapshot: &Snapshot,
    range: EventRange,
    wanted: impl Fn(&events::Event) -> bool,
) -> Events {
    let view = &snapshot.events;
    let latest = view.ring.latest();
    // Of an agent whose clock was ahead; cursors are larger after each start otherwise.
    let after = range.after.filter(|after| *after <= latest);
    let mut found = view.ring.after(after.unwrap_or_default(), wanted);
    let excess = found.len().saturating_sub(range.limit);
    if range.after.is_some() {
        found.truncate(range.limit);
    } else {
        found.drain(..excess);
    }
    let changes = Changes::new(view);
    let shown = |event: &events::Event| {
        let mut shown = event.to_api();
        if !event.what.kind.is_change() {
            let services: Vec<&Service> = event.what.services().collect();
            shown.changes_before = changes.before(&services, event.first_seconds);
        }
        shown
    };
    let is_cut = excess > 0 && range.after.is_some();
    let last = found.last().filter(|_| is_cut).map(|event| event.cursor);
    Events {
        timestamp: Timestamp::from_seconds(snapshot.taken_seconds),
        cursor: last.unwrap_or(latest),
        more: is_cut,
        overwritten: range.after.is_some_and(|after| view.ring.has_lost_after(after)),
        events: found.into_iter().map(|event| shown(event)).collect(),
    }
}

/// Changes by service, to name those before a failure.
pub(super) struct Changes<'a>(HashMap<(&'a str, &'a str), Vec<&'a events::Event>>);

// === impl Changes ===

impl<'a> Changes<'a> {
    /// Those of a snapshot.
    pub(super) fn new(view: &'a EventsView) -> Self {
        let mut by_service: HashMap<_, Vec<&events::Event>> = HashMap::new();
        for change in view.changes() {
            for service in change.what.services() {
                by_service.entry(key(service)).or_default().push(change);
            }
        }
        Self(by_service)
    }

    /// Those of these services in the ten minutes before a time, latest first.
    pub(super) fn before(&self, services: &[&Service], until: f64) -> Vec<Change> {
        let of = services.iter().filter_map(|service| self.0.get(&key(service)));
        let is_before = |change: &&&events::Event| {
            (until - CHANGES_BEFORE..=until).contains(&change.last_seconds)
        };
        let mut before: Vec<_> = of.flatten().filter(is_before).collect();
        before.sort_by(|a, b| b.last_seconds.total_cmp(&a.last_seconds));
        before.dedup_by_key(|change| change.id);
        before.truncate(CHANGES);
        before.into_iter().filter_map(|change| change_of(change)).collect()
    }
}

fn key(service: &Service) -> (&str, &str) {
    (&service.namespace, &service.name)
}

fn change_of(event: &events::Event) -> Option<Change> {
    let service = event.what.server.as_ref()?;
    Some(Change {
        time: Timestamp::from_seconds(event.last_seconds),
        cause: event.what.cause.to_owned(),
        service: service.name.to_string(),
        service_namespace: service.namespace.to_string(),
        text: event.what.text.to_string(),
    })
}

/// A server that stops refuses: no error.
fn severity(event: &events::Event) -> Severity {
    match event.what.kind {
        kind if kind.is_change() || event.what.cause.ends_with("_stopping") => Severity::Info,
        Kind::Bind
        | Kind::Violation
        | Kind::Agent
        | Kind::ListenDrop
        | Kind::Response
        | Kind::Dns => Severity::Warning,
        _ => Severity::Error,
    }
}

impl ToApi for events::Event {
    type Shape = Event;

    fn to_api(&self) -> Event {
        let Self { id, cursor, first_seconds, last_seconds, count, what } = self;
        let events::What { kind, cause, client, server, holder, port, role, text, tenant: _ } =
            what;
        let service = |service: &Option<Service>| service.as_ref().map(ToApi::to_api);
        Event {
            id: *id,
            cursor: *cursor,
            first_seen: Timestamp::from_seconds(*first_seconds),
            last_seen: Timestamp::from_seconds(*last_seconds),
            count: *count,
            severity: severity(self),
            kind: kind.to_api(),
            cause: (*cause).to_owned(),
            text: text.to_string(),
            client: service(client),
            server: service(server),
            holder: service(holder),
            port: *port,
            role: role.map(|role| role.to_api()),
            changes_before: Vec::new(),
        }
    }
}
