//! Texts on their way into a configuration: they hold no character that means something in any
//! target, so that nothing has to be quoted and nothing breaks out.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Address {
    /// By address.
    Socket(SocketAddr),
    /// By a name that the balancer resolves.
    Name(String, u16),
}

// === impl Address ===

impl Address {
    /// The host and the port apart, the host without brackets.
    pub(super) fn parts(&self) -> (String, u16) {
        match self {
            Self::Socket(socket) => (socket.ip().to_string(), socket.port()),
            Self::Name(name, port) => (name.clone(), *port),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => socket.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not the address of a backend; write ADDRESS:PORT or NAME:PORT, like 10.1.2.3:8080, [fd00::1]:8080 or api.internal:8080"
            )
        };
        if let Ok(socket) = text.parse::<SocketAddr>() {
            let is_one = !socket.ip().is_unspecified() && socket.port() > 0;
            return if is_one { Ok(Self::Socket(socket)) } else { Err(wrong()) };
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port: &u16| *port > 0).ok_or_else(wrong)?;
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        // All digits: a mistyped address.
        let is_name = name.len() <= 253
            && name.split('.').all(is_label)
            && name.bytes().any(|byte| byte.is_ascii_alphabetic());
        if is_name { Ok(Self::Name(name.to_owned(), port)) } else { Err(wrong()) }
    }
}

/// A name that means nothing else in any of the targets.
pub(super) fn name(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    if begins && text.len() <= 64 && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} is not a name; write up to 64 letters, digits, - and _, a letter first, like shop-api"
        ))
    }
}

/// A path of HTTP that means nothing else in any of the targets.
pub(super) fn path(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~?&=%+,:@".contains(&byte);
    if text.starts_with('/') && text.len() <= 1024 && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a path to request; write one like /healthz?full=1"))
    }
}

/// An absolute path of a file that needs no quotes anywhere.
pub(super) fn file(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._+@".contains(&byte);
    if text.starts_with('/') && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} is not a file that every balancer can be given; write an absolute path of letters, digits and / - . _ + @"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_parsed_or_refused_with_an_example() {
        for text in ["10.1.2.3:80", "[fd00::1]:8080", "api.internal:8080", "api_1:80"] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        for text in [
            "",
            "10.1.2.3",
            "10.1.2.300:80",
            "0.0.0.0:80",
            "a b:80",
            "a;b:80",
            "api:0",
            ":80",
            "a..b:1",
        ] {
            let why = text.parse::<Address>().expect_err(text);
            assert!(why.contains("like 10.1.2.3:8080"), "{why}");
        }
    }

    proptest! {
        /// Nothing that a source hands on can end a directive, a line or a quote of a target.
        #[test]
        fn no_text_breaks_out_of_a_configuration(text in "\\PC{0,40}|[/a-z \\n\"'{};#$`\\\\]{0,20}") {
            let harmless = |text: &str| !text.contains(|c: char| {
                c.is_whitespace() || c.is_control() || "\"'{};#$`\\<>|!*".contains(c)
            });
            for checked in [name(&text), path(&text), file(&text)] {
                prop_assert!(checked.as_deref().map_or(true, harmless));
            }
            if let Ok(address) = text.parse::<Address>() {
                prop_assert!(harmless(&address.to_string()));
            }
        }
    }
}
