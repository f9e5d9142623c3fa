//! The response of every route, compared with a file in the repository: a change of the API shows
//! in its diff, and a route without a golden response fails.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Extension;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{Method, Request, StatusCode};
use boon::{Compiler, Schemas};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use api_types::{Access, OPERATIONS};

use server::{Api, Caller, local};

use crate::state::{StateActor, StateFile, StateHandle};
use model::clash::Reason;
use model::conflicts::{Conflict, Holder, Party};
use model::fixture;
use model::port::{PortState, PortView, Protocol};
use model::service::{Service, Source};
use model::snapshot::{EdgeLabels, EdgeView, Snapshot};
use telemetry::Build;
use telemetry::source::channel;

/// Every JSON request, in this order: changes are undone by the one that follows.
fn requests() -> Vec<(Method, &'static str, Value)> {
    let read = |path| (Method::GET, path, Value::Null);
    let reserve = json!({
        "port": 18432, "protocol": "tcp", "service": "shop/postgres", "environment": "prod",
        "until": "2036-12-01T10:00:00Z", "enforce": true, "netns": 0,
    });
    let release = json!({"port": 18432, "protocol": "tcp", "netns": 0});
    let free = json!({
        "near": 18432, "count": 1, "protocol": "tcp", "service": "billing",
        "until": "2036-12-01T10:00:00Z", "netns": 0,
    });
    let register = json!({
        "service": "billing", "addresses": ["10.1.2.3:443", "[fd00::1]:443"], "ttl": "30s",
        "check": "http=/healthz",
    });
    let renew = json!({"addresses": [
        {"service": "billing", "address": "10.1.2.3:443"},
        {"service": "billing", "address": "10.1.2.3:444"},
    ]});
    vec![
        read("/api/v1/openapi.json"),
        read("/api/v1/status"),
        read("/api/v1/edges"),
        read("/api/v1/listeners"),
        read("/api/v1/ports"),
        read("/api/v1/conflicts"),
        read("/api/v1/events"),
        read("/api/v1/history"),
        read("/api/v1/reservations"),
        read("/api/v1/services"),
        read("/api/v1/map"),
        read("/api/v1/balance"),
        read("/api/v1/endpoints"),
        read("/api/v1/sd/prometheus"),
        read("/api/v1/sd/envoy"),
        read("/api/v1/flows"),
        read("/api/v1/timeouts"),
        read("/api/v1/segments"),
        (Method::POST, "/api/v1/reservations", reserve),
        (Method::DELETE, "/api/v1/reservations", release),
        (Method::POST, "/api/v1/ports/free", free),
        (Method::POST, "/api/v1/services", register),
        (Method::POST, "/api/v1/services/renew", renew),
        (Method::DELETE, "/api/v1/services", json!({"service": "billing"})),
    ]
}

/// The fixture plus a port in use, a conflict, and an edge through a virtual service.
fn snapshot() -> Snapshot {
    let mut snapshot = fixture::snapshot();
    let postgres = Service::new("postgres", Source::Process);
    let shop = Service::new("shop", Source::Container).within("prod");
    let party = |service: &Service, pid, command: &str| Party {
        service: service.clone(),
        pid,
        command: command.to_owned(),
    };
    let host = snapshot.reservations.host_netns.expect("the fixture has one");
    let any = "0.0.0.0".parse().expect("an address");
    snapshot.ports = vec![PortView {
        port: 5432,
        protocol: Protocol::Tcp,
        address: any,
        v6_only: false,
        netns: host,
        state: PortState::Listening,
        // No process has this pid, so the response does not depend on the host.
        holder: party(&postgres, 0, "postgres"),
        uid: 104,
        since_seconds: Some(1_700_000_000.25),
        sockets: 1,
        backlog: 0,
        max_backlog: 128,
        unverified_user: None,
    }];
    snapshot.conflicts = vec![Arc::new(Conflict {
        first_seconds: 1_700_000_040.0,
        last_seconds: 1_700_000_095.5,
        count: 16,
        claimant: party(&shop, 4711, "node"),
        port: 5432,
        protocol: Protocol::Tcp,
        address: any,
        netns: host,
        by_listen: false,
        unverified_user: None,
        errno: "EADDRINUSE".to_owned(),
        inferred: true,
        reason: Reason::SameAddress,
        holder: Some(Holder {
            party: party(&postgres, 104, "postgres"),
            address: any,
            state: PortState::Listening,
            since_seconds: Some(1_700_000_000.25),
        }),
        next_free: Some(5433),
    })];
    let virtual_service = Service::new("db", Source::ServiceAddress).within("prod");
    let last = snapshot.edges.pop().expect("the fixture has edges");
    let labels = EdgeLabels { virtual_service: Some(virtual_service), ..(*last.labels).clone() };
    snapshot.edges.push(EdgeView { labels: Arc::new(labels), ..last });
    snapshot
}

/// The control socket's router, which serves the network's routes too.
fn router(directory: &Path) -> Router {
    let (source, mut wanted) = channel();
    let shown = Arc::new(snapshot());
    wanted.publish(&shown);
    tokio::spawn(async move {
        loop {
            wanted.asked().await;
            wanted.publish(&shown);
        }
    });
    let build = Build { version: "0.0.0".into(), kernel: "6.18.0".into() };
    let (store, state, _) = StateFile::open(&directory.join("state"));
    let state = StateActor::start(store, state, None, None, linux::probes::Probes::inline())
        .expect("started");
    let caller = Extension(Caller { pid: std::process::id() });
    local::router(Api::new(source, build), state).layer(caller)
}

async fn ask(router: &Router, method: &Method, path: &str, body: &Value) -> (StatusCode, Value) {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path).body(body).expect("valid");
    let response = router.clone().oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    assert_eq!(parts.headers[CONTENT_TYPE], "application/json", "{method} {path}");
    let body = to_bytes(body, usize::MAX).await.expect("a body");
    (parts.status, serde_json::from_slice(&body).expect("JSON"))
}

/// `GET /api/v1/edges` is in `edges.json`, `POST /api/v1/ports/free` in `ports-free.post.json`.
fn file(method: &Method, path: &str) -> PathBuf {
    let name = path.strip_prefix("/api/v1/").expect("below /api/v1").replace('/', "-");
    let name = name.trim_end_matches(".json");
    let method = match *method {
        Method::GET => String::new(),
        ref other => format!(".{}", other.as_str().to_lowercase()),
    };
    folder().join(format!("{name}{method}.json"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/server/golden")
}

/// With `PORTOLAN_BLESS=1` writes the file instead.
fn compare(file: &Path, answer: &Value) {
    let text = format!("{answer:#}\n");
    if std::env::var_os("PORTOLAN_BLESS").is_some() {
        // Whole at any moment: another test reads it.
        let new = file.with_extension("new");
        fs::write(&new, text).expect("written");
        fs::rename(&new, file).expect("renamed");
        return;
    }
    let golden = fs::read_to_string(file).unwrap_or_default();
    let differs = golden.lines().zip(text.lines()).find(|(golden, found)| golden != found);
    assert!(
        golden == text,
        "{} differs from the answer, first at {differs:?}; PORTOLAN_BLESS=1 rewrites it",
        file.display()
    );
}

#[tokio::test]
async fn every_answer_is_the_golden_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let router = router(directory.path());
    for (method, path, body) in requests() {
        let (status, mut answer) = ask(&router, &method, path, &body).await;
        assert_eq!(status, StatusCode::OK, "{method} {path}: {answer}");
        if path == "/api/v1/ports/free" {
            // Free ports depend on the host.
            let ports = answer["ports"].as_array().expect("ports");
            assert_eq!(ports.len(), 1, "{answer}");
            answer["ports"] = json!([18_432]);
        }
        compare(&file(&method, path), &answer);
    }
    let (status, answer) = ask(&router, &Method::GET, "/api/v1/nothing", &Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    compare(&folder().join("error.json"), &answer);
}

#[tokio::test]
async fn every_route_is_in_the_openapi_document_and_every_operation_is_a_route() {
    let routes: BTreeSet<_> = server::paths().chain(local::paths::<StateHandle>()).collect();
    let page = ["/", "/page.css", "/page.js"];
    let described = OPERATIONS.iter().map(|operation| operation.path);
    assert_eq!(routes, described.chain(page).collect());
    // Methods: those of `requests`, which are compared with the routes below.
    let described = OPERATIONS.iter().filter(|operation| operation.path.starts_with("/api/"));
    let described: BTreeSet<_> =
        described.map(|operation| (operation.method.to_owned(), operation.path)).collect();
    let asked = requests().into_iter().map(|(method, path, _)| (method.to_string(), path));
    assert_eq!(described, asked.collect());
    // Routes that only the control socket serves are changes, and the reverse.
    for operation in OPERATIONS {
        let is_question = operation.method == "GET" || operation.path.starts_with("/v3/");
        let expected = if is_question { Access::Network } else { Access::ControlSocket };
        assert_eq!(operation.access, expected, "{} {}", operation.method, operation.path);
    }
}

#[tokio::test]
async fn every_golden_response_is_valid_by_the_openapi_document() {
    let document = serde_json::to_value(api_types::document("")).expect("JSON");
    let mut compiler = Compiler::new();
    compiler.add_resource("openapi.json", document.clone()).expect("a resource");
    let mut schemas = Schemas::new();
    let mut check = |what: &str, content: &Value, value: &Value| {
        let reference = content["application/json"]["schema"]["$ref"].as_str().expect("a $ref");
        let schema = compiler.compile(&format!("openapi.json{reference}"), &mut schemas);
        let schema = schema.expect("a schema");
        if let Err(problem) = schemas.validate(value, schema) {
            panic!("{what} is not as {reference} says: {problem:#}");
        }
        assert!(schemas.validate(&json!({"x": 1}), schema).is_err(), "{reference} admits anything");
    };
    let golden = |path: &Path| -> Value {
        serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON")
    };
    for (method, path, body) in requests() {
        if path.ends_with("openapi.json") {
            continue;
        }
        let what = format!("{method} {path}");
        let operation = &document["paths"][path][method.as_str().to_lowercase()];
        let answer = &operation["responses"]["200"]["content"];
        check(&what, answer, &golden(&file(&method, path)));
        let error = &operation["responses"]["4XX"]["content"];
        check(&what, error, &golden(&folder().join("error.json")));
        if !body.is_null() {
            check(&what, &operation["requestBody"]["content"], &body);
        }
    }
}

#[tokio::test]
async fn every_route_has_a_golden_answer_and_every_golden_answer_a_route() {
    let directory = tempfile::tempdir().expect("a directory");
    let router = router(directory.path());
    let mut routes = BTreeSet::new();
    let paths = server::paths().chain(local::paths::<StateHandle>());
    for path in paths.filter(|path| path.starts_with("/api/")).collect::<BTreeSet<_>>() {
        let request = Request::builder().method("TRACE").uri(path).body(Body::empty());
        let refused = router.clone().oneshot(request.expect("valid")).await.expect("infallible");
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let allowed = refused.headers()[ALLOW].to_str().expect("text");
        let methods = allowed.split(',').filter(|method| *method != "HEAD");
        routes.extend(methods.map(|method| (method.to_owned(), path)));
    }
    let asked: BTreeSet<_> =
        requests().into_iter().map(|(method, path, _)| (method.to_string(), path)).collect();
    assert_eq!(routes, asked);
    let files: BTreeSet<_> = fs::read_dir(folder())
        .expect("readable")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| !path.ends_with("error.json"))
        .collect();
    assert_eq!(files, requests().iter().map(|(method, path, _)| file(method, path)).collect());
}
