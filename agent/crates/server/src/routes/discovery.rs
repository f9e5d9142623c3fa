//! `/api/v1/endpoints`, `/api/v1/sd/prometheus`, `/api/v1/sd/envoy`: where services can be reached, for
//! others.
//!
//! Envoy asks by POST, and always at `/v3/discovery:endpoints`; nothing is changed by it.

use std::time::Duration;

use api_types::{DiscoveryRequest, DiscoveryResponse, Endpoints, TargetGroups};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Query, Request, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Api, Failure, Route};
use crate::convert::{self, EndpointQuery};

/// Observed endpoints had traffic in this time, unless another one is asked for.
const USUAL_WINDOW: Duration = Duration::from_hours(1);
/// Clusters that Envoy may ask for at once.
const CLUSTERS: usize = 1000;
/// A request of Envoy at most: the names of so many clusters fit, and the extensions that it lists.
const BODY_BYTES: usize = 256 * 1024;
/// So many requests of Envoy are read at once: together they take four megabytes.
static READ_AT_ONCE: Semaphore = Semaphore::const_new(16);
/// Timeout of the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn readable() -> [Route; 4] {
    let limit = DefaultBodyLimit::max(BODY_BYTES);
    [
        ("/api/v1/endpoints", get(endpoints)),
        ("/api/v1/sd/prometheus", get(prometheus)),
        ("/api/v1/sd/envoy", get(envoy)),
        ("/v3/discovery:endpoints", get(envoy).post(discovery).layer(limit)),
    ]
}

/// Which endpoints; all conditions must hold.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Names of services, separated by commas.
    #[serde(default)]
    service: String,
    /// Only this port.
    port: Option<u16>,
    /// Observed endpoints had traffic in this time.
    window: Option<String>,
    /// Addresses of the loopback too.
    #[serde(default)]
    loopback: bool,
}

type Asked = Result<Query<Wanted>, QueryRejection>;

async fn endpoints(State(api): State<Api>, asked: Asked) -> Result<Json<Endpoints>, Failure> {
    find(&api, Wanted::read(asked)?).await.map(Json)
}

async fn prometheus(State(api): State<Api>, asked: Asked) -> Result<Json<TargetGroups>, Failure> {
    let found = find(&api, Wanted::read(asked)?).await?;
    Ok(Json(TargetGroups::from(&found)))
}

async fn envoy(State(api): State<Api>, asked: Asked) -> Result<Json<DiscoveryResponse>, Failure> {
    let found = find(&api, Wanted::read(asked)?).await?;
    Ok(Json(DiscoveryResponse::new(&found, &[])))
}

async fn discovery(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<DiscoveryResponse>, Failure> {
    let Ok(_permit) = READ_AT_ONCE.try_acquire() else {
        let why = "other requests of this kind are being read; ask again in a moment";
        return Err(Failure(StatusCode::SERVICE_UNAVAILABLE, why.to_owned()));
    };
    let body = timeout(BODY_TIMEOUT, Bytes::from_request(request, &())).await.map_err(|_late| {
        let why = format!("the request took longer than {} s to arrive", BODY_TIMEOUT.as_secs());
        Failure(StatusCode::REQUEST_TIMEOUT, why)
    })?;
    let body = body.map_err(|rejection| {
        let why = format!("cannot read the request: {rejection}; it may have {BODY_BYTES} bytes");
        Failure(rejection.status(), why)
    })?;
    let request: DiscoveryRequest = serde_json::from_slice(&body).map_err(|error| {
        let why = format!("cannot read the request: {error}; send a DiscoveryRequest in JSON");
        Failure(StatusCode::BAD_REQUEST, why)
    })?;
    let names = request.resource_names;
    if names.len() > CLUSTERS {
        let why = format!("{} clusters are too many; ask for {CLUSTERS} at once", names.len());
        return Err(Failure(StatusCode::BAD_REQUEST, why));
    }
    let found = find(&api, Wanted::default().query()?).await?;
    Ok(Json(DiscoveryResponse::new(&found, &names)))
}

async fn find(api: &Api, query: EndpointQuery) -> Result<Endpoints, Failure> {
    let snapshot = api.source.fresh().await?;
    Ok(convert::endpoints(&snapshot, &query))
}

// === impl Wanted ===

impl Wanted {
    fn read(asked: Asked) -> Result<EndpointQuery, Failure> {
        let known =
            "service=NAME or service=NAME,NAME, port=N, window=DURATION like 1h, loopback=true";
        let Query(wanted) = asked.map_err(|rejection| Failure::query(&rejection, known))?;
        wanted.query()
    }

    fn query(self) -> Result<EndpointQuery, Failure> {
        let Self { service, port, window, loopback } = self;
        let window = match window {
            None => Some(USUAL_WINDOW),
            Some(text) => notation::duration::parse(&text).filter(|window| !window.is_zero()),
        };
        let window = window.ok_or_else(|| {
            let why = format!("cannot read the window; write {}", notation::duration::FORM);
            Failure(StatusCode::BAD_REQUEST, why)
        })?;
        let services = super::relations::names(&service);
        Ok(EndpointQuery { services, port, seconds: window.as_secs().max(1), loopback })
    }
}
