//! Access to the endpoint: TLS, client certificates, passwords and headers, in the web
//! configuration format of Prometheus' own exporters (exporter-toolkit, docs/web-configuration.md),
//! so that one file serves all of them.
//!
//! [`file`] is the file's syntax, [`tls`] and [`passwords`] its meaning. An endpoint that has neither
//! is protected from pages of other sites by the names that it answers to ([`hosts`]). [`Web`] holds the current
//! configuration and checks the files when connections arrive, at most once a second: a renewed
//! certificate needs no restart, and a mistake in a changed file leaves the previous configuration
//! in force.

mod back_off;
mod exposure;
mod file;
mod hosts;
mod p521;
mod passwords;
mod rate;
mod stamps;
mod tls;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use api_types::{Finding, Severity};
use axum::http::header::{
    AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use rustls::ServerConfig;

use self::exposure::Exposure;
use self::file::WebFile;
pub use self::hosts::{AllowedHost, Hosts};
use self::passwords::{Gate, Passwords, Verdict};
use self::rate::RateLimit;
use self::stamps::Stamps;
use crate::routes::Failure;

/// Minimum interval between checks of the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Liveness and readiness probes need no password, because the kubelet has none, and have no limit.
const OPEN_PATHS: [&str; 4] = ["/healthz", "/readyz", "/-/healthy", "/-/ready"];

/// What the operator chose for the endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// The web configuration file; `None`: plain HTTP without passwords.
    pub file: Option<PathBuf>,
    /// The names that it answers to.
    pub hosts: Hosts,
}

/// The endpoint's rules, as they are now.
#[derive(Debug)]
pub struct Web {
    address: SocketAddr,
    path: Option<PathBuf>,
    hosts: Arc<Hosts>,
    gate: Arc<Gate>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rules: Arc<Rules>,
    stamps: Stamps,
    looked: Instant,
    /// Titles of the findings that are in the log.
    logged: HashSet<String>,
}

/// One version of the files.
#[derive(Debug, Default)]
pub struct Rules {
    /// TLS, if enabled.
    pub tls: Option<Arc<ServerConfig>>,
    passwords: Option<Passwords>,
    headers: Vec<(HeaderName, HeaderValue)>,
    hosts: Arc<Hosts>,
    exposure: Exposure,
    rate: Option<RateLimit>,
}

impl Web {
    /// Reads the web configuration file, if there is one.
    pub fn open(endpoint: Endpoint) -> anyhow::Result<Self> {
        let Endpoint { address, file: path, hosts } = endpoint;
        let (hosts, gate) = (Arc::new(hosts), Arc::new(Gate::new()?));
        let (rules, stamps) = match &path {
            Some(path) => Rules::read(path, &hosts, &gate)?,
            None => (Rules { hosts: Arc::clone(&hosts), ..Rules::default() }, Stamps::default()),
        };
        let (rules, looked) = (Arc::new(rules), Instant::now());
        let mut state = State { rules, stamps, looked, logged: HashSet::new() };
        state.log(address);
        Ok(Self { address, path, hosts, gate, state: Mutex::new(state) })
    }

    /// Everything about the endpoint that needs attention.
    pub fn findings(&self) -> Vec<Finding> {
        self.rules().exposure.findings(self.address)
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.rules().tls.is_some() { "https" } else { "http" }
    }

    /// The rules for a connection that comes in now.
    pub fn rules(&self) -> Arc<Rules> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &self.path
            && state.looked.elapsed() >= LOOK_EVERY
        {
            state.look(path, &self.hosts, &self.gate);
            state.log(self.address);
        }
        Arc::clone(&state.rules)
    }
}

impl State {
    /// Applies changed files.
    fn look(&mut self, path: &Path, hosts: &Arc<Hosts>, gate: &Arc<Gate>) {
        self.looked = Instant::now();
        let now = self.stamps.again();
        if now == self.stamps {
            return;
        }
        match Rules::read(path, hosts, gate).and_then(|(rules, stamps)| {
            rules.keep_protection_of(&self.rules)?;
            Ok((rules, stamps))
        }) {
            Ok((rules, stamps)) => {
                tracing::info!("the web configuration has changed and is in force");
                (self.rules, self.stamps) = (Arc::new(rules), stamps);
            }
            Err(error) => {
                tracing::error!(
                    "the changed web configuration cannot be used, the one from before stays in force: {error:#}"
                );
                // Logged once; the next change is read again.
                self.stamps = now;
            }
        }
    }

    /// Logs the findings that are new, and forgets those that are gone.
    fn log(&mut self, address: SocketAddr) {
        let findings = self.rules.exposure.findings(address);
        for Finding { severity, title, remediation, .. } in &findings {
            if self.logged.contains(title) {
                continue;
            }
            let fix = remediation.as_deref().unwrap_or("none known");
            if *severity == Severity::Error {
                tracing::error!("{title}; fix: {fix}");
            } else {
                tracing::warn!("{title}; fix: {fix}");
            }
        }
        self.logged = findings.into_iter().map(|finding| finding.title).collect();
    }
}

/// Checks a web configuration file and the files that it names.
pub fn check_file(path: &Path) -> anyhow::Result<()> {
    Rules::read(path, &Arc::default(), &Arc::new(Gate::new()?)).map(drop)
}

/// Checks the text of a web configuration file; reads no file that it names.
pub fn check(text: &str) -> anyhow::Result<()> {
    WebFile::parse(text).map(drop)
}

// === impl Rules ===

impl Rules {
    /// Reads the file and those that it names; an error begins with the path.
    fn read(path: &Path, hosts: &Arc<Hosts>, gate: &Arc<Gate>) -> anyhow::Result<(Self, Stamps)> {
        Self::of_files(path, hosts, gate).with_context(|| path.display().to_string())
    }

    fn of_files(
        path: &Path,
        hosts: &Arc<Hosts>,
        gate: &Arc<Gate>,
    ) -> anyhow::Result<(Self, Stamps)> {
        // Before the files are read: a change in between shows at the next check.
        let stamps = Stamps::of(WebFile::read(path)?.files(path));
        let file = WebFile::read(path)?;
        let tls = file.tls_server_config.as_ref();
        let verifies = tls.is_some_and(file::TlsServer::requires_verified_clients);
        let exposure = Exposure {
            authenticates: verifies || !file.basic_auth_users.is_empty(),
            certificate: tls.and_then(tls::validity),
            secrets: file.secrets(path),
        };
        let rules = Self {
            tls: file.tls_server_config.as_ref().map(tls::server_config).transpose()?.map(Arc::new),
            passwords: Passwords::new(&file.basic_auth_users, gate)?,
            headers: file.http_server_config.headers()?,
            hosts: Arc::clone(hosts),
            exposure,
            rate: file.rate_limit.limit(Instant::now())?,
        };
        Ok((rules, stamps))
    }

    /// An error if TLS or passwords are gone: an editor that empties a file before it writes must
    /// not open the endpoint.
    fn keep_protection_of(&self, before: &Self) -> anyhow::Result<()> {
        let gone = [
            ("tls_server_config", before.tls.is_some() && self.tls.is_none()),
            ("basic_auth_users", before.passwords.is_some() && self.passwords.is_none()),
        ];
        match gone.iter().find(|(_, is_gone)| *is_gone) {
            Some((what, _)) => anyhow::bail!("{what} is gone; to do without it, restart the agent"),
            None => Ok(()),
        }
    }

    /// The response to a request of `peer` that is not allowed.
    pub async fn refuse<B>(&self, peer: IpAddr, request: &Request<B>) -> Option<Response> {
        if self.checks_hosts()
            && let Some(refusal) = self.hosts.refuse(request)
        {
            return Some(refusal.into_response());
        }
        if OPEN_PATHS.contains(&request.uri().path()) {
            return None;
        }
        if let Some(Err(wait)) = self.rate.as_ref().map(|rate| rate.take(Instant::now())) {
            return Some(later(wait, "too many requests (rate_limit)"));
        }
        let passwords = self.passwords.as_ref()?;
        let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        match passwords.admit(peer, given).await {
            Verdict::Right => None,
            Verdict::Wrong => {
                let challenge = [(WWW_AUTHENTICATE, "Basic realm=\"portolan\"")];
                Some((StatusCode::UNAUTHORIZED, challenge, "Unauthorized\n").into_response())
            }
            Verdict::Later(wait) => Some(later(wait, "too many wrong passwords")),
        }
    }

    /// Whether the names in `Host` matter: not behind TLS or a password, because a browser has
    /// neither a valid certificate nor a password for the name of another site; but always if the
    /// operator lists names.
    fn checks_hosts(&self) -> bool {
        (self.tls.is_none() && self.passwords.is_none()) || self.hosts.are_configured()
    }

    /// Puts the configured headers over ours.
    pub fn decorate(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
    }
}

/// Status 429 with the whole seconds to wait.
fn later(wait: Duration, why: &str) -> Response {
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    let said = format!("{why}; try again in {seconds} s");
    let failure = Failure(StatusCode::TOO_MANY_REQUESTS, said);
    ([(RETRY_AFTER, seconds.to_string())], failure).into_response()
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod toolkit;
