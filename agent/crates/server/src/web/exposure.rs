//! What makes the endpoint less safe than its operator may think: findings for the status, and
//! lines in the log.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api_types::{Finding, Severity, Timestamp, code};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A certificate is reported this long before it expires, or a tenth of its life if that is
/// shorter.
const RENEW_BEFORE: Duration = Duration::from_hours(7 * 24);

/// What one version of the files says about its safety.
#[derive(Clone, Debug, Default)]
pub(super) struct Exposure {
    /// Whether a password or a verified client certificate is required.
    pub authenticates: bool,
    /// The certificate of the endpoint.
    pub certificate: Option<Validity>,
    /// Files with a private key or hashes of passwords.
    pub secrets: Vec<PathBuf>,
}

/// When a certificate is valid, in seconds of Unix time.
#[derive(Clone, Debug)]
pub(super) struct Validity {
    location: String,
    from: u64,
    until: u64,
}

impl Validity {
    /// That of the certificate at `location`; `None` if it cannot be read.
    pub(super) fn of(location: &str, certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let validity = certificate.validity();
        let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
        Some(Self {
            location: location.to_owned(),
            from: seconds(validity.not_before.timestamp()),
            until: seconds(validity.not_after.timestamp()),
        })
    }

    fn finding(&self, now: u64) -> Option<Finding> {
        let Self { location, from, until } = self;
        let notice = RENEW_BEFORE.as_secs().min(until.saturating_sub(*from) / 10);
        let (severity, problem) = if now > *until {
            (
                Severity::Error,
                format!("has expired: clients that verify it are refused ({location})"),
            )
        } else if now < *from {
            (
                Severity::Error,
                format!("is not valid yet: is the clock of this host right? ({location})"),
            )
        } else if now.saturating_add(notice) > *until {
            (Severity::Warning, format!("expires within {} ({location})", days(until - now)))
        } else {
            return None;
        };
        let title = format!("the certificate of the HTTP endpoint {problem}");
        let mut finding = Finding::new(code::CERTIFICATE_EXPIRED, severity, location, title)
            .with("valid_until", Timestamp::from_seconds(*until as f64).to_string());
        finding.remediation =
            Some("renew it; the agent takes the new files without a restart".to_owned());
        Some(finding)
    }
}

impl Exposure {
    /// Everything that needs attention about the endpoint at `address`.
    pub(super) fn findings(&self, address: SocketAddr) -> Vec<Finding> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let Self { authenticates, certificate, secrets } = self;
        let open = (!authenticates && !address.ip().to_canonical().is_loopback())
            .then(|| everyone_can_read(address));
        let expired = certificate.as_ref().and_then(|validity| validity.finding(now));
        let exposed = secrets.iter().filter_map(readable_by_others);
        open.into_iter().chain(expired).chain(exposed).collect()
    }
}

fn everyone_can_read(address: SocketAddr) -> Finding {
    let title = format!(
        "everyone who reaches {address} can read the metrics and connections of this host: no password or client certificate is required"
    );
    let mut finding =
        Finding::new(code::ENDPOINT_OPEN, Severity::Warning, "web.listen_address", title)
            .with("address", address.to_string());
    finding.remediation = Some(
        "set passwords or client certificates with --web.config.file, or listen on 127.0.0.1 (--web.listen-address)"
            .to_owned(),
    );
    finding
}

fn readable_by_others(path: &PathBuf) -> Option<Finding> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    if mode & 0o004 == 0 {
        return None;
    }
    let path = path.display();
    let title = format!(
        "every user of this host can read {path}, which holds secrets of the HTTP endpoint"
    );
    let mut finding =
        Finding::new(code::SECRET_READABLE, Severity::Warning, &path.to_string(), title)
            .with("mode", format!("{mode:04o}"));
    finding.remediation = Some(format!("chmod o= {path}"));
    Some(finding)
}

fn days(seconds: u64) -> String {
    match seconds / (24 * 3600) {
        0 => "a day".to_owned(),
        days => format!("{} days", days + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(exposure: &Exposure, address: &str) -> Vec<String> {
        let findings = exposure.findings(address.parse().expect("an address"));
        findings.into_iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn an_endpoint_that_others_reach_without_a_password_is_reported() {
        let check = |address, authenticates, expected: &[&str]| {
            let exposure = Exposure { authenticates, ..Exposure::default() };
            assert_eq!(codes(&exposure, address), expected, "{address}");
        };
        for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            check(open, false, &["PS420"]);
            check(open, true, &[]);
        }
        for loopback in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            check(loopback, false, &[]);
        }
    }

    #[test]
    fn a_certificate_is_reported_when_it_has_to_be_renewed() {
        const DAY: u64 = 24 * 3600;
        let check = |from, until, now, expected: Option<(Severity, &str)>| {
            let validity = Validity { location: "server.pem".to_owned(), from, until };
            let finding = validity.finding(now);
            let shown = finding.as_ref().map(|finding| (finding.severity, finding.title.as_str()));
            match (shown, expected) {
                (None, None) => {}
                (Some((severity, title)), Some((expected, words))) => {
                    assert_eq!(severity, expected, "{title}");
                    assert!(title.contains(words), "{title}");
                }
                _ => panic!("{shown:?}, expected {expected:?}"),
            }
        };
        let year = 365 * DAY;
        check(DAY, year, year - 8 * DAY, None);
        check(DAY, year, year - 6 * DAY, Some((Severity::Warning, "expires within 7 days")));
        check(DAY, year, year - 5, Some((Severity::Warning, "expires within a day")));
        check(DAY, year, year + 1, Some((Severity::Error, "has expired")));
        check(DAY, year, DAY - 1, Some((Severity::Error, "not valid yet")));
        // One of a day is renewed in its last hours.
        check(0, DAY, DAY - 3 * 3600, None);
        check(0, DAY, DAY - 2 * 3600, Some((Severity::Warning, "expires within a day")));
    }

    #[test]
    fn secrets_that_others_can_read_are_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("server.key");
        fs::write(&key, "").expect("written");
        let exposure = Exposure { secrets: vec![key.clone()], ..Exposure::default() };
        let check = |mode, expected: &[&str]| {
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("set");
            assert_eq!(codes(&exposure, "127.0.0.1:1"), expected, "{mode:o}");
        };
        check(0o600, &[]);
        check(0o640, &[]);
        check(0o644, &["PS422"]);
        fs::remove_file(&key).expect("removed");
        assert_eq!(codes(&exposure, "127.0.0.1:1"), [""; 0]);
    }
}
