//! The address of an agent.

use std::fmt;

use http::Uri;

use crate::Error;

/// The agent's port, for an address without scheme and port.
const AGENT_PORT: u16 = 10062;

/// A checked `http://` or `https://` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) is_https: bool,
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The path before the agent's own paths, without a slash at the end.
    pub(crate) prefix: String,
}

// === impl Url ===

impl Url {
    /// `http://HOST:PORT/PREFIX`; without a scheme it is http and the agent's port.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Url { url: without_password(text), why: why.to_owned() };
        let invalid = || wrong("write it like http://127.0.0.1:10062");
        let (whole, default) = if text.contains("://") {
            (text.to_owned(), None)
        } else {
            (format!("http://{text}"), Some(AGENT_PORT))
        };
        let uri: Uri = whole.parse().map_err(|_| invalid())?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("use http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(invalid)?;
        if authority.as_str().contains('@') {
            return Err(wrong("set user and password with --user and --password-file"));
        }
        if uri.query().is_some() {
            return Err(wrong("remove the query"));
        }
        let host = authority.host();
        // "host:" and "host:70000" have no port that http would read.
        let has_port = authority.as_str().len() > host.len();
        let port = match authority.port_u16() {
            Some(port) if port != 0 => port,
            None if !has_port => default.unwrap_or(if is_https { 443 } else { 80 }),
            _ => return Err(wrong("the port must be a number from 1 to 65535")),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(invalid());
        }
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { is_https, host, port, prefix })
    }

    /// `HOST:PORT`, as the `Host` header has it.
    pub(crate) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

/// A URL for messages, without secrets, because it may be logged.
fn without_password(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            let separator = if scheme.is_empty() { "" } else { "://" };
            format!("{scheme}{separator}(hidden)@{host}")
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_host_and_a_port_that_may_be_left_out() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Url::parse(text).expect(text).to_string(), expected);
        };
        check("http://127.0.0.1:10062", "http://127.0.0.1:10062");
        check("http://127.0.0.1:10062/", "http://127.0.0.1:10062");
        check("http://[::1]:10062/", "http://[::1]:10062");
        check("https://agent.example", "https://agent.example:443");
        check("http://agent.example", "http://agent.example:80");
        check("https://proxy.example/node-7/", "https://proxy.example:443/node-7");
        check("localhost", "http://localhost:10062");
        check("host:1/behind/a/proxy/", "http://host:1/behind/a/proxy");
    }

    #[test]
    fn mistakes_are_named_with_the_fix_and_without_the_password() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Url::parse(text).expect_err(text).to_string(), expected);
        };
        check("", "invalid URL \"\": write it like http://127.0.0.1:10062");
        check("http://", "invalid URL \"http://\": write it like http://127.0.0.1:10062");
        check("ftp://host", "invalid URL \"ftp://host\": use http:// or https://");
        check(
            "http://host:70000",
            "invalid URL \"http://host:70000\": the port must be a number from 1 to 65535",
        );
        check("host:0", "invalid URL \"host:0\": the port must be a number from 1 to 65535");
        check(
            "https://ann:sesame@host",
            "invalid URL \"https://(hidden)@host\": set user and password with --user and --password-file",
        );
        check("http://host/?a=b", "invalid URL \"http://host/?a=b\": remove the query");
    }
}
