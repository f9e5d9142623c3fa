//! TLS as a client: trust, and the meaning of failures.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError,
    InvalidMessage, RootCertStore, SignatureScheme,
};
use webpki::Error as WebPkiError;

use crate::url::Url;
use crate::{CertificateProblem, Credentials, Error};

/// TLS configuration for one agent.
#[derive(Debug)]
pub(crate) struct Tls {
    /// `None` without any trusted authority: the system has no certificates and none were given.
    /// Only plain HTTP works then.
    pub(crate) config: Option<Arc<ClientConfig>>,
    has_certificate: bool,
}

/// Trusts certificates issued by the authorities, and exactly the given ones.
#[derive(Debug)]
struct Verifier {
    authorities: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

// === impl Tls ===

impl Tls {
    /// Reads the files that `credentials` name, and the system's certificates.
    pub(crate) fn new(url: &Url, credentials: &Credentials) -> Result<Self, Error> {
        let Credentials { ca_file, cert, key, .. } = credentials;
        let named = ca_file.as_deref().map(|path| certificates("--ca-file", path)).transpose()?;
        let named = named.unwrap_or_default();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(named.iter().cloned());
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let Ok(authorities) = verifier.build() else {
            if url.is_https {
                return Err(Error::Incomplete(
                    "this system has no certificates of authorities: name the agent's with --ca-file",
                ));
            }
            return Ok(Self { config: None, has_certificate: false });
        };
        let failed = |error: TlsError| Error::Tls { at: url.to_string(), why: error.to_string() };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { authorities, named }));
        let config = match (cert, key) {
            (None, None) => builder.with_no_client_auth(),
            (None, Some(_)) => return Err(Error::Incomplete("--key needs --cert")),
            (Some(cert), key) => {
                let (flag, path) = key.as_ref().map_or(("--cert", cert), |key| ("--key", key));
                let wrong = |why: String| Error::File { flag, path: path.clone(), why };
                let chain = certificates("--cert", cert)?;
                let key = PrivateKeyDer::from_pem_file(path)
                    .map_err(|error| wrong(format!("cannot read a private key (PEM): {error}")))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| wrong(format!("does not go with the certificate: {error}")))?
            }
        };
        Ok(Self { config: Some(Arc::new(config)), has_certificate: cert.is_some() })
    }

    /// The meaning of a failed handshake, read or write, if TLS is its cause.
    pub(crate) fn explain(&self, url: &Url, error: &io::Error) -> Option<Error> {
        let cause = error.get_ref()?.downcast_ref::<TlsError>()?;
        let at = url.to_string();
        Some(match cause {
            TlsError::InvalidCertificate(why) => {
                Error::Certificate { at, problem: CertificateProblem::from(why) }
            }
            TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => Error::IsNotTls { at },
            TlsError::AlertReceived(AlertDescription::CertificateRequired) => {
                Error::CertificateNeeded { at }
            }
            // Before TLS 1.3 a missing certificate has no alert of its own.
            TlsError::AlertReceived(AlertDescription::HandshakeFailure)
                if !self.has_certificate =>
            {
                Error::CertificateNeeded { at }
            }
            TlsError::AlertReceived(alert) if self.has_certificate => {
                Error::CertificateRefused { at, why: format!("{alert:?}") }
            }
            other => Error::Tls { at, why: other.to_string() },
        })
    }
}

impl From<&CertificateError> for CertificateProblem {
    fn from(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::NotValidForNameContext { presented, .. } => {
                Self::OtherName(presented.iter().map(|name| bare(name)).collect())
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Expired,
            error if is_authority(error) => Self::UnknownIssuer,
            other => Self::Other(other.to_string()),
        }
    }
}

/// A name in a certificate in its usual form; rustls writes `DnsName("localhost")`.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"').to_owned()
}

/// Whether a server presented a certificate with the CA flag, as `openssl req -x509` creates.
fn is_authority(error: &CertificateError) -> bool {
    let CertificateError::Other(other) = error else { return false };
    matches!(other.0.downcast_ref::<WebPkiError>(), Some(WebPkiError::CaUsedAsEndEntity))
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong = |why: String| Error::File { flag, path: PathBuf::from(path), why };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Vec<_> =
        read.map_err(|error| wrong(format!("cannot read certificates (PEM): {error}")))?;
    if read.is_empty() {
        return Err(wrong("holds no certificate (PEM)".to_owned()));
    }
    Ok(read)
}

// === impl Verifier ===

impl Verifier {
    /// Whether to trust a certificate that no authority has issued: it is one of the given ones,
    /// and for this host. webpki checks dates before issuers, so an expired one does not get here.
    fn is_named(
        &self,
        certificate: &CertificateDer<'_>,
        host: &ServerName<'_>,
        why: &CertificateError,
    ) -> Result<bool, TlsError> {
        if !self.named.iter().any(|named| named == certificate) {
            return Ok(false);
        }
        match why {
            CertificateError::UnknownIssuer => {}
            why if is_authority(why) => {}
            why => return Ok(names_no_host(why)),
        }
        match verify_server_name(&ParsedCertificate::try_from(certificate)?, host) {
            Err(TlsError::InvalidCertificate(why)) if names_no_host(&why) => Ok(true),
            result => result.map(|()| true),
        }
    }
}

/// A certificate without names is still this very certificate.
fn names_no_host(why: &CertificateError) -> bool {
    matches!(why, CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let verified = self.authorities.verify_server_cert(certificate, chain, host, ocsp, now);
        match &verified {
            Err(TlsError::InvalidCertificate(why)) if self.is_named(certificate, host, why)? => {
                Ok(ServerCertVerified::assertion())
            }
            _ => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}
