//! The agent of a command, and the output format: the flags that these commands share.
//!
//! Without an address a command uses the Unix socket of the agent on this host if it has access,
//! and its port on the loopback otherwise. Changes go through the socket only.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{ArgAction, ArgMatches, Args, FromArgMatches};
use client::{Client, Credentials, DEFAULT_SOCKET, DEFAULT_URL, Error};
use http::Method;
use serde::Serialize;

use super::Output;

/// Heading of the flags in help texts.
const HEADING: &str = "Connection";

/// Variables that these flags read by themselves, because it matters where a value comes from.
const URL: &str = "PORTOLAN_URL";
const SOCKET: &str = "PORTOLAN_SOCKET";

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

/// The agents to connect to: one for each `--url`, or the one that a [`Connection`] names.
#[derive(Clone, Debug)]
pub struct Connections(Vec<Connection>);

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

    /// The URL of the agent if it is on another host.
    pub fn elsewhere(&self) -> Option<String> {
        match self.named(|name| std::env::var(name).ok()) {
            Named::Url(url) if !is_loopback(&url) => Some(url),
            Named::Url(_) | Named::Socket(_) | Named::Nothing => None,
        }
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

// === impl Connections ===

impl Connections {
    /// At least one.
    pub fn all(&self) -> &[Connection] {
        &self.0
    }
}

impl Args for Connections {
    fn augment_args(command: clap::Command) -> clap::Command {
        Connection::augment_args(command).mut_arg("url", |url| {
            let help = url.get_help().map(ToString::to_string).unwrap_or_default();
            url.action(ArgAction::Append).help(format!("{help}; repeat it for several hosts"))
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Connections {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let urls = matches.get_many::<String>("url").unwrap_or_default().cloned();
        let one = Connection::from_arg_matches(matches)?;
        let all: Vec<_> = urls.map(|url| Connection { url: Some(url), ..one.clone() }).collect();
        Ok(Self(if all.is_empty() { vec![one] } else { all }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
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
mod tests;
