//! Timestamps as written by operators: `2026-12-01T10:00:00Z`, `2026-12-01`, or `2h` from now.
//!
//! Only UTC, only whole seconds since the Unix epoch: without a time zone there is no ambiguity, and
//! a stored timestamp means the same on every host.

use notation::duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Days from 1 March of the year 0 to the Unix epoch, in the Gregorian calendar.
const EPOCH: u64 = 719_468;
/// Days in 400 years: after them the calendar repeats.
const ERA: u64 = 146_097;

/// The last second of the year 9999: later times have no RFC 3339 form.
const LAST: u64 = 253_402_300_799;

/// Parses a calendar time, or a duration after `now`.
pub fn parse(text: &str, now: u64) -> Result<u64, String> {
    let from_now = duration::parse(text).and_then(|span| now.checked_add(span.as_secs()));
    let timestamp = from_now.or_else(|| absolute(text));
    timestamp.filter(|timestamp| *timestamp <= LAST).ok_or_else(|| {
        format!(
            "invalid time \"{text}\": write a time in UTC like 2026-12-01T10:00:00Z or 2026-12-01, or how long from now, like 30m, 2h or 7d"
        )
    })
}

/// Parses a calendar time: midnight of a date, or a time followed by `Z`.
pub fn absolute(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, clock(time.strip_suffix('Z')?)?),
        None => (text, 0),
    };
    let mut parts = date.split('-');
    let (year, month, day) =
        (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let fits = parts.next().is_none() && year >= 1970 && (1..=12).contains(&month);
    if !fits || day == 0 || day > days_of(year, month) {
        return None;
    }
    // A year that begins with March has its leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + of_year;
    Some((days - EPOCH) * DAY + time)
}

/// As [`absolute`] reads it.
pub fn rfc3339(seconds: u64) -> String {
    let days = seconds / DAY + EPOCH;
    let (era, of_era) = (days / ERA, days % ERA);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / (ERA - 1)) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let time = seconds % DAY;
    let (hour, minute, second) = (time / HOUR, time % HOUR / MINUTE, time % MINUTE);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `10:00:00`
fn clock(text: &str) -> Option<u64> {
    let mut parts = text.split(':').map(|part| digits(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let fits = parts.next().is_none() && hour < 24 && minute < 60 && second < 60;
    fits.then_some(hour * HOUR + minute * MINUTE + second)
}

fn digits(text: &str, length: usize) -> Option<u64> {
    let plain = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn days_of(year: u64, month: u64) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn timestamps_are_parsed_or_refused() {
        let check = |text, expected| assert_eq!(parse(text, 1000).ok(), expected, "{text}");
        check("1970-01-01", Some(0));
        check("1970-01-01T00:00:01Z", Some(1));
        check("2000-02-29", Some(951_782_400));
        check("2026-12-01T10:00:00Z", Some(1_796_119_200));
        check("90s", Some(1090));
        check("30m", Some(2800));
        check("2h", Some(8200));
        check("7d", Some(605_800));
        for wrong in [
            "",
            "s",
            "2",
            "+2h",
            "2w",
            "1969-12-31",
            "2026-13-01",
            "2026-02-29",
            "2026-04-31",
            "2026-1-1",
            "2026-12-01T10:00:00",
            "2026-12-01T24:00:00Z",
            "2026-12-01 10:00",
            "2026-12-01-01",
            // After the year 9999.
            "2932897d",
            "99999999999999999999d",
            "18446744073709551615s",
            "ä",
        ] {
            check(wrong, None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(seconds in 0u64..253_402_300_800) {
            prop_assert_eq!(absolute(&rfc3339(seconds)), Some(seconds));
        }

        #[test]
        fn later_is_written_later(seconds in 0u64..253_402_300_799) {
            prop_assert!(rfc3339(seconds) < rfc3339(seconds + 1));
        }

        #[test]
        fn no_text_panics(text in "\\PC*", now: u64) {
            let _ = parse(&text, now);
        }
    }
}
