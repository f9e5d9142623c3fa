//! The socket for changes: HTTP on a Unix socket in the run directory, for this host alone.
//!
//! Everything that the network can read can be read here too; what writes is only here. Who may
//! connect is decided twice: by the mode of the socket's file, and by what the kernel says of the
//! caller (`SO_PEERCRED`, man 7 unix). A body is small, a request is short, and few callers are
//! served at once.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use api_types::{
    AllocatePorts, AllocatedPorts, Register, Registered, Release, Reserve, Reserved, Unregister,
};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Extension};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::fs::Mode;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::routes::{self, Api, Failure, Route};
use crate::state::{self, Caller, DeskHandle};

/// The socket's name in the run directory.
pub const NAME: &str = "control.sock";

/// Callers served at the same time; more wait.
const CONNECTIONS: usize = 16;
/// The head of a request must come within this time, and an idle connection ends.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection ends after this time, whatever it is doing.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// The head of a request must fit.
const HEAD_BYTES: usize = 16 * 1024;
/// The body of a request must fit: a service with as many addresses as there may be does.
const BODY_BYTES: usize = 16 * 1024;
/// How long running answers may take to finish when the agent stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// The socket; its file goes when this goes.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    group: Option<u32>,
}

/// What the kernel says of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer {
    pid: u32,
    uid: u32,
    gid: u32,
}

/// Opens the socket in `directory`; members of `group` may use it, beside root and our own user.
/// The run directory's lock is held, so what lies there is no living agent's.
pub fn bind(directory: &Path, group: Option<u32>) -> anyhow::Result<Control> {
    let path = directory.join(NAME);
    let shown = path.display();
    match fs::symlink_metadata(&path) {
        Ok(file) if file.file_type().is_socket() => {
            fs::remove_file(&path).with_context(|| format!("removing the old socket {shown}"))?;
        }
        Ok(_) => bail!("{shown} is in the way and no socket; remove it"),
        Err(_) => {}
    }
    // Between bind and chmod the file has the mode of the umask: nobody else's for that moment.
    // Nothing else of ours makes files now.
    let umask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(&path);
    rustix::process::umask(umask);
    let listener = bound.with_context(|| {
        format!("opening the socket {shown}; choose another directory with --run-directory")
    })?;
    listener.set_nonblocking(true).context("preparing the socket for changes")?;
    if let Some(group) = group {
        std::os::unix::fs::chown(&path, None, Some(group))
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o660)))
            .with_context(|| format!("giving {shown} to group {group} (--control-group)"))?;
    }
    Ok(Control { listener, path, group })
}

/// Every path, for callers on this host.
pub fn router(api: Api, desk: DeskHandle) -> Router {
    let writable =
        routes::collect(writable()).layer(Extension(desk)).layer(DefaultBodyLimit::max(BODY_BYTES));
    routes::finish(routes::collect(routes::readable()).merge(writable), api)
}

/// What can be changed.
pub(super) fn writable() -> Vec<Route> {
    vec![
        ("/api/v1/reservations", post(reserve).delete(release)),
        ("/api/v1/ports/free", post(free)),
        ("/api/v1/services", post(register).delete(unregister)),
    ]
}

// === impl Control ===

impl Control {
    /// Serves `router` until the other end of `stopping` is gone and running answers are sent.
    pub async fn serve(self, router: Router, mut stopping: watch::Receiver<()>) {
        let Self { listener, group, path: _ } = &self;
        let listener = match listener.try_clone().and_then(tokio::net::UnixListener::from_std) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the socket for changes cannot be served: ports cannot be reserved");
                return;
            }
        };
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, listener.accept().await)
            };
            tokio::select! {
                // An error means that the other end is gone: the agent stops.
                _ = stopping.changed() => break,
                // Reaps what has ended, so that the set does not grow.
                Some(_) = connections.join_next() => {}
                (permit, connection) = accepted => match connection {
                    Ok((stream, _)) => {
                        let (router, group) = (router.clone(), *group);
                        connections.spawn(async move {
                            let serving = serve_connection(stream, router, group);
                            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serving).await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a caller could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
        let finished = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FAREWELL, finished).await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn serve_connection(stream: UnixStream, router: Router, group: Option<u32>) {
    let (peer, allowed) = match Peer::of(&stream) {
        Ok(peer) => (peer, peer.is_allowed(&stream, group)),
        Err(error) => {
            tracing::warn!(%error, "a caller without credentials was refused");
            return;
        }
    };
    let router = if allowed {
        router.layer(Extension(Caller { pid: peer.pid }))
    } else {
        tracing::warn!(uid = peer.uid, pid = peer.pid, "a caller was refused");
        Router::new().fallback(refuse)
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    if let Err(error) = connection.as_mut().await {
        tracing::debug!(%error, "a connection to the socket for changes ended early");
    }
}

async fn refuse() -> Failure {
    Failure(
        StatusCode::FORBIDDEN,
        "only root, the agent's own user and the members of --control-group may use this socket"
            .to_owned(),
    )
}

async fn reserve(
    Extension(desk): Extension<DeskHandle>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Reserved>, Failure> {
    let request: Reserve = read(body)?;
    Ok(Json(desk.ask(move |desk| desk.reserve(caller, request)).await?))
}

async fn release(
    Extension(desk): Extension<DeskHandle>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Reserved>, Failure> {
    let request: Release = read(body)?;
    Ok(Json(desk.ask(move |desk| desk.release(caller, &request)).await?))
}

async fn free(
    Extension(desk): Extension<DeskHandle>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<AllocatedPorts>, Failure> {
    let request: AllocatePorts = read(body)?;
    Ok(Json(desk.ask(move |desk| desk.free(caller, request)).await?))
}

async fn register(
    Extension(desk): Extension<DeskHandle>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Registered>, Failure> {
    let request: Register = read(body)?;
    Ok(Json(desk.ask(move |desk| desk.register(request)).await?))
}

async fn unregister(
    Extension(desk): Extension<DeskHandle>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Registered>, Failure> {
    let request: Unregister = read(body)?;
    Ok(Json(desk.ask(move |desk| desk.unregister(&request)).await?))
}

/// A body as JSON, whatever it says it is.
fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Failure> {
    let body = body.map_err(|rejection| {
        let said = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                format!("the request is larger than {BODY_BYTES} bytes; ask for less at once")
            }
            _ => rejection.body_text(),
        };
        Failure(rejection.status(), said)
    })?;
    serde_json::from_slice(&body).map_err(|error| {
        let said = format!(
            "the request cannot be read: {error}; is the agent of another version than the command?"
        );
        Failure(StatusCode::BAD_REQUEST, said)
    })
}

impl From<state::Failure> for Failure {
    fn from(failure: state::Failure) -> Self {
        let status = match &failure {
            state::Failure::Wrong(_) => StatusCode::BAD_REQUEST,
            state::Failure::Contradiction(_) => StatusCode::CONFLICT,
            state::Failure::Missing(_) => StatusCode::NOT_FOUND,
            state::Failure::Unable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, failure.to_string())
    }
}

// === impl Peer ===

impl Peer {
    fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        Ok(Self { pid, uid: credentials.uid(), gid: credentials.gid() })
    }

    fn is_allowed(&self, stream: &UnixStream, group: Option<u32>) -> bool {
        let own = rustix::process::geteuid().as_raw();
        let groups = || linux::peer::groups(stream).unwrap_or_default();
        let member = |group| self.gid == group || groups().contains(&group);
        self.uid == 0 || self.uid == own || group.is_some_and(member)
    }
}

#[cfg(test)]
mod tests;
