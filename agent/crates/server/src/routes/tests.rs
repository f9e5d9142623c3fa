//! Claims about every path, without a network.

use std::io::Read as _;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use tower::ServiceExt;

use super::*;
use model::fixture::snapshot;
use telemetry::source::channel;

/// A router over the hand-made snapshot.
fn over_snapshot() -> Router {
    router(api())
}

fn api() -> Api {
    let (source, mut requests) = channel();
    let snapshot = Arc::new(snapshot());
    requests.publish(&snapshot);
    tokio::spawn(async move {
        loop {
            requests.asked().await;
            requests.publish(&snapshot);
        }
    });
    Api::new(source, build())
}

fn build() -> Build {
    Build { version: "0.0.0".into(), kernel: "6.18.0".into() }
}

async fn ask(router: &Router, method: Method, path: &str) -> (StatusCode, HeaderMap, String) {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("valid");
    let response = router.clone().oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a body");
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).expect("text"))
}

async fn json(router: &Router, path: &str) -> serde_json::Value {
    let (status, _, body) = ask(router, Method::GET, path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

#[tokio::test]
async fn every_path_answers_and_carries_the_security_headers() {
    let router = over_snapshot();
    for (path, expected) in [
        ("/", "<!doctype html>"),
        ("/page.js", "use strict"),
        ("/page.css", "color-scheme"),
        ("/metrics", "# HELP portolan_tcp_connects_total"),
        ("/healthz", "healthy"),
        ("/-/healthy", "healthy"),
        ("/readyz", "ready"),
        ("/-/ready", "ready"),
        ("/api/v1/status", "inet_sock_set_state"),
        ("/api/v1/edges", "postgres"),
        ("/api/v1/listeners", "0.0.0.0"),
        ("/api/v1/events", "service_restarted"),
        ("/api/v1/history", "retransmits"),
        ("/api/v1/reservations", "reserved for postgres"),
        ("/api/v1/services", "billing"),
        ("/api/v1/map", "postgres"),
        ("/api/v1/balance", "10.0.0.3:5432"),
        ("/api/v1/segments", "monitoring"),
        ("/api/v1/flows", "172.20.0.2"),
        ("/api/v1/endpoints", "203.0.113.7"),
        ("/api/v1/sd/prometheus", "__meta_portolan_service"),
        ("/api/v1/sd/envoy", "ClusterLoadAssignment"),
    ] {
        let (status, headers, body) = ask(&router, Method::GET, path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(body.contains(expected), "{path}: {body}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert!(headers.contains_key("content-security-policy"), "{path}");
        assert_eq!(ask(&router, Method::HEAD, path).await.0, StatusCode::OK, "{path}");
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let (status, _, body) = ask(&router, method, path).await;
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            assert!(body.contains("only GET"), "{body}");
        }
    }
}

#[tokio::test]
async fn envoy_is_told_the_endpoints_of_the_clusters_it_asks_for() {
    let router = over_snapshot();
    let post = async |body: String| {
        let request = Request::post("/v3/discovery:endpoints").body(Body::from(body));
        let response = router.clone().oneshot(request.expect("valid")).await.expect("infallible");
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    };
    // As Envoy writes it, with more than names.
    let request =
        r#"{"node": {"id": "a"}, "resourceNames": ["postgres:5432", "nothing"], "typeUrl": "x"}"#;
    let (status, body) = post(request.to_owned()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(answer["resources"].as_array().map(Vec::len), Some(1), "{body}");
    let cluster = &answer["resources"][0];
    assert_eq!(cluster["cluster_name"], "postgres:5432");
    let first =
        &cluster["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"];
    assert_eq!((&first["address"], &first["port_value"]), (&"10.0.0.2".into(), &5432.into()));
    assert_eq!(post("{".to_owned()).await.0, StatusCode::BAD_REQUEST);
    let many = serde_json::json!({ "resource_names": vec!["a"; 1001] });
    assert_eq!(post(many.to_string()).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(post(" ".repeat(300_000)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn endpoints_are_chosen_by_service_port_window_and_place() {
    let router = over_snapshot();
    let found = async |query: &str| {
        let answer = json(&router, &format!("/api/v1/endpoints{query}")).await;
        let all = answer["endpoints"].as_array().expect("a list").iter();
        all.map(|one| format!("{}:{}", one["address"].as_str().unwrap_or_default(), one["port"]))
            .collect::<Vec<_>>()
    };
    let all = ["203.0.113.7:443", "10.0.0.2:5432", "10.0.0.3:5432", "172.20.0.2:8080"];
    assert_eq!(found("").await, all);
    assert_eq!(found("?service=prod/shop").await, ["172.20.0.2:8080"]);
    assert_eq!(found("?service=billing,postgres&port=443").await, ["203.0.113.7:443"]);
    assert_eq!(found("?loopback=true&port=8080").await, ["127.0.0.1:8080", "172.20.0.2:8080"]);
    // Six seconds ago; what is registered has no age.
    assert_eq!(found("?window=2s").await, ["203.0.113.7:443"]);
    for wrong in ["?window=soon", "?port=x", "?sevice=a"] {
        let path = format!("/api/v1/endpoints{wrong}");
        assert_eq!(ask(&router, Method::GET, &path).await.0, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn behind_a_proxy_everything_is_below_its_path_and_where_it_was() {
    let router = router(api().below("/behind/a/proxy"));
    for (path, _) in readable() {
        let (status, headers, _) = ask(&router, Method::GET, path).await;
        let below = ask(&router, Method::GET, &format!("/behind/a/proxy{path}")).await;
        assert_eq!((status, below.0), (StatusCode::OK, StatusCode::OK), "{path}");
        assert_eq!(below.1[CONTENT_TYPE], headers[CONTENT_TYPE], "{path}");
        assert!(below.1.contains_key("content-security-policy"), "{path}");
    }
    let (status, headers, _) = ask(&router, Method::GET, "/behind/a/proxy").await;
    assert!(status.is_redirection(), "relative links need the slash: {status}");
    assert_eq!(headers["location"], "/behind/a/proxy/");
    let document = json(&router, "/behind/a/proxy/api/v1/openapi.json").await;
    assert_eq!(document["servers"][0]["url"], "/behind/a/proxy");
    assert_eq!(ask(&router, Method::GET, "/behind/a").await.0, StatusCode::NOT_FOUND);
    // A path that is a route already stays that route.
    for (path, _) in readable().into_iter().filter(|(path, _)| *path != "/") {
        let router = super::router(api().below(path));
        assert_eq!(ask(&router, Method::GET, path).await.0, StatusCode::OK, "{path}");
        let below = format!("{path}/api/v1/edges");
        assert_eq!(ask(&router, Method::GET, &below).await.0, StatusCode::OK, "{below}");
    }
}

#[tokio::test]
async fn the_page_refers_to_nothing_by_an_absolute_path() {
    let router = over_snapshot();
    for path in ["/", "/page.js", "/page.css"] {
        let (_, _, body) = ask(&router, Method::GET, path).await;
        for absolute in ["href=\"/", "src=\"/", "json(\"/", "fetch(\"/", "url(/", "http:", "https:"]
        {
            assert!(!body.contains(absolute), "{path} has {absolute}");
        }
    }
}

#[tokio::test]
async fn unknown_paths_are_a_sentence() {
    let router = over_snapshot();
    for path in ["/metric", "/api/v1/", "/../etc/passwd", "/%2e%2e/x", "//"] {
        let (status, headers, body) = ask(&router, Method::GET, path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(body.starts_with("{\"error\":\"there is nothing at "), "{body}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }
}

#[tokio::test]
async fn the_format_of_metrics_follows_the_accept_header() {
    let router = over_snapshot();
    for (accept, content_type, end) in [
        (
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "# EOF\n",
        ),
        ("text/plain", "text/plain; version=0.0.4; charset=utf-8", "\n"),
    ] {
        let request = Request::get("/metrics").header(ACCEPT, accept).body(Body::empty());
        let response = router.clone().oneshot(request.expect("valid")).await.expect("infallible");
        assert_eq!(response.headers()[CONTENT_TYPE], content_type);
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        assert!(body.ends_with(end.as_bytes()));
    }
}

#[tokio::test]
async fn metrics_are_compressed_for_clients_that_take_gzip() {
    let router = over_snapshot();
    let plain = ask(&router, Method::GET, "/metrics").await.2;
    let first_line = plain.lines().next().expect("a line");
    for (accept, is_compressed) in [
        ("gzip", true),
        ("deflate, GZIP;q=0.5", true),
        ("gzip;q=0", false),
        ("identity", false),
        ("gzipped", false),
        ("", false),
    ] {
        let request = Request::get("/metrics").header(ACCEPT_ENCODING, accept).body(Body::empty());
        let response = router.clone().oneshot(request.expect("valid")).await.expect("infallible");
        assert_eq!(response.headers()[VARY], "accept, accept-encoding");
        let encoding = response.headers().get(CONTENT_ENCODING).cloned();
        assert_eq!(encoding.is_some_and(|encoding| encoding == "gzip"), is_compressed, "{accept}");
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        let mut text = String::new();
        let read = if is_compressed {
            flate2::read::GzDecoder::new(&*body).read_to_string(&mut text)
        } else {
            (&*body).read_to_string(&mut text)
        };
        read.expect("text");
        assert!(text.starts_with(first_line), "{accept}");
    }
}

#[tokio::test]
async fn the_duration_of_a_scrape_is_in_the_next() {
    let router = over_snapshot();
    let sample = "\nportolan_scrape_duration_seconds ";
    assert!(!ask(&router, Method::GET, "/metrics").await.2.contains(sample));
    assert!(ask(&router, Method::GET, "/metrics").await.2.contains(sample));
}

#[tokio::test]
async fn an_edge_has_everything_in_base_units() {
    let edges = json(&over_snapshot(), "/api/v1/edges?role=client").await;
    let mut expected = serde_json::json!({
        "timestamp": "2023-11-14T22:15:00.5Z",
        "window": {
            "seconds": 100.0,
            "since": "2023-11-14T22:13:20.5Z", "until": "2023-11-14T22:15:00.5Z",
        },
        "edges": [{
            "client": "shop", "client_kind": "container",
                "client_namespace": "prod", "client_source": "container",
            "server": "postgres", "server_kind": "process",
                "server_namespace": "", "server_source": "process",
            "port": 5432, "role": "client",
            "connects": {"ok": 10, "refused": 2, "timeout": 1},
            "active": 5, "opened": 12, "closed": 7, "preexisting": 2,
            "sent_bytes": 123_456, "received_bytes": 7_654_321, "retransmits": 3,
            "resets_sent": {"idle_reuse": 2, "unused": 4}, "resets_received": {"keepalive_timeout": 1},
            "aborts": {"user_timeout": 2}, "unanswered": 3, "unanswered_stopping": 1, "waits": 2,
            "responses": {}, "protocols": {},
            "listen_overflows": 0, "synack_retransmits": 0,
            "connect": {"count": 6, "sum_seconds": 3.001_791, "p50_seconds": 0.000_25, "p99_seconds": 4.849_999_999_999_999},
            "rtt": {"count": 5, "sum_seconds": 0.000_305, "p50_seconds": 0.000_045_833_333_333_333_34, "p99_seconds": 0.000_147_5},
            "request": {"count": 7, "sum_seconds": 12.1542, "p50_seconds": 0.031_25, "p99_seconds": 10.0},
        }],
    });
    let more = serde_json::json!({
        "retransmits_by_phase": {"syn": 1, "established": 2}, "timeouts": 2, "dsacks": 1,
        "limited_seconds": {"receive_window": 1.25, "send_buffer": 0.04},
        "receive_queue_bytes": 4096, "send_queue_bytes": 120, "close_wait": 3,
        "operations": {}, "operations_unanswered": {}, "other_side": false,
        "dns": {"A": {"NOERROR": 1}, "AAAA": {"NXDOMAIN": 1}},
        "dns_lookup": {"count": 1, "sum_seconds": 0.0015, "p50_seconds": 0.001_25, "p99_seconds": 0.001_495},
        "responses": {}, "protocols": {},
        "changes_before": [{
            "service": "postgres", "service_namespace": "", "text": "restarted",
            "cause": "service_restarted", "time": "2023-11-14T22:14:20.5Z",
        }],
        "why": [
            {"cause": "connect_refused", "text": "refused", "count": 2},
            {"cause": "connect_timeout", "text": "connect timed out", "count": 1},
            {"cause": "request_unanswered", "text": "unanswered", "count": 3},
            {"cause": "request_unanswered_stopping", "text": "unanswered while stopping", "count": 1},
            {"cause": "abort_user_timeout", "text": "died (user timeout)", "count": 2},
            {"cause": "reset_idle_reuse", "text": "reset (idle reuse)", "count": 2},
            {"cause": "reset_keepalive_timeout", "text": "reset (keep-alive)", "count": 1},
        ],
    });
    let edge = expected["edges"][0].as_object_mut().expect("an edge");
    edge.extend(more.as_object().expect("fields").clone());
    assert_eq!(edges, expected);
}

#[tokio::test]
async fn every_answer_with_numbers_says_which_window_they_are_of() {
    let router = over_snapshot();
    for path in ["edges", "services", "map", "balance"] {
        for window in ["10s", "60", "5m", "start"] {
            let answer = json(&router, &format!("/api/v1/{path}?window={window}")).await;
            let seconds = answer["window"]["seconds"].as_f64().expect("a number");
            assert!(seconds > 0.0 && seconds <= 100.0, "{path}?window={window}: {seconds}");
        }
        for window in ["0", "6m", "1h", "yesterday", ""] {
            let path = format!("/api/v1/{path}?window={window}");
            let (status, _, body) = ask(&router, Method::GET, &path).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
            assert!(body.contains("window=start"), "{body}");
        }
    }
    // By address only the last five minutes are kept.
    let by = json(&router, "/api/v1/edges?by=address&role=client").await;
    assert_eq!(by["edges"][0]["address"], "10.0.0.2:5432");
    assert_eq!(by["edges"][0]["connects"]["refused"], 2);
    let (status, _, body) =
        ask(&router, Method::GET, "/api/v1/edges?by=address&window=start").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.contains("window=5m or less"), "{body}");
}

#[tokio::test]
async fn filters_narrow_the_edges() {
    let router = over_snapshot();
    let check = async |query: &str, expected: usize| {
        let edges = json(&router, &format!("/api/v1/edges{query}")).await;
        assert_eq!(edges["edges"].as_array().expect("a list").len(), expected, "{query}");
    };
    check("", 3).await;
    check("?role=server", 1).await;
    check("?port=5432", 2).await;
    check("?service=shop", 2).await;
    check("?service=shop&port=5432", 1).await;
    check("?service=nobody", 0).await;
}

#[tokio::test]
async fn an_invalid_filter_gets_an_error_with_the_valid_values() {
    let router = over_snapshot();
    for query in ["role=king", "colour=red", "port=http"] {
        let (status, _, body) = ask(&router, Method::GET, &format!("/api/v1/edges?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert!(body.contains("use role=client|server|listener, service=NAME, port=N"), "{body}");
    }
}

#[tokio::test]
async fn the_status_lists_disabled_features_and_losses() {
    let status = json(&over_snapshot(), "/api/v1/status").await;
    assert_eq!(status["version"], "0.0.0");
    assert_eq!(status["kernel"], "6.18.0");
    assert_eq!(status["hooks"][1]["attached"], false);
    assert_eq!(status["hooks"][1]["reason"], "this kernel has no such tracepoint");
    assert_eq!(status["findings"][0]["subject"], "request latency of clients");
    let edge = &status["ledger"][4];
    assert_eq!(
        *edge,
        serde_json::json!({"class": "edge", "seen": 4, "exported": 3, "lost": {"no_slot": 1}})
    );
    assert_eq!(
        status["tables"][0],
        serde_json::json!({"name": "edges", "entries": 7, "capacity": 4096})
    );
}

#[tokio::test]
async fn without_a_snapshot_the_agent_lives_but_is_not_ready() {
    let (source, requests) = channel();
    let router = router(Api::new(source, build()));
    assert_eq!(ask(&router, Method::GET, "/healthz").await.0, StatusCode::OK);
    assert_eq!(ask(&router, Method::GET, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    drop(requests);
    let (status, _, body) = ask(&router, Method::GET, "/metrics").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body, "{\"error\":\"the agent is stopping\"}");
    assert_eq!(ask(&router, Method::GET, "/-/healthy").await.0, StatusCode::OK);
}

#[tokio::test]
async fn stuck_threads_are_reported_and_end_nothing() {
    let (source, mut requests) = channel();
    let router = router(Api::new(source, build()));
    let mut shown = snapshot();
    for (stuck, expected) in
        [(0, "Portolan is healthy.\n"), (1, "1 thread is stuck in"), (2, "2 threads are stuck in")]
    {
        shown.probes.stuck = stuck;
        requests.publish(&Arc::new(shown.clone()));
        let (status, _, body) = ask(&router, Method::GET, "/healthz").await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains(expected), "{body}");
    }
}

#[tokio::test]
async fn a_map_is_of_the_services_and_the_time_that_were_asked_for() {
    let router = over_snapshot();
    let map = json(&router, "/api/v1/map").await;
    assert_eq!(map["window"]["seconds"], 100.0);
    assert_eq!(map["edges"][0]["client"], "shop");
    assert_eq!(map["edges"][0]["connections"], 12, "both backends");
    assert_eq!(map["nodes"][1], serde_json::json!({ "namespace": "prod", "name": "shop" }));
    assert_eq!(json(&router, "/api/v1/map?window=1").await["edges"][0]["requests"], 800);
    let minute = json(&router, "/api/v1/map?window=1m").await;
    // History has steps of five seconds, the last of which is under way.
    assert_eq!(minute["window"]["since"], "2023-11-14T22:13:55.5Z");
    assert_eq!(json(&router, "/api/v1/map?service=prod/shop,x").await["edges"][0]["port"], 5432);
    assert_eq!(json(&router, "/api/v1/map?service=x").await["edges"], serde_json::json!([]));
    for query in ["window=0", "window=301", "window=6m", "window=x", "services=x"] {
        let (status, _, body) = ask(&router, Method::GET, &format!("/api/v1/map?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert!(body.contains("window=DURATION from 1s to 300s"), "{body}");
    }
}

#[tokio::test]
async fn balance_shows_the_load_of_each_backend() {
    let router = over_snapshot();
    let group = &json(&router, "/api/v1/balance?window=60&service=postgres").await["groups"][0];
    assert_eq!(group["requests"]["verdict"], "unbalanced");
    assert_eq!(group["requests"]["total"], 800);
    assert_eq!(group["backends"][0]["requests_share"], 0.75);
    assert_eq!(group["connections"]["verdict"], "too_few");
    let none = json(&router, "/api/v1/balance?service=shop").await;
    assert_eq!(none["groups"], serde_json::json!([]), "it serves no client");
}

#[tokio::test]
async fn segments_are_what_was_declared_and_seen() {
    let router = over_snapshot();
    let answer = json(&router, "/api/v1/segments").await;
    let cell = |client: &str, server: &str| {
        let cells = answer["matrix"].as_array().expect("a list");
        let fits = |cell: &&serde_json::Value| {
            cell["client_segment"] == client && cell["server_segment"] == server
        };
        cells.iter().find(fits).cloned().expect("a cell")
    };
    assert_eq!(cell("frontend", "database")["verdict"], "violation");
    assert_eq!(cell("frontend", "database")["connections"], 12);
    assert_eq!(cell("backend", "database")["verdict"], "allowed");
    assert_eq!(answer["violations"][0]["connections"], 12);
    assert_eq!(answer["segments"][2]["networks"][0], "172.22.0.0/16");
}

#[tokio::test]
async fn events_are_filtered_and_read_on_from_a_cursor() {
    let router = over_snapshot();
    let causes = async |query: &str| {
        let answer = json(&router, &format!("/api/v1/events?{query}")).await;
        let events = answer["events"].as_array().expect("a list").clone();
        let causes = events.iter().map(|event| event["cause"].as_str().unwrap_or("").to_owned());
        (causes.collect::<Vec<_>>(), answer["cursor"].clone(), answer["more"] == true)
    };
    let (all, end, _) = causes("").await;
    assert_eq!(all, ["service_restarted", "connect_refused"]);
    for (query, expected) in [
        ("kind=connect", &all[1..]),
        ("kind=service,bind", &all[..1]),
        ("cause=connect_refused", &all[1..]),
        ("service=prod/shop", &all[1..]),
        ("service=postgres", &all[..]),
        ("client=shop", &all[1..]),
        ("server=postgres&port=5432", &all[1..]),
        ("client=postgres", &[]),
        ("since=2023-11-14T22:14:30Z", &all[1..]),
        ("limit=1", &all[1..]),
    ] {
        assert_eq!(causes(query).await.0, expected, "{query}");
    }
    let (first, cursor, more) = causes("after=0&limit=1").await;
    assert_eq!((&first[..], more), (&all[..1], true));
    let (second, cursor, more) = causes(&format!("after={cursor}")).await;
    assert_eq!((&second[..], more, &cursor), (&all[1..], false, &end));
    assert_eq!(causes(&format!("after={cursor}")).await.0, [""; 0]);
    // The cursor of an agent whose clock was ahead.
    assert_eq!(causes("after=9000000000000000").await.0, all);
    for (query, said) in
        [("kind=refused", "is not a kind of event; use connect"), ("limit=0", "from 1 to 10000")]
    {
        let (status, _, body) = ask(&router, Method::GET, &format!("/api/v1/events?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(body.contains(said), "{body}");
    }
}

/// A stream of events, with this header.
async fn follow(router: &Router, last_event_id: Option<&str>) -> Response {
    let mut request = Request::builder().uri("/api/v1/events").header(ACCEPT, "text/event-stream");
    if let Some(id) = last_event_id {
        request = request.header("last-event-id", id);
    }
    let request = request.body(Body::empty()).expect("valid");
    router.clone().oneshot(request).await.expect("infallible")
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_and_ends_with_a_notice_if_it_is_too_slow() {
    use futures_util::StreamExt as _;
    use telemetry::event_feed::WAITING;

    let feed = EventFeed::default();
    let router = router(api().with_events(feed.clone()));
    let response = follow(&router, Some("1")).await;
    assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
    let mut body = response.into_body().into_data_stream();
    let mut next = async || {
        let lines = body.next().await?.expect("it goes on");
        Some(String::from_utf8(lines.to_vec()).expect("text"))
    };
    let missed = next().await.expect("what was missed");
    let order: Vec<_> = ["event: service\n", "event: connect\n"].map(|it| missed.find(it)).into();
    assert!(order[0].is_some() && order[0] < order[1], "{missed}");
    assert!(missed.ends_with("\n\n"), "{missed:?}");
    let events = snapshot().events;
    let last = events.ring.after(0, |_| true).last().map(|event| (***event).clone());
    let last = last.expect("the fixture has some");
    // It has been sent: the stream begins after it.
    feed.publish(Arc::new(last.clone()));
    let further = model::events::Event { cursor: last.cursor + 1, count: 3, ..last };
    feed.publish(Arc::new(further.clone()));
    let line = next().await.expect("an event");
    assert!(line.starts_with(&format!("id: {}\nevent: connect\ndata: {{", further.cursor)));
    assert!(line.contains("\"count\":3") && line.matches("data:").count() == 1, "{line}");
    for _ in 0..WAITING + 5 {
        feed.publish(Arc::new(further.clone()));
    }
    let notice = next().await.expect("a notice");
    assert!(
        notice.starts_with("event: dropped\ndata: ") && notice.contains("5 events"),
        "{notice}"
    );
    assert_eq!(next().await, None);
    assert_eq!(feed.losses().not_followed(), 5);
}

#[tokio::test]
async fn streams_are_limited_and_another_may_begin_when_one_ends() {
    let api = api();
    let local = router(api.clone().with_followers_of_its_own());
    let router = router(api);
    let mut streams = Vec::new();
    for _ in 0..events::FOLLOWERS {
        let response = follow(&router, None).await;
        assert_eq!(response.status(), StatusCode::OK);
        streams.push(response);
    }
    assert_eq!(follow(&router, None).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(follow(&local, None).await.status(), StatusCode::OK, "at the socket");
    streams.pop();
    assert_eq!(follow(&router, None).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn history_is_of_the_edges_or_services_that_were_asked_for() {
    let router = over_snapshot();
    let series = async |query: &str| {
        let answer = json(&router, &format!("/api/v1/history?{query}")).await;
        let name = |one: &serde_json::Value| {
            let name = |key: &str| one[key].as_str().unwrap_or("-").to_owned();
            (name("client"), name("server"), one["port"].as_u64())
        };
        let found = answer["series"].as_array().expect("a list").clone();
        (found.iter().map(name).collect::<Vec<_>>(), found, answer["omitted"].clone())
    };
    let edge = |client: &str, server: &str, port| (client.to_owned(), server.to_owned(), port);
    let busiest = edge("shop", "postgres", Some(5432));
    let (names, all, omitted) = series("").await;
    assert_eq!(names, [busiest.clone(), edge("internet", "shop", Some(8080))]);
    assert_eq!(omitted, 0);
    let point = &all[0]["points"][0];
    let figures = ["connects_ok", "connects_failed", "requests", "unanswered", "resets", "aborts"];
    // Resets of connections only: four of unused ones are not among them.
    assert_eq!(figures.map(|key| point[key].as_u64()), [10, 3, 7, 3, 3, 2].map(Some));
    assert_eq!(point["seconds"], 100.0);
    let (names, _, omitted) = series("limit=1").await;
    assert_eq!((names, omitted), (vec![busiest.clone()], 1.into()));
    assert_eq!(series("client=prod/shop").await.0, std::slice::from_ref(&busiest));
    assert_eq!(series("service=shop&window=1h").await.0.len(), 2);
    assert_eq!(series("server=shop&port=5432").await.0, []);
    let (services, found, _) = series("by=service&server=postgres").await;
    assert_eq!(services, [edge("-", "postgres", None)]);
    // With the drops of its listener, which no edge has.
    assert_eq!(found[0]["points"][0]["listen_overflows"], 4);
    for (query, said) in [
        ("window=2h", "is not a window of history; write a duration from 1s to 1h"),
        ("window=start", "is not a window"),
        ("limit=0", "from 1 to 1000"),
        ("by=port", "by=edge|service"),
    ] {
        let (status, _, body) =
            ask(&router, Method::GET, &format!("/api/v1/history?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert!(body.contains(said), "{query}: {body}");
    }
}

#[tokio::test]
async fn the_status_has_what_a_check_is_to_leave_out() {
    let skip: Skip = "PO301=legacy.js".parse().expect("a skip");
    let none = json(&over_snapshot(), "/api/v1/status").await;
    assert_eq!(none["check_skip"], serde_json::json!([]));
    let router = router(api().with_check_skip(&[skip]));
    let one = json(&router, "/api/v1/status").await;
    assert_eq!(one["check_skip"], serde_json::json!(["PO301=legacy.js"]));
}
