//! `balance.toml`: what a load balancer is to do, written by hand.
//!
//! Every key is optional where `--service` can fill it in. An error names the line, what is wrong
//! there and what to write.

mod origin;

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use self::origin::Origin;
use super::checked::{self, Address};
use super::intent::{
    Algorithm, Alpn, Backend, HealthCheck, Intent, MOST_WEIGHT, Mode, ProxyProtocol, Setting,
    Sticky, Tls, TlsVersion,
};
use crate::Usage;

/// The documented keys, for the help.
pub(super) const EXAMPLE: &str = r#"name = "api"
listen = "0.0.0.0:8080"
mode = "http"                  # or tcp
algorithm = "round_robin"      # least_connections, hash_source, hash_uri, random
retries = 1                    # further backends to try

[[backends]]
address = "10.0.0.1:3000"      # or NAME:PORT
weight = 3                     # 1 to 256

[[backends]]
address = "10.0.0.2:3000"

[[backends]]
address = "10.0.0.9:3000"
backup = true                  # used when no other is left

[health_check]                 # without path: connects only
path = "/healthz"
interval = "5s"
timeout = "2s"
fall = 3                       # failures that take it out
rise = 2                       # successes that bring it back

[passive_check]
failures = 3                   # of real traffic; then
pause = "10s"                  # out for so long

[keep_alive]
connections = 32               # idle ones to backends
backend_idle = "4s"            # shorter than the backends keep them
client_idle = "75s"            # longer than the clients keep them

[timeouts]
connect = "2s"                 # 2s at least: a lost SYN is sent again after 1s
request = "60s"

[limits]                       # circuit breaking, for each backend
connections = 100
pending = 100

[tls]                          # towards clients
certificate = "/etc/ssl/api.pem"
key = "/etc/ssl/api.pem.key"
minimum = "1.2"                # or 1.3
alpn = ["h2", "http/1.1"]

[proxy_protocol]
accept = false                 # clients send it
send = false                   # backends get it

[sticky]                       # cookie = NAME, or source = true
cookie = "backend"
"#;

/// The file as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Spec {
    name: Option<Spanned<String>>,
    listen: Option<Spanned<String>>,
    mode: Option<Mode>,
    algorithm: Option<Spanned<Algorithm>>,
    retries: Option<Spanned<u32>>,
    backends: Vec<BackendSpec>,
    health_check: Option<HealthCheckSpec>,
    passive_check: Option<PassiveCheckSpec>,
    keep_alive: Option<KeepAliveSpec>,
    timeouts: Option<TimeoutsSpec>,
    limits: Option<LimitsSpec>,
    tls: Option<TlsSpec>,
    proxy_protocol: Option<ProxyProtocol>,
    sticky: Option<Spanned<StickySpec>>,
    /// The text and its name, for messages.
    #[serde(skip)]
    origin: Origin,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackendSpec {
    address: Spanned<String>,
    weight: Option<Spanned<u32>>,
    #[serde(default)]
    backup: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HealthCheckSpec {
    path: Option<Spanned<String>>,
    interval: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    fall: Option<Spanned<u32>>,
    rise: Option<Spanned<u32>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PassiveCheckSpec {
    failures: Option<Spanned<u32>>,
    pause: Option<Spanned<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KeepAliveSpec {
    connections: Option<Spanned<u32>>,
    backend_idle: Option<Spanned<String>>,
    client_idle: Option<Spanned<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TimeoutsSpec {
    connect: Option<Spanned<String>>,
    request: Option<Spanned<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsSpec {
    connections: Option<Spanned<u32>>,
    pending: Option<Spanned<u32>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSpec {
    certificate: Spanned<String>,
    key: Option<Spanned<String>>,
    #[serde(default)]
    minimum: TlsVersion,
    alpn: Option<Vec<Alpn>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StickySpec {
    cookie: Option<String>,
    source: bool,
}

// === impl Spec ===

impl Spec {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Usage(format!("{name}: cannot be read: {error}")))?;
        Ok(Self::parse(&name, text).map_err(Usage)?)
    }

    /// Reads the text of the file `name`.
    pub(super) fn parse(name: &str, text: String) -> Result<Self, String> {
        let origin = Origin { name: name.to_owned(), text };
        match toml::from_str::<Self>(&origin.text) {
            Ok(spec) => Ok(Self { origin, ..spec }),
            Err(error) => {
                let said = error.message().trim_end().replace('\n', "; ");
                Err(origin.at(error.span().as_ref(), &said))
            }
        }
    }

    /// The name of the balancer, if it is there.
    pub(super) fn name(&self) -> Result<Option<String>, String> {
        self.name
            .as_ref()
            .map(|name| self.origin.read(name, |text| checked::name(text)))
            .transpose()
    }

    /// Where it listens, if that is there.
    pub(super) fn listen(&self) -> Result<Option<SocketAddr>, String> {
        self.listen
            .as_ref()
            .map(|listen| self.origin.read(listen, |text| self::listen(text)))
            .transpose()
    }

    /// The backends, in the order of their addresses; empty if there are none.
    pub(super) fn backends(&self) -> Result<Vec<Backend>, String> {
        let mut backends: Vec<Backend> = Vec::new();
        for BackendSpec { address, weight, backup } in &self.backends {
            let at = address;
            let address: Address = self.origin.read(address, |text| text.parse())?;
            if backends.iter().any(|other| other.address == address) {
                let said = format!("backend {address} is there twice; remove one");
                return Err(self.origin.at(Some(&at.span()), &said));
            }
            let weight = self.origin.number(weight.as_ref(), 1, 1..MOST_WEIGHT + 1)?;
            backends.push(Backend { address, weight, backup: *backup });
        }
        if let Some(first) = self.backends.first()
            && backends.iter().all(|backend| backend.backup)
        {
            let said = "all backends are backups; leave backup = true out of at least one";
            return Err(self.origin.at(Some(&first.address.span()), said));
        }
        backends.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(backends)
    }

    /// Overrides what is written here; a value that is written needs no other reason.
    pub(super) fn apply(&self, intent: &mut Intent) -> Result<(), String> {
        let Self { mode, algorithm, retries, origin, .. } = self;
        intent.mode = mode.unwrap_or(intent.mode);
        if let Some(algorithm) = algorithm {
            intent.algorithm = *algorithm.get_ref();
            intent.reasons.remove(&Setting::Algorithm);
        }
        intent.retries = origin.number(retries.as_ref(), intent.retries, 0..11)?;
        self.apply_checks(intent)?;
        self.apply_times(intent)?;
        if let Some(LimitsSpec { connections, pending }) = &self.limits {
            let limit = |given: &Option<Spanned<u32>>| {
                given.as_ref().map(|given| origin.number(Some(given), 0, 1..1_000_001)).transpose()
            };
            intent.limits.connections = limit(connections)?;
            intent.limits.pending = limit(pending)?;
        }
        if let Some(TlsSpec { certificate, key, minimum, alpn }) = &self.tls {
            let certificate = origin.read(certificate, |text| checked::file(text))?;
            let key = match key {
                Some(key) => origin.read(key, |text| checked::file(text))?,
                None => certificate.clone(),
            };
            let usual = || match intent.mode {
                Mode::Http => vec![Alpn::H2, Alpn::Http11],
                Mode::Tcp => Vec::new(),
            };
            let alpn = alpn.clone().unwrap_or_else(usual);
            intent.tls = Some(Tls { certificate, key, minimum: *minimum, alpn });
        }
        intent.proxy_protocol = self.proxy_protocol.unwrap_or(intent.proxy_protocol);
        if let Some(sticky) = &self.sticky {
            intent.sticky = Some(origin.read(sticky, StickySpec::chosen)?);
        }
        self.fits(intent)
    }

    fn apply_checks(&self, intent: &mut Intent) -> Result<(), String> {
        let Self { health_check, passive_check, origin, .. } = self;
        if let Some(HealthCheckSpec { path, interval, timeout, fall, rise }) = health_check {
            let path = path.as_ref().map(|path| origin.read(path, |text| checked::path(text)));
            intent.health_check = Some(HealthCheck {
                path: path.transpose()?,
                interval: origin.time(interval.as_ref(), Duration::from_secs(5))?,
                timeout: origin.time(timeout.as_ref(), Duration::from_secs(2))?,
                fall: origin.number(fall.as_ref(), 3, 1..101)?,
                rise: origin.number(rise.as_ref(), 2, 1..101)?,
            });
        }
        if let Some(PassiveCheckSpec { failures, pause }) = passive_check {
            let check = &mut intent.passive_check;
            check.failures = origin.number(failures.as_ref(), check.failures, 1..1001)?;
            check.pause = origin.time(pause.as_ref(), check.pause)?;
        }
        Ok(())
    }

    fn apply_times(&self, intent: &mut Intent) -> Result<(), String> {
        let Self { keep_alive, timeouts, origin, .. } = self;
        let KeepAliveSpec { connections, backend_idle, client_idle } =
            keep_alive.clone().unwrap_or_default();
        let TimeoutsSpec { connect, request } = timeouts.clone().unwrap_or_default();
        let kept = &mut intent.keep_alive;
        kept.connections = origin.number(connections.as_ref(), kept.connections, 1..100_001)?;
        kept.backend_idle = origin.time(backend_idle.as_ref(), kept.backend_idle)?;
        kept.client_idle = origin.time(client_idle.as_ref(), kept.client_idle)?;
        let times = &mut intent.timeouts;
        times.connect = origin.time(connect.as_ref(), times.connect)?;
        times.request = origin.time(request.as_ref(), times.request)?;
        let written = [
            (connections.is_some(), Setting::Connections),
            (backend_idle.is_some(), Setting::BackendIdle),
            (client_idle.is_some(), Setting::ClientIdle),
            (connect.is_some(), Setting::Connect),
            (request.is_some(), Setting::Request),
        ];
        for (_, setting) in written.iter().filter(|(is_written, _)| *is_written) {
            intent.reasons.remove(setting);
        }
        Ok(())
    }

    /// Whether the parts go together.
    fn fits(&self, intent: &Intent) -> Result<(), String> {
        let refuse =
            |span: Option<Range<usize>>, said: &str| Err(self.origin.at(span.as_ref(), said));
        if intent.mode == Mode::Http {
            return Ok(());
        }
        if let Some(Sticky::Cookie(_)) = intent.sticky {
            let span = self.sticky.as_ref().map(Spanned::span);
            return refuse(span, "mode tcp has no cookies; write sticky.source = true");
        }
        if intent.algorithm == Algorithm::HashUri {
            let span = self.algorithm.as_ref().map(Spanned::span);
            return refuse(span, "mode tcp has no paths; write algorithm = \"hash_source\"");
        }
        let path = self.health_check.as_ref().and_then(|check| check.path.as_ref());
        if let Some(path) = path {
            return refuse(Some(path.span()), "mode tcp checks by connecting; remove path");
        }
        Ok(())
    }
}

// === impl StickySpec ===

impl StickySpec {
    fn chosen(&self) -> Result<Sticky, String> {
        match self {
            Self { cookie: Some(cookie), source: false } => {
                checked::name(cookie).map(Sticky::Cookie)
            }
            Self { cookie: None, source: true } => Ok(Sticky::Source),
            _ => Err("write either cookie = \"NAME\" or source = true".to_owned()),
        }
    }
}

/// Where a balancer listens: `0.0.0.0:8080`.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().ok().filter(|socket: &SocketAddr| socket.port() > 0).ok_or_else(|| {
        format!("{text:?} is not an address to listen at; write one like 0.0.0.0:8080 or [::]:443")
    })
}

#[cfg(test)]
mod tests;
