//! How an address of a registered service is checked by `portolan services monitor`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::text::in_text;

/// Longest path of a check, bytes.
const LONGEST_PATH: usize = 256;
/// The path of `http` without one.
const ROOT: &str = "/";

/// How an address is checked: `tcp`, `http` or `http=/healthz`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Check {
    /// A connection is accepted.
    Tcp,
    /// `GET` of this path is answered with a status from 200 to 399.
    Http(Path),
}

/// The path of a request: no character in it ends a line or a word of HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(String);

// === impl Path ===

impl Path {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl Check ===

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Http(path) if path.as_str() == ROOT => f.write_str("http"),
            Self::Http(path) => write!(f, "http={}", path.as_str()),
        }
    }
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = match text.split_once('=') {
            None if text == "tcp" => return Ok(Self::Tcp),
            None if text == "http" => ROOT,
            Some(("http", path)) => path,
            _ => {
                return Err(format!("\"{text}\" is not a check; write tcp, http or http=/healthz"));
            }
        };
        let is_path = path.starts_with('/')
            && path.len() <= LONGEST_PATH
            && path.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_path {
            return Err(format!(
                "\"{path}\" is not a path to request; write one like http=/healthz, of at most {LONGEST_PATH} ASCII characters without spaces"
            ));
        }
        Ok(Self::Http(Path(path.to_owned())))
    }
}

in_text!(Check);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn checks_are_parsed_or_refused_with_the_fix() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let read = text.parse::<Check>();
            match expected {
                Ok(shown) => assert_eq!(read.expect(text).to_string(), shown),
                Err(why) => {
                    let error = read.expect_err(text);
                    assert!(error.contains(why), "{text}: {error}");
                }
            }
        };
        check("tcp", Ok("tcp"));
        check("http", Ok("http"));
        check("http=/", Ok("http"));
        check("http=/healthz?full=1", Ok("http=/healthz?full=1"));
        for wrong in ["", "TCP", "tcp=80", "https", "udp"] {
            check(wrong, Err("write tcp, http or http=/healthz"));
        }
        for wrong in ["http=", "http=healthz", "http=/a b", "http=/a\r\nHost: x", "http=/ä"] {
            check(wrong, Err("is not a path to request"));
        }
        check(&format!("http=/{}", "a".repeat(LONGEST_PATH)), Err("at most 256"));
    }

    proptest! {
        #[test]
        fn no_path_adds_a_line_to_a_request(text in "http=/?\\PC{0,40}|http=[/ \r\n\t\u{85}a]{0,20}") {
            if let Ok(check @ Check::Http(path)) = &text.parse::<Check>() {
                prop_assert!(path.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert_eq!(check.to_string().parse::<Check>(), Ok(check.clone()));
            }
        }
    }
}
