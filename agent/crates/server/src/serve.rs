//! Binding the port and serving connections, within limits.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::routes::secure;
use super::slots::{Phase, Slots};
use super::web::{Rules, Web};

/// Timeout of a request's head, and of an idle connection. Longer than the usual scrape interval of
/// 15 s, so that a scraper keeps its connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The head of a request must fit; of bodies only that of Envoy's question is read, which has its own limit.
const HEAD_BYTES: usize = 16 * 1024;

/// Connections that wait to be accepted; `net.core.somaxconn` is the limit.
const BACKLOG: i32 = 4096;

/// Timeout of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of a handler.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may leave a response unread before the kernel closes the connection.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Grace period for running requests at shutdown: the agent ends within a second, whatever a client
/// does.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(300);

/// How often to check for a finished request while every connection is busy.
const ALL_BUSY: Duration = Duration::from_millis(2);

/// Finds the process that listens on the port of an address, as far as permissions allow.
pub type Occupant = fn(SocketAddr) -> Option<String>;

/// Binds `address`; the error names the process that holds it, found by `occupant`.
pub fn bind(address: SocketAddr, occupant: Occupant) -> anyhow::Result<TcpListener> {
    let listener =
        TcpListener::bind(address).map_err(|error| refused(address, &error, occupant))?;
    // The standard library's queue is of 128, which a flood fills at once: then the kernel drops a
    // scraper's SYN, which comes again after a second.
    rustix::net::listen(&listener, BACKLOG).context("preparing the HTTP listener")?;
    listener.set_nonblocking(true).context("preparing the HTTP listener")?;
    Ok(listener)
}

/// Serves `router` on `listener` by the rules of `web`, until `shutdown` completes and running
/// requests are finished.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    web: Arc<Web>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener).context("serving HTTP")?;
    let mut slots = Slots::default();
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            // Reaps finished tasks, so that the set does not grow.
            Some(ended) = connections.join_next_with_id() => {
                slots.ended(match ended { Ok((task, ())) => task, Err(error) => error.id() });
            }
            connection = listener.accept() => match connection {
                Ok((stream, peer)) => {
                    while !slots.make_room() {
                        tokio::time::sleep(ALL_BUSY).await;
                        while let Some(ended) = connections.try_join_next_with_id() {
                            slots.ended(match ended { Ok((task, ())) => task, Err(error) => error.id() });
                        }
                    }
                    let (phase, rules) = (Phase::default(), web.rules());
                    let served = accept(stream, peer.ip(), router.clone(), rules, phase.clone(), stopping.clone());
                    slots.add(peer.ip(), phase, connections.spawn(served));
                    // Its request may be here already: read it before other connections displace
                    // it.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    // Out of descriptors, mostly: without a pause this loop would spin.
                    tracing::warn!(%error, "an HTTP connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    // Sending fails if there is no connection.
    let _ = stop.send(true);
    let finished = async { while connections.join_next().await.is_some() {} };
    // Unfinished tasks are dropped with the set.
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, finished).await;
    Ok(())
}

/// Serves one connection, in TLS if that is on.
async fn accept(
    stream: TcpStream,
    peer: IpAddr,
    router: Router,
    rules: Arc<Rules>,
    phase: Phase,
    stopping: watch::Receiver<bool>,
) {
    limit_unread(&stream);
    let Some(config) = rules.tls.clone() else {
        return serve_connection(stream, peer, router, rules, phase, stopping).await;
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => serve_connection(stream, peer, router, rules, phase, stopping).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: IpAddr,
    router: Router,
    rules: Arc<Rules>,
    phase: Phase,
    mut stopping: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| {
        let (router, rules, phase) = (router.clone(), Arc::clone(&rules), phase.clone());
        async move { Ok::<_, Infallible>(answer(request, peer, router, &rules, &phase).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let stop = async {
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

async fn answer(
    request: Request<Incoming>,
    peer: IpAddr,
    router: Router,
    rules: &Rules,
    phase: &Phase,
) -> Response {
    let answering = phase.answering();
    let refusal = rules.refuse(peer, &request).await;
    let request = request.map(|body| Body::new(phase.receiving(body)));
    let mut response = match refusal {
        Some(refusal) => secure(refusal).await,
        None => match tokio::time::timeout(ANSWER_TIMEOUT, router.oneshot(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        },
    };
    rules.decorate(response.headers_mut());
    response.map(|body| answering.send(body))
}

/// A client that does not read keeps its response in the agent's memory only for a limited time
/// (man 7 tcp).
fn limit_unread(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT)) {
        tracing::debug!(%error, "no limit on unread answers");
    }
}

fn refused(address: SocketAddr, error: &io::Error, occupant: Occupant) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let occupant = occupant(address).unwrap_or_else(|| "another process".to_owned());
            anyhow::anyhow!(
                "{address} is in use by {occupant}; choose another address with --web.listen-address"
            )
        }
        io::ErrorKind::AddrNotAvailable => anyhow::anyhow!(
            "this host has no address {}; choose another with --web.listen-address",
            address.ip()
        ),
        io::ErrorKind::PermissionDenied => anyhow::anyhow!(
            "not allowed to listen on {address}; choose a port above 1023 with --web.listen-address"
        ),
        _ => anyhow::anyhow!(
            "cannot listen on {address}: {error}; choose another address with --web.listen-address"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use axum::routing::get;
    use tokio::sync::oneshot;

    use super::*;
    use crate::web::{Endpoint, Hosts};

    fn unknown(_: SocketAddr) -> Option<String> {
        None
    }

    fn any_port() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn the_error_for_a_port_in_use_names_the_process_and_the_fix() {
        let first = bind(any_port(), unknown).expect("bound");
        let address = first.local_addr().expect("an address");
        let error = bind(address, |_| Some("nginx (pid 7)".to_owned())).expect_err("taken");
        let expected = format!(
            "{address} is in use by nginx (pid 7); choose another address with --web.listen-address"
        );
        assert_eq!(error.to_string(), expected);
        let error = bind(address, unknown).expect_err("taken").to_string();
        assert!(error.contains("in use by another process"), "{error}");
    }

    #[test]
    fn the_error_names_an_address_of_another_host() {
        let error =
            bind(SocketAddr::from(([192, 0, 2, 1], 80)), unknown).expect_err("foreign").to_string();
        assert_eq!(
            error,
            "this host has no address 192.0.2.1; choose another with --web.listen-address"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_running_answer_is_finished_before_the_server_ends() {
        let (started, mut has_started) = tokio::sync::mpsc::channel(1);
        let slow = move || async move {
            let _ = started.send(()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            "done"
        };
        let router = Router::new().route("/slow", get(slow));
        let listener = bind(any_port(), unknown).expect("bound");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let web = Arc::new(
            Web::open(Endpoint { address, file: None, hosts: Hosts::default() }).expect("no file"),
        );
        let server = tokio::spawn(serve(listener, router, web, async {
            let _ = stopped.await;
        }));
        let client = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).expect("connected");
            stream.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("answered");
            answer
        });
        has_started.recv().await.expect("started");
        stop.send(()).expect("running");
        assert!(client.await.expect("no panic").ends_with("done"));
        server.await.expect("no panic").expect("served");
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
