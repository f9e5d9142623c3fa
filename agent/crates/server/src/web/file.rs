//! The syntax of the web configuration file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use anyhow::{Context as _, anyhow, bail};
use axum::http::header::{HeaderName, HeaderValue};
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WebFile {
    pub tls_server_config: Option<TlsServer>,
    pub http_server_config: HttpServer,
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
    /// Accepted without effect: the endpoint speaks HTTP/1.1, which every scraper supports.
    #[serde(rename = "http2")]
    _http2: Option<bool>,
    headers: BTreeMap<String, String>,
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

/// The headers that may be set, as in exporter-toolkit.
const HEADERS: [&str; 5] = [
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
];

// === impl WebFile ===

impl WebFile {
    /// Reads and checks the file; paths in it are relative to its folder.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the web configuration file {}; check the path given with --web.config.file", path.display()))?;
        let mut file = Self::parse(&text).with_context(|| path.display().to_string())?;
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
        if let Some(tls) = &file.tls_server_config {
            tls.check()?;
        }
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
    /// Whether every client has to show a certificate that an authority of the operator issued.
    pub(super) fn requires_verified_clients(&self) -> bool {
        self.client_auth_type == ClientAuth::RequireAndVerifyClientCert
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
        one(self.cert_file.is_some(), self.cert.is_some(), "cert")?;
        one(self.key_file.is_some(), self.key.is_some(), "key")?;
        let authority = self.client_ca_file.is_some() || self.client_ca.is_some();
        if self.client_ca_file.is_some() && self.client_ca.is_some() {
            bail!("tls_server_config: client_ca and client_ca_file are both set; keep one");
        }
        let verifies = matches!(
            self.client_auth_type,
            ClientAuth::VerifyClientCertIfGiven | ClientAuth::RequireAndVerifyClientCert
        );
        if authority && self.client_auth_type == ClientAuth::NoClientCert {
            bail!(
                "tls_server_config: client_ca_file is set, but no client certificate is requested; set client_auth_type: RequireAndVerifyClientCert"
            );
        }
        if verifies && !authority {
            bail!(
                "tls_server_config: client_auth_type needs client_ca_file to verify certificates against"
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
            if !HEADERS.contains(&name.as_str()) {
                bail!(
                    "http_server_config: the header {name} cannot be set; choose among {}",
                    HEADERS.join(", ")
                );
            }
            let value = HeaderValue::from_str(value).map_err(|_| {
                anyhow!("http_server_config: the value of {name} is not a valid header value")
            })?;
            Ok((HeaderName::from_bytes(name.as_bytes())?, value))
        };
        // An empty value leaves ours, as in exporter-toolkit.
        self.headers.iter().filter(|(_, value)| !value.is_empty()).map(header).collect()
    }
}
