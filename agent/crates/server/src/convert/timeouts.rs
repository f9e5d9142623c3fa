//! Idle connections.

use agent_common::reset::IDLE_REUSE;
use api_types::{
    EdgeTimeouts, Finding, IdleTimes, KeepAlive, Severity, Timeouts, Timestamp, Window,
    WindowChoice, code,
};
use model::full_name::FullName;
use model::recent::WindowRow;
use model::service::Service;
use model::snapshot::Snapshot;
use model::timeouts;

use super::ToApi;
use super::edges::rows;
use super::waits;

/// The response for the edges of `snapshot` with one of `services` at either end, or for all.
pub fn timeouts(snapshot: &Snapshot, window: WindowChoice, services: &[String]) -> Timeouts {
    let (rows, seconds) = rows(snapshot, window);
    let timestamp = Timestamp::from_seconds(snapshot.taken_seconds);
    let is_named = |end: &Service| {
        let full = FullName::from(end).to_string();
        services.is_empty()
            || services.iter().any(|wanted| **wanted == *end.name || *wanted == full)
    };
    let is_wanted =
        |row: &&WindowRow| [&row.labels.client, &row.labels.server].into_iter().any(is_named);
    // Each connection once; what users can have made up alerts nobody.
    let counts = |row: &&WindowRow| !row.is_other_side && row.labels.unverified_user.is_none();
    Timeouts {
        timestamp,
        window: Window::before(timestamp, seconds),
        edges: rows.iter().filter(counts).filter(is_wanted).filter_map(edge).collect(),
        waits: waits::waits(&rows, is_named),
    }
}

fn edge(row: &WindowRow) -> Option<EdgeTimeouts> {
    let timeouts = timeouts::Timeouts::new(&row.counters)?;
    let seconds = |ms: u64| ms as f64 / 1e3;
    let labels = &row.labels;
    let resets = [&row.counters.resets_received, &row.counters.resets_sent];
    let verdict = timeouts.verdict();
    let is_mismatch = verdict == timeouts::Verdict::Mismatch;
    Some(EdgeTimeouts {
        client: labels.client.name.to_string(),
        client_namespace: labels.client.namespace.to_string(),
        server: labels.server.name.to_string(),
        server_namespace: labels.server.namespace.to_string(),
        port: labels.port,
        role: labels.role.to_api(),
        verdict: verdict.to_api(),
        server_timeout_seconds: timeouts.server_ms().map(seconds),
        client_timeout_seconds: timeouts.client_ms().map(seconds),
        closed_by_server: timeouts.closed_by_server.to_api(),
        closed_by_client: timeouts.closed_by_client.to_api(),
        reuse: timeouts.reuse.to_api(),
        request: row.counters.request.to_api(),
        idle_reuse_resets: resets.iter().filter_map(|of| of.get(usize::from(IDLE_REUSE))).sum(),
        finding: is_mismatch.then(|| finding(row, &timeouts)),
    })
}

fn finding(row: &WindowRow, timeouts: &timeouts::Timeouts) -> Finding {
    let (client, server) = (FullName::from(&row.labels.client), FullName::from(&row.labels.server));
    let seconds = |ms: u64| format!("{} s", (ms as f64 / 1e2).round() / 10.0);
    let (timeout, longest) = (timeouts.server_ms().unwrap_or_default(), timeouts.reuse.longest_ms);
    let port = row.labels.port;
    let title = format!(
        "{server}:{port} closes connections that were idle for {}, {client} uses some after {} and more: a request will be reset",
        seconds(timeout),
        seconds(longest)
    );
    Finding::new(code::KEEPALIVE_MISMATCH, Severity::Warning, &server.to_string(), title)
        .with("server_timeout", seconds(timeout).as_str())
        .with("longest_reuse", seconds(longest).as_str())
        .with("closed_by_server", timeouts.closed_by_server.count)
        .with("closed_by_client", timeouts.closed_by_client.count)
        .remediation(format!(
            "let {client} close idle connections after at most {}, or let {server} keep them for longer than {client} does",
            seconds(timeout / 10 * 8)
        ))
}

// === impl IdleTimes ===

impl ToApi for timeouts::IdleTimes {
    type Shape = IdleTimes;

    fn to_api(&self) -> IdleTimes {
        IdleTimes {
            count: self.count,
            sum_seconds: self.sum_ms as f64 / 1e3,
            longest_seconds: (self.count > 0).then_some(self.longest_ms as f64 / 1e3),
        }
    }
}

// === impl Verdict ===

impl ToApi for timeouts::Verdict {
    type Shape = KeepAlive;

    fn to_api(&self) -> KeepAlive {
        match self {
            Self::Unknown => KeepAlive::Unknown,
            Self::ClientFirst => KeepAlive::ClientFirst,
            Self::ServerFirst => KeepAlive::ServerFirst,
            Self::Mismatch => KeepAlive::Mismatch,
        }
    }
}
