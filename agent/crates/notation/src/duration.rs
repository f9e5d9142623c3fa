//! Durations in text: `500ms`, `90s`, `15m`, `2h`, `7d`. The one grammar of the command line, the
//! configuration and the API.

use std::time::Duration;

/// How a duration is written, for messages.
pub const FORM: &str = "a number with a unit, like 500ms, 90s, 15m, 2h or 7d";

/// Units, shortest first, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A whole number and its unit.
pub fn parse(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(*factor)?))
}

/// As [`parse`] reads it, in the longest unit that fits; less than a millisecond is cut off.
pub fn text(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let fits = |(_, factor): &&(&str, u64)| {
        milliseconds >= *factor && milliseconds.is_multiple_of(*factor)
    };
    match UNITS.iter().rev().find(fits) {
        Some((unit, factor)) => format!("{}{unit}", milliseconds / factor),
        None => "0s".to_owned(),
    }
}

/// A time span in its largest unit.
pub fn ago(seconds: f64) -> String {
    const UNITS: [(f64, &str); 4] =
        [(86_400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second")];
    for (length, unit) in UNITS {
        let number = (seconds / length).floor();
        if number >= 1.0 {
            return format!("{number} {unit}{}", if number >= 2.0 { "s" } else { "" });
        }
    }
    "less than a second".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_the_same() {
        for (written, milliseconds) in [
            ("500ms", 500),
            ("90s", 90_000),
            ("15m", 900_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
        ] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse(written), Some(duration), "{written}");
            assert_eq!(text(duration), written);
        }
        assert_eq!(parse("60 s"), Some(Duration::from_mins(1)));
        assert_eq!(text(Duration::from_mins(2)), "2m");
        assert_eq!(text(Duration::ZERO), "0s");
        assert_eq!(text(Duration::from_micros(1)), "0s");
    }

    #[test]
    fn what_has_no_unit_or_is_too_long_is_refused() {
        for wrong in [
            "",
            "5",
            "s",
            "1w",
            "1h30m",
            "-1s",
            "+1s",
            "1.5s",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn time_spans_have_one_unit() {
        let check = |seconds: f64, expected| assert_eq!(ago(seconds), expected);
        check(0.2, "less than a second");
        check(1.9, "1 second");
        check(119.0, "1 minute");
        check(7200.0, "2 hours");
        check(90_000.0, "1 day");
    }
}
