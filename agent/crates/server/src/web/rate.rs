//! `rate_limit`: a token bucket for all requests of the endpoint, as exporter-toolkit has it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A bucket with at most `burst` tokens, to which each interval adds one. A request takes one.
#[derive(Debug)]
pub(super) struct RateLimit {
    interval: Duration,
    burst: u32,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Whole tokens at `since`.
    tokens: u32,
    since: Instant,
}

impl RateLimit {
    /// A full bucket.
    pub(super) fn new(interval: Duration, burst: u32, now: Instant) -> Self {
        Self { interval, burst, bucket: Mutex::new(Bucket { tokens: burst, since: now }) }
    }

    /// Takes a token, or says when there will be one.
    pub(super) fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let Bucket { tokens, since } = &mut *bucket;
        let intervals =
            now.saturating_duration_since(*since).as_nanos() / self.interval.as_nanos().max(1);
        match u32::try_from(intervals) {
            Ok(intervals) if intervals < self.burst.saturating_sub(*tokens) => {
                *tokens += intervals;
                *since += self.interval.saturating_mul(intervals);
            }
            // Full: the time goes on from here.
            _ => (*tokens, *since) = (self.burst, now),
        }
        match tokens.checked_sub(1) {
            Some(left) => {
                *tokens = left;
                Ok(())
            }
            None => Err(self.interval.saturating_sub(now.saturating_duration_since(*since))),
        }
    }
}

/// A duration as Go writes it (`1h2m3.5s`, `100ms`, or 0), in nanoseconds without a unit.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    if let Ok(nanoseconds) = text.parse() {
        return Some(Duration::from_nanos(nanoseconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(end)?;
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(end)?;
        let (_, nanoseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let seconds = number.parse::<f64>().ok()? * *nanoseconds as f64 / 1e9;
        total = total.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_answered_and_then_one_request_in_each_interval() {
        let (second, mut now) = (Duration::from_secs(1), Instant::now());
        let limit = RateLimit::new(second, 3, now);
        for _ in 0..3 {
            assert_eq!(limit.take(now), Ok(()));
        }
        assert_eq!(limit.take(now), Err(second));
        now += Duration::from_millis(400);
        assert_eq!(limit.take(now), Err(Duration::from_millis(600)));
        now += Duration::from_millis(700);
        assert_eq!(limit.take(now), Ok(()));
        assert_eq!(limit.take(now), Err(Duration::from_millis(900)), "100 ms were kept");
        now += second * 100;
        for _ in 0..3 {
            assert_eq!(limit.take(now), Ok(()), "never more than the burst");
        }
        assert!(limit.take(now).is_err());
        assert_eq!(RateLimit::new(second, 0, now).take(now + second * 9), Err(second));
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, milliseconds) in [
            ("0", 0),
            ("1s", 1000),
            ("1.5s", 1500),
            ("100ms", 100),
            ("1h2m3s", 3_723_000),
            ("1000000", 1),
            ("2000µs", 2),
        ] {
            assert_eq!(go_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in
            ["", "s", "1", "-1s", "1d", "1s1", "1 s", "1.2.3s", ".", "99999999999999999999h"]
        {
            let expected = (text == "1").then_some(Duration::from_nanos(1));
            assert_eq!(go_duration(text), expected, "{text}");
        }
    }
}
