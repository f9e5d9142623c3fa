//! `/api/v1/reservations` and `/api/v1/services`.

use api_types::{Reservations, Services, WindowChoice};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::routing::get;
use model::full_name::FullName;
use serde::Deserialize;

use super::{Api, Failure, Route};
use crate::convert;

/// A filter of services.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceFilter {
    /// `postgres` or `shop/postgres`
    service: Option<FullName>,
    /// Over this time; one minute by default.
    window: Option<WindowChoice>,
}

pub(super) fn readable() -> [Route; 2] {
    [("/api/v1/reservations", get(reservations)), ("/api/v1/services", get(services))]
}

async fn reservations(State(api): State<Api>) -> Result<Json<Reservations>, Failure> {
    let snapshot = api.source.fresh().await?;
    Ok(Json(convert::reservations(&snapshot)))
}

async fn services(
    State(api): State<Api>,
    filter: Result<Query<ServiceFilter>, QueryRejection>,
) -> Result<Json<Services>, Failure> {
    let Query(ServiceFilter { service, window }) = filter.map_err(|rejection| {
        Failure::query(&rejection, "service=NAME, window=DURATION (1s to 5m) or window=start")
    })?;
    let window = window.unwrap_or(WindowChoice::Last(60));
    let snapshot = api.source.fresh().await?;
    Ok(Json(convert::services(&snapshot, window, |view| {
        service.as_ref().is_none_or(|wanted| view.service.is_meant_by(wanted))
    })))
}
