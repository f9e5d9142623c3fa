//! Which names a request may use for this agent in its `Host` header.
//!
//! A page of another site can make a browser send requests to an address of this host by letting
//! its own name resolve to it (DNS rebinding), and then reads the responses as its own. Such a
//! request names the host of the page. So the agent answers only to names that nobody else can
//! point here: any IP address, `localhost`, this host's own names, and those of `web.allowed_hosts`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{Request, StatusCode, Version};
use serde::Serialize;

use crate::routes::Failure;

/// The names that are answered.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    allowed: Vec<AllowedHost>,
    own: Vec<String>,
}

/// An entry of `web.allowed_hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedHost {
    /// `*`: every name.
    Any,
    /// `*.example.com` or `.example.com`: every name below this one.
    Below(String),
    /// One name.
    Name(String),
}

impl Hosts {
    /// Names of this host, and those of the operator.
    pub fn new(own: &[String], allowed: &[AllowedHost]) -> Self {
        let own = own.iter().filter_map(|name| normal(name)).collect();
        Self { allowed: allowed.to_vec(), own }
    }

    /// Whether requests for this host, the value of a `Host` header, are answered.
    pub fn admits(&self, header: &str) -> bool {
        without_port(header).is_some_and(|host| self.admit(host))
    }

    /// Whether the operator has named any.
    pub(super) fn are_configured(&self) -> bool {
        !self.allowed.is_empty()
    }

    /// The response to a request whose host is missing, invalid or unknown.
    pub(super) fn refuse<B>(&self, request: &Request<B>) -> Option<Failure> {
        let bad = |why: &str| Some(Failure(StatusCode::BAD_REQUEST, why.to_owned()));
        let mut headers = request.headers().get_all(HOST).iter();
        let header = match (headers.next(), headers.next()) {
            (Some(_), Some(_)) => return bad("the request has more than one Host header"),
            (Some(value), None) => match value.to_str().ok().and_then(without_port) {
                Some(host) => Some(host),
                None => return bad("the Host header is not a host with an optional port"),
            },
            (None, _) if request.version() == Version::HTTP_11 => {
                return bad("an HTTP/1.1 request must have a Host header");
            }
            (None, _) => None,
        };
        // A request target with a host takes precedence (RFC 9112, 3.2.2); both must be allowed.
        let target = request.uri().authority().map(Authority::host);
        let unknown = [header, target].into_iter().flatten().find(|host| !self.admit(host))?;
        Some(Failure(
            StatusCode::MISDIRECTED_REQUEST,
            format!(
                "\"{unknown}\" is not a name of this agent: use an IP address of this host, or add the name to web.allowed_hosts"
            ),
        ))
    }

    fn admit(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if bare.is_some_and(|bare| bare.parse::<Ipv6Addr>().is_ok())
            || host.parse::<Ipv4Addr>().is_ok()
        {
            return true;
        }
        let Some(name) = normal(host) else { return false };
        // Browsers resolve names below localhost to loopback without asking (RFC 6761, 6.3).
        name == "localhost"
            || name.ends_with(".localhost")
            || self.own.contains(&name)
            || self.allowed.iter().any(|allowed| allowed.admits(&name))
    }
}

/// The host of `HOST` or `HOST:PORT`.
fn without_port(text: &str) -> Option<&str> {
    let end = match text.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at_checked(end)?;
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let known = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    (known && !host.is_empty() && !host.contains(['@', '/', ' '])).then_some(host)
}

/// A DNS name in lower case without its last dot; `None` if it is not one.
fn normal(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.bytes().all(known)
    };
    (name.len() <= 253 && name.split('.').all(is_label)).then(|| name.to_ascii_lowercase())
}

// === impl AllowedHost ===

impl AllowedHost {
    fn admits(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Name(allowed) => allowed == name,
            Self::Below(suffix) => {
                name.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
        }
    }
}

impl FromStr for AllowedHost {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "*" {
            return Ok(Self::Any);
        }
        match text.strip_prefix("*.").or_else(|| text.strip_prefix('.')) {
            Some(suffix) => normal(suffix).map(Self::Below).ok_or(()),
            None => normal(text).map(Self::Name).ok_or(()),
        }
    }
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Serialize for AllowedHost {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(allowed: &[&str]) -> Hosts {
        let allowed: Vec<_> = allowed.iter().map(|text| text.parse().expect("valid")).collect();
        Hosts::new(&["Node1".to_owned(), "node1.example.com".to_owned()], &allowed)
    }

    fn status(hosts: &Hosts, given: &[&str], version: Version, target: &str) -> u16 {
        let mut request = Request::builder().uri(target).version(version);
        for host in given {
            request = request.header(HOST, *host);
        }
        let refusal = hosts.refuse(&request.body(()).expect("a request"));
        refusal.map_or(200, |Failure(status, _)| status.as_u16())
    }

    #[test]
    fn addresses_and_own_names_are_answered_and_names_of_others_are_not() {
        let hosts = hosts(&["portolan", "*.svc.cluster.local", ".lan.example"]);
        let check = |host: &str, expected: u16| {
            assert_eq!(status(&hosts, &[host], Version::HTTP_11, "/metrics"), expected, "{host}");
        };
        for host in [
            "127.0.0.1:10062",
            "10.1.2.3",
            "203.0.113.7:80",
            "[::1]:10062",
            "[2001:db8::1]",
            "localhost",
            "LOCALHOST:8080",
            "localhost.:1",
            "shop.localhost",
            "node1:10062",
            "NODE1.example.com",
            "node1.example.com.:10062",
            "portolan:10062",
            "portolan.monitoring.svc.cluster.local:10062",
            "a.lan.example",
        ] {
            check(host, 200);
        }
        for host in [
            "evil.example",
            "evil.example:10062",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "node1.evil.example",
            "notlocalhost",
            "svc.cluster.local",
            "evilsvc.cluster.local",
            "lan.example",
            "portolan.evil.example",
            "0x7f000001",
            "2130706433",
            "[evil.example]",
            "[127.0.0.1]",
            "::1",
        ] {
            let expected = if host == "::1" { 400 } else { 421 };
            check(host, expected);
        }
    }

    #[test]
    fn a_request_names_one_host() {
        let hosts = hosts(&[]);
        let check = |given: &[&str], version, target: &str, expected: u16| {
            assert_eq!(status(&hosts, given, version, target), expected, "{given:?} {target}");
        };
        check(&[], Version::HTTP_11, "/", 400);
        check(&[], Version::HTTP_10, "/", 200);
        check(&["localhost", "localhost"], Version::HTTP_11, "/", 400);
        check(&["localhost", "evil.example"], Version::HTTP_10, "/", 400);
        for invalid in ["", ":80", "a b", "localhost:x", "user@localhost", "[::1", "[::1]x", "/"] {
            check(&[invalid], Version::HTTP_11, "/", 400);
        }
        check(&["localhost"], Version::HTTP_11, "http://evil.example/", 421);
        check(&["evil.example"], Version::HTTP_11, "http://localhost/", 421);
        check(&["localhost"], Version::HTTP_11, "http://127.0.0.1:1/", 200);
        check(&["evil.example"], Version::HTTP_10, "/", 421);
    }

    #[test]
    fn the_error_names_the_setting_and_a_star_allows_every_name() {
        let request = Request::builder().header(HOST, "prom.example:1").body(()).expect("valid");
        let request = {
            let mut r = request;
            *r.version_mut() = Version::HTTP_11;
            r
        };
        let Failure(_, said) = hosts(&[]).refuse(&request).expect("refused");
        assert_eq!(
            said,
            "\"prom.example\" is not a name of this agent: use an IP address of this host, or add the name to web.allowed_hosts"
        );
        assert!(hosts(&["*"]).refuse(&request).is_none());
    }

    #[test]
    fn an_entry_is_a_name_a_suffix_or_a_star() {
        for (text, shown) in [
            ("*", "*"),
            (".Example.com", "*.example.com"),
            ("*.example.com.", "*.example.com"),
            ("Portolan", "portolan"),
        ] {
            assert_eq!(text.parse::<AllowedHost>().expect(text).to_string(), shown);
        }
        for text in ["", "*.", "a:80", "http://a", "a.*", "ü.example", "a..b"] {
            assert!(text.parse::<AllowedHost>().is_err(), "{text}");
        }
    }
}
