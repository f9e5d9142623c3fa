//! `/api/v1/reservations` and `/api/v1/services`.

use api_types::{Reservations, Services};
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
    let Query(ServiceFilter { service }) =
        filter.map_err(|rejection| Failure::query(&rejection, "service=NAME"))?;
    let snapshot = api.source.fresh().await?;
    Ok(Json(convert::services(&snapshot, |view| {
        service.as_ref().is_none_or(|wanted| view.service.is_meant_by(wanted))
    })))
}
