//! `/api/v1/events`: a list, or a stream (server-sent events) if the client accepts that.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api_types::{EventFacts, EventFilter, EventKind, Timestamp};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, VARY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use model::events::{self, MOST};
use model::service::Service;
use serde::Deserialize;
use telemetry::event_feed::{Follower, Losses, Next};
use tokio::sync::OwnedSemaphorePermit;

use super::{Api, Failure, Route};
use crate::convert::{self, EventRange, ToApi as _};

/// Streams at the same time: half of the connections of the control socket.
pub(super) const FOLLOWERS: usize = 8;
/// A stream without events gets a comment so often, to find clients that are gone.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// Events without a `limit`.
const LIMIT: usize = 1000;

/// The media type of a stream.
const STREAM: &str = "text/event-stream";
/// Where a client that reconnects says what it has.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The parameters.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventQuery {
    /// With a larger cursor.
    after: Option<u64>,
    since: Option<Timestamp>,
    service: Option<String>,
    client: Option<String>,
    server: Option<String>,
    port: Option<u16>,
    kind: Option<String>,
    cause: Option<String>,
    /// So many at most.
    limit: Option<usize>,
}

/// Events on their way to a client.
struct Streaming {
    /// Lines to send before the next event is waited for.
    ready: String,
    filter: EventFilter,
    /// Events up to this cursor are sent.
    sent: u64,
    follower: Option<Follower>,
    losses: Losses,
    _permit: OwnedSemaphorePermit,
}

pub(super) fn readable() -> [Route; 1] {
    [("/api/v1/events", get(events))]
}

async fn events(
    State(api): State<Api>,
    headers: HeaderMap,
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|rejection| {
        let known = "after=CURSOR, since=2026-12-01T10:00:00Z, service=NAME, client=NAME, server=NAME, port=N, kind=KIND,…, cause=CAUSE,…, limit=N";
        Failure::query(&rejection, known)
    })?;
    query.check()?;
    let (after, limit) = (query.after, query.limit);
    let filter = query.filter();
    let accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepts.flat_map(|value| value.split(',')).any(|kind| kind.trim().starts_with(STREAM)) {
        return follow(api, &headers, after, filter).await;
    }
    let snapshot = api.source.fresh().await?;
    let range = EventRange { after, limit: limit.unwrap_or(LIMIT) };
    let list = convert::events(&snapshot, range, |event| filter.admits(&facts(event)));
    let mut response = Json(list).into_response();
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Streams events from now on; with a cursor or a time those since then first.
async fn follow(
    api: Api,
    headers: &HeaderMap,
    after: Option<u64>,
    filter: EventFilter,
) -> Result<Response, Failure> {
    let Ok(permit) = Arc::clone(&api.followers).try_acquire_owned() else {
        let said = format!(
            "{FOLLOWERS} streams of events are open already; close one, or ask for /api/v1/events?after=CURSOR again and again"
        );
        return Err(Failure(StatusCode::SERVICE_UNAVAILABLE, said));
    };
    let last = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()?.parse().ok());
    let after = last.or(after);
    // Before the list is read, so that nothing is missed in between.
    let follower = api.events.follow();
    let snapshot = api.source.fresh().await?;
    let mut ready = String::new();
    if after.is_some() || filter.since.is_some() {
        let range = EventRange { after: Some(after.unwrap_or_default()), limit: MOST };
        let list = convert::events(&snapshot, range, |event| filter.admits(&facts(event)));
        if after.is_some() && list.overwritten {
            ready.push_str(&notice("events after this cursor were overwritten before"));
        }
        ready.extend(list.events.iter().map(message));
    } else {
        // The head of the response is sent with the first line.
        ready.push_str(":\n\n");
    }
    let sent = snapshot.events.ring.latest();
    let losses = api.events.losses().clone();
    let streaming =
        Streaming { ready, filter, sent, follower: Some(follower), losses, _permit: permit };
    let body = Body::from_stream(stream::unfold(streaming, |mut streaming| async move {
        let lines = streaming.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(lines)), streaming))
    }));
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(STREAM))], body).into_response())
}

/// An event in the format of server-sent events.
fn message(event: &api_types::Event) -> String {
    let json = serde_json::to_string(event).unwrap_or_default();
    format!("id: {}\nevent: {}\ndata: {json}\n\n", event.cursor, event.kind.as_str())
}

/// A notice to the client.
fn notice(text: &str) -> String {
    let json = serde_json::json!({ "error": text });
    format!("event: dropped\ndata: {json}\n\n")
}

// === impl Streaming ===

impl Streaming {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if !self.ready.is_empty() {
                return Some(std::mem::take(&mut self.ready));
            }
            let follower = self.follower.as_mut()?;
            match tokio::time::timeout(ALIVE_EVERY, follower.next()).await {
                Err(_) => self.ready.push_str(":\n\n"),
                Ok(Next::Event(event)) => {
                    if event.cursor > self.sent && self.filter.admits(&facts(&event)) {
                        self.ready.push_str(&message(&event.to_api()));
                    }
                    self.sent = self.sent.max(event.cursor);
                }
                Ok(Next::Missed(events)) => {
                    self.losses.count_not_followed(events);
                    self.ready.push_str(&notice(&format!(
                        "this stream was read too slowly: {events} events are missing, and it ends here; reconnect with the last id"
                    )));
                    self.follower = None;
                }
                Ok(Next::End) => return None,
            }
        }
    }
}

// === impl EventQuery ===

impl EventQuery {
    /// What no event can have is an error, not an empty list.
    fn check(&self) -> Result<(), Failure> {
        let Self { kind, limit, .. } = self;
        let is_kind = |word: &str| EventKind::ALL.iter().any(|kind| kind.as_str() == word);
        if let Some(unknown) = kind.iter().flat_map(|all| all.split(',')).find(|one| !is_kind(one))
        {
            let known: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
            let said = format!("\"{unknown}\" is not a kind of event; use {}", known.join(", "));
            return Err(Failure(StatusCode::BAD_REQUEST, said));
        }
        if limit.is_some_and(|limit| !(1..=MOST).contains(&limit)) {
            let said = format!("limit has to be from 1 to {MOST}");
            return Err(Failure(StatusCode::BAD_REQUEST, said));
        }
        Ok(())
    }

    /// Which events.
    fn filter(self) -> EventFilter {
        let Self { after: _, since, service, client, server, port, kind, cause, limit: _ } = self;
        EventFilter { since, service, client, server, port, kind, cause }
    }
}

/// What a filter looks at.
fn facts(event: &events::Event) -> EventFacts<'_> {
    let what = &event.what;
    EventFacts {
        last_seen: Timestamp::from_seconds(event.last_seconds),
        client: what.client.as_ref().map(name),
        server: what.server.as_ref().map(name),
        holder: what.holder.as_ref().map(name),
        port: what.port,
        kind: what.kind.as_str(),
        cause: what.cause,
    }
}

fn name(service: &Service) -> (&str, &str) {
    (&service.namespace, &service.name)
}

/// Whether a service has this name: NAME, or NAMESPACE/NAME.
pub(super) fn is_called(service: &Service, wanted: &str) -> bool {
    api_types::is_called(name(service), wanted)
}
