//! TLS 1.2 and later, by rustls: certificates, client certificates, and names in them.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, NamedGroup, RootCertStore,
    ServerConfig, SignatureScheme, SupportedProtocolVersion,
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::exposure::Validity;
use super::file::{ClientAuth, Secret, TlsServer, TlsVersion};
use super::p521::P521;

/// The file's TLS settings as a rustls configuration.
pub(super) fn server_config(file: &TlsServer) -> anyhow::Result<ServerConfig> {
    let provider = Arc::new(provider(file)?);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(file)?)
        .context("tls_server_config: cipher_suites leaves none for these versions")?;
    let builder = match verifier(file, &provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let (chain, key) = (chain(file)?, key(file)?);
    let mut config = builder.with_single_cert(chain, key).context(
        "tls_server_config: the certificate and its key cannot be used; do they belong together?",
    )?;
    config.ignore_client_order = file.prefer_server_cipher_suites.unwrap_or(true);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn versions(file: &TlsServer) -> anyhow::Result<Vec<&'static SupportedProtocolVersion>> {
    use rustls::version::{TLS12, TLS13};
    let old = [TlsVersion::Tls10, TlsVersion::Tls11];
    if old.contains(&file.min_version) || old.contains(&file.max_version) {
        bail!(
            "tls_server_config: versions before TLS12 are broken and not offered; write TLS12 or TLS13"
        );
    }
    let versions: &[_] = match (file.min_version, file.max_version) {
        (TlsVersion::Tls13, TlsVersion::Tls12) => {
            bail!("tls_server_config: min_version is above max_version")
        }
        (TlsVersion::Tls13, _) => &[&TLS13],
        (_, TlsVersion::Tls12) => &[&TLS12],
        _ => &[&TLS13, &TLS12],
    };
    Ok(versions.to_vec())
}

/// Suites that Go knows and rustls leaves out. In a list they are skipped, so that one file serves
/// all exporters; what is left must not be empty.
const NOT_OFFERED: [&str; 4] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
];

/// rustls writes TLS13_AES_128_GCM_SHA256, others TLS_AES_128_GCM_SHA256.
fn name(suite: rustls::CipherSuite) -> String {
    format!("{suite:?}").replacen("TLS13_", "TLS_", 1)
}

/// An error for a suite that Go does not know either.
pub(super) fn check_suites(wanted: &[String]) -> anyhow::Result<()> {
    let offered: Vec<String> =
        ring::default_provider().cipher_suites.iter().map(|one| name(one.suite())).collect();
    let known = |one: &&String| offered.contains(one) || NOT_OFFERED.contains(&one.as_str());
    match wanted.iter().find(|one| !known(one)) {
        Some(unknown) => bail!(
            "tls_server_config: the cipher suite {unknown} is unknown; choose among {}",
            offered.join(", ")
        ),
        None => Ok(()),
    }
}

fn provider(file: &TlsServer) -> anyhow::Result<CryptoProvider> {
    let mut provider = ring::default_provider();
    if let Some(wanted) = file.cipher_suites.as_deref().filter(|wanted| !wanted.is_empty()) {
        let all = provider.cipher_suites;
        let offered: Vec<String> = all.iter().map(|suite| name(suite.suite())).collect();
        for one in wanted.iter().filter(|one| !offered.contains(one)) {
            tracing::warn!(
                "the cipher suite {one} of the web configuration is not offered: CBC is obsolete"
            );
        }
        // As in Go, the list applies to TLS 1.2; all suites of 1.3 stay enabled.
        let keep = |suite: &rustls::SupportedCipherSuite| {
            suite.tls13().is_some() || wanted.contains(&name(suite.suite()))
        };
        provider.cipher_suites = all.into_iter().filter(keep).collect();
    }
    if let Some(wanted) = file.curve_preferences.as_deref().filter(|wanted| !wanted.is_empty()) {
        let group = |name: &String| {
            let group = match name.as_str() {
                "X25519" => NamedGroup::X25519,
                "CurveP256" => NamedGroup::secp256r1,
                "CurveP384" => NamedGroup::secp384r1,
                "CurveP521" => return Ok(&P521 as &dyn SupportedKxGroup),
                _ => bail!(
                    "tls_server_config: the curve {name} is unknown; choose among X25519, CurveP256, CurveP384, CurveP521"
                ),
            };
            let all = &provider.kx_groups;
            all.iter().copied().find(|one| one.name() == group).context("a group of ring's")
        };
        provider.kx_groups = wanted.iter().map(group).collect::<anyhow::Result<_>>()?;
    }
    Ok(provider)
}

/// The bytes that the file holds, or names.
fn pem(
    text: Option<&str>,
    path: Option<&PathBuf>,
    what: &str,
) -> anyhow::Result<(String, Vec<u8>)> {
    match (text, path) {
        (Some(text), _) => Ok((what.to_owned(), text.as_bytes().to_vec())),
        (None, Some(path)) => {
            let read = fs::read(path);
            let bytes =
                read.with_context(|| format!("cannot read {what}_file {}", path.display()))?;
            Ok((path.display().to_string(), bytes))
        }
        (None, None) => bail!("tls_server_config: {what}_file is missing"),
    }
}

fn certificates(location: &str, bytes: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| anyhow!("{location}: {error}"))?;
    if found.is_empty() {
        bail!("{location} has no certificate in PEM form");
    }
    Ok(found)
}

fn chain(file: &TlsServer) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let (location, bytes) = pem(file.cert.as_deref(), file.cert_file.as_ref(), "cert")?;
    certificates(&location, &bytes)
}

/// When the endpoint's certificate is valid.
pub(super) fn validity(file: &TlsServer) -> Option<Validity> {
    let (location, bytes) = pem(file.cert.as_deref(), file.cert_file.as_ref(), "cert").ok()?;
    certificates(&location, &bytes).ok()?.first().and_then(|first| Validity::of(&location, first))
}

fn key(file: &TlsServer) -> anyhow::Result<PrivateKeyDer<'static>> {
    let text = file.key.as_ref().map(|Secret(text)| text.as_str());
    let (location, bytes) = pem(text, file.key_file.as_ref(), "key")?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        anyhow!("{location} has no private key in PEM form (PKCS #8, PKCS #1 or SEC1)")
    })
}

fn verifier(
    file: &TlsServer,
    provider: &Arc<CryptoProvider>,
) -> anyhow::Result<Option<Arc<dyn ClientCertVerifier>>> {
    let unverified = |mandatory| -> Arc<dyn ClientCertVerifier> {
        Arc::new(Unverified { mandatory, provider: Arc::clone(provider) })
    };
    let optional = match file.client_auth_type {
        ClientAuth::NoClientCert => return Ok(None),
        ClientAuth::RequestClientCert => return Ok(Some(unverified(false))),
        ClientAuth::RequireAnyClientCert => return Ok(Some(unverified(true))),
        ClientAuth::VerifyClientCertIfGiven => true,
        ClientAuth::RequireAndVerifyClientCert => false,
    };
    let mut roots = RootCertStore::empty();
    let location = if file.client_ca.is_none() && file.client_ca_file.is_none() {
        // As in Go: the public authorities that this system trusts.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            bail!(
                "tls_server_config: client_ca_file is missing, and this system has no certificates of authorities to verify clients against"
            );
        }
        "the system's authorities".to_owned()
    } else {
        let (location, bytes) =
            pem(file.client_ca.as_deref(), file.client_ca_file.as_ref(), "client_ca")?;
        for authority in certificates(&location, &bytes)? {
            roots.add(authority).map_err(|error| anyhow!("{location}: {error}"))?;
        }
        location
    };
    let roots = Arc::new(roots);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    let builder = if optional { builder.allow_unauthenticated() } else { builder };
    let inner = builder.build().map_err(|error| anyhow!("{location}: {error}"))?;
    let allowed = file.client_allowed_sans.clone();
    Ok(Some(if allowed.is_empty() { inner } else { Arc::new(Named { inner, allowed }) }))
}

/// Accepts clients whose certificate is verified and has one of these names.
#[derive(Debug)]
struct Named {
    inner: Arc<dyn ClientCertVerifier>,
    allowed: Vec<String>,
}

/// The names in a certificate's subjectAltName, written as exporter-toolkit compares them.
fn names(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let extension = certificate.subject_alternative_name().ok()??;
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    };
    Some(extension.value.general_names.iter().filter_map(name).collect())
}

impl ClientCertVerifier for Named {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let names = names(end_entity).unwrap_or_default();
        if names.iter().any(|name| self.allowed.contains(name)) {
            Ok(verified)
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Accepts any certificate if the client has its key: the meaning of `RequestClientCert` and
/// `RequireAnyClientCert` in Go.
struct Unverified {
    mandatory: bool,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unverified {{ mandatory: {} }}", self.mandatory)
    }
}

impl ClientCertVerifier for Unverified {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
