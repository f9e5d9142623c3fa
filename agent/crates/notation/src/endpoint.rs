//! Endpoints of services that are registered by hand.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::text::in_text;

/// Where a registered service is: `10.1.2.3:443`, `10.9.0.0/16`, `10.9.0.0/16:5432`, or a port on
/// any address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Endpoint {
    /// Its addresses; `None` is any.
    pub network: Option<IpNet>,
    /// Its port; `None` is any. At least one of both is there.
    pub port: Option<u16>,
}

// === impl Endpoint ===

impl Endpoint {
    /// The canonical form: no bits after the prefix.
    #[must_use]
    pub fn canonical(self) -> Self {
        Self { network: self.network.map(|network| network.trunc()), ..self }
    }

    /// The one address and port that it is, if it is one.
    #[must_use]
    pub fn socket(&self) -> Option<SocketAddr> {
        let (network, port) = (self.network?, self.port?);
        let is_one = network.prefix_len() == network.max_prefix_len();
        is_one.then(|| SocketAddr::new(network.addr(), port))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |network: &IpNet| network.prefix_len() == network.max_prefix_len();
        match (&self.network, self.port) {
            (None, None) => f.write_str("any"),
            (None, Some(port)) => write!(f, "{port}"),
            (Some(network), None) if whole(network) => write!(f, "{}", network.addr()),
            (Some(network), None) => write!(f, "{network}"),
            (Some(IpNet::V6(network)), Some(port)) if whole(&IpNet::V6(*network)) => {
                write!(f, "[{}]:{port}", network.addr())
            }
            (Some(IpNet::V6(network)), Some(port)) => write!(f, "[{network}]:{port}"),
            (Some(network), Some(port)) if whole(network) => {
                write!(f, "{}:{port}", network.addr())
            }
            (Some(network), Some(port)) => write!(f, "{network}:{port}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{text}\" is not an endpoint; write an address, a network or a port, like 10.1.2.3:443, [fd00::1]:443, 10.1.2.3, 10.9.0.0/16, 10.9.0.0/16:5432 or 9042"
            )
        };
        let port = |text: &str| text.parse().ok().filter(|port: &u16| *port > 0);
        if let Some(port) = port(text) {
            return Ok(Self { network: None, port: Some(port) });
        }
        if let Some(network) = network(text) {
            return Ok(Self { network: Some(network), port: None }.canonical());
        }
        let (host, number) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        // Without brackets the end of an IPv6 address would be ambiguous.
        let network = match bare {
            Some(host) => network(host).filter(|network| network.addr().is_ipv6()),
            None => network(host).filter(|network| network.addr().is_ipv4()),
        };
        match (network, port(number)) {
            (Some(network), Some(port)) => {
                Ok(Self { network: Some(network), port: Some(port) }.canonical())
            }
            _ => Err(wrong()),
        }
    }
}

in_text!(Endpoint);

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn endpoints_are_parsed_or_refused() {
        let check = |text: &str, expected: Option<&str>| {
            let read = text.parse::<Endpoint>().ok().map(|endpoint| endpoint.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        };
        check("10.1.2.3:443", Some("10.1.2.3:443"));
        check("10.1.2.3", Some("10.1.2.3"));
        check("10.9.8.7/16", Some("10.9.0.0/16"));
        check("10.9.0.0/16:5432", Some("10.9.0.0/16:5432"));
        check("[fd00::1]:443", Some("[fd00::1]:443"));
        check("[fd00::/8]:443", Some("[fd00::/8]:443"));
        check("fd00::1", Some("fd00::1"));
        check("9042", Some("9042"));
        for wrong in ["", "0", "70000", "db:5432", "10.1.2.3:0", "10.1.2.3:", ":80", "10.0.0.0/33"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn one_address_with_a_port_is_a_socket() {
        let check = |text: &str, is_one: bool| {
            let socket = text.parse::<Endpoint>().expect(text).socket();
            assert_eq!(socket, is_one.then(|| text.parse().expect("a socket address")), "{text}");
        };
        check("10.1.2.3:443", true);
        check("[fd00::1]:443", true);
        for other in ["10.1.2.3", "10.9.0.0/16:5432", "9042", "fd00::1"] {
            check(other, false);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_the_same(
            bits: u128, v4: bool, length in 0u8..=128, port in proptest::option::of(1u16..),
        ) {
            let network = if v4 {
                IpNet::new(IpAddr::from((bits as u32).to_be_bytes()), length % 33)
            } else {
                IpNet::new(IpAddr::from(bits.to_be_bytes()), length)
            };
            let endpoint = Endpoint { network: network.ok(), port }.canonical();
            prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
    }
}
