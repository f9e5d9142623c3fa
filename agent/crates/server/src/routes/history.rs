//! `/api/v1/history`.

use api_types::History;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use model::recent::HISTORY_SECONDS;
use model::snapshot::{EdgeLabels, Role};
use serde::Deserialize;

use super::events::is_called;
use super::{Api, Failure, Route};
use crate::convert;

/// Series without a `limit`, and with one at most.
const LIMIT: usize = 20;
const MOST: usize = 1000;

/// The form of a window.
const WINDOW: &str = "a duration from 1s to 1h";

/// Which series; all conditions must hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    /// With this service at either end.
    service: Option<String>,
    /// With this client.
    client: Option<String>,
    /// With this server.
    server: Option<String>,
    /// With this port.
    port: Option<u16>,
    /// One series for each server instead of each edge.
    by: Option<Part>,
    /// Over this time, one minute by default.
    window: Option<String>,
    /// So many at most.
    limit: Option<usize>,
}

/// What a series is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Part {
    /// An edge.
    Edge,
    /// A service, as the server of its edges.
    Service,
}

pub(super) fn readable() -> [Route; 1] {
    [("/api/v1/history", get(history))]
}

async fn history(
    State(api): State<Api>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<History>, Failure> {
    let Query(query) = query.map_err(|rejection| {
        let known = "service=NAME, client=NAME, server=NAME, port=N, by=edge|service, window=DURATION (1s to 1h), limit=N";
        Failure::query(&rejection, known)
    })?;
    let window = query.window()?;
    let limit = query.limit.unwrap_or(LIMIT);
    if !(1..=MOST).contains(&limit) {
        let said = format!("limit has to be from 1 to {MOST}");
        return Err(Failure(StatusCode::BAD_REQUEST, said));
    }
    let snapshot = api.source.fresh().await?;
    let by_service = query.by == Some(Part::Service);
    let wanted = |labels: &EdgeLabels| query.admits(labels);
    Ok(Json(convert::history(&snapshot, window, by_service, limit, wanted)))
}

// === impl HistoryQuery ===

impl HistoryQuery {
    /// Seconds.
    fn window(&self) -> Result<u64, Failure> {
        let Some(text) = &self.window else { return Ok(60) };
        let duration = notation::duration::parse(text).map(|duration| duration.as_secs());
        let seconds = text.parse().ok().or(duration);
        seconds.filter(|seconds| (1..=HISTORY_SECONDS).contains(seconds)).ok_or_else(|| {
            let said = format!("\"{text}\" is not a window of history; write {WINDOW}");
            Failure(StatusCode::BAD_REQUEST, said)
        })
    }

    fn admits(&self, labels: &EdgeLabels) -> bool {
        let Self { service, client, server, port, by: _, window: _, limit: _ } = self;
        let is = |wanted: &Option<String>, ends: &[&model::service::Service]| {
            wanted.as_ref().is_none_or(|name| ends.iter().any(|end| is_called(end, name)))
        };
        // Drops of a listener belong to the service, but to no edge.
        (labels.role != Role::Listener || self.by == Some(Part::Service))
            && is(service, &[&labels.client, &labels.server])
            && is(client, &[&labels.client])
            && is(server, &[&labels.server])
            && port.is_none_or(|port| port == labels.port)
    }
}
