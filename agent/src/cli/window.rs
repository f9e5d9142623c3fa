//! `--window` and names of services, as the API wants them.

use std::fmt::Write as _;

use model::map::Graph;

/// A time span up to now: `90s`, `5m`.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let longest = Graph::LONGEST_WINDOW;
    let wrong =
        || format!("write a number with a unit, from 1s to {}m, like 60s or 5m", longest / 60);
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => Some(number),
        "m" => number.checked_mul(60),
        _ => None,
    };
    seconds.filter(|seconds| (1..=longest).contains(seconds)).ok_or_else(wrong)
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
        for text in ["60", "6m", "0s", "m", "", "1h", "99999999999999999999s"] {
            assert!(parse(text).expect_err("refused").contains("like 60s or 5m"), "{text}");
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
