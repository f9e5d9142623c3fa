//! One TLS handshake, and what is wrong with the certificate.
//!
//! The handshake is completed whatever the certificate is, so that everything can be reported. An
//! authority that this host does not know is not a fault: the client may trust it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, InvalidMessage,
    RootCertStore, SignatureScheme, StreamOwned,
};
use std::io;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::super::evidence::{Certificate, TlsFault};
use super::PATIENCE;
use super::deadline::Bounded;

const DAY: i64 = 86_400;

/// A connection with TLS.
pub(super) type Stream = StreamOwned<ClientConnection, Bounded>;

/// Takes note of a certificate and accepts it.
#[derive(Debug)]
struct Observer {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
    seen: Mutex<Option<Seen>>,
}

/// What was presented.
#[derive(Debug)]
struct Seen {
    certificate: Vec<u8>,
    /// Whether an authority that this host knows has issued it, and it is valid now.
    trust: Result<(), Error>,
    /// Whether it is for the name.
    name: Result<(), Error>,
}

/// A handshake, for `name` (SNI) if there is one.
pub(super) fn handshake(
    target: SocketAddr,
    name: Option<&str>,
) -> Result<(Stream, Certificate), TlsFault> {
    let began = Instant::now();
    let other = |error: &dyn std::fmt::Display| TlsFault::Other(error.to_string());
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let observer =
        Arc::new(Observer { roots, provider: Arc::clone(&provider), seen: Mutex::new(None) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| other(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&observer) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let server = match name {
        Some(name) => ServerName::try_from(name.to_owned()).map_err(|error| other(&error))?,
        None => ServerName::IpAddress(target.ip().into()),
    };
    let mut connection =
        ClientConnection::new(Arc::new(config), server).map_err(|error| other(&error))?;
    let mut stream = Bounded::connect(target, PATIENCE).map_err(|error| fault(&error))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).map_err(|error| fault(&error))?;
    }
    let version =
        connection.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
    let seconds = began.elapsed().as_secs_f64();
    let seen = observer.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    let certificate = match seen {
        Some(seen) => seen.judge(version, seconds, name)?,
        None => Certificate { version: version.to_owned(), seconds, ..Certificate::default() },
    };
    Ok((StreamOwned::new(connection, stream), certificate))
}

/// The meaning of an error of the handshake.
fn fault(error: &io::Error) -> TlsFault {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    match cause {
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => TlsFault::NotTls,
        Some(Error::AlertReceived(alert)) => {
            TlsFault::Alert(alert.as_str().map_or_else(|| format!("{alert:?}"), str::to_owned))
        }
        Some(other) => TlsFault::Other(other.to_string()),
        None => match error.kind() {
            io::ErrorKind::TimedOut => TlsFault::Silent,
            // What does not speak TLS mostly closes the connection.
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => TlsFault::NotTls,
            _ => TlsFault::Other(error.to_string()),
        },
    }
}

// === impl Seen ===

impl Seen {
    fn judge(
        self,
        version: &str,
        seconds: f64,
        name: Option<&str>,
    ) -> Result<Certificate, TlsFault> {
        let Self { certificate, trust, name: names } = self;
        let expiry = expiry(&certificate);
        let days_left = expiry.map(|expiry| (expiry - now()).div_euclid(DAY));
        let mut untrusted = None;
        match trust {
            Err(Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => {
                return Err(TlsFault::Expired {
                    days_ago: expiry.map(|expiry| (now() - expiry).div_euclid(DAY)),
                });
            }
            Err(Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            )) => {
                return Err(TlsFault::NotYetValid);
            }
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                untrusted = Some("unknown issuer".to_owned());
            }
            Err(error) => untrusted = Some(error.to_string()),
            Ok(()) => {}
        }
        // Without a name it was asked for by its address, which few certificates have.
        if let (Some(wanted), Err(error)) = (name, names) {
            let presented = match error {
                Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                    presented,
                    ..
                }) => presented.iter().map(|name| bare(name)).collect(),
                _ => Vec::new(),
            };
            return Err(TlsFault::OtherName { wanted: wanted.to_owned(), presented });
        }
        Ok(Certificate { version: version.to_owned(), seconds, days_left, untrusted })
    }
}

/// A name in a certificate in its usual form; rustls writes `DnsName("localhost")`.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"').to_owned()
}

/// When a certificate expires, in seconds since the Unix epoch.
fn expiry(certificate: &[u8]) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

// === impl Observer ===

impl ServerCertVerifier for Observer {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let trust =
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, chain, now, algorithms);
        let name = verify_server_name(&parsed, host);
        let seen = Seen { certificate: certificate.to_vec(), trust, name };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
