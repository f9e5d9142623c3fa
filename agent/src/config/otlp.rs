//! Pushing metrics: where to, how often, and with which headers.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use serde::{Serialize, Serializer};
use telemetry::push::Collector;

use super::value::{self, Given};

/// Where OTLP over HTTP takes metrics, below the address of a collector.
const PATH: &str = "/v1/metrics";
/// Shown instead of a secret.
const HIDDEN: &str = "(hidden)";

/// Metrics pushed to a collector, beside those that are scraped.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Otlp {
    /// Where to; nothing is pushed without.
    #[serde(serialize_with = "serialize_endpoint")]
    pub endpoint: Option<Uri>,
    /// How often.
    #[serde(serialize_with = "value::serialize_duration")]
    pub interval: Duration,
    /// Timeout of a request.
    #[serde(serialize_with = "value::serialize_duration")]
    pub timeout: Duration,
    /// Headers of every request.
    pub headers: Headers,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// Headers with secret values: only their names are shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(HeaderName, HeaderValue)>);

/// `http://HOST:PORT`, or the full URL of the receiver.
pub(super) fn endpoint(given: &Given) -> Result<Uri, String> {
    let text = value::text(given)?;
    // It may contain a password, so it is not repeated.
    if text.contains('@') {
        return Err(
            "holds a name or password; put it into otlp.headers, like \"authorization=Basic …\""
                .into(),
        );
    }
    let wrong = || format!("is \"{text}\"; write an address like http://collector:4318");
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.query().is_some() {
        return Err(wrong());
    }
    let path = uri.path().trim_end_matches('/');
    if path.ends_with(PATH) {
        return Ok(uri);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{path}{PATH}").parse().map_err(|_| wrong())?);
    Uri::from_parts(parts).map_err(|_| wrong())
}

/// `NAME=VALUE,…`. Values are secrets, so no error repeats them.
pub(super) fn headers(given: &Given) -> Result<Headers, String> {
    let wrong = "must be headers like \"authorization=Bearer …\"; the value is not shown here, because it may be a secret";
    let header = |part: &str| {
        let (name, text) = part.split_once('=')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        let mut text = HeaderValue::from_str(text.trim()).ok()?;
        text.set_sensitive(true);
        Some((name, text))
    };
    let all: Option<Vec<_>> = value::parts(given).map(header).collect();
    all.map(Headers).ok_or_else(|| wrong.to_owned())
}

/// Between two pushes.
pub(super) fn interval(given: &Given) -> Result<Duration, String> {
    value::duration_within(given, Duration::from_secs(1), Duration::from_mins(10))
}

/// For one request.
pub(super) fn timeout(given: &Given) -> Result<Duration, String> {
    value::duration_within(given, Duration::from_millis(100), Duration::from_mins(1))
}

// === impl Otlp ===

impl Otlp {
    /// Where pushes go, if anywhere.
    pub fn collector(&self) -> Option<Collector> {
        let Self { endpoint, interval, timeout, headers, ca_file } = self.clone();
        Some(Collector { endpoint: endpoint?, interval, timeout, headers: headers.0, ca_file })
    }
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            endpoint: None,
            interval: Duration::from_mins(1),
            timeout: Duration::from_secs(10),
            headers: Headers::default(),
            ca_file: None,
        }
    }
}

// === impl Headers ===

impl Headers {
    /// Names and values, for requests and nothing else.
    pub fn iter(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.0.iter()
    }

    /// Only the names.
    pub fn shown(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| format!("{name}={HIDDEN}")).collect()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.shown()).finish()
    }
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.shown())
    }
}

#[expect(clippy::ref_option, reason = "serde gives it so")]
fn serialize_endpoint<S: Serializer>(uri: &Option<Uri>, serializer: S) -> Result<S::Ok, S::Error> {
    uri.as_ref().map(ToString::to_string).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Given {
        Given::Text(text.to_owned())
    }

    #[test]
    fn an_endpoint_is_a_collector_or_the_whole_address() {
        for (given, expected) in [
            ("http://collector:4318", "http://collector:4318/v1/metrics"),
            ("https://otlp.example/", "https://otlp.example/v1/metrics"),
            ("https://otlp.example/otlp", "https://otlp.example/otlp/v1/metrics"),
            (
                "http://[::1]:9090/api/v1/otlp/v1/metrics",
                "http://[::1]:9090/api/v1/otlp/v1/metrics",
            ),
        ] {
            assert_eq!(endpoint(&text(given)).unwrap().to_string(), expected);
        }
        for given in ["collector:4318", "grpc://collector:4317", "http://c/?a=b", "/v1/metrics"] {
            let error = endpoint(&text(given)).unwrap_err();
            assert!(error.contains("write an address like"), "{given}: {error}");
        }
    }

    #[test]
    fn secrets_are_shown_nowhere() {
        let headers = headers(&text("Authorization=Bearer hunter2, x-tenant=a=b")).unwrap();
        let values: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(values, [("authorization", "Bearer hunter2"), ("x-tenant", "a=b")]);
        let config = Otlp { headers, ..Otlp::default() };
        let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
        assert!(shown.contains("authorization=(hidden)") && !shown.contains("hunter2"), "{shown}");
        for wrong in ["hunter2", "a b=hunter2", "x=hunter2\u{7f}"] {
            let error = super::headers(&text(wrong)).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = endpoint(&text("http://user:hunter2@collector")).unwrap_err();
        assert!(error.contains("otlp.headers") && !error.contains("hunter2"), "{error}");
    }
}
