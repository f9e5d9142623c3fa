//! Points in time (RFC 3339, UTC), and the window that numbers are of.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

/// A point in time: `2026-12-01T10:00:00.5Z`, exact to the microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Timestamp(jiff::Timestamp);

/// The time that numbers are of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Window {
    /// Its begin.
    pub since: Timestamp,
    /// Its end.
    pub until: Timestamp,
    /// Its length.
    pub seconds: f64,
}

/// The window that a query asks for: `60`, `60s`, `5m`; or `start`, all the time since the agent
/// started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum WindowChoice {
    /// The last seconds, 1 to [`WindowChoice::LONGEST_SECONDS`].
    Last(u64),
    /// Since the agent started.
    Start,
}

// === impl Timestamp ===

impl Timestamp {
    /// From seconds since the Unix epoch. Values outside the calendar become the nearest one in it.
    pub fn from_seconds(seconds: f64) -> Self {
        let limits = (jiff::Timestamp::MIN.as_microsecond(), jiff::Timestamp::MAX.as_microsecond());
        // `as` saturates, and turns NaN into 0.
        #[expect(clippy::cast_possible_truncation, reason = "saturates, which is wanted")]
        let microseconds = ((seconds * 1e6).round() as i64).clamp(limits.0, limits.1);
        Self(jiff::Timestamp::from_microsecond(microseconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
    }

    /// Seconds since the Unix epoch.
    pub fn seconds(self) -> f64 {
        self.0.as_microsecond() as f64 / 1e6
    }

    /// Seconds from `earlier` to this; negative if it is later.
    pub fn seconds_since(self, earlier: Self) -> f64 {
        (self.0.as_microsecond() - earlier.0.as_microsecond()) as f64 / 1e6
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time: jiff::Timestamp = text.parse().map_err(|_| {
            format!("\"{text}\" is not a time; write it in RFC 3339, like 2026-12-01T10:00:00Z")
        })?;
        Ok(Self::from_seconds(time.as_microsecond() as f64 / 1e6))
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("A point in time in UTC (RFC 3339)."))
            .into()
    }
}

impl ToSchema for Timestamp {}

// === impl Window ===

impl Window {
    /// The `seconds` before `until`.
    pub fn before(until: Timestamp, seconds: f64) -> Self {
        Self { since: Timestamp::from_seconds(until.seconds() - seconds), until, seconds }
    }
}

// === impl WindowChoice ===

impl WindowChoice {
    /// The longest that an agent can answer for, besides all of its time.
    pub const LONGEST_SECONDS: u64 = 300;

    /// The form of a choice, for error messages.
    pub const FORM: &'static str = "a duration from 1s to 5m, or start";

    /// The seconds up to now; `None` since the start.
    pub const fn seconds(self) -> Option<u64> {
        match self {
            Self::Last(seconds) => Some(seconds),
            Self::Start => None,
        }
    }
}

impl FromStr for WindowChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "start" {
            return Ok(Self::Start);
        }
        let duration = || {
            let duration = notation::duration::parse(text)?;
            (duration.subsec_nanos() == 0).then_some(duration.as_secs())
        };
        let seconds = text.parse::<u64>().ok().or_else(duration);
        match seconds.filter(|seconds| (1..=Self::LONGEST_SECONDS).contains(seconds)) {
            Some(seconds) => Ok(Self::Last(seconds)),
            None => Err(format!("\"{text}\" is not a window; write {}", Self::FORM)),
        }
    }
}

impl TryFrom<String> for WindowChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for WindowChoice {
    /// As a query writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last(seconds) => write!(f, "{seconds}"),
            Self::Start => f.write_str("start"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_a_length_that_is_kept_or_begins_at_the_start() {
        let check = |text: &str, expected: WindowChoice| {
            assert_eq!(text.parse(), Ok(expected), "{text}");
            assert_eq!(expected.to_string().parse(), Ok(expected), "{text}");
        };
        check("10s", WindowChoice::Last(10));
        check("60", WindowChoice::Last(60));
        check("5m", WindowChoice::Last(300));
        check("start", WindowChoice::Start);
        for text in ["0", "301", "6m", "1h", "10ms", "1m 30s", "5x", "Start", "", "-1"] {
            let error = text.parse::<WindowChoice>().expect_err(text);
            assert!(error.ends_with("write a duration from 1s to 5m, or start"), "{error}");
        }
    }

    #[test]
    fn times_are_written_in_rfc_3339_and_read_back() {
        let check = |seconds: f64, text: &str| {
            let time = Timestamp::from_seconds(seconds);
            assert_eq!(time.to_string(), text);
            assert_eq!(text.parse(), Ok(time));
        };
        check(0.0, "1970-01-01T00:00:00Z");
        check(1_700_000_100.5, "2023-11-14T22:15:00.5Z");
        check(1_700_000_100.123_456, "2023-11-14T22:15:00.123456Z");
        assert_eq!(
            "2023-11-14T23:15:00+01:00".parse(),
            "2023-11-14T22:15:00Z".parse::<Timestamp>()
        );
        for text in ["", "yesterday", "2023-11-14", "2023-13-14T00:00:00Z"] {
            let error = text.parse::<Timestamp>().expect_err(text);
            assert!(error.contains("like 2026-12-01T10:00:00Z"), "{error}");
        }
    }

    #[test]
    fn seconds_that_no_calendar_has_do_no_harm() {
        for seconds in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300] {
            let time = Timestamp::from_seconds(seconds);
            assert_eq!(time.to_string().parse(), Ok(time), "{seconds}");
        }
    }
}
