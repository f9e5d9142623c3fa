//! `--window` and service names in the form of the API.

use std::fmt::Write as _;
use std::time::Duration;

use api_types::WindowLength;
use notation::duration;

/// A time up to now: `90s`, `5m`. In seconds.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let longest = Duration::from_secs(WindowLength::LONGEST_SECONDS);
    let span = duration::parse(text).ok_or_else(|| format!("write {}", duration::FORM))?;
    if (Duration::from_secs(1)..=longest).contains(&span) {
        Ok(span.as_secs())
    } else {
        Err(format!("choose between 1s and {}", duration::text(longest)))
    }
}

/// The query of a path.
pub(super) fn query(window: Option<u64>, services: &[String]) -> String {
    let window = window.map(|seconds| format!("window={seconds}"));
    let services = (!services.is_empty()).then(|| format!("service={}", encoded(services)));
    let parts: Vec<String> = window.into_iter().chain(services).collect();
    if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
}

/// Names with commas between them, safe in a query.
fn encoded(services: &[String]) -> String {
    let mut text = String::new();
    for byte in services.join(",").bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~,/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_have_a_unit_and_a_limit() {
        assert_eq!(parse("60s"), Ok(60));
        assert_eq!(parse("5m"), Ok(300));
        for text in ["60", "m", "", "99999999999999999999s"] {
            assert!(parse(text).expect_err("refused").starts_with("write a number with a unit"));
        }
        for text in ["6m", "0s", "1h", "10ms"] {
            assert_eq!(parse(text).expect_err("refused"), "choose between 1s and 5m", "{text}");
        }
    }

    #[test]
    fn queries_are_safe() {
        assert_eq!(query(None, &[]), "");
        assert_eq!(query(Some(60), &[]), "?window=60");
        assert_eq!(
            query(Some(60), &["prod/api".into(), "a b&c".into()]),
            "?window=60&service=prod/api,a%20b%26c"
        );
    }
}
