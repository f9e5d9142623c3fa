//! What a load balancer is to do, independent of the program.
//!
//! The one model between its sources (what the agent has observed, `balance.toml`) and the targets
//! in [`super::render`]. Text in it has been [checked](super::checked).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;

use super::checked::Address;

/// Weights from 1 to this, the most that HAProxy takes.
pub(super) const MOST_WEIGHT: u32 = 256;

/// What a load balancer is to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Intent {
    /// Its name in the configuration: letters, digits, `-` and `_`.
    pub name: String,
    /// Where it accepts connections.
    pub listen: SocketAddr,
    /// What it forwards.
    pub mode: Mode,
    /// How it chooses a backend.
    pub algorithm: Algorithm,
    /// Where it forwards to, by address.
    pub backends: Vec<Backend>,
    /// Checks that it makes by itself.
    pub health_check: Option<HealthCheck>,
    /// When failures of real traffic take a backend out.
    pub passive_check: PassiveCheck,
    /// How long connections are kept.
    pub keep_alive: KeepAlive,
    /// How long it waits.
    pub timeouts: Timeouts,
    /// Further backends that a request is tried at if one does not take it.
    pub retries: u32,
    /// Circuit breaking: limits of what one backend has to take.
    pub limits: Limits,
    /// TLS towards clients.
    pub tls: Option<Tls>,
    /// PROXY protocol.
    pub proxy_protocol: ProxyProtocol,
    /// What keeps a client at its backend.
    pub sticky: Option<Sticky>,
    /// Why a setting has its value, where that was computed.
    pub reasons: BTreeMap<Setting, String>,
    /// Endpoints that are no backends, and why not; and what else a reader has to know.
    pub remarks: Vec<String>,
}

/// What is forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    /// HTTP requests.
    #[default]
    Http,
    /// TCP connections.
    Tcp,
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Algorithm {
    /// One after the other, as weighted.
    #[default]
    RoundRobin,
    /// The one with the fewest connections.
    LeastConnections,
    /// By a hash of the client's address.
    HashSource,
    /// By a hash of the path.
    HashUri,
    /// At random, as weighted.
    Random,
}

/// A program that generated configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Balancer {
    /// A file to include in http {} of nginx.conf (mode tcp: in stream {}).
    Nginx,
    /// Sections for haproxy.cfg.
    Haproxy,
    /// A bootstrap file in YAML.
    Envoy,
    /// A file in YAML for the file provider.
    Traefik,
    /// A site for the Caddyfile.
    Caddy,
}

/// Where requests are forwarded to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backend {
    /// Where it listens.
    pub address: Address,
    /// Its part, relative to the others.
    pub weight: u32,
    /// Used only if no other is left.
    pub backup: bool,
}

/// A check that the balancer makes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HealthCheck {
    /// What it requests; without it, it only connects.
    pub path: Option<String>,
    /// Between two checks.
    pub interval: Duration,
    /// How long it waits.
    pub timeout: Duration,
    /// So many failures take the backend out.
    pub fall: u32,
    /// So many successes bring it back.
    pub rise: u32,
}

/// When failures of real traffic take a backend out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PassiveCheck {
    /// After so many.
    pub failures: u32,
    /// For so long.
    pub pause: Duration,
}

/// How long idle connections are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeepAlive {
    /// Idle connections to backends, at most.
    pub connections: u32,
    /// Those to backends; shorter than the backends keep them.
    pub backend_idle: Duration,
    /// Those of clients; longer than clients keep them.
    pub client_idle: Duration,
}

/// How long the balancer waits for a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For a response.
    pub request: Duration,
}

/// What one backend has to take at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// Connections at the same time.
    pub connections: Option<u32>,
    /// Requests that wait for one.
    pub pending: Option<u32>,
}

/// TLS towards clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tls {
    /// File with the certificate and its chain (PEM).
    pub certificate: String,
    /// File with the private key (PEM).
    pub key: String,
    /// The oldest version.
    pub minimum: TlsVersion,
    /// Protocols to offer, the best first.
    pub alpn: Vec<Alpn>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V13,
}

/// A protocol that is agreed on in a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Alpn {
    /// HTTP/2.
    #[serde(rename = "h2")]
    H2,
    /// HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http11,
}

impl Alpn {
    /// The protocol as TLS names it (RFC 7301), which every balancer uses.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::H2 => "h2",
            Self::Http11 => "http/1.1",
        }
    }
}

/// The PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ProxyProtocol {
    /// Clients send it.
    pub accept: bool,
    /// Backends get it.
    pub send: bool,
}

/// What keeps a client at its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sticky {
    /// A cookie of this name, set by the balancer.
    Cookie(String),
    /// The client's address.
    Source,
}

/// A setting whose value may have been computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Setting {
    /// `algorithm`.
    Algorithm,
    /// `backends`.
    Backends,
    /// `keep_alive.connections`.
    Connections,
    /// `keep_alive.backend_idle`.
    BackendIdle,
    /// `keep_alive.client_idle`.
    ClientIdle,
    /// `timeouts.connect`.
    Connect,
    /// `timeouts.request`.
    Request,
}

// === impl Intent ===

impl Intent {
    /// The defaults for these backends.
    pub(super) fn new(name: String, listen: SocketAddr, backends: Vec<Backend>) -> Self {
        Self {
            name,
            listen,
            mode: Mode::default(),
            algorithm: Algorithm::default(),
            backends,
            health_check: None,
            passive_check: PassiveCheck { failures: 3, pause: Duration::from_secs(10) },
            keep_alive: KeepAlive {
                connections: 32,
                backend_idle: Duration::from_secs(4),
                client_idle: Duration::from_secs(75),
            },
            // A lost SYN is sent again after one second: below that a connect has no second chance.
            timeouts: Timeouts { connect: Duration::from_secs(2), request: Duration::from_mins(1) },
            retries: 1,
            limits: Limits::default(),
            tls: None,
            proxy_protocol: ProxyProtocol::default(),
            sticky: None,
            reasons: BTreeMap::new(),
            remarks: Vec::new(),
        }
    }

    /// The backends that get traffic as long as they are healthy.
    pub(super) fn primaries(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().filter(|backend| !backend.backup)
    }

    /// The others.
    pub(super) fn backups(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().filter(|backend| backend.backup)
    }

    /// Whether the weights differ.
    pub(super) fn is_weighted(&self) -> bool {
        let mut weights = self.primaries().map(|backend| backend.weight);
        let first = weights.next();
        weights.any(|weight| Some(weight) != first)
    }

    /// The share of each backend, by address, if the weights decide it; `None` if connections,
    /// hashes or cookies do.
    pub(super) fn expected_shares(&self) -> Option<BTreeMap<String, f64>> {
        let decides = matches!(self.algorithm, Algorithm::RoundRobin | Algorithm::Random);
        if !decides || self.sticky.is_some() {
            return None;
        }
        let total: u32 = self.primaries().map(|backend| backend.weight).sum();
        let share = |backend: &Backend| {
            let weight = if backend.backup { 0 } else { backend.weight };
            (backend.address.to_string(), f64::from(weight) / f64::from(total.max(1)))
        };
        Some(self.backends.iter().map(share).collect())
    }
}

// === impl Algorithm ===

impl Algorithm {
    /// The value in `balance.toml`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::HashSource => "hash_source",
            Self::HashUri => "hash_uri",
            Self::Random => "random",
        }
    }
}

// === impl Balancer ===

impl Balancer {
    /// The program; also what an agent calls it.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
        }
    }

    /// Its name for people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Traefik => "Traefik",
            Self::Caddy => "Caddy",
        }
    }
}
