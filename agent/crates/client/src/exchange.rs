//! One request and its response over any transport.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Error;
use crate::tls::Tls;
use crate::url::Url;

/// For each address of a host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Timeout of the whole exchange; the agent's own is ten seconds.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Larger than any response of an agent; a wrong address may send an endless stream.
const MOST_BYTES: usize = 256 << 20;

/// A request on its way.
pub(crate) struct Exchange<'a> {
    route: Route<'a>,
    authorization: Option<HeaderValue>,
}

enum Route<'a> {
    Network(&'a Url, &'a Tls),
    Socket(&'a Path),
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Its `Content-Type`.
    pub(crate) is_json: bool,
    pub(crate) body: Vec<u8>,
}

// === impl Exchange ===

impl<'a> Exchange<'a> {
    pub(crate) fn network(url: &'a Url, authorization: Option<HeaderValue>, tls: &'a Tls) -> Self {
        Self { route: Route::Network(url, tls), authorization }
    }

    pub(crate) fn socket(path: &'a Path) -> Self {
        Self { route: Route::Socket(path), authorization: None }
    }

    /// Sends the request and reads the complete response.
    pub(crate) fn run(self, method: Method, path: &str, body: String) -> Result<Answer, Error> {
        let at = self.at();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|why| Error::Unreachable { at: at.clone(), why })?;
        let within = tokio::time::timeout;
        let result = runtime.block_on(async {
            within(TIMEOUT, self.send(method, path, body))
                .await
                .unwrap_or_else(|_| Err(Error::Timeout { at, seconds: TIMEOUT.as_secs() }))
        });
        // A name lookup may still be blocked in the C library.
        runtime.shutdown_background();
        result
    }

    fn at(&self) -> String {
        match self.route {
            Route::Network(url, _) => url.to_string(),
            Route::Socket(path) => path.display().to_string(),
        }
    }

    async fn send(&self, method: Method, path: &str, body: String) -> Result<Answer, Error> {
        match self.route {
            Route::Socket(socket) => {
                let stream = UnixStream::connect(socket).await;
                let stream = stream.map_err(|error| self.socket_refused(socket, error))?;
                let request = self.request(method, path, "localhost", body)?;
                exchange(stream, request).await.map_err(|error| self.failed(&error))
            }
            Route::Network(url, tls) => {
                let target = format!("{}{path}", url.prefix);
                let request = self.request(method, &target, &url.authority(), body)?;
                let stream = connect(url).await?;
                if url.is_https {
                    let stream = handshake(url, tls, stream).await?;
                    return exchange(stream, request).await.map_err(|error| self.failed(&error));
                }
                let answer = exchange(stream, request).await;
                match answer {
                    Ok(answer) => Ok(answer),
                    Err(_) if speaks_tls(url, tls).await => Err(Error::IsTls { at: self.at() }),
                    Err(error) => Err(self.failed(&error)),
                }
            }
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        host: &str,
        body: String,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(USER_AGENT, concat!("portolan/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value.clone());
        }
        let wrong = |error: http::Error| Error::Url { url: self.at(), why: error.to_string() };
        request.body(Full::new(Bytes::from(body))).map_err(wrong)
    }

    fn socket_refused(&self, path: &Path, error: io::Error) -> Error {
        let path = PathBuf::from(path);
        match error.kind() {
            io::ErrorKind::PermissionDenied => Error::SocketForbidden { path },
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NoSocket { path },
            _ => Error::Unreachable { at: self.at(), why: error },
        }
    }

    /// The meaning of a failure after the connection was established.
    fn failed(&self, failure: &Failure) -> Error {
        let at = self.at();
        match failure {
            Failure::TooLong => {
                Error::NotHttp { at, why: format!("it sends more than {MOST_BYTES} bytes") }
            }
            Failure::Http(error) => {
                let mut cause: Option<&dyn std::error::Error> = Some(error);
                while let Some(error) = cause {
                    if let Some(error) = error.downcast_ref::<io::Error>() {
                        let explained = match self.route {
                            Route::Network(url, tls) => tls.explain(url, error),
                            Route::Socket(_) => None,
                        };
                        let again = || io::Error::new(error.kind(), error.to_string());
                        return explained
                            .unwrap_or_else(|| Error::Unreachable { at, why: again() });
                    }
                    cause = error.source();
                }
                Error::NotHttp { at, why: error.to_string() }
            }
        }
    }
}

/// Why the response is incomplete.
enum Failure {
    Http(hyper::Error),
    TooLong,
}

/// A connection to the first address of the host that takes it.
async fn connect(url: &Url) -> Result<TcpStream, Error> {
    let at = || url.to_string();
    let unreachable = |why| Error::Unreachable { at: at(), why };
    let addresses = lookup_host((url.host.as_str(), url.port)).await.map_err(unreachable)?;
    let mut last = None;
    for address in addresses {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                last = Some(Error::NoAgent { at: at() });
            }
            Ok(Err(error)) => last = last.or(Some(unreachable(error))),
            Err(_) => {
                let seconds = CONNECT_TIMEOUT.as_secs();
                last = last.or(Some(Error::Timeout { at: at(), seconds }));
            }
        }
    }
    Err(last.unwrap_or_else(|| unreachable(io::Error::other("the name has no address"))))
}

async fn handshake(url: &Url, tls: &Tls, stream: TcpStream) -> Result<TlsStream<TcpStream>, Error> {
    let at = || url.to_string();
    let host = ServerName::try_from(url.host.clone())
        .map_err(|error| Error::Url { url: at(), why: error.to_string() })?;
    let Some(config) = tls.config.clone() else {
        return Err(Error::Incomplete("name the agent's certificate with --ca-file"));
    };
    TlsConnector::from(config).connect(host, stream).await.map_err(|error| {
        match tls.explain(url, &error) {
            Some(explained) => explained,
            // Whatever this server is, it closes the connection to a TLS client.
            None if error.kind() == io::ErrorKind::UnexpectedEof => Error::IsNotTls { at: at() },
            None => Error::Unreachable { at: at(), why: error },
        }
    })
}

/// Whether a server that does not understand HTTP understands TLS.
async fn speaks_tls(url: &Url, tls: &Tls) -> bool {
    let Ok(stream) = connect(url).await else { return false };
    match handshake(url, tls, stream).await {
        Ok(_) => true,
        Err(error) => matches!(
            error,
            Error::Certificate { .. }
                | Error::CertificateNeeded { .. }
                | Error::CertificateRefused { .. }
        ),
    }
}

/// One request on a connection of its own.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Failure> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(Failure::Http)?;
    let asking = async {
        let answer = sender.send_request(request).await.map_err(Failure::Http)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MOST_BYTES).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => Failure::Http(*error),
            Err(_) => Failure::TooLong,
        })?;
        let kind = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_json = kind.is_some_and(|kind| kind.starts_with("application/json"));
        Ok(Answer { status: head.status, is_json, body: body.to_bytes().to_vec() })
    };
    driven(connection, asking).await
}

/// Waits for `asking`, which makes progress only while `connection` does.
async fn driven<T>(
    connection: impl Future<Output = Result<(), hyper::Error>>,
    asking: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        biased;
        answer = &mut asking => answer,
        ended = connection => {
            // Data in the response's buffers can still be read. If the connection failed, its own
            // error has the reason; the request only sees that it was dropped.
            match (asking.await, ended) {
                (Err(Failure::Http(_)), Err(error)) => Err(Failure::Http(error)),
                (answer, _) => answer,
            }
        }
    }
}
