//! Edges and listening sockets.

use std::collections::BTreeMap;

use agent_common::abort::ABORT_CAUSE_NAMES;
use agent_common::counters::EdgeCounters;
use agent_common::edge::{CONNECT_OK, CONNECT_RESULT_NAMES};
use agent_common::exported::LONGEST_SECONDS;
use agent_common::histogram::Histogram;
use agent_common::limit::LIMIT_NAMES;
use agent_common::lookup::{RESULT_NAMES, RESULTS, TYPE_NAMES};
use agent_common::operations::{Operations, PROTOCOL};
use agent_common::queues::Queues;
use agent_common::reset::CAUSE_NAMES;
use agent_common::response::{PROTOCOL_NAMES, STATUS_NAMES, STATUSES};
use agent_common::retransmit::PHASE_NAMES;
use api_types::{
    Edge, Edges, Latency, Listener, OperationCounts, Protocol, Timestamp, Window, WindowChoice,
};
use model::recent::WindowRow;
use model::snapshot::{EdgeLabels, ListenerView, Snapshot};
use model::why::why;

use super::ToApi;
use super::events::Changes;

/// Which edges, over which time.
#[derive(Clone, Copy, Debug)]
pub enum EdgeQuery {
    /// Every edge, over a window.
    Rows(WindowChoice),
    /// Each edge by the server's address, over the last seconds.
    ByAddress(u64),
}

/// The response for the edges of `snapshot` that match `wanted`.
pub fn edges(snapshot: &Snapshot, query: EdgeQuery, wanted: impl Fn(&EdgeLabels) -> bool) -> Edges {
    let (rows, seconds) = match query {
        EdgeQuery::Rows(window) => rows(snapshot, window),
        EdgeQuery::ByAddress(seconds) => snapshot.recent.rows_by_address(seconds),
    };
    let by_address = matches!(query, EdgeQuery::ByAddress(_));
    let timestamp = Timestamp::from_seconds(snapshot.taken_seconds);
    let changes = Changes::new(&snapshot.events);
    let wanted = rows.iter().filter(|row| wanted(&row.labels)).map(|row| {
        let address = || row.address.map_or_else(|| "other".to_owned(), |it| it.to_string());
        let mut edge = Edge { address: by_address.then(address), ..row.to_api() };
        if !edge.why.is_empty() {
            let ends = [&row.labels.client, &row.labels.server];
            edge.changes_before = changes.before(&ends, snapshot.taken_seconds);
        }
        edge
    });
    let edges = wanted.collect();
    Edges { timestamp, window: Window::before(timestamp, seconds), edges }
}

/// How long the agent has counted, seconds.
pub(super) fn since_start(snapshot: &Snapshot) -> f64 {
    let relations = &snapshot.related.relations;
    relations.now.saturating_sub(relations.since) as f64
}

/// Every row with what it counted in the window, and how long that is, seconds.
pub(super) fn rows(snapshot: &Snapshot, window: WindowChoice) -> (Vec<WindowRow>, f64) {
    let Snapshot { recent, edges, .. } = snapshot;
    match window {
        WindowChoice::Last(seconds) => recent.rows(edges, seconds),
        WindowChoice::Start => (recent.since_start(edges), since_start(snapshot)),
    }
}

// === impl WindowRow ===

impl ToApi for WindowRow {
    type Shape = Edge;

    fn to_api(&self) -> Edge {
        let labels = &self.labels;
        let EdgeCounters {
            connects,
            opened,
            closed,
            preexisting,
            sent_bytes,
            received_bytes,
            retransmits,
            timeouts,
            dsacks,
            limited_us,
            resets_sent,
            resets_received,
            aborts,
            unanswered,
            unanswered_stopping,
            waits,
            responses,
            lookup,
            lookup_results,
            operations,
            listen_drops,
            synack_retransmits,
            connect,
            rtt,
            request,
            // In `/api/v1/timeouts`.
            idle_reuse_ms: _,
            idle_closed_by_client_ms: _,
            idle_closed_by_server_ms: _,
        } = &*self.counters;
        let mut connects = named(&CONNECT_RESULT_NAMES, connects);
        if let Some(ok) = CONNECT_RESULT_NAMES.get(usize::from(CONNECT_OK)) {
            connects.entry((*ok).to_owned()).or_default();
        }
        let (receive_queue_bytes, send_queue_bytes, close_wait) = match self.queues {
            None => (None, None, None),
            // Sockets that are open are in `active`, those that connect only keep the row.
            Some(Queues { receive_bytes, send_bytes, close_wait, open: _, connecting: _ }) => {
                (Some(receive_bytes), Some(send_bytes), Some(close_wait))
            }
        };
        let virtual_service = labels.virtual_service.as_ref();
        Edge {
            client: labels.client.name.to_string(),
            client_namespace: labels.client.namespace.to_string(),
            client_kind: labels.client.kind.to_api(),
            client_source: labels.client.source.to_api(),
            server: labels.server.name.to_string(),
            server_namespace: labels.server.namespace.to_string(),
            server_kind: labels.server.kind.to_api(),
            server_source: labels.server.source.to_api(),
            virtual_service: virtual_service.map(|service| service.name.to_string()),
            virtual_service_namespace: virtual_service.map(|service| service.namespace.to_string()),
            port: labels.port,
            role: labels.role.to_api(),
            other_side: self.is_other_side,
            address: None,
            changes_before: Vec::new(),
            why: why(&self.counters, self.queues).iter().map(ToApi::to_api).collect(),
            unverified_user: labels.unverified_user,
            connects,
            active: self.active,
            opened: *opened,
            closed: *closed,
            preexisting: *preexisting,
            sent_bytes: *sent_bytes,
            received_bytes: *received_bytes,
            retransmits: self.counters.retransmitted(),
            retransmits_by_phase: named(&PHASE_NAMES, retransmits),
            timeouts: *timeouts,
            dsacks: *dsacks,
            limited_seconds: named(&LIMIT_NAMES, limited_us)
                .into_iter()
                .map(|(by, us)| (by, us as f64 / 1e6))
                .collect(),
            receive_queue_bytes,
            send_queue_bytes,
            close_wait,
            resets_sent: named(&CAUSE_NAMES, resets_sent),
            resets_received: named(&CAUSE_NAMES, resets_received),
            aborts: named(&ABORT_CAUSE_NAMES, aborts),
            unanswered: *unanswered,
            unanswered_stopping: *unanswered_stopping,
            waits: *waits,
            responses: by_protocol(responses),
            dns: by_type(lookup_results),
            protocols: named(&PROTOCOL_NAMES, responses.get(STATUSES..).unwrap_or_default()),
            operations: by_operation(operations),
            operations_unanswered: match operations.unanswered() {
                0 => BTreeMap::new(),
                count => BTreeMap::from([(PROTOCOL.to_owned(), count)]),
            },
            listen_overflows: *listen_drops,
            synack_retransmits: *synack_retransmits,
            connect: connect.to_api(),
            rtt: rtt.to_api(),
            request: request.to_api(),
            dns_lookup: lookup.to_api(),
        }
    }
}

/// Responses by protocol and status, without zeros.
fn by_protocol(responses: &[u64]) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut all: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let counts = STATUS_NAMES.iter().zip(responses).filter(|(_, count)| **count > 0);
    for ((protocol, status), count) in counts {
        all.entry((*protocol).to_owned()).or_default().insert((*status).to_owned(), *count);
    }
    all
}

/// Requests by protocol and operation, without zeros.
fn by_operation(operations: &Operations) -> BTreeMap<String, BTreeMap<String, OperationCounts>> {
    let mut all: BTreeMap<String, OperationCounts> = BTreeMap::new();
    for (name, status, count) in operations.answered() {
        let duration = || operations.durations().find(|(of, _)| *of == name);
        let operation = all.entry(name.to_owned()).or_insert_with(|| OperationCounts {
            statuses: BTreeMap::new(),
            duration: duration().map_or(Histogram::EMPTY, |(_, one)| **one).to_api(),
        });
        operation.statuses.insert(status.to_owned(), count);
    }
    if all.is_empty() { BTreeMap::new() } else { BTreeMap::from([(PROTOCOL.to_owned(), all)]) }
}

/// DNS lookups by type and result, without zeros.
fn by_type(results: &Histogram) -> BTreeMap<String, BTreeMap<String, u64>> {
    let by_type = TYPE_NAMES.iter().zip(results.buckets.chunks(RESULTS));
    let by_type = by_type.map(|(name, counts)| ((*name).to_owned(), named(&RESULT_NAMES, counts)));
    by_type.filter(|(_, counts)| !counts.is_empty()).collect()
}

/// Counts by name, without zeros.
pub(super) fn named(names: &[&str], counts: &[u64]) -> BTreeMap<String, u64> {
    let moved = names.iter().zip(counts).filter(|(_, count)| **count > 0);
    moved.map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

// === impl Histogram ===

const _: () = assert!(LONGEST_SECONDS == Latency::LONGEST_SECONDS);

impl ToApi for Histogram {
    type Shape = Latency;

    fn to_api(&self) -> Latency {
        Latency {
            count: self.count(),
            sum_seconds: self.sum_us as f64 / 1e6,
            p50_seconds: self.quantile_seconds(0.5),
            p99_seconds: self.quantile_seconds(0.99),
        }
    }
}

// === impl ListenerView ===

impl ToApi for ListenerView {
    type Shape = Listener;

    fn to_api(&self) -> Listener {
        let Self { service, port, address, netns, backlog, max_backlog, unverified_user: _ } = self;
        Listener {
            service: service.name.to_string(),
            service_namespace: service.namespace.to_string(),
            source: service.source.to_api(),
            port: *port,
            protocol: Protocol::Tcp,
            address: *address,
            netns: *netns,
            backlog: *backlog,
            max_backlog: *max_backlog,
        }
    }
}
