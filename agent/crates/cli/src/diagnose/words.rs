//! The words of the command line: which pairs of services they mean.

use std::net::{IpAddr, SocketAddr};

use super::evidence::{Name, Pair};

/// A service on the command line, with a port or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) name: String,
    pub(super) port: Option<u16>,
}

/// What is to be diagnosed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The worst of all edges.
    Worst,
    /// A service, as a server and as a client.
    Both(String),
    /// Whoever connects to a server.
    Server(Word),
    /// One client and one server.
    Between(String, Word),
}

// === impl Word ===

impl Word {
    /// `catalog.js`, `catalog.js:3002`, `prod/shop:8080`, `10.0.0.1:5432`, `[fd00::1]:80`, `fd00::1`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let word = |name: &str, port| Self { name: name.to_owned(), port };
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(word(&address.ip().to_string(), Some(address.port())));
        }
        if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return Ok(word(text.trim_matches(['[', ']']), None));
        }
        match text.rsplit_once(':') {
            _ if text.is_empty() => Err("the name of a service is empty".to_owned()),
            None => Ok(word(text, None)),
            Some((name, port)) => match port.parse() {
                Ok(port) if port != 0 && !name.is_empty() => Ok(word(name, Some(port))),
                _ => Err(format!(
                    "\"{text}\": write SERVICE or SERVICE:PORT, with a port from 1 to 65535"
                )),
            },
        }
    }

    /// Whether this means a server and a port.
    fn is(&self, server: &Name, port: u16) -> bool {
        server.is_called(&self.name) && self.port.is_none_or(|wanted| wanted == port)
    }
}

// === impl Wanted ===

impl Wanted {
    /// What two words mean, of which the second may be missing, or both.
    pub(super) fn of(first: Option<&str>, second: Option<&str>) -> Result<Self, String> {
        match (first, second) {
            (None, _) => Ok(Self::Worst),
            (Some(one), None) => {
                let word = Word::parse(one)?;
                Ok(if word.port.is_some() { Self::Server(word) } else { Self::Both(word.name) })
            }
            (Some(client), Some(server)) => {
                let client = Word::parse(client)?;
                if client.port.is_some() {
                    return Err(format!(
                        "{}: a client has no port; name the server second",
                        client.name
                    ));
                }
                Ok(Self::Between(client.name, Word::parse(server)?))
            }
        }
    }

    /// Whether a pair is meant.
    pub(super) fn admits(&self, pair: &Pair) -> bool {
        let is_client =
            |name: &str| pair.client.as_ref().is_some_and(|client| client.is_called(name));
        match self {
            Self::Worst => true,
            Self::Both(name) => pair.server.is_called(name) || is_client(name),
            Self::Server(server) => server.is(&pair.server, pair.port),
            Self::Between(client, server) => {
                is_client(client) && server.is(&pair.server, pair.port)
            }
        }
    }

    /// The server that was named with its port, and the client: they can be probed without traffic.
    pub(super) fn endpoint(&self) -> Option<(Option<&str>, &str, Option<u16>)> {
        match self {
            Self::Worst | Self::Both(_) => None,
            Self::Server(Word { name, port }) => Some((None, name, *port)),
            Self::Between(client, Word { name, port }) => Some((Some(client), name, *port)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_services_with_ports() {
        let check = |text: &str, name: &str, port| {
            let expected = Word { name: name.to_owned(), port };
            assert_eq!(Word::parse(text), Ok(expected), "{text}");
        };
        check("ports", "ports", None);
        check("catalog.js:3002", "catalog.js", Some(3002));
        check("prod/shop:80", "prod/shop", Some(80));
        check("10.0.0.1:5432", "10.0.0.1", Some(5432));
        check("fd00::1", "fd00::1", None);
        check("[fd00::1]:80", "fd00::1", Some(80));
        for text in ["", ":80", "db:0", "db:70000", "db:x"] {
            assert!(Word::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_mean_pairs() {
        let pair = Pair {
            client: Some(Name::new("", "gateway")),
            server: Name::new("prod", "catalog"),
            port: 3002,
        };
        let check = |first, second, expected| {
            let wanted = Wanted::of(first, second).expect("valid");
            assert_eq!(wanted.admits(&pair), expected, "{first:?} {second:?}");
        };
        check(None, None, true);
        check(Some("catalog"), None, true);
        check(Some("gateway"), None, true);
        check(Some("users"), None, false);
        check(Some("catalog:3002"), None, true);
        check(Some("catalog:80"), None, false);
        check(Some("gateway"), Some("prod/catalog"), true);
        check(Some("gateway"), Some("catalog:3002"), true);
        check(Some("gateway"), Some("test/catalog"), false);
        check(Some("catalog"), Some("gateway"), false);
        assert!(Wanted::of(Some("gateway:80"), Some("catalog")).is_err());
    }
}
