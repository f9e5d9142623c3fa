//! What the agent counts after a reload, against the bounds: the reason to roll back, if there is one.

use std::fmt::Write as _;

use super::super::counts::{Back, Counts, FAILURES, mostly_fail};
use super::super::intent::Intent;
use crate::human;

/// Fewer requests have no mean worth comparing.
pub(super) const REQUESTS: u64 = 50;
/// Fewer samples have no share: by chance alone one of two equal backends is off by five points.
const SAMPLES: u64 = 400;
/// A smaller rise of a mean is ignored.
const LEAST_RISE_SECONDS: f64 = 0.005;

/// What a deployment must keep to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Share of connects or requests that may fail.
    pub failures: f64,
    /// By how much the mean time of requests may grow, as a factor.
    pub latency: f64,
    /// By how much a share may be off.
    pub share: f64,
}

/// The mean time of requests in the minute before, if there were enough.
pub(super) type Before = Option<f64>;

/// Why the deployment is bad, as far as failures say so at any moment.
pub(super) fn failing(counts: &Counts, bounds: Bounds) -> Option<String> {
    for (address, back) in &counts.backends {
        let Back { connections, failed, requests, unanswered } = *back;
        let attempts = connections + failed;
        if mostly_fail(connections, failed) {
            return Some(format!("backend {address}: {failed} of {attempts} connects failed"));
        }
        let asked = requests + unanswered;
        if unanswered >= FAILURES && over(unanswered, asked, bounds.failures) {
            return Some(format!(
                "backend {address}: {unanswered} of {asked} requests had no response, more than {}",
                human::percent(bounds.failures)
            ));
        }
    }
    let front = counts.front;
    let attempts = front.connections + front.failed;
    if front.failed >= FAILURES && over(front.failed, attempts, bounds.failures) {
        return Some(format!(
            "clients: {} of {attempts} connects failed, more than {}",
            front.failed,
            human::percent(bounds.failures)
        ));
    }
    let asked = front.requests + front.unanswered;
    if front.unanswered >= FAILURES && over(front.unanswered, asked, bounds.failures) {
        return Some(format!(
            "clients: {} of {asked} requests had no response, more than {}",
            front.unanswered,
            human::percent(bounds.failures)
        ));
    }
    None
}

/// Why the deployment is bad at the end of the window: latency and shares.
pub(super) fn off(
    counts: &Counts,
    settled: &Counts,
    before: Before,
    intent: &Intent,
    bounds: Bounds,
) -> Option<String> {
    if let (Some(before), Some(now)) = (before, counts.front.mean_seconds(REQUESTS))
        && now > before * bounds.latency
        && now - before > LEAST_RISE_SECONDS
    {
        return Some(format!(
            "requests take {} on average, {:.1} times as long as in the minute before ({})",
            human::duration(now),
            now / before,
            human::duration(before)
        ));
    }
    let expected = intent.expected_shares()?;
    let (what, total) = settled.shared();
    if total < SAMPLES {
        return None;
    }
    settled.shares().into_iter().find_map(|(address, count, share)| {
        let expected = expected.get(address)?;
        let message = || {
            format!(
                "backend {address} has {} of the {what}s ({count} of {total}), expected {} ± {}",
                human::percent(share),
                human::percent(*expected),
                human::percent(bounds.share)
            )
        };
        ((share - expected).abs() > bounds.share).then(message)
    })
}

/// What was seen, for people.
pub(super) fn summary(
    counts: &Counts,
    settled: &Counts,
    before: Before,
    intent: &Intent,
) -> String {
    let (what, total) = settled.shared();
    if total == 0 {
        return "no traffic passed: nothing can be said of shares and latency".to_owned();
    }
    let expected = intent.expected_shares();
    let mut text = human::counted(total, what);
    for (address, _, share) in settled.shares() {
        let _ = write!(text, ", {address} {}", human::percent(share));
        if let Some(share) = expected.as_ref().and_then(|shares| shares.get(address)) {
            let _ = write!(text, " (expected {})", human::percent(*share));
        }
    }
    if expected.is_some() && total < SAMPLES {
        let _ = write!(text, "; fewer than {SAMPLES}: shares are not judged");
    }
    if expected.is_none() {
        text += "; shares follow from the algorithm and are not judged";
    }
    let failed: u64 = counts.backends.values().map(|back| back.failed + back.unanswered).sum();
    let _ = write!(text, "; {}", human::counted(failed, "failure"));
    if let Some(now) = counts.front.mean_seconds(1) {
        let _ = write!(text, "; mean {}", human::duration(now));
    }
    if let Some(before) = before {
        let _ = write!(text, " (before {})", human::duration(before));
    }
    text
}

fn over(part: u64, all: u64, bound: f64) -> bool {
    part as f64 > all as f64 * bound
}

#[cfg(test)]
mod tests {
    use super::super::super::counts::Front;
    use super::super::super::intent::{Backend, Sticky};
    use super::*;

    const BOUNDS: Bounds = Bounds { failures: 0.01, latency: 3.0, share: 0.05 };

    fn counts(backs: [Back; 2], front: Front) -> Counts {
        let backends = ["10.0.0.1:80", "10.0.0.2:80"].map(str::to_owned).into_iter().zip(backs);
        Counts { backends: backends.collect(), front }
    }

    fn intent(weights: [u32; 2]) -> Intent {
        let backend = |(address, weight): (&str, u32)| Backend {
            address: address.parse().expect("an address"),
            weight,
            backup: false,
        };
        let backends = ["10.0.0.1:80", "10.0.0.2:80"].into_iter().zip(weights).map(backend);
        Intent::new("api".into(), "0.0.0.0:80".parse().expect("an address"), backends.collect())
    }

    fn back(connections: u64, failed: u64, requests: u64, unanswered: u64) -> Back {
        Back { connections, failed, requests, unanswered }
    }

    #[test]
    fn failures_beyond_the_bounds_are_the_reason() {
        let healthy = back(2, 0, 500, 0);
        let check = |backs, front, expected: Option<&str>| {
            assert_eq!(failing(&counts(backs, front), BOUNDS).as_deref(), expected);
        };
        let none = Front::default();
        check([healthy, healthy], none, None);
        check([healthy, back(0, 2, 0, 0)], none, None);
        check(
            [healthy, back(0, 3, 0, 0)],
            none,
            Some("backend 10.0.0.2:80: 3 of 3 connects failed"),
        );
        check([healthy, back(40, 3, 300, 0)], none, None);
        check(
            [healthy, back(1, 0, 100, 5)],
            none,
            Some("backend 10.0.0.2:80: 5 of 105 requests had no response, more than 1%"),
        );
        let front = Front { connections: 90, failed: 10, ..none };
        check([healthy, healthy], front, Some("clients: 10 of 100 connects failed, more than 1%"));
        let front = Front { requests: 990, unanswered: 11, ..none };
        check(
            [healthy, healthy],
            front,
            Some("clients: 11 of 1001 requests had no response, more than 1%"),
        );
    }

    #[test]
    fn latency_and_shares_are_judged_with_enough_samples() {
        let front = |mean: f64| Front { timed: 100, seconds: mean * 100.0, ..Front::default() };
        let even = [back(1, 0, 300, 0), back(1, 0, 300, 0)];
        let skewed = [back(1, 0, 400, 0), back(1, 0, 200, 0)];
        let check = |backs, mean, weights, expected: Option<&str>| {
            let counts = counts(backs, front(mean));
            let said = off(&counts, &counts, Some(0.01), &intent(weights), BOUNDS);
            assert_eq!(said.as_deref(), expected);
        };
        check(even, 0.01, [1, 1], None);
        check(
            even,
            0.05,
            [1, 1],
            Some(
                "requests take 50 ms on average, 5.0 times as long as in the minute before (10 ms)",
            ),
        );
        check(
            skewed,
            0.01,
            [1, 1],
            Some("backend 10.0.0.1:80 has 66.7% of the requests (400 of 600), expected 50% ± 5%"),
        );
        check(skewed, 0.01, [2, 1], None);
        check([back(1, 0, 40, 0), back(1, 0, 20, 0)], 0.01, [1, 1], None);
        let mut sticky = intent([1, 1]);
        sticky.sticky = Some(Sticky::Source);
        let skewed = counts(skewed, front(0.01));
        assert_eq!(off(&skewed, &skewed, None, &sticky, BOUNDS), None);
    }
}
