//! The checks of registered services: made by the command that shows them, with the rights and in the
//! network namespace of its caller, and never by the agent.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use api_types::{RegisteredAddress, Registration, Renewal, Services, Timestamp};
use notation::{Check, Endpoint};
use serde::Serialize;

use crate::{diagnose, human};

/// Checks at the same time. Those of one such group are renewed before the next one begins, so that
/// servers that do not answer do not keep the others from it; and their names fit into a request.
pub(super) const AT_ONCE: usize = 64;
/// Checks of one round at most.
pub(super) const MOST: usize = 1024;
/// What an HTTP server answers that works.
const WELL: std::ops::Range<u16> = 200..400;

/// An address of a service with a TTL or a check, and how that ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Checked {
    /// The service, `NAME` or `NAMESPACE/NAME`.
    pub(super) service: String,
    /// Its address.
    pub(super) address: String,
    /// How it is checked; null if it is not.
    pub(super) check: Option<String>,
    /// Whether it passed; null if it was not checked.
    pub(super) passed: Option<bool>,
    /// What was found, in words; null if it was not checked.
    pub(super) result: Option<String>,
    /// How long that took.
    pub(super) seconds: Option<f64>,
    /// How long it lasts without being renewed, like `30s`.
    pub(super) ttl: Option<String>,
    /// When it expires unless it is renewed, as of before this round.
    pub(super) expires: Option<Timestamp>,
    /// It had expired before this round.
    pub(super) is_expired: bool,
    /// It was renewed in this round.
    pub(super) is_renewed: bool,
}

/// What one check found.
type Found = Result<Duration, String>;

/// The addresses of all registrations with a TTL or a check.
pub(super) fn registered(answer: &Services) -> Vec<Checked> {
    let mut all = Vec::new();
    for one in &answer.services {
        let Some(Registration { ttl, check, addresses }) = &one.registration else { continue };
        let service = human::full_name(&one.service_namespace, &one.service);
        all.extend(addresses.iter().map(|RegisteredAddress { address, expires, is_expired }| {
            Checked {
                service: service.clone(),
                address: address.clone(),
                check: check.clone(),
                passed: None,
                result: None,
                seconds: None,
                ttl: ttl.clone(),
                expires: *expires,
                is_expired: *is_expired,
                is_renewed: false,
            }
        }));
    }
    all
}

/// Checks these, at the same time; each takes `patience` at most.
pub(super) fn make(some: &mut [Checked], patience: Duration) {
    thread::scope(|scope| {
        let running: Vec<_> = some
            .iter_mut()
            .map(|one| {
                let started = thread::Builder::new().name("check".into());
                started.spawn_scoped(scope, move || one.make(patience))
            })
            .collect();
        // Of what could not be started the result stays unknown: it is not renewed.
        for thread in running.into_iter().flatten() {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

fn check(text: &str, address: &str, patience: Duration) -> Found {
    // The agent may be of a newer version, with checks that this command does not know.
    let check: Check = text.parse()?;
    let target = address.parse::<Endpoint>()?.socket();
    let target: SocketAddr = target.ok_or("not an address with a port")?;
    match check {
        Check::Tcp => diagnose::connects(target, patience),
        Check::Http(path) => {
            let began = Instant::now();
            let status = diagnose::http_status(target, path.as_str(), patience)?;
            if WELL.contains(&status) {
                Ok(began.elapsed())
            } else {
                Err(format!("status {status}"))
            }
        }
    }
}

// === impl Checked ===

impl Checked {
    fn make(&mut self, patience: Duration) {
        let Some(how) = &self.check else { return };
        let found = check(how, &self.address, patience);
        self.passed = Some(found.is_ok());
        self.seconds = found.as_ref().ok().map(Duration::as_secs_f64);
        self.result = Some(found.map_or_else(|why| why, |_| "ok".to_owned()));
    }

    /// The request to renew it, if it has passed and would expire.
    pub(super) fn renewal(&self) -> Option<Renewal> {
        let Self { service, address, passed, ttl, .. } = self;
        let is_due = *passed == Some(true) && ttl.is_some();
        is_due.then(|| Renewal { service: service.clone(), address: address.clone() })
    }

    /// Whether it works as far as is known: its check has passed; without one, it is still renewed.
    pub(super) fn is_well(&self) -> bool {
        self.passed.unwrap_or(!self.is_expired)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn checked(address: String, check: Option<&str>) -> Checked {
        Checked {
            service: "api".to_owned(),
            address,
            check: check.map(str::to_owned),
            passed: None,
            result: None,
            seconds: None,
            ttl: Some("30s".to_owned()),
            expires: None,
            is_expired: false,
            is_renewed: false,
        }
    }

    fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        (listener, address)
    }

    /// Answers one request with this text; returns the request.
    fn answering(text: &'static str) -> (thread::JoinHandle<String>, String) {
        let (listener, address) = listener();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut buffer = [0; 1024];
            let length = stream.read(&mut buffer).expect("a request");
            stream.write_all(text.as_bytes()).expect("sent");
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        });
        (server, address)
    }

    #[test]
    fn what_listens_passes_and_what_does_not_says_why() {
        let (_listener, open) = listener();
        let (gone, closed) = listener();
        drop(gone);
        let mut some = [
            checked(open.clone(), Some("tcp")),
            checked(closed, Some("tcp")),
            checked(open, None),
            checked("10.0.0.0/8".to_owned(), Some("tcp")),
            checked("127.0.0.1:1".to_owned(), Some("icmp")),
        ];
        make(&mut some, PATIENCE);
        let found: Vec<_> = some.iter().map(|one| (one.passed, one.result.as_deref())).collect();
        assert_eq!(found[0], (Some(true), Some("ok")));
        assert_eq!(found[1], (Some(false), Some("refused")));
        assert_eq!(found[2], (None, None));
        assert_eq!(found[3], (Some(false), Some("not an address with a port")));
        assert!(found[4].1.is_some_and(|why| why.contains("write tcp, http")), "{:?}", found[4]);
        // Only what has passed is renewed.
        let renewed: Vec<bool> = some.iter().map(|one| one.renewal().is_some()).collect();
        assert_eq!(renewed, [true, false, false, false, false]);
        let forever = Checked { ttl: None, ..some[0].clone() };
        assert_eq!(forever.renewal(), None, "it does not expire");
    }

    #[test]
    fn an_http_server_passes_by_its_status() {
        let check = |answer: &'static str, how: &str, expected: (bool, &str)| {
            let (server, address) = answering(answer);
            let mut one = [checked(address.clone(), Some(how))];
            make(&mut one, PATIENCE);
            let found = (one[0].passed == Some(true), one[0].result.as_deref().unwrap_or_default());
            assert_eq!(found, expected, "{answer}");
            (server.join().expect("no panic"), address)
        };
        let (request, address) =
            check("HTTP/1.1 200 OK\r\n\r\n", "http=/healthz?a=1", (true, "ok"));
        assert!(request.starts_with("GET /healthz?a=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("\r\nHost: {address}\r\n")), "{request}");
        check("HTTP/1.1 302 Found\r\n\r\n", "http", (true, "ok"));
        check("HTTP/1.1 404 Not Found\r\n\r\n", "http", (false, "status 404"));
        check("HTTP/1.1 503 Unavailable\r\n\r\n", "http", (false, "status 503"));
        check("SSH-2.0-x\r\n", "http", (false, "no HTTP status: SSH-2.0-x"));
        check("", "http", (false, "closed without an answer"));
    }

    #[test]
    fn a_server_that_does_not_answer_takes_no_longer_than_the_patience_however_many_there_are() {
        let silent: Vec<_> = (0..AT_ONCE).map(|_| listener()).collect();
        let mut some: Vec<_> =
            silent.iter().map(|(_, address)| checked(address.clone(), Some("http"))).collect();
        let began = Instant::now();
        make(&mut some, Duration::from_millis(200));
        assert!(some.iter().all(|one| one.result.as_deref() == Some("timeout")), "{some:?}");
        // One after the other they would take 12.8 s.
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    }
}
