//! Names of services in text: `postgres`, or `shop/postgres` with a namespace.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::character::is_printable;
use super::text::in_text;

/// Bytes in a name at most.
const LONGEST: usize = 128;

/// A service by name, and by namespace if one was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct FullName {
    /// Where the name is unique; `None` admits every namespace.
    pub namespace: Option<Arc<str>>,
    /// The name.
    pub name: Arc<str>,
}

// === impl FullName ===

impl fmt::Display for FullName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl FromStr for FullName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |part: &str| {
            !part.is_empty() && part.chars().all(|c| !c.is_whitespace() && is_printable(c))
        };
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        let fits = text.len() <= LONGEST && !name.contains('/');
        if fits && plain(name) && namespace.is_none_or(plain) {
            Ok(Self { namespace: namespace.map(Into::into), name: name.into() })
        } else {
            Err(format!(
                "\"{text}\" is not a service name; write it as `portolan edges` shows it, like postgres or shop/postgres (no spaces, at most {LONGEST} bytes)"
            ))
        }
    }
}

in_text!(FullName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_written_or_refused() {
        for good in ["postgres", "shop/postgres", "server.js", "grüß", "[::1]:80"] {
            assert_eq!(good.parse::<FullName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        let long = "x".repeat(LONGEST + 1);
        for wrong in [
            "",
            "/",
            "a/",
            "/b",
            "a/b/c",
            "a b",
            "a\n",
            "a\u{7f}",
            "a\u{202e}",
            "a\u{200b}b",
            &long,
        ] {
            assert!(wrong.parse::<FullName>().is_err(), "{wrong:?}");
        }
    }
}
