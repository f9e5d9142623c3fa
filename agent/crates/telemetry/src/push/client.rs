//! One request to a collector, and its result.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::Collector;

/// Connections are kept between the requests of one push, not between pushes.
const KEEP_IDLE: Duration = Duration::from_secs(5);
/// Maximum number of bytes read of a response.
const ANSWER_BYTES: usize = 64 * 1024;
/// Maximum length of a quoted message.
const QUOTED: usize = 200;

/// Client of one collector.
#[derive(Debug)]
pub(super) struct Client {
    http: Http<HttpsConnector<HttpConnector>, Full<Bytes>>,
    endpoint: Uri,
    headers: HeaderMap,
    timeout: Duration,
}

/// The result of an accepted request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Rejected data points.
    pub rejected: u64,
    /// Why.
    pub said: String,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No collector answers at the address.
    Unreachable(String),
    /// Timeout.
    Timeout,
    /// Retryable status (429, 502, 503, 504).
    Busy(String),
    /// Any other error status.
    Refused(String),
}

/// `ExportMetricsServiceResponse` (`metrics_service.proto`).
#[derive(Clone, PartialEq, Eq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_data_points: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

// === impl Client ===

impl Client {
    /// Reads certificates if TLS is used; does not connect yet.
    pub(super) fn new(collector: Collector) -> anyhow::Result<Self> {
        let Collector { endpoint, headers: configured, timeout, ca_file, interval: _ } = collector;
        let roots = if endpoint.scheme_str() == Some("https") {
            roots(ca_file.as_deref())?
        } else {
            RootCertStore::empty()
        };
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("setting up TLS")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let http = Http::builder(TokioExecutor::new())
            .pool_idle_timeout(KEEP_IDLE)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(1)
            .build(connector.enable_http1().build());
        let mut headers: HeaderMap = configured.into_iter().collect();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let agent = HeaderValue::from_static(concat!("portolan/", env!("CARGO_PKG_VERSION")));
        headers.entry(USER_AGENT).or_insert(agent);
        Ok(Self { http, endpoint, headers, timeout })
    }

    /// Where to.
    pub(super) fn endpoint(&self) -> &Uri {
        &self.endpoint
    }

    /// Sends one request.
    pub(super) async fn send(&self, body: Bytes) -> Result<Taken, Refusal> {
        let exchange = self.exchange(body);
        tokio::time::timeout(self.timeout, exchange).await.unwrap_or(Err(Refusal::Timeout))
    }

    async fn exchange(&self, body: Bytes) -> Result<Taken, Refusal> {
        let mut request = Request::post(self.endpoint.clone())
            .body(Full::new(body))
            .map_err(|error| Refusal::Refused(error.to_string()))?;
        *request.headers_mut() = self.headers.clone();
        let answer = self.http.request(request).await;
        let answer = answer.map_err(|error| Refusal::Unreachable(chain(&error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map(Collected::to_bytes).unwrap_or_default();
        match status {
            StatusCode::OK => Ok(Taken::read(&body)),
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(Refusal::Busy(status.to_string())),
            _ => Err(Refusal::Refused(format!("{status} {}", quoted(&body)).trim().to_owned())),
        }
    }
}

// === impl Taken ===

impl Taken {
    /// A response that cannot be parsed still had status 200: the points were accepted.
    fn read(body: &[u8]) -> Self {
        let partial = Response::decode(body).ok().and_then(|response| response.partial_success);
        partial.map_or_else(Self::default, |partial| Self {
            rejected: u64::try_from(partial.rejected_data_points).unwrap_or(0),
            said: quoted(partial.error_message.as_bytes()),
        })
    }
}

// === impl Refusal ===

impl Refusal {
    /// Whether to retry soon.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Timeout | Self::Busy(_) => true,
            Self::Refused(_) => false,
        }
    }
}

/// The system's certificates, and those of a file.
fn roots(ca_file: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let reading = || format!("reading otlp.ca_file {}", path.display());
        for certificate in CertificateDer::pem_file_iter(path).with_context(reading)? {
            roots.add(certificate.with_context(reading)?).with_context(reading)?;
        }
    }
    if roots.is_empty() {
        bail!(
            "there are no trusted certificates to verify the collector: this system has none (like an image FROM scratch); set --otlp.ca-file"
        );
    }
    Ok(roots)
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The beginning of a text from the collector, on one line.
fn quoted(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|character| !character.is_control()).take(QUOTED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_reject_some_points_and_is_believed_no_further() {
        let partial = PartialSuccess {
            rejected_data_points: 3,
            error_message: "too\nold".to_owned() + &"!".repeat(1000),
        };
        let body = Response { partial_success: Some(partial) }.encode_to_vec();
        let taken = Taken::read(&body);
        assert_eq!((taken.rejected, taken.said.len()), (3, QUOTED));
        assert!(taken.said.starts_with("tooold!"), "{}", taken.said);
        for odd in [&b""[..], b"ok", b"{\"partialSuccess\":{}}", &body[..5]] {
            assert_eq!(Taken::read(odd), Taken::default());
        }
        let negative = PartialSuccess { rejected_data_points: -1, error_message: String::new() };
        let body = Response { partial_success: Some(negative) }.encode_to_vec();
        assert_eq!(Taken::read(&body).rejected, 0);
    }
}
