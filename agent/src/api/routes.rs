//! Paths and their handlers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use serde::Deserialize;

use super::convert::{self, ToApi as _};
use super::stream;
use api_types::{Edges, Listeners, Status, Timestamp};
use model::snapshot::{EdgeView, Role};
use telemetry::process::Process;
use telemetry::push::Outcomes;
use telemetry::source::{STANDS_STILL, SnapshotSource, Unavailable};
use telemetry::{Build, Exporter, Format, Scrape};

/// What the handlers share.
#[derive(Clone, Debug)]
pub struct Api {
    source: SnapshotSource,
    exporter: Arc<Exporter>,
    /// How long the last scrape took, in nanoseconds; 0 before the first.
    last_scrape: Arc<AtomicU64>,
    outcomes: Option<Arc<Outcomes>>,
}

/// A path, and what answers there.
pub(super) type Route = (&'static str, MethodRouter<Api>);

/// Every path, for the network: nothing can be changed.
pub fn router(api: Api) -> Router {
    finish(collect(readable()), api)
}

/// What can be read. The golden answers of the tests follow this list.
pub(super) fn readable() -> Vec<Route> {
    let own = [
        ("/", get(page)),
        ("/page.css", get(page_style)),
        ("/page.js", get(page_script)),
        ("/metrics", get(metrics)),
        ("/healthz", get(health)),
        ("/-/healthy", get(health)),
        ("/readyz", get(ready)),
        ("/-/ready", get(ready)),
        ("/api/v1/status", get(status)),
        ("/api/v1/edges", get(edges)),
        ("/api/v1/listeners", get(listeners)),
    ];
    let others = reservations::readable().into_iter().chain(relations::readable());
    own.into_iter().chain(ports::readable()).chain(others).collect()
}

/// A router of `routes`.
pub(super) fn collect(routes: Vec<Route>) -> Router<Api> {
    routes.into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods))
}

/// What every answer has in common.
pub(super) fn finish(router: Router<Api>, api: Api) -> Router {
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(map_response(secure))
        .with_state(api)
}

async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Failure> {
    let began = Instant::now();
    let format = Format::negotiate(headers.get(ACCEPT).and_then(|value| value.to_str().ok()));
    let snapshot = api.source.fresh().await?;
    let previous = match api.last_scrape.load(Ordering::Relaxed) {
        0 => None,
        nanoseconds => Some(Duration::from_nanos(nanoseconds)),
    };
    let (mut writer, body) = stream::body();
    // Some tens of milliseconds of work on a large host: not on a thread that others wait for.
    tokio::task::spawn_blocking(move || {
        let Api { exporter, last_scrape, outcomes, .. } = api;
        let pushes = outcomes.map(|outcomes| outcomes.so_far());
        let scrape = Scrape { previous, process: Process::read(), pushes };
        match exporter.render(&snapshot, format, scrape, &mut writer) {
            Ok(()) => {
                // Before the end is sent: whoever has read it may ask again at once.
                last_scrape.store(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
                // A client that goes away now has what it wants.
                let _ = writer.finish();
            }
            Err(error) if writer.is_wanted() => {
                tracing::error!(%error, "a scrape could not be rendered; Prometheus has a gap there");
                writer.abort();
            }
            Err(_) => tracing::debug!("a scraper went away in the middle of an answer"),
        }
    });
    Ok(([(CONTENT_TYPE, format.content_type())], body).into_response())
}

/// The process lives, and its loop moves; nothing about BPF.
async fn health(State(api): State<Api>) -> (StatusCode, &'static str) {
    if api.source.since_published() < STANDS_STILL {
        (StatusCode::OK, "Portolan is healthy.\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "The kernel's tables are not read any more.\n")
    }
}

async fn ready(State(api): State<Api>) -> (StatusCode, &'static str) {
    if api.source.is_ready() {
        (StatusCode::OK, "Portolan is ready.\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "The kernel's tables have not been read yet.\n")
    }
}

async fn status(State(api): State<Api>) -> Result<Json<Status>, Failure> {
    let snapshot = api.source.fresh().await?;
    Ok(Json(convert::status(api.exporter.build(), &snapshot)))
}

/// Which edges are wanted; all conditions must hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EdgeFilter {
    /// Counted by this side.
    role: Option<Role>,
    /// A service of this name at either end.
    service: Option<String>,
    /// The server's port.
    port: Option<u16>,
}

async fn edges(
    State(api): State<Api>,
    filter: Result<Query<EdgeFilter>, QueryRejection>,
) -> Result<Json<Edges>, Failure> {
    let Query(filter) = filter.map_err(|rejection| {
        Failure::query(&rejection, "role=client|server|listener, service=NAME, port=N")
    })?;
    let snapshot = api.source.fresh().await?;
    let wanted = snapshot.edges.iter().filter(|view| filter.admits(view));
    let edges = wanted.map(|view| view.to_api()).collect();
    Ok(Json(Edges { timestamp: Timestamp::from_seconds(snapshot.taken_seconds), edges }))
}

async fn listeners(State(api): State<Api>) -> Result<Json<Listeners>, Failure> {
    let snapshot = api.source.fresh().await?;
    let timestamp = Timestamp::from_seconds(snapshot.taken_seconds);
    let listeners = snapshot.listeners.iter().map(|view| view.to_api()).collect();
    Ok(Json(Listeners { timestamp, listeners }))
}

async fn page() -> Response {
    asset("text/html; charset=utf-8", include_str!("page/page.html"))
}

async fn page_style() -> Response {
    asset("text/css; charset=utf-8", include_str!("page/page.css"))
}

async fn page_script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("page/page.js"))
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

async fn unknown_path(uri: Uri) -> Failure {
    Failure(StatusCode::NOT_FOUND, format!("there is nothing at {}; try /", uri.path()))
}

async fn wrong_method() -> Failure {
    let said = "only GET and HEAD are answered here; changes are made on the host itself, through the agent's socket (portolan ports, portolan services)";
    Failure(StatusCode::METHOD_NOT_ALLOWED, said.to_owned())
}

/// For every answer: show nothing of it in a frame, load nothing from elsewhere, guess no type.
async fn secure(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, HeaderValue); 5] = [
        (
            HeaderName::from_static("content-security-policy"),
            HeaderValue::from_static(
                "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
            ),
        ),
        (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
        (HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY")),
        (HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cache-control"), HeaderValue::from_static("no-store")),
    ];
    response.headers_mut().extend(HEADERS);
    response
}

/// An answer that is an error.
pub(super) struct Failure(pub(super) StatusCode, pub(super) String);

// === impl Api ===

impl Api {
    /// Handlers over `source`.
    pub fn new(source: SnapshotSource, build: Build) -> Self {
        Self {
            source,
            exporter: Arc::new(Exporter::new(build)),
            outcomes: None,
            last_scrape: Arc::new(AtomicU64::new(0)),
        }
    }
}

impl Api {
    /// The same, with what becomes of pushes.
    #[must_use]
    pub fn with_outcomes(self, outcomes: Option<Arc<Outcomes>>) -> Self {
        Self { outcomes, ..self }
    }
}

// === impl EdgeFilter ===

impl EdgeFilter {
    fn admits(&self, view: &EdgeView) -> bool {
        let Self { role, service, port } = self;
        let labels = &view.labels;
        role.is_none_or(|role| role == labels.role)
            && port.is_none_or(|port| port == labels.port)
            && service.as_deref().is_none_or(|service| {
                service == &*labels.client.name || service == &*labels.server.name
            })
    }
}

// === impl Failure ===

impl Failure {
    /// A query that makes no sense; `known` says what would.
    pub(super) fn query(rejection: &QueryRejection, known: &str) -> Self {
        let said = rejection.body_text();
        let detail = said.rsplit_once(": ").map_or(said.as_str(), |(_, detail)| detail);
        Self(StatusCode::BAD_REQUEST, format!("cannot read the query: {detail}; use {known}"))
    }
}

impl From<Unavailable> for Failure {
    fn from(reason: Unavailable) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, reason.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(status, error) = self;
        (status, Json(api_types::Error { error })).into_response()
    }
}

mod ports;
mod relations;
mod reservations;
#[cfg(test)]
mod tests;
