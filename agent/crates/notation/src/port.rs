//! Ports in text: `5432`, `8125/udp`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of a protocol; never port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// Its number, 1 to 65535.
    pub number: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// The number of the protocol (include/uapi/linux/in.h).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// The protocol with this number (include/uapi/linux/in.h).
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl Port {
    /// A TCP port.
    pub const fn tcp(number: u16) -> Self {
        Self { number, protocol: Protocol::Tcp }
    }

    /// A UDP port.
    pub const fn udp(number: u16) -> Self {
        Self { number, protocol: Protocol::Udp }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol.as_str())
    }
}

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = Protocol::ALL.into_iter().find(|one| one.as_str() == protocol);
        match (number.parse(), protocol) {
            (Ok(number @ 1..), Some(protocol)) => Ok(Self { number, protocol }),
            _ => Err(format!(
                "\"{text}\" is not a port; write a number from 1 to 65535, followed by /udp if it is not TCP, like 5432 or 8125/udp"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_written_or_refused_with_the_fix() {
        let check = |text: &str, expected: Option<Port>| {
            assert_eq!(text.parse::<Port>().ok(), expected, "{text}");
        };
        check("5432", Some(Port::tcp(5432)));
        check("5432/tcp", Some(Port::tcp(5432)));
        check("8125/udp", Some(Port::udp(8125)));
        check("65535", Some(Port::tcp(65535)));
        for wrong in ["", "0", "65536", "-1", "http", "80/", "80/sctp", "80/TCP", "/udp", "80 "] {
            check(wrong, None);
        }
        let error = "80/sctp".parse::<Port>().expect_err("refused");
        assert!(error.contains("80/sctp") && error.contains("like 5432 or 8125/udp"), "{error}");
        assert_eq!(Port::udp(53).to_string().parse(), Ok(Port::udp(53)));
    }
}
