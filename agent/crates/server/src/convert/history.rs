//! History: what edges and services counted, step by step.

use std::cmp::Reverse;
use std::sync::Arc;

use agent_common::counters::EdgeCounters;
use agent_common::edge::CONNECT_OK;
use agent_common::reset::is_of_connection;
use api_types::{History, Point, Series, Timestamp, Window};
use model::recent::HistoryPoint;
use model::relations::ServiceName;
use model::snapshot::{EdgeLabels, Role, Snapshot};

use super::ToApi;

/// What a series is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Edge { client: ServiceName, server: ServiceName, port: u16, role: Role },
    Service(ServiceName),
}

/// The series of the last `window` seconds of the edges that are `wanted`, or of the services that
/// they lead to; the `limit` busiest.
pub fn history(
    snapshot: &Snapshot,
    window: u64,
    by_service: bool,
    limit: usize,
    wanted: impl Fn(&EdgeLabels) -> bool,
) -> History {
    let name = |labels: &Arc<EdgeLabels>| {
        let server = ServiceName::from(&labels.server);
        let edge = || Of::Edge {
            client: ServiceName::from(&labels.client),
            server: server.clone(),
            port: labels.port,
            role: labels.role,
        };
        wanted(labels).then(|| if by_service { Of::Service(server.clone()) } else { edge() })
    };
    let (found, seconds) = snapshot.recent.history(window, name);
    let busy = |points: &[HistoryPoint]| {
        let events = |point: &HistoryPoint| {
            let counters = &point.counters;
            counters.request.count() + counters.connects.iter().sum::<u64>()
        };
        points.iter().map(events).sum::<u64>()
    };
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|(_, points)| Reverse(busy(points)));
    let omitted = found.len().saturating_sub(limit) as u64;
    found.truncate(limit);
    let until = snapshot.taken_seconds;
    let timestamp = Timestamp::from_seconds(until);
    let shown = |(of, points): (Of, Vec<HistoryPoint>)| {
        series(of, points.iter().map(|it| point(it, until)).collect())
    };
    History {
        timestamp,
        window: Window::before(timestamp, seconds),
        series: found.into_iter().map(shown).collect(),
        omitted,
    }
}

fn series(of: Of, points: Vec<Point>) -> Series {
    let (client, server, port, role) = match of {
        Of::Edge { client, server, port, role } => (Some(client), server, Some(port), Some(role)),
        Of::Service(server) => (None, server, None, None),
    };
    Series {
        client: client.as_ref().map(|client| client.name.to_string()),
        client_namespace: client.as_ref().map(|client| client.namespace.to_string()),
        server: server.name.to_string(),
        server_namespace: server.namespace.to_string(),
        port,
        role: role.map(|role| role.to_api()),
        points,
    }
}

fn point(point: &HistoryPoint, until: f64) -> Point {
    let HistoryPoint { since_seconds_ago, seconds, counters } = point;
    let EdgeCounters { connects, request, resets_sent, resets_received, aborts, .. } = counters;
    let ok = connects.get(usize::from(CONNECT_OK)).copied().unwrap_or_default();
    let resets = resets_sent.iter().zip(resets_received).enumerate();
    let resets = resets.filter(|(cause, _)| is_of_connection(*cause));
    Point {
        since: Timestamp::from_seconds(until - since_seconds_ago),
        seconds: *seconds,
        connects_ok: ok,
        connects_failed: connects.iter().sum::<u64>().saturating_sub(ok),
        requests: request.count(),
        unanswered: counters.unanswered,
        p50_seconds: request.quantile_seconds(0.5),
        p99_seconds: request.quantile_seconds(0.99),
        resets: resets.map(|(_, (sent, received))| sent + received).sum(),
        aborts: aborts.iter().sum(),
        listen_overflows: counters.listen_drops,
        retransmits: counters.retransmitted(),
        sent_bytes: counters.sent_bytes,
        received_bytes: counters.received_bytes,
    }
}
