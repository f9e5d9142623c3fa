//! The agent of a command, and the output format: the flags that these commands share.
//!
//! Without an address a command uses the Unix socket of the agent on this host if it has access,
//! and its port on the loopback otherwise. Changes go through the socket only. In place of an agent
//! there may be a snapshot, which answers what an agent answered; it takes no changes, and there is
//! nothing in it to follow.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use api_types::Timestamp;
use clap::Args;
use client::{Client, Credentials, DEFAULT_SOCKET, DEFAULT_URL, Error};
use http::Method;
use serde::Serialize;

use super::snapshot::Snapshot;
use super::{Output, Usage, note};

/// Heading of the flags in help texts.
pub(super) const HEADING: &str = "Connection";

/// Variables that these flags read by themselves, because it matters where a value comes from.
const URL: &str = "PORTOLAN_URL";
const SOCKET: &str = "PORTOLAN_SOCKET";

/// Why a command looks at no host and probes nothing.
const FROM_SNAPSHOT: &str = "not possible from a snapshot";

/// The agent to connect to, and the output format.
#[derive(Debug, Default, Args)]
pub struct Target {
    #[command(flatten)]
    pub connection: Connection,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// The agent to connect to.
#[derive(Clone, Debug, Default, Args)]
pub struct Connection {
    /// URL of the agent, http:// or https:// [default: the Unix socket if it is there and you may use it, else http://127.0.0.1:10062] [env: PORTOLAN_URL]
    #[arg(long, value_name = "URL", conflicts_with = "socket", help_heading = HEADING)]
    url: Option<String>,
    /// Unix socket of the agent: control.sock in its run directory [default: /run/portolan/control.sock] [env: PORTOLAN_SOCKET]
    #[arg(long, value_name = "PATH", help_heading = HEADING)]
    socket: Option<PathBuf>,
    /// Read this file of `portolan snapshot` in place of an agent.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "socket"], help_heading = HEADING)]
    from: Option<PathBuf>,
    /// The file, once it was read.
    #[arg(skip)]
    opened: Opened,
    /// Certificates (PEM) to trust beside the system's.
    #[arg(long, value_name = "FILE", env = "PORTOLAN_CA_FILE", hide_env_values = true, help_heading = HEADING)]
    ca_file: Option<PathBuf>,
    /// Client certificate (PEM).
    #[arg(long, value_name = "FILE", env = "PORTOLAN_CERT", hide_env_values = true, help_heading = HEADING)]
    cert: Option<PathBuf>,
    /// Private key (PEM) of the client certificate, if it is not in the same file.
    #[arg(long, value_name = "FILE", env = "PORTOLAN_KEY", hide_env_values = true, help_heading = HEADING)]
    key: Option<PathBuf>,
    /// User for basic authentication.
    #[arg(long, value_name = "NAME", env = "PORTOLAN_USER", hide_env_values = true, help_heading = HEADING)]
    user: Option<String>,
    /// File with the user's password.
    #[arg(long, value_name = "FILE", env = "PORTOLAN_PASSWORD_FILE", hide_env_values = true, help_heading = HEADING)]
    password_file: Option<PathBuf>,
}

/// A snapshot that is read once, whichever copy of a [`Connection`] asks first.
#[derive(Clone, Debug, Default)]
struct Opened(Arc<Mutex<Option<Arc<Snapshot>>>>);

/// Which way to an agent was named.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Url(String),
    Socket(PathBuf),
    Nothing,
}

// === impl Target ===

impl Target {
    /// The JSON at `path`.
    pub(super) fn text(&self, path: &str) -> anyhow::Result<String> {
        self.connection.text(path)
    }

    /// Requests a change; returns the JSON of the result.
    pub(super) fn change(
        &self,
        method: Method,
        path: &str,
        request: &impl Serialize,
    ) -> anyhow::Result<String> {
        self.connection.change(method, path, request)
    }
}

// === impl Connection ===

impl Connection {
    /// The JSON at `path`.
    pub fn text(&self, path: &str) -> anyhow::Result<String> {
        if let Some(snapshot) = self.snapshot()? {
            return Ok(snapshot.text(path)?);
        }
        let named = self.named(|name| std::env::var(name).ok());
        Ok(self.fetch(named, Path::new(DEFAULT_SOCKET), path)?)
    }

    /// Requests a change; returns the JSON of the result.
    pub(super) fn change(
        &self,
        method: Method,
        path: &str,
        request: &impl Serialize,
    ) -> anyhow::Result<String> {
        self.live("a change")?;
        let body = serde_json::to_string(request).context("writing the request")?;
        let socket = match self.named(|name| std::env::var(name).ok()) {
            Named::Socket(socket) => socket,
            Named::Nothing => DEFAULT_SOCKET.into(),
            Named::Url(url) => match std::env::var_os(SOCKET) {
                // Both variables may be set permanently: one for reading, one for changes.
                Some(socket) if self.url.is_none() => socket.into(),
                _ => bail!(
                    "{url}: an agent takes changes only through its Unix socket; run this on the agent's host without --url and PORTOLAN_URL"
                ),
            },
        };
        Ok(Client::for_socket(&socket).change(method, path, body)?)
    }

    /// The URL on the command line.
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// The same way to an agent, at this URL.
    pub(super) fn at(&self, url: String) -> Self {
        Self { url: Some(url), ..self.clone() }
    }

    /// An error if there is a snapshot in place of an agent: `what` needs one that runs.
    pub fn live(&self, what: &str) -> anyhow::Result<()> {
        if self.from.is_none() {
            return Ok(());
        }
        let why = format!("{what} needs a running agent, and a snapshot is none: leave out --from");
        Err(Usage(why).into())
    }

    /// Whether there is a snapshot in place of an agent.
    pub fn is_snapshot(&self) -> bool {
        self.from.is_some()
    }

    /// The time that `--since` counts back from: now, or when the snapshot was taken.
    pub(super) fn now(&self) -> anyhow::Result<Timestamp> {
        Ok(self.snapshot()?.map_or_else(clock, |snapshot| snapshot.taken_at))
    }

    /// Why this host says nothing about the agent's, if [`Connection::elsewhere`].
    pub(super) fn why_not_here(&self) -> &'static str {
        if self.is_snapshot() { FROM_SNAPSHOT } else { "the agent is on another host" }
    }

    /// Why nothing can be probed, if that is so.
    pub(super) fn without_probes(&self) -> Option<&'static str> {
        self.is_snapshot().then_some(FROM_SNAPSHOT)
    }

    /// The snapshot in place of an agent. The first time it says on standard error what it is of.
    fn snapshot(&self) -> Result<Option<Arc<Snapshot>>, Error> {
        let Some(path) = &self.from else { return Ok(None) };
        let mut opened = self.opened.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = &*opened {
            return Ok(Some(Arc::clone(snapshot)));
        }
        let snapshot = Arc::new(Snapshot::open(path)?);
        note(&snapshot.title(clock()));
        *opened = Some(Arc::clone(&snapshot));
        Ok(Some(snapshot))
    }

    /// The agent if it is on another host: its URL, or the host of a snapshot.
    pub fn elsewhere(&self) -> Option<String> {
        match (self.snapshot(), &self.from) {
            (Ok(Some(snapshot)), _) => return Some(snapshot.host.clone()),
            // Whatever is asked next says what is wrong with the file.
            (Err(_), Some(path)) => return Some(path.display().to_string()),
            _ => {}
        }
        match self.named(|name| std::env::var(name).ok()) {
            Named::Url(url) if !is_loopback(&url) => Some(url),
            Named::Url(_) | Named::Socket(_) | Named::Nothing => None,
        }
    }

    /// A client of a server other than an agent, with the credentials that were named for agents.
    pub(super) fn foreign(&self, url: &str) -> Result<Client, Error> {
        Client::for_url(url, &self.credentials())
    }

    fn credentials(&self) -> Credentials {
        let Self { ca_file, cert, key, user, password_file, .. } = self;
        Credentials {
            ca_file: ca_file.clone(),
            cert: cert.clone(),
            key: key.clone(),
            user: user.clone(),
            password_file: password_file.clone(),
        }
    }

    /// Flags win over variables, of which the URL wins over the socket.
    fn named(&self, variable: impl Fn(&str) -> Option<String>) -> Named {
        let Self { url, socket, .. } = self;
        let set = |name| variable(name).filter(|value| !value.is_empty());
        match (url, socket) {
            (Some(url), _) => Named::Url(url.clone()),
            (None, Some(socket)) => Named::Socket(socket.clone()),
            (None, None) => match (set(URL), set(SOCKET)) {
                (Some(url), _) => Named::Url(url),
                (None, Some(socket)) => Named::Socket(socket.into()),
                (None, None) => Named::Nothing,
            },
        }
    }

    fn fetch(&self, named: Named, usual_socket: &Path, path: &str) -> Result<String, Error> {
        match named {
            Named::Url(url) => Client::for_url(&url, &self.credentials())?.get(path),
            Named::Socket(socket) => Client::for_socket(&socket).get(path),
            Named::Nothing => match Client::for_socket(usual_socket).get(path) {
                Err(Error::NoSocket { .. } | Error::SocketForbidden { .. }) => {
                    Client::for_url(DEFAULT_URL, &self.credentials())?.get(path)
                }
                result => result,
            },
        }
    }
}

/// The time by the clock of this host.
pub(super) fn clock() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_seconds(now.as_secs_f64())
}

/// Whether a URL leads to this host.
fn is_loopback(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
pub(crate) mod tests;
