//! The control socket: HTTP on a Unix socket in the run directory, for this host alone.
//!
//! It serves everything that the network can read, and all writes. Access is checked twice: by the
//! mode of the socket's file, and by the peer credentials (`SO_PEERCRED`, man 7 unix). Bodies,
//! durations and the number of connections are limited.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use api_types::{
    AllocatePorts, AllocatedPorts, Register, Registered, Release, Renew, Renewed, Reserve,
    Reserved, Unregister,
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

/// The socket's name in the run directory.
pub const NAME: &str = "control.sock";

/// Callers served at the same time; more wait.
pub const CONNECTIONS: usize = 16;
/// The head of a request must come within this time, and an idle connection ends.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum lifetime of a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// The head of a request must fit.
const HEAD_BYTES: usize = 16 * 1024;
/// Maximum size of a body: a service with the maximum number of addresses fits.
pub const BODY_BYTES: usize = 16 * 1024;
/// Grace period for running requests at shutdown: the agent ends within a second, whatever a client
/// does.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(300);

/// The socket; dropping it removes its file.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    group: Option<u32>,
    groups: PeerGroups,
}

/// The calling process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its number, as the agent's /proc has it; 0 if it has no number there.
    pub pid: u32,
}

/// Executes the changes that callers request.
pub trait Changes: Clone + Send + Sync + 'static {
    /// Reserves a port.
    fn reserve(&self, caller: Caller, request: Reserve) -> impl Answer<Reserved>;
    /// Removes a reservation.
    fn release(&self, caller: Caller, request: Release) -> impl Answer<Reserved>;
    /// Allocates free ports.
    fn allocate(&self, caller: Caller, request: AllocatePorts) -> impl Answer<AllocatedPorts>;
    /// Names addresses.
    fn register(&self, request: Register) -> impl Answer<Registered>;
    /// Lets registered addresses last for their time to live again.
    fn renew(&self, request: Renew) -> impl Answer<Renewed>;
    /// Removes a name.
    fn unregister(&self, request: Unregister) -> impl Answer<Registered>;
}

/// The future result of a request.
pub trait Answer<T>: Future<Output = Result<T, Refused>> + Send {}

impl<T, F: Future<Output = Result<T, Refused>> + Send> Answer<T> for F {}

/// Why a change was refused, in a sentence with the fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The request is invalid.
    Invalid(String),
    /// It contradicts the stored state.
    Conflict(String),
    /// Its subject does not exist.
    NotFound(String),
    /// It cannot be done here or now.
    Unavailable(String),
}

/// The supplementary groups of a caller.
pub type PeerGroups = fn(&UnixStream) -> Vec<u32>;

/// The peer credentials of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer {
    pid: u32,
    uid: u32,
    gid: u32,
}

/// Opens the socket in `directory`; members of `group` may use it, besides root and the agent's
/// user; `groups` looks up the groups of a caller. The lock of the run directory is held, so an
/// existing socket there belongs to no running agent.
pub fn bind(directory: &Path, group: Option<u32>, groups: PeerGroups) -> anyhow::Result<Control> {
    let path = directory.join(NAME);
    let shown = path.display();
    match fs::symlink_metadata(&path) {
        Ok(file) if file.file_type().is_socket() => {
            fs::remove_file(&path).with_context(|| format!("removing the old socket {shown}"))?;
        }
        Ok(_) => bail!("{shown} is in the way and no socket; remove it"),
        Err(_) => {}
    }
    // Between bind and chmod the file has the mode of the umask, so no other user can connect. No
    // other thread creates files now.
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
    Ok(Control { listener, path, group, groups })
}

/// Every path, for callers on this host.
pub fn router<C: Changes>(api: Api, changes: C) -> Router {
    let writable = routes::collect(writable::<C>())
        .layer(Extension(changes))
        .layer(DefaultBodyLimit::max(BODY_BYTES));
    // Who may connect here finds a stream of events, whoever has taken those of the endpoint.
    let api = api.with_followers_of_its_own();
    routes::finish(routes::collect(routes::readable()).merge(writable), api)
}

/// Paths of everything that can be changed.
pub fn paths<C: Changes>() -> impl Iterator<Item = &'static str> {
    writable::<C>().into_iter().map(|(path, _)| path)
}

fn writable<C: Changes>() -> Vec<Route> {
    vec![
        ("/api/v1/reservations", post(reserve::<C>).delete(release::<C>)),
        ("/api/v1/ports/free", post(allocate::<C>)),
        ("/api/v1/services", post(register::<C>).delete(unregister::<C>)),
        ("/api/v1/services/renew", post(renew::<C>)),
    ]
}

// === impl Control ===

impl Control {
    /// The socket's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves `router` until the sender of `stopping` is dropped and running requests are finished.
    pub async fn serve(self, router: Router, mut stopping: watch::Receiver<()>) {
        let Self { listener, group, groups, path: _ } = &self;
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
                // An error means that the sender is dropped: the agent stops.
                _ = stopping.changed() => break,
                // Reaps finished tasks, so that the set does not grow.
                Some(_) = connections.join_next() => {}
                (permit, connection) = accepted => match connection {
                    Ok((stream, _)) => {
                        let (router, group, groups) = (router.clone(), *group, *groups);
                        connections.spawn(async move {
                            let serving = serve_connection(stream, router, group, groups);
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
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, finished).await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn serve_connection(
    stream: UnixStream,
    router: Router,
    group: Option<u32>,
    groups: PeerGroups,
) {
    let (peer, allowed) = match Peer::of(&stream) {
        Ok(peer) => (peer, peer.is_allowed(&stream, group, groups)),
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

async fn reserve<C: Changes>(
    Extension(changes): Extension<C>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Reserved>, Failure> {
    Ok(Json(changes.reserve(caller, read(body)?).await?))
}

async fn release<C: Changes>(
    Extension(changes): Extension<C>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Reserved>, Failure> {
    Ok(Json(changes.release(caller, read(body)?).await?))
}

async fn allocate<C: Changes>(
    Extension(changes): Extension<C>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<AllocatedPorts>, Failure> {
    Ok(Json(changes.allocate(caller, read(body)?).await?))
}

async fn register<C: Changes>(
    Extension(changes): Extension<C>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Registered>, Failure> {
    Ok(Json(changes.register(read(body)?).await?))
}

async fn renew<C: Changes>(
    Extension(changes): Extension<C>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Renewed>, Failure> {
    Ok(Json(changes.renew(read(body)?).await?))
}

async fn unregister<C: Changes>(
    Extension(changes): Extension<C>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Registered>, Failure> {
    Ok(Json(changes.unregister(read(body)?).await?))
}

/// A body as JSON, whatever its `Content-Type`.
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

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let (status, why) = match refused {
            Refused::Invalid(why) => (StatusCode::BAD_REQUEST, why),
            Refused::Conflict(why) => (StatusCode::CONFLICT, why),
            Refused::NotFound(why) => (StatusCode::NOT_FOUND, why),
            Refused::Unavailable(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        };
        Self(status, why)
    }
}

// === impl Peer ===

impl Peer {
    fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        Ok(Self { pid, uid: credentials.uid(), gid: credentials.gid() })
    }

    fn is_allowed(&self, stream: &UnixStream, group: Option<u32>, groups: PeerGroups) -> bool {
        let own = rustix::process::geteuid().as_raw();
        let member = |group| self.gid == group || groups(stream).contains(&group);
        self.uid == 0 || self.uid == own || group.is_some_and(member)
    }
}
