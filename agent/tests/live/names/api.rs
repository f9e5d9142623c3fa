//! A Kubernetes API server as the agent sees it: lists, watches, and refusals.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::broadcast;

/// The server; it ends when dropped.
pub(super) struct Api {
    address: SocketAddr,
    state: Arc<Shared>,
    _runtime: Runtime,
}

struct Shared {
    objects: Mutex<Objects>,
    events: broadcast::Sender<(String, Value)>,
    watchers: AtomicUsize,
}

#[derive(Default)]
struct Objects {
    version: u64,
    by_path: BTreeMap<String, Vec<Value>>,
    denied: BTreeSet<String>,
}

impl Api {
    pub(super) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let state = Arc::new(Shared {
            objects: Mutex::default(),
            events: broadcast::channel(64).0,
            watchers: AtomicUsize::new(0),
        });
        let router = Router::new().fallback(answer).with_state(state.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a free port on the loopback");
        let address = listener.local_addr().expect("a listener has an address");
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, state, _runtime: runtime }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many watches were begun.
    pub(super) fn watchers(&self) -> usize {
        self.state.watchers.load(Ordering::Relaxed)
    }

    /// A new object; watchers are notified.
    pub(super) fn put(&self, path: &str, mut object: Value) {
        let mut objects = self.state.lock();
        objects.version += 1;
        object["metadata"]["resourceVersion"] = json!(objects.version.to_string());
        objects.by_path.entry(path.to_owned()).or_default().push(object.clone());
        let event = json!({"type": "ADDED", "object": object});
        // There may be no watcher.
        let _ = self.state.events.send((path.to_owned(), event));
    }

    /// From now on exactly these paths are forbidden.
    pub(super) fn deny(&self, paths: &[&str]) {
        self.state.lock().denied = paths.iter().map(|path| (*path).to_owned()).collect();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    uri: Uri,
) -> Response {
    let path = uri.path().to_owned();
    let query = query.unwrap_or_default();
    let (denied, version, items) = {
        let objects = shared.lock();
        let items = objects.by_path.get(&path).cloned().unwrap_or_default();
        (objects.denied.contains(&path), objects.version, items)
    };
    if denied {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": format!("{path} is forbidden: User \"agent\" cannot list it"),
            "reason": "Forbidden", "code": 403});
        return (StatusCode::FORBIDDEN, status.to_string()).into_response();
    }
    // An agent must request only the pods of its own node.
    assert!(!path.ends_with("/pods") || query.contains("fieldSelector=spec.nodeName%3Dnode-1"));
    if !query.contains("watch=1") {
        let list = json!({"kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": version.to_string()}, "items": items});
        return list.to_string().into_response();
    }
    // Changes since the list.
    let since = query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
    let since: u64 = since.and_then(|since| since.parse().ok()).unwrap_or_default();
    let events = shared.events.subscribe();
    shared.watchers.fetch_add(1, Ordering::Relaxed);
    let is_new = |object: &Value| {
        let version = object["metadata"]["resourceVersion"].as_str();
        version.and_then(|version| version.parse::<u64>().ok()) > Some(since)
    };
    let items = shared.lock().by_path.get(&path).cloned().unwrap_or_default();
    let first: Vec<Value> = items
        .into_iter()
        .filter(is_new)
        .map(|object| json!({"type": "ADDED", "object": object}))
        .collect();
    let lines = stream::unfold(
        (first.into_iter(), events, path),
        |(mut first, mut events, path)| async move {
            loop {
                let event = match first.next() {
                    Some(event) => event,
                    None => match events.recv().await {
                        Ok((of, event)) if of == path => event,
                        Ok(_) => continue,
                        Err(_) => return None,
                    },
                };
                let line = Bytes::from(format!("{event}\n"));
                return Some((Ok::<_, std::convert::Infallible>(line), (first, events, path)));
            }
        },
    );
    Body::from_stream(lines).into_response()
}
