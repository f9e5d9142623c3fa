//! Access to the endpoint: TLS, client certificates, passwords and headers, in the web
//! configuration format of Prometheus' own exporters (exporter-toolkit, docs/web-configuration.md),
//! so that one file serves all of them.
//!
//! [`file`] is the file's syntax, [`tls`] and [`passwords`] its meaning. [`Web`] holds the current
//! configuration and checks the files when connections arrive, at most once a second: a renewed
//! certificate needs no restart, and a mistake in a changed file leaves the previous configuration
//! in force.

mod file;
mod passwords;
mod stamps;
mod tls;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use rustls::ServerConfig;

use self::file::WebFile;
use self::passwords::Passwords;
use self::stamps::Stamps;

/// Minimum interval between checks of the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Liveness and readiness probes need no password, because the kubelet has none.
const OPEN_PATHS: [&str; 4] = ["/healthz", "/readyz", "/-/healthy", "/-/ready"];

/// The endpoint's rules, as they are now.
#[derive(Debug)]
pub struct Web {
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rules: Arc<Rules>,
    stamps: Stamps,
    looked: Instant,
}

/// One version of the files.
#[derive(Debug, Default)]
pub struct Rules {
    /// TLS, if enabled.
    pub tls: Option<Arc<ServerConfig>>,
    passwords: Option<Passwords>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Web {
    /// Plain HTTP without a password, or the file's configuration.
    pub fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let (rules, stamps) = match path {
            Some(path) => Rules::read(path)?,
            None => (Rules::default(), Stamps::default()),
        };
        let state = State { rules: Arc::new(rules), stamps, looked: Instant::now() };
        Ok(Self { path: path.map(Path::to_owned), state: Mutex::new(state) })
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
            state.look(path);
        }
        Arc::clone(&state.rules)
    }
}

impl State {
    /// Applies changed files.
    fn look(&mut self, path: &Path) {
        self.looked = Instant::now();
        let now = self.stamps.again();
        if now == self.stamps {
            return;
        }
        match Rules::read(path).and_then(|(rules, stamps)| {
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
}

/// Checks the text of a web configuration file; reads no file that it names.
pub fn check(text: &str) -> anyhow::Result<()> {
    WebFile::parse(text).map(drop)
}

// === impl Rules ===

impl Rules {
    fn read(path: &Path) -> anyhow::Result<(Self, Stamps)> {
        // Before the files are read: a change in between shows at the next check.
        let stamps = Stamps::of(WebFile::read(path)?.files(path));
        let file = WebFile::read(path)?;
        let rules = Self {
            tls: file.tls_server_config.as_ref().map(tls::server_config).transpose()?.map(Arc::new),
            passwords: Passwords::new(&file.basic_auth_users)?,
            headers: file.http_server_config.headers()?,
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

    /// The response to a request that is not allowed.
    pub async fn refuse<B>(&self, request: &Request<B>) -> Option<Response> {
        let passwords = self.passwords.as_ref()?;
        if OPEN_PATHS.contains(&request.uri().path()) {
            return None;
        }
        let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if passwords.admit(given).await {
            return None;
        }
        let challenge = [(WWW_AUTHENTICATE, "Basic realm=\"portolan\"")];
        Some((StatusCode::UNAUTHORIZED, challenge, "Unauthorized\n").into_response())
    }

    /// Puts the configured headers over ours.
    pub fn decorate(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests;
