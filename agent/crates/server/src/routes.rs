//! Paths and their handlers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::extract::rejection::QueryRejection;
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    VARY,
};
use axum::http::{StatusCode, Uri};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};

use super::convert::{self, ToApi};
use super::stream;
use super::web::Web;
use api_types::{Listeners, OpenApi, Skip, Status, Timestamp};
use telemetry::event_feed::EventFeed;
use telemetry::process::Process;
use telemetry::push::Outcomes;
use telemetry::source::{STALE_AFTER, SnapshotSource, Unavailable};
use telemetry::{Build, Exporter, Format, Scrape};
use tokio::sync::Semaphore;

/// State of the handlers.
#[derive(Clone, Debug)]
pub struct Api {
    source: SnapshotSource,
    exporter: Arc<Exporter>,
    /// How long the last scrape took, in nanoseconds; 0 before the first.
    last_scrape: Arc<AtomicU64>,
    outcomes: Option<Arc<Outcomes>>,
    /// What `portolan check` is to leave out.
    check_skip: Arc<[Skip]>,
    /// The path of a proxy, like `/portolan`, or empty.
    external_path: Arc<str>,
    /// The endpoint itself, for its findings.
    web: Option<Arc<Web>>,
    /// Events from now on.
    events: EventFeed,
    /// Permits of streams of events.
    followers: Arc<Semaphore>,
}

/// A path and its handler.
pub(crate) type Route = (&'static str, MethodRouter<Api>);

/// Every path, for the network: nothing can be changed.
pub fn router(api: Api) -> Router {
    let external_path = Arc::clone(&api.external_path);
    let routes = collect(readable());
    finish(if external_path.is_empty() { routes } else { routes.merge(below(&external_path)) }, api)
}

/// The same routes below the path of a proxy, where links of the page are relative to.
fn below(external_path: &str) -> Router<Api> {
    let page = format!("{external_path}/");
    let to_page = get(move || async move { Redirect::permanent(&page) });
    let is_route = readable().iter().any(|(path, _)| *path == external_path);
    let begun = if is_route { Router::new() } else { Router::new().route(external_path, to_page) };
    readable().into_iter().fold(begun, |router, (path, methods)| {
        router.route(&format!("{external_path}{path}"), methods)
    })
}

/// Paths of everything that can be read.
pub fn paths() -> impl Iterator<Item = &'static str> {
    readable().into_iter().map(|(path, _)| path)
}

/// The read-only routes.
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
        ("/api/v1/listeners", get(listeners)),
        ("/api/v1/openapi.json", get(openapi)),
    ];
    let others = reservations::readable().into_iter().chain(relations::readable());
    let others = others.chain(events::readable()).chain(history::readable());
    let others = others.chain(discovery::readable()).chain(edges::readable());
    own.into_iter().chain(ports::readable()).chain(others).collect()
}

/// A router of `routes`.
pub(super) fn collect(routes: Vec<Route>) -> Router<Api> {
    routes.into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods))
}

/// Layers of every response.
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
    let gzip = accepts_gzip(&headers);
    let (mut writer, body) = stream::body(gzip);
    // Tens of milliseconds of work on a large host: not on a thread of the runtime.
    tokio::task::spawn_blocking(move || {
        let Api { exporter, last_scrape, outcomes, .. } = api;
        let pushes = outcomes.map(|outcomes| outcomes.so_far());
        let scrape = Scrape { previous, process: Process::read(), pushes };
        match exporter.render(&snapshot, format, scrape, &mut writer) {
            Ok(()) => {
                // Before the end is sent: a client that has read it may scrape again at once.
                last_scrape.store(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
                // A client that disconnects now has received everything.
                let _ = writer.finish();
            }
            Err(error) if writer.is_wanted() => {
                tracing::error!(%error, "a scrape could not be rendered; Prometheus has a gap there");
                writer.abort();
            }
            Err(_) => tracing::debug!("a scraper went away in the middle of an answer"),
        }
    });
    let mut response = ([(CONTENT_TYPE, format.content_type())], body).into_response();
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if gzip {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// Whether the client takes gzip (RFC 9110, 12.5.3); a weight of 0 says no.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut codings = values.flat_map(|value| value.split(',')).map(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.trim().parse::<f32>().ok());
        (name, weight.unwrap_or(1.0) > 0.0)
    });
    codings.any(|(name, is_wanted)| name.eq_ignore_ascii_case("gzip") && is_wanted)
}

/// Liveness of the process and of the core loop; independent of BPF. Stuck probe threads are
/// reported, but are not a reason to restart the agent: the loop does not wait for them, and a
/// tenant could block them again.
async fn health(State(api): State<Api>) -> (StatusCode, String) {
    if api.source.since_published() >= STALE_AFTER {
        let text = "The agent no longer collects.\n".to_owned();
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    let text = match api.source.stuck() {
        0 => "Portolan is healthy.\n".to_owned(),
        stuck => format!(
            "Portolan is healthy. {stuck} {} stuck in a process or a network namespace; counters are exact, names may be missing (portolan_probes_total).\n",
            if stuck == 1 { "thread is" } else { "threads are" }
        ),
    };
    (StatusCode::OK, text)
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
    let mut status = convert::status(api.exporter.build(), &snapshot);
    status.findings.extend(api.web.iter().flat_map(|web| web.findings()));
    status.check_skip = api.check_skip.iter().map(Skip::to_string).collect();
    Ok(Json(status))
}

async fn listeners(State(api): State<Api>) -> Result<Json<Listeners>, Failure> {
    let snapshot = api.source.fresh().await?;
    let timestamp = Timestamp::from_seconds(snapshot.taken_seconds);
    let listeners = snapshot.listeners.iter().map(ToApi::to_api).collect();
    Ok(Json(Listeners { timestamp, listeners }))
}

async fn openapi(State(api): State<Api>) -> Json<OpenApi> {
    Json(api_types::document(&api.external_path))
}

pub(crate) async fn page() -> Response {
    asset("text/html; charset=utf-8", include_str!("page/page.html"))
}

pub(crate) async fn page_style() -> Response {
    asset("text/css; charset=utf-8", include_str!("page/page.css"))
}

pub(crate) async fn page_script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("page/page.js"))
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

pub(crate) async fn unknown_path(uri: Uri) -> Failure {
    Failure(StatusCode::NOT_FOUND, format!("there is nothing at {}; try /", uri.path()))
}

pub(crate) async fn wrong_method() -> Failure {
    let said = "only GET and HEAD are answered here; changes are made on the host itself, through the agent's socket (portolan ports, portolan services)";
    Failure(StatusCode::METHOD_NOT_ALLOWED, said.to_owned())
}

/// For every response: no frames, no external resources, no content sniffing.
pub(crate) async fn secure(mut response: Response) -> Response {
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

/// An error response.
pub(crate) struct Failure(pub(crate) StatusCode, pub(crate) String);

// === impl Api ===

impl Api {
    /// Handlers over `source`.
    pub fn new(source: SnapshotSource, build: Build) -> Self {
        Self {
            source,
            exporter: Arc::new(Exporter::new(build)),
            outcomes: None,
            check_skip: Arc::default(),
            external_path: "".into(),
            web: None,
            last_scrape: Arc::new(AtomicU64::new(0)),
            events: EventFeed::default(),
            followers: Arc::new(Semaphore::new(events::FOLLOWERS)),
        }
    }
}

impl Api {
    /// The same, served below the path of a proxy too.
    #[must_use]
    pub fn below(self, external_path: &str) -> Self {
        Self { external_path: external_path.into(), ..self }
    }

    /// The same, with the findings of the endpoint.
    #[must_use]
    pub fn with_web(self, web: Arc<Web>) -> Self {
        Self { web: Some(web), ..self }
    }

    /// The same, with the events of this feed.
    #[must_use]
    pub fn with_events(self, events: EventFeed) -> Self {
        Self { events, ..self }
    }

    /// The same, with streams of events that those of the other take no place of.
    #[must_use]
    pub(crate) fn with_followers_of_its_own(self) -> Self {
        Self { followers: Arc::new(Semaphore::new(events::FOLLOWERS)), ..self }
    }

    /// The same, with the results of pushes.
    #[must_use]
    pub fn with_outcomes(self, outcomes: Option<Arc<Outcomes>>) -> Self {
        Self { outcomes, ..self }
    }

    /// The same, with findings that `portolan check` leaves out.
    #[must_use]
    pub fn with_check_skip(self, check_skip: &[Skip]) -> Self {
        Self { check_skip: check_skip.into(), ..self }
    }
}

// === impl Failure ===

impl Failure {
    /// An invalid query; `known` lists the valid parameters.
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

mod discovery;
mod edges;
mod events;
mod history;
mod ports;
mod relations;
mod reservations;
#[cfg(test)]
mod tests;
