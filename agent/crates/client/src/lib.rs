//! The HTTP client of Portolan's commands: HTTP, HTTPS and the agent's Unix socket.
//!
//! A command makes one request and exits, so calls block: [`Client::get`] and [`Client::change`]
//! run a small runtime of their own. Every failure is an [`Error`] with the fault and its fix.

#![forbid(unsafe_code)]

mod credentials;
mod error;
mod exchange;
mod tls;
mod url;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;

pub use self::credentials::Credentials;
pub use self::error::{CertificateProblem, Class, Error};
use self::exchange::{Answer, Exchange};
use self::tls::Tls;
use self::url::Url;

/// The default address of an agent.
pub const DEFAULT_URL: &str = "http://127.0.0.1:10062";

/// The default path of the control socket of an agent on this host.
pub const DEFAULT_SOCKET: &str = "/run/portolan/control.sock";

/// A client of one agent.
#[derive(Debug)]
pub struct Client {
    target: Target,
}

/// A response of [`Client::get`] or [`Client::change`] as a value.
pub fn read<T: DeserializeOwned>(body: &str) -> Result<T, Error> {
    serde_json::from_str(body).map_err(|error| Error::Version { why: error.to_string() })
}

/// Where requests go.
#[derive(Debug)]
enum Target {
    /// Over the network.
    Network {
        url: Url,
        /// The value of the `Authorization` header.
        authorization: Option<http::HeaderValue>,
        tls: Arc<Tls>,
    },
    /// Over the Unix socket of an agent on this host.
    Socket(PathBuf),
}

// === impl Client ===

impl Client {
    /// A client of the agent at `url`: `http://HOST:PORT` or `https://HOST:PORT`, with a path if
    /// the agent is behind a proxy. Reads the files that `credentials` name.
    pub fn for_url(url: &str, credentials: &Credentials) -> Result<Self, Error> {
        let url = Url::parse(url)?;
        let tls = Arc::new(Tls::new(&url, credentials)?);
        let authorization = credentials.authorization()?;
        Ok(Self { target: Target::Network { url, authorization, tls } })
    }

    /// A client of the agent on this host that has this Unix socket.
    pub fn for_socket(path: &Path) -> Self {
        Self { target: Target::Socket(path.to_owned()) }
    }

    /// The JSON at `path`, such as `/api/v1/edges?role=client`.
    pub fn get(&self, path: &str) -> Result<String, Error> {
        self.exchange(Method::GET, path, String::new())
    }

    /// The status and the body at `path` of a server other than an agent.
    pub fn get_foreign(&self, path: &str) -> Result<(StatusCode, String), Error> {
        let Answer { status, is_json: _, body } =
            self.exchange_any(Method::GET, path, String::new())?;
        if status == StatusCode::UNAUTHORIZED {
            return Err(self.unauthorized());
        }
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Sends a JSON `body`, to change something.
    pub fn change(&self, method: Method, path: &str, body: String) -> Result<String, Error> {
        self.exchange(method, path, body)
    }

    /// The agent, for messages.
    fn at(&self) -> String {
        match &self.target {
            Target::Network { url, .. } => url.to_string(),
            Target::Socket(path) => path.display().to_string(),
        }
    }

    fn exchange(&self, method: Method, path: &str, body: String) -> Result<String, Error> {
        self.checked(self.exchange_any(method, path, body)?)
    }

    fn exchange_any(&self, method: Method, path: &str, body: String) -> Result<Answer, Error> {
        let exchange = match &self.target {
            Target::Network { url, authorization, tls } => {
                Exchange::network(url, authorization.clone(), tls)
            }
            Target::Socket(path) => Exchange::socket(path),
        };
        exchange.run(method, path, body)
    }

    /// Why a status 401 came.
    fn unauthorized(&self) -> Error {
        let at = self.at();
        match &self.target {
            Target::Network { authorization: Some(_), .. } => Error::WrongPassword { at },
            _ => Error::PasswordNeeded { at },
        }
    }

    /// The body of a response, if it is the expected one and from an agent.
    fn checked(&self, answer: Answer) -> Result<String, Error> {
        let Answer { status, is_json, body } = answer;
        if status == StatusCode::UNAUTHORIZED {
            return Err(self.unauthorized());
        }
        let text = String::from_utf8(body).ok().filter(|_| is_json);
        let Some(text) = text else {
            return Err(Error::NotPortolan { at: self.at(), status: status.as_u16() });
        };
        if status.is_success() {
            return Ok(text);
        }
        match (serde_json::from_str::<api_types::Error>(&text), &self.target) {
            (Err(_), _) => Err(Error::NotPortolan { at: self.at(), status: status.as_u16() }),
            (Ok(_), Target::Socket(path)) if status == StatusCode::FORBIDDEN => {
                Err(Error::SocketForbidden { path: path.clone() })
            }
            (Ok(api_types::Error { error }), _) => Err(Error::Refused { said: error }),
        }
    }
}
