//! Edges: `/api/v1/edges`.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde::Deserialize;

use super::{Api, Failure, Route};
use crate::convert::{self, EdgeQuery};
use api_types::{Edges, WindowChoice};
use model::snapshot::{EdgeLabels, Role};

pub(super) fn readable() -> [Route; 1] {
    [("/api/v1/edges", get(edges))]
}

/// Which edges; all conditions must hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EdgeFilter {
    /// Counted by this side.
    role: Option<Role>,
    /// A service of this name at either end.
    service: Option<String>,
    /// The server's port.
    port: Option<u16>,
    /// Over this time.
    window: Option<WindowChoice>,
    /// One edge for each address of the server.
    by: Option<Part>,
}

/// What edges are split by.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Part {
    /// The server's address.
    Address,
}

async fn edges(
    State(api): State<Api>,
    filter: Result<Query<EdgeFilter>, QueryRejection>,
) -> Result<Json<Edges>, Failure> {
    let Query(filter) = filter.map_err(|rejection| {
        let known = "role=client|server|listener, service=NAME, port=N, by=address, window=DURATION (1s to 5m) or window=start";
        Failure::query(&rejection, known)
    })?;
    let query = filter.query()?;
    let snapshot = api.source.fresh().await?;
    Ok(Json(convert::edges(&snapshot, query, |labels| filter.admits(labels))))
}

// === impl EdgeFilter ===

impl EdgeFilter {
    /// Totals since the start unless a window is named; by address one minute.
    fn query(&self) -> Result<EdgeQuery, Failure> {
        match (self.by, self.window) {
            (None, window) => Ok(EdgeQuery::Rows(window.unwrap_or(WindowChoice::Start))),
            (Some(Part::Address), None) => Ok(EdgeQuery::ByAddress(60)),
            (Some(Part::Address), Some(WindowChoice::Last(seconds))) => {
                Ok(EdgeQuery::ByAddress(seconds))
            }
            (Some(Part::Address), Some(WindowChoice::Start)) => Err(Failure(
                StatusCode::BAD_REQUEST,
                "addresses are not remembered for longer than five minutes: use by=address with window=5m or less".to_owned(),
            )),
        }
    }

    fn admits(&self, labels: &EdgeLabels) -> bool {
        let Self { role, service, port, window: _, by: _ } = self;
        role.is_none_or(|role| role == labels.role)
            && port.is_none_or(|port| port == labels.port)
            && service.as_deref().is_none_or(|service| {
                service == &*labels.client.name || service == &*labels.server.name
            })
    }
}
