//! Numbers and names in a readable form.

use std::net::SocketAddr;

use api_types::Latency;

/// Names beyond this length are shortened where no terminal limits them further.
pub const LONGEST_NAME: usize = 64;

/// A service with its namespace, if it has one.
pub fn full_name(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// A service with a port, as sockets are written.
pub fn endpoint(namespace: &str, name: &str, port: u16) -> String {
    match name.parse() {
        Ok(address) if namespace.is_empty() => SocketAddr::new(address, port).to_string(),
        _ => format!("{}:{port}", full_name(namespace, name)),
    }
}

/// A text that is too long, without its middle: `…` stands for what is left out.
pub fn shortened(text: &str, longest: usize) -> String {
    let length = text.chars().count();
    if length <= longest {
        return text.to_owned();
    }
    // The beginning of a name says more than its end.
    let tail = longest.saturating_sub(1) / 2;
    let head = longest.saturating_sub(1) - tail;
    let begin = text.chars().take(head);
    begin.chain(['…']).chain(text.chars().skip(length - tail)).collect()
}

/// A name as people can read it in a line; JSON has all of it.
pub fn readable(name: &str) -> String {
    shortened(name, LONGEST_NAME)
}

/// A count with its noun in the right number.
pub fn counted(n: u64, one: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {one}{plural}", count(n))
}

/// A count: exact up to five digits, then with a suffix.
pub fn count(n: u64) -> String {
    if n < 100_000 {
        n.to_string()
    } else {
        scaled(n as f64, &["", "k", "M", "G", "T", "P", "E"], "")
    }
}

/// A size in decimal units.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], " ")
}

/// A duration with three digits.
pub fn duration(seconds: f64) -> String {
    let (value, unit) = if seconds < 1e-3 {
        (seconds * 1e6, "µs")
    } else if seconds < 1.0 {
        (seconds * 1e3, "ms")
    } else {
        (seconds, "s")
    };
    format!("{} {unit}", three_digits(value))
}

/// A quantile, if anything was measured.
pub fn quantile(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(longest) if longest >= Latency::LONGEST_SECONDS => format!("> {}", duration(longest)),
        Some(seconds) => duration(seconds),
    }
}

/// A number per second.
pub fn rate(per_second: f64) -> String {
    scaled(per_second, &["", "k", "M", "G"], "")
}

/// A share, with one decimal where it matters.
pub fn percent(part: f64) -> String {
    let text = format!("{:.1}", part * 100.0);
    format!("{}%", text.strip_suffix(".0").unwrap_or(&text))
}

/// A time span, coarsely.
pub fn span(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.0} h", s / 3600.0),
    }
}

/// Divides by a thousand until the number is short.
fn scaled(value: f64, units: &[&str], space: &str) -> String {
    let mut value = value;
    let mut unit = "";
    for (i, next) in units.iter().enumerate() {
        if i > 0 {
            value /= 1000.0;
        }
        unit = next;
        // 999.5 would be written as "1000".
        if value < 999.5 {
            break;
        }
    }
    format!("{}{space}{unit}", three_digits(value))
}

fn three_digits(value: f64) -> String {
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_while_short() {
        let check = |n, expected| assert_eq!(count(n), expected);
        check(0, "0");
        check(99_999, "99999");
        check(100_000, "100k");
        check(123_456_789, "123M");
        check(999_999, "1M");
    }

    #[test]
    fn rates_parts_and_spans_are_short() {
        assert_eq!((rate(0.05).as_str(), rate(1234.5).as_str()), ("0.05", "1.23k"));
        assert_eq!((percent(0.5).as_str(), percent(1.0 / 11.0).as_str()), ("50%", "9.1%"));
        assert_eq!((span(90.4).as_str(), span(600.0).as_str()), ("90 s", "10 min"));
        assert_eq!(span(86_400.0), "24 h");
    }

    #[test]
    fn endpoints_are_written_as_sockets_and_counts_agree_with_their_noun() {
        assert_eq!(endpoint("prod", "db", 5432), "prod/db:5432");
        assert_eq!(endpoint("", "2001:db8::1", 80), "[2001:db8::1]:80");
        assert_eq!(endpoint("", "192.0.2.1", 80), "192.0.2.1:80");
        assert_eq!(
            (counted(1, "reset").as_str(), counted(2, "reset").as_str()),
            ("1 reset", "2 resets")
        );
    }

    #[test]
    fn a_long_name_loses_its_middle_and_says_so() {
        let check = |text: &str, longest, expected: &str| {
            assert_eq!(shortened(text, longest), expected);
            assert!(expected.chars().count() <= longest);
        };
        check("postgres", 8, "postgres");
        check("postgresql", 8, "post…sql");
        check("größenwahn", 9, "größ…wahn");
        check("abc", 1, "…");
        assert_eq!(readable(&"a".repeat(255)).chars().count(), LONGEST_NAME);
    }

    #[test]
    fn sizes_are_decimal() {
        let check = |n, expected| assert_eq!(bytes(n), expected);
        check(0, "0 B");
        check(999, "999 B");
        check(1_000, "1 kB");
        check(7_654_321, "7.65 MB");
        check(u64::MAX, "18.4 EB");
    }

    #[test]
    fn a_quantile_beyond_the_last_bound_is_no_exact_time() {
        let check = |seconds, expected| assert_eq!(quantile(seconds), expected);
        check(None, "-");
        check(Some(9.9), "9.9 s");
        check(Some(10.0), "> 10 s");
    }

    #[test]
    fn durations_have_three_digits() {
        let check = |seconds, expected| assert_eq!(duration(seconds), expected);
        check(0.000_04, "40 µs");
        check(0.000_999, "999 µs");
        check(0.0012, "1.2 ms");
        check(0.05, "50 ms");
        check(3.0, "3 s");
        check(100.0, "100 s");
    }
}
