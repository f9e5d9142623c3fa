//! The syntax of the web configuration file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{fmt, fs};

use anyhow::{Context as _, anyhow, bail};
use axum::http::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::rate::{RateLimit, go_duration};
use super::tls;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WebFile {
    pub tls_server_config: Option<TlsServer>,
    pub http_server_config: HttpServer,
    pub rate_limit: RateLimitConfig,
    /// Names, and bcrypt hashes of passwords.
    pub basic_auth_users: BTreeMap<String, Secret>,
}

/// `tls_server_config`. Lists are `None` if they are not there: then the defaults of the library.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsServer {
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub cert: Option<String>,
    pub key: Option<Secret>,
    pub client_auth_type: ClientAuth,
    pub client_ca_file: Option<PathBuf>,
    pub client_ca: Option<String>,
    pub client_allowed_sans: Vec<String>,
    pub min_version: TlsVersion,
    pub max_version: TlsVersion,
    pub cipher_suites: Option<Vec<String>>,
    pub prefer_server_cipher_suites: Option<bool>,
    pub curve_preferences: Option<Vec<String>>,
}

/// `http_server_config`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HttpServer {
    /// Without effect but on what cipher suites are accepted: the endpoint speaks HTTP/1.1, which
    /// every scraper supports.
    http2: Option<bool>,
    headers: BTreeMap<String, String>,
}

/// `rate_limit`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RateLimitConfig {
    /// As Go writes durations; 0: no limit.
    interval: String,
    burst: u32,
}

/// Whether clients show certificates; names as in Go's crypto/tls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum ClientAuth {
    #[default]
    #[serde(alias = "")]
    NoClientCert,
    RequestClientCert,
    #[serde(alias = "RequireClientCert")]
    RequireAnyClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

/// A version of TLS; `Unset` is the file's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum TlsVersion {
    #[default]
    #[serde(skip_deserializing)]
    Unset,
    #[serde(rename = "TLS10")]
    Tls10,
    #[serde(rename = "TLS11")]
    Tls11,
    #[serde(rename = "TLS12")]
    Tls12,
    #[serde(rename = "TLS13")]
    Tls13,
}

/// A text that is not for logs.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// The headers that may be set, as in exporter-toolkit, and their values if only some make sense.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

/// What HTTP/2 requires of TLS 1.2 (RFC 9113, 9.2.2): Go refuses a list without both, so
/// exporter-toolkit does.
const HTTP2_SUITES: [&str; 2] =
    ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"];

// === impl WebFile ===

impl WebFile {
    /// Reads and checks the file; paths in it are relative to its folder.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).context(
            "cannot read the web configuration file; check the path given with --web.config.file",
        )?;
        let mut file = Self::parse(&text)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        if let Some(tls) = &mut file.tls_server_config {
            let files = [&mut tls.cert_file, &mut tls.key_file, &mut tls.client_ca_file];
            for file in files.into_iter().flatten() {
                *file = folder.join(&file);
            }
        }
        Ok(file)
    }

    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        // The parser takes an empty document for a missing value.
        let empty = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if text.lines().all(empty) {
            return Ok(Self::default());
        }
        let file: Self = notation::yaml::read(text)
            .map_err(|(line, problem)| anyhow!("line {line}: {problem}"))?;
        let mut file = file;
        if let Some(tls) = &mut file.tls_server_config {
            tls.forget_empty();
            tls.check()?;
            tls.check_http2(file.http_server_config.http2.unwrap_or(true))?;
        }
        file.http_server_config.headers()?;
        file.rate_limit.limit(Instant::now())?;
        Ok(file)
    }

    /// The files that hold secrets: the private key, and this file itself with passwords or a key.
    pub(super) fn secrets(&self, path: &Path) -> Vec<PathBuf> {
        let tls = self.tls_server_config.as_ref();
        let inline = !self.basic_auth_users.is_empty() || tls.is_some_and(|tls| tls.key.is_some());
        let key = tls.and_then(|tls| tls.key_file.clone());
        inline.then(|| path.to_owned()).into_iter().chain(key).collect()
    }

    /// The files whose changes are watched.
    pub(super) fn files(&self, path: &Path) -> Vec<PathBuf> {
        let mut files = vec![path.to_owned()];
        if let Some(tls) = &self.tls_server_config {
            let named = [&tls.cert_file, &tls.key_file, &tls.client_ca_file];
            files.extend(named.into_iter().flatten().cloned());
        }
        files
    }
}

// === impl TlsServer ===

impl TlsServer {
    /// Whether every client has to show a certificate that the operator knows: of an authority that
    /// the file names, or for a name in it.
    pub(super) fn requires_verified_clients(&self) -> bool {
        let known = self.names_authority() || !self.client_allowed_sans.is_empty();
        self.client_auth_type == ClientAuth::RequireAndVerifyClientCert && known
    }

    fn names_authority(&self) -> bool {
        self.client_ca_file.is_some() || self.client_ca.is_some()
    }

    /// An empty text is as good as none.
    fn forget_empty(&mut self) {
        let Self { cert_file, key_file, client_ca_file, cert, key, client_ca, .. } = self;
        for path in [cert_file, key_file, client_ca_file] {
            path.take_if(|path| path.as_os_str().is_empty());
        }
        for text in [cert, client_ca] {
            text.take_if(|text| text.is_empty());
        }
        key.take_if(|Secret(text)| text.is_empty());
    }

    /// Go speaks HTTP/2 unless it is turned off, and refuses cipher suites that exclude it.
    fn check_http2(&self, http2: bool) -> anyhow::Result<()> {
        let suites = self.cipher_suites.as_deref().unwrap_or_default();
        let has = |suite: &&str| suites.iter().any(|one| one == suite);
        if !http2
            || suites.is_empty()
            || self.min_version == TlsVersion::Tls13
            || HTTP2_SUITES.iter().any(has)
        {
            return Ok(());
        }
        bail!(
            "tls_server_config: cipher_suites has none that HTTP/2 requires; add {}, or set http2: false in http_server_config",
            HTTP2_SUITES.join(" or ")
        )
    }

    /// What exporter-toolkit refuses is refused here too.
    fn check(&self) -> anyhow::Result<()> {
        let one = |file: bool, text: bool, name: &str| match (file, text) {
            (true, true) => {
                bail!("tls_server_config: {name} and {name}_file are both set; keep one")
            }
            (false, false) => bail!("tls_server_config: {name}_file is missing"),
            _ => Ok(()),
        };
        tls::check_suites(self.cipher_suites.as_deref().unwrap_or_default())?;
        one(self.cert_file.is_some(), self.cert.is_some(), "cert")?;
        one(self.key_file.is_some(), self.key.is_some(), "key")?;
        if self.client_ca_file.is_some() && self.client_ca.is_some() {
            bail!("tls_server_config: client_ca and client_ca_file are both set; keep one");
        }
        let verifies = matches!(
            self.client_auth_type,
            ClientAuth::VerifyClientCertIfGiven | ClientAuth::RequireAndVerifyClientCert
        );
        if self.names_authority() && self.client_auth_type == ClientAuth::NoClientCert {
            bail!(
                "tls_server_config: client_ca_file is set, but no client certificate is requested; set client_auth_type: RequireAndVerifyClientCert"
            );
        }
        if !self.client_allowed_sans.is_empty() && !verifies {
            bail!(
                "tls_server_config: client_allowed_sans has no effect on certificates that are not verified; set client_auth_type: RequireAndVerifyClientCert"
            );
        }
        Ok(())
    }
}

// === impl HttpServer ===

impl HttpServer {
    pub(super) fn headers(&self) -> anyhow::Result<Vec<(HeaderName, HeaderValue)>> {
        let header = |(name, value): (&String, &String)| {
            let Some((_, values)) = HEADERS.iter().find(|(known, _)| known == name) else {
                bail!(
                    "http_server_config: the header {name} cannot be set; choose among {}",
                    HEADERS.map(|(known, _)| known).join(", ")
                );
            };
            if !values.is_empty() && !values.contains(&value.as_str()) {
                bail!("http_server_config: {name} is \"{value}\"; write {}", values.join(" or "));
            }
            let value = HeaderValue::from_str(value).map_err(|_| {
                anyhow!("http_server_config: the value of {name} is not a valid header value")
            })?;
            Ok((HeaderName::from_bytes(name.as_bytes())?, value))
        };
        let mut headers = self.headers.iter().map(header).collect::<anyhow::Result<Vec<_>>>()?;
        // An empty value leaves ours.
        headers.retain(|(_, value)| !value.is_empty());
        Ok(headers)
    }
}

// === impl RateLimitConfig ===

impl RateLimitConfig {
    /// The limit from `now` on; `None` without an interval.
    pub(super) fn limit(&self, now: Instant) -> anyhow::Result<Option<RateLimit>> {
        let Self { interval, burst } = self;
        if interval.is_empty() {
            return Ok(None);
        }
        let interval = go_duration(interval).ok_or_else(|| {
            anyhow!("rate_limit: interval is \"{interval}\"; write a duration like 1s or 100ms")
        })?;
        Ok((!interval.is_zero()).then(|| RateLimit::new(interval, *burst, now)))
    }
}
