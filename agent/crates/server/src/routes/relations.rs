//! `/api/v1/map`, `/api/v1/balance`, `/api/v1/flows`, `/api/v1/timeouts`, `/api/v1/segments`.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde::Deserialize;

use super::{Api, Failure, Route};
use crate::convert;
use api_types::{Balance, Flows, Map, Segments, Timeouts, WindowChoice};
use model::map::Graph;
use model::relations::ServiceName;

pub(super) fn readable() -> [Route; 5] {
    [
        ("/api/v1/map", get(map)),
        ("/api/v1/balance", get(balance)),
        ("/api/v1/flows", get(flows)),
        ("/api/v1/timeouts", get(timeouts)),
        ("/api/v1/segments", get(segments)),
    ]
}

const _: () = assert!(WindowChoice::LONGEST_SECONDS == Graph::LONGEST_WINDOW);

/// Window and service.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Up to now.
    window: Option<WindowChoice>,
    /// Names of services, separated by commas.
    #[serde(default)]
    service: String,
}

async fn map(
    State(api): State<Api>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Map>, Failure> {
    let wanted = Wanted::read(wanted)?;
    let snapshot = api.source.fresh().await?;
    Ok(Json(convert::map(&snapshot, wanted.seconds(), &wanted.services())))
}

async fn balance(
    State(api): State<Api>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Balance>, Failure> {
    let wanted = Wanted::read(wanted)?;
    let window = wanted.window.unwrap_or(WindowChoice::Last(Graph::LONGEST_WINDOW)).seconds();
    let snapshot = api.source.fresh().await?;
    Ok(Json(convert::balance(&snapshot, window, &wanted.services())))
}

/// Services.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ends {
    /// Names of services, separated by commas.
    #[serde(default)]
    service: String,
}

async fn flows(
    State(api): State<Api>,
    wanted: Result<Query<Ends>, QueryRejection>,
) -> Result<Json<Flows>, Failure> {
    let known = "service=NAME or service=NAME,NAME; numbers are since the agent started";
    let Query(Ends { service }) = wanted.map_err(|rejection| Failure::query(&rejection, known))?;
    let services = names(&service);
    let snapshot = api.source.fresh().await?;
    let is_wanted = |end: &ServiceName| {
        services.is_empty()
            || services.iter().any(|wanted| **wanted == *end.name || *wanted == end.to_string())
    };
    Ok(Json(convert::flows(&snapshot, is_wanted)))
}

async fn timeouts(
    State(api): State<Api>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Timeouts>, Failure> {
    let wanted = Wanted::read(wanted)?;
    // Since the start a timeout that was changed would be there for ever.
    let window = wanted.window.unwrap_or(WindowChoice::Last(WindowChoice::LONGEST_SECONDS));
    let snapshot = api.source.fresh().await?;
    Ok(Json(convert::timeouts(&snapshot, window, &wanted.services())))
}

/// A window.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Over {
    /// Up to now.
    window: Option<WindowChoice>,
}

async fn segments(
    State(api): State<Api>,
    wanted: Result<Query<Over>, QueryRejection>,
) -> Result<Json<Segments>, Failure> {
    let known =
        format!("window=DURATION from 1s to {}s, or window=start", WindowChoice::LONGEST_SECONDS);
    let Query(Over { window }) = wanted.map_err(|rejection| Failure::query(&rejection, &known))?;
    let window = window.unwrap_or(WindowChoice::Start);
    let snapshot = api.source.fresh().await?;
    match &snapshot.related.segments {
        Some(view) => Ok(Json(convert::segments(&snapshot, view, window))),
        None => Err(Failure(
            StatusCode::NOT_FOUND,
            "no segments are declared; declare them in the configuration file with [segments.NAME], `portolan segments --help` shows how".to_owned(),
        )),
    }
}

// === impl Wanted ===

impl Wanted {
    fn read(wanted: Result<Query<Self>, QueryRejection>) -> Result<Self, Failure> {
        let longest = Graph::LONGEST_WINDOW;
        match wanted {
            Ok(Query(wanted)) => Ok(wanted),
            Err(_) => Err(Failure(
                StatusCode::BAD_REQUEST,
                format!(
                    "cannot read the query; use window=DURATION from 1s to {longest}s or window=start, service=NAME or service=NAME,NAME"
                ),
            )),
        }
    }

    fn seconds(&self) -> Option<u64> {
        self.window.and_then(WindowChoice::seconds)
    }

    fn services(&self) -> Vec<String> {
        names(&self.service)
    }
}

/// Names with commas between them.
pub(super) fn names(text: &str) -> Vec<String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}
