//! `--window`, and service names in the form of the API.

use std::fmt::Write as _;

use api_types::{Timestamp, Window, WindowChoice};
use clap::Args;
use notation::duration;

use super::human;

/// The windows that help and footers name.
pub(super) const CHOICES: &str = "10s|1m|5m|start";

/// The time that numbers are of.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Over {
    /// Time that the numbers cover: 10s, 1m, 5m (at most), or start, since the agent started.
    #[arg(long, value_name = "WINDOW", default_value = "1m", value_parser = parse)]
    pub window: WindowChoice,
}

/// A time up to now: `90s`, `5m`; or `start`.
pub fn parse(text: &str) -> Result<WindowChoice, String> {
    let unit = text == "start" || duration::parse(text).is_some();
    let choice = text.parse().ok().filter(|_| unit);
    choice.ok_or_else(|| format!("write {}", WindowChoice::FORM))
}

/// The query of a path.
pub(super) fn query(window: WindowChoice, services: &[String]) -> String {
    let services = (!services.is_empty()).then(|| format!("&service={}", encoded(services)));
    format!("?window={window}{}", services.unwrap_or_default())
}

/// What the numbers of an answer are of, for people.
pub fn covered(window: &Window, choice: WindowChoice) -> String {
    match choice {
        WindowChoice::Last(_) => format!("last {}", human::span(window.seconds)),
        WindowChoice::Start => {
            let since = Timestamp::from_seconds(window.since.seconds().floor());
            format!("totals since {since} ({} ago)", duration::ago(window.seconds))
        }
    }
}

/// Names with commas between them, safe in a query.
pub(super) fn encoded(services: &[String]) -> String {
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
    fn windows_have_a_unit_and_a_limit_or_begin_at_the_start() {
        assert_eq!(parse("60s"), Ok(WindowChoice::Last(60)));
        assert_eq!(parse("5m"), Ok(WindowChoice::Last(300)));
        assert_eq!(parse("start"), Ok(WindowChoice::Start));
        for text in ["60", "m", "", "99999999999999999999s", "6m", "0s", "1h", "10ms"] {
            let error = parse(text).expect_err("refused");
            assert_eq!(error, "write a duration from 1s to 5m, or start", "{text}");
        }
        for choice in CHOICES.split('|') {
            assert!(parse(choice).is_ok(), "{choice}");
        }
    }

    #[test]
    fn queries_are_safe() {
        assert_eq!(query(WindowChoice::Start, &[]), "?window=start");
        assert_eq!(
            query(WindowChoice::Last(60), &["prod/api".into(), "a b&c".into()]),
            "?window=60&service=prod/api,a%20b%26c"
        );
    }
}
