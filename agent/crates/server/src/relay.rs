//! The page and the read-only API of somebody else: of an agent at another place, or of a file that
//! answers as one did. Stateless: each response is asked for when a reader asks.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

use crate::routes::{Failure, page, page_script, page_style, secure, unknown_path, wrong_method};

/// The JSON of an agent at a path with its query, like `/api/v1/edges?window=1m`. It may block.
pub type Source = dyn Fn(&str) -> Result<String, Unanswered> + Send + Sync;

/// Requests that are passed on at once; each may block a thread.
const AT_ONCE: usize = 32;

/// Why a request was not answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Who was asked says no, in these words.
    Refused(String),
    /// Nobody could be asked.
    Unreached(String),
}

#[derive(Clone)]
struct Relay {
    source: Arc<Source>,
    permits: Arc<Semaphore>,
}

/// The page, and below `/api/v1/` what `source` says.
pub fn router(source: Arc<Source>) -> Router {
    let relay = Relay { source, permits: Arc::new(Semaphore::new(AT_ONCE)) };
    Router::new()
        .route("/", get(page))
        .route("/page.css", get(page_style))
        .route("/page.js", get(page_script))
        .route("/healthz", get(health))
        .route("/readyz", get(health))
        .route("/api/v1/{*path}", get(pass_on))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(map_response(secure))
        .with_state(relay)
}

/// Of this process; what it asks may be away.
async fn health() -> &'static str {
    "Portolan serves the page.\n"
}

async fn pass_on(
    State(Relay { source, permits }): State<Relay>,
    uri: Uri,
) -> Result<Response, Failure> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    // Waits for a permit no longer than the server waits for the response. The semaphore is never closed.
    let _permit = permits.acquire().await;
    let said = tokio::task::spawn_blocking(move || source(&path)).await;
    match said {
        Ok(Ok(json)) => Ok(([(CONTENT_TYPE, "application/json")], json).into_response()),
        Ok(Err(Unanswered::Refused(why))) => Err(Failure(StatusCode::NOT_FOUND, why)),
        Ok(Err(Unanswered::Unreached(why))) => Err(Failure(StatusCode::BAD_GATEWAY, why)),
        Err(_) => {
            let why = "the request was given up; see the log".to_owned();
            Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(method: &str, path: &str) -> (StatusCode, String, String) {
        let source = |path: &str| match path {
            "/api/v1/edges?window=1m&service=a%26b" => Ok("{\"edges\":[]}".to_owned()),
            "/api/v1/away" => Err(Unanswered::Unreached("no agent answers".to_owned())),
            other => Err(Unanswered::Refused(format!("not stored: {other}"))),
        };
        let request =
            Request::builder().method(method).uri(path).body(Body::empty()).expect("valid");
        let response = router(Arc::new(source)).oneshot(request).await.expect("a response");
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let kind = header("content-type");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, kind, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn the_page_is_served_and_questions_are_passed_on_as_they_are() {
        let (status, kind, text) = ask("GET", "/").await;
        assert_eq!((status, kind.as_str()), (StatusCode::OK, "text/html; charset=utf-8"));
        assert!(text.contains("page.js"));
        assert_eq!(ask("GET", "/page.js").await.0, StatusCode::OK);
        assert_eq!(ask("GET", "/healthz").await.0, StatusCode::OK);
        let said = ask("GET", "/api/v1/edges?window=1m&service=a%26b").await;
        let json = "application/json".to_owned();
        assert_eq!(said, (StatusCode::OK, json.clone(), "{\"edges\":[]}".to_owned()));
        let said = ask("GET", "/api/v1/segments").await;
        let why = "{\"error\":\"not stored: /api/v1/segments\"}".to_owned();
        assert_eq!(said, (StatusCode::NOT_FOUND, json.clone(), why));
        let said = ask("GET", "/api/v1/away").await;
        let why = "{\"error\":\"no agent answers\"}".to_owned();
        assert_eq!(said, (StatusCode::BAD_GATEWAY, json, why));
        assert_eq!(ask("GET", "/metrics").await.0, StatusCode::NOT_FOUND);
        assert_eq!(ask("POST", "/api/v1/edges").await.0, StatusCode::METHOD_NOT_ALLOWED);
    }
}
