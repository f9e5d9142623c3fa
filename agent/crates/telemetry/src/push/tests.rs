//! Pushes against a server with scripted answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::Build;
use crate::source;
use model::fixture::snapshot;

/// A collector with scripted responses, the last of which repeats; and the requests it received.
#[derive(Clone)]
struct Receiver {
    answers: Arc<[u16]>,
    requests: Arc<AtomicUsize>,
    bodies: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

/// Close the connection without a response.
const NEVER: u16 = 0;

impl Receiver {
    async fn start(answers: &[u16]) -> (Self, SocketAddr) {
        let collector =
            Self { answers: answers.into(), requests: Arc::default(), bodies: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().route("/v1/metrics", post(Self::take));
        let router = router.with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, address)
    }

    async fn take(State(this): State<Self>, headers: HeaderMap, body: Bytes) -> StatusCode {
        let nth = this.requests.fetch_add(1, Ordering::Relaxed);
        let answer = this.answers.get(nth).or(this.answers.last()).copied().unwrap_or(200);
        if answer == NEVER {
            std::future::pending::<()>().await;
        }
        this.bodies.lock().expect("no panic").push((headers, body));
        StatusCode::from_u16(answer).expect("a status")
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// A pusher to `address`, and the core loop that answers it.
fn pusher(address: SocketAddr, change: impl FnOnce(&mut Collector)) -> (Pusher, JoinHandle<()>) {
    let mut collector = Collector {
        endpoint: format!("http://{address}/v1/metrics").parse().expect("an address"),
        interval: Duration::from_mins(1),
        timeout: Duration::from_secs(10),
        headers: Vec::new(),
        ca_file: None,
    };
    change(&mut collector);
    let (source, mut asked) = source::channel();
    let answering = tokio::spawn(async move {
        loop {
            asked.asked().await;
            asked.publish(&Arc::new(snapshot()));
        }
    });
    let exporter = Exporter::new(Build { version: "0".into(), kernel: "6".into() });
    (Pusher::new(collector, source, exporter, "box").expect("valid"), answering)
}

fn only(pushes: Pushes, result: PushResult, count: u64) {
    for other in PushResult::ALL {
        let expected = if other == result { count } else { 0 };
        assert_eq!(pushes.of(other), expected, "{}", other.as_str());
    }
}

#[tokio::test]
async fn a_push_has_the_headers_and_is_retried_if_the_collector_is_busy() {
    let (collector, address) = Receiver::start(&[503, 200]).await;
    let header =
        (HeaderName::from_static("authorization"), HeaderValue::from_static("Bearer hunter2"));
    let (mut pusher, _loop) = pusher(address, |collector| collector.headers = vec![header]);
    pusher.push(TRIES).await;
    only(pusher.outcomes().so_far(), PushResult::Ok, 1);
    assert_eq!(collector.requests(), 2);
    let bodies = collector.bodies.lock().expect("no panic");
    let [(first, one), (_, other)] = &bodies[..] else { panic!("{bodies:?}") };
    assert_eq!(one, other, "the same request");
    assert!(one.len() > 1_000);
    assert_eq!(first["authorization"], "Bearer hunter2");
    assert_eq!(first["content-type"], "application/x-protobuf");
}

#[tokio::test]
async fn a_push_that_is_refused_is_not_repeated() {
    let (collector, address) = Receiver::start(&[401]).await;
    let (mut pusher, _loop) = pusher(address, |_| {});
    for _ in 0..2 {
        pusher.push(TRIES).await;
    }
    only(pusher.outcomes().so_far(), PushResult::Refused, 2);
    assert_eq!(collector.requests(), 2);
}

#[tokio::test]
async fn unreachable_and_timeout_are_different_results() {
    let (_collector, address) = Receiver::start(&[NEVER]).await;
    let (mut slow, _loop) =
        pusher(address, |collector| collector.timeout = Duration::from_millis(100));
    slow.push(1).await;
    only(slow.outcomes().so_far(), PushResult::Timeout, 1);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = closed.local_addr().expect("an address");
    drop(closed);
    let (mut lonely, _loop) = pusher(address, |_| {});
    lonely.push(1).await;
    only(lonely.outcomes().so_far(), PushResult::Unreachable, 1);
}

#[tokio::test]
async fn without_a_snapshot_nothing_is_sent() {
    let (collector, address) = Receiver::start(&[200]).await;
    let (mut pusher, answering) = pusher(address, |_| {});
    answering.abort();
    let _ = answering.await;
    pusher.push(TRIES).await;
    only(pusher.outcomes().so_far(), PushResult::Unavailable, 1);
    assert_eq!(collector.requests(), 0);
}

#[tokio::test]
async fn it_pushes_at_its_interval_and_once_more_at_the_end() {
    let (collector, address) = Receiver::start(&[200]).await;
    let (mut pusher, _loop) =
        pusher(address, |collector| collector.interval = Duration::from_secs(1));
    assert!(timeout(Duration::from_millis(2_500), pusher.run()).await.is_err());
    let by_time = collector.requests();
    assert!((1..=2).contains(&by_time), "{by_time}");
    pusher.last().await;
    assert_eq!(collector.requests(), by_time + 1);
}
