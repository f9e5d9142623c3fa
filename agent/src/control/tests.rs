//! Claims about the socket for changes, over real sockets.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream as StdStream;

use serde_json::{Value, json};

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::Method;
use server::Api;
use server::local::{BODY_BYTES, CONNECTIONS, NAME, bind, router};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::state::{StateActor, StateFile};
use model::fixture::snapshot;
use telemetry::Build;
use telemetry::source::channel;

fn groups(caller: &UnixStream) -> Vec<u32> {
    linux::peer::groups(caller).unwrap_or_default()
}

/// A socket that is served on a thread of its own, its directory and its shutdown.
struct Served {
    directory: tempfile::TempDir,
    _stop: watch::Sender<()>,
}

impl Served {
    fn start(group: Option<u32>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let control = bind(directory.path(), group, groups).expect("bound");
        let (store, state, _) = StateFile::open(&directory.path().join("state"));
        let state = StateActor::start(store, state, None, None, linux::probes::Probes::inline())
            .expect("started");
        let (stop, stopping) = watch::channel(());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let (source, mut requests) = channel();
                let shown = Arc::new(snapshot());
                tokio::spawn(async move {
                    loop {
                        requests.asked().await;
                        requests.publish(&shown);
                    }
                });
                let build = Build { version: "0.0.0".into(), kernel: "6.18.0".into() };
                control.serve(router(Api::new(source, build), state), stopping).await;
            });
        });
        Self { directory, _stop: stop }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(NAME)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = StdStream::connect(self.path()).expect("connected");
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        // A body that is too large is not read to its end.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).unwrap_or(Value::String(body.to_owned())))
    }
}

#[test]
fn what_the_network_reads_can_be_read_and_changes_can_be_made() {
    let served = Served::start(None);
    let (status, _) = served.ask("GET", "/api/v1/edges", "");
    assert_eq!(status, 200);
    let reserve = json!({"port": 18432, "protocol": "tcp", "service": "postgres"}).to_string();
    let (status, answer) = served.ask("POST", "/api/v1/reservations", &reserve);
    assert_eq!((status, &answer["reservations"][0]["service"]), (200, &json!("postgres")));
    let other = json!({"port": 18432, "protocol": "tcp", "service": "other"}).to_string();
    let (status, answer) = served.ask("POST", "/api/v1/reservations", &other);
    let said = answer["error"].as_str().unwrap_or_default();
    assert_eq!(status, 409);
    assert!(said.contains("18432/tcp is reserved for postgres; release it first"), "{said}");
    let free = json!({"near": 18432, "count": 2, "protocol": "tcp"}).to_string();
    let (status, answer) = served.ask("POST", "/api/v1/ports/free", &free);
    assert_eq!((status, answer["ports"].as_array().map(Vec::len)), (200, Some(2)));
    assert!(!answer["ports"].as_array().expect("ports").contains(&json!(18432)));
    let release = json!({"port": 18432, "protocol": "tcp"}).to_string();
    assert_eq!(served.ask("DELETE", "/api/v1/reservations", &release).0, 200);
    assert_eq!(served.ask("DELETE", "/api/v1/reservations", &release).0, 404);
    let register = json!({"service": "billing", "addresses": ["10.1.2.3:443"]}).to_string();
    assert_eq!(served.ask("POST", "/api/v1/services", &register).0, 200);
    let unregister = json!({"service": "billing"}).to_string();
    assert_eq!(served.ask("DELETE", "/api/v1/services", &unregister).0, 200);
}

#[test]
fn a_command_makes_changes_and_reads_refusals_in_the_agents_words() {
    let served = Served::start(None);
    let client = client::Client::for_socket(&served.path());
    let reserve = |service: &str| {
        let request = json!({"port": 18433, "protocol": "tcp", "service": service}).to_string();
        client.change(Method::POST, "/api/v1/reservations", request)
    };
    assert!(reserve("postgres").expect("reserved").contains("18433"));
    let error = reserve("other").expect_err("a contradiction").to_string();
    assert!(error.starts_with("18433/tcp is reserved for postgres"), "{error}");
}

#[test]
fn invalid_and_oversized_requests_are_refused_in_a_sentence() {
    let served = Served::start(None);
    for (body, status) in [
        ("", 400),
        ("{}", 400),
        ("{\"port\": 0, \"protocol\": \"tcp\", \"service\": \"x\"}", 400),
        ("{\"port\": 70000, \"protocol\": \"tcp\", \"service\": \"x\"}", 400),
        ("{\"port\": 1, \"protocol\": \"sctp\", \"service\": \"x\"}", 400),
        ("{\"port\": 1, \"protocol\": \"tcp\", \"service\": \"a b\"}", 400),
        ("{\"port\": 1, \"protocol\": \"tcp\", \"service\": \"x\", \"force\": true}", 400),
        ("{\"port\": 1, \"protocol\": \"tcp\", \"service\": \"x\", \"until\": \"soon\"}", 400),
    ] {
        let (found, answer) = served.ask("POST", "/api/v1/reservations", body);
        assert_eq!(found, status, "{body}: {answer}");
        assert!(answer["error"].is_string(), "{answer}");
    }
    let (status, answer) = served.ask("POST", "/api/v1/reservations", &" ".repeat(BODY_BYTES + 1));
    assert_eq!(status, 413, "{answer}");
    assert_eq!(served.ask("PUT", "/api/v1/reservations", "").0, 405);
    assert_eq!(served.ask("POST", "/api/v1/edges", "").0, 405);
}

#[test]
fn slow_callers_do_not_keep_others_out() {
    let served = Served::start(None);
    // More than are served at once, each with half a request.
    let slow: Vec<_> = (0..CONNECTIONS - 1)
        .map(|_| {
            let mut stream = StdStream::connect(served.path()).expect("connected");
            stream.write_all(b"POST /api/v1/services HTTP/1.1\r\n").expect("sent");
            stream
        })
        .collect();
    assert_eq!(served.ask("GET", "/healthz", "").0, 200);
    drop(slow);
}

#[test]
fn the_file_is_for_us_alone_or_for_the_group() {
    use std::os::unix::fs::MetadataExt as _;
    let mode = |served: &Served| {
        let file = fs::metadata(served.path()).expect("there");
        (file.mode() & 0o777, file.gid())
    };
    assert_eq!(mode(&Served::start(None)).0, 0o600);
    let own = rustix::process::getegid().as_raw();
    assert_eq!(mode(&Served::start(Some(own))), (0o660, own));
}

#[test]
fn what_lies_in_the_way_is_removed_only_if_it_is_a_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(NAME);
    drop(UnixListener::bind(&path).expect("bound"));
    assert!(path.exists(), "a crash would leave it");
    drop(bind(directory.path(), None, groups).expect("bound over it"));
    assert!(!path.exists(), "it goes with the agent");
    fs::write(&path, "mine").expect("written");
    let error = bind(directory.path(), None, groups).expect_err("refused").to_string();
    assert!(error.ends_with("is in the way and no socket; remove it"), "{error}");
}
