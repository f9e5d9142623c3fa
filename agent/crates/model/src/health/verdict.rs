//! How a service is, from what it did within the window.

use serde::{Deserialize, Serialize};

use super::epochs::Totals;

/// Below this share of connects that succeed a service is failing.
const FAILING: f64 = 0.5;
/// From this many requests without a response on, a service is failing if it answers fewer.
const MANY_UNANSWERED: u64 = 10;

/// How a service is, over the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// One-word summary.
    pub state: HealthState,
    /// Length of the window, seconds.
    pub window_seconds: f64,
    /// Connections to it that were established.
    pub connects_ok: u64,
    /// Attempts to connect that failed, as clients of this host saw them.
    pub connects_failed: u64,
    /// Share of the attempts that succeeded; null without attempts.
    pub success_ratio: Option<f64>,
    /// Requests it answered.
    pub requests: u64,
    /// Requests without a response: the connection ended, or the client gave up.
    pub unanswered: u64,
    /// Half of the answered ones took at most this long; null without requests.
    pub p50_seconds: Option<f64>,
    /// 99 of 100 took at most this long.
    pub p99_seconds: Option<f64>,
    /// Connections that ended with a reset, sent or received.
    pub resets: u64,
    /// Established connections that a kernel gave up because the other end did not answer.
    pub aborts: u64,
    /// Connection requests its listeners dropped.
    pub listen_overflows: u64,
}

/// One-word health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Most attempts to connect fail, or most of many requests are not answered.
    Failing,
    /// Some attempts fail, requests are not answered, connections are reset or die, or connection
    /// requests are dropped.
    Degraded,
    /// Traffic, and nothing wrong with it.
    Ok,
    /// No traffic within the window.
    Idle,
}

// === impl Health ===

impl Health {
    pub(super) fn of(totals: &Totals, window_seconds: f64) -> Self {
        let Totals { by_clients, by_itself, overflows } = totals;
        let overflows = *overflows;
        // A connection within this host is seen by both sides and must count once. The service's
        // own side sees everything that reached it, from other hosts too; only clients see
        // failures.
        let (connects_ok, seen) = if by_itself.ok > 0 || by_itself.requests.count() > 0 {
            (by_itself.ok, by_itself)
        } else {
            (by_clients.ok, by_clients)
        };
        let failed = by_clients.failed;
        let attempts = connects_ok + failed;
        let success_ratio = (attempts > 0).then(|| connects_ok as f64 / attempts as f64);
        let quantile = |q| seen.requests.quantile_us(q).filter(|us| us.is_finite());
        // Connections that break may be older than the window.
        let resets = by_itself.resets.max(by_clients.resets);
        let aborts = by_itself.aborts.max(by_clients.aborts);
        // A client may also give up a response that comes later, so it may know of more.
        let unanswered = by_itself.unanswered.max(by_clients.unanswered);
        let is_silent = unanswered >= MANY_UNANSWERED && unanswered > seen.requests.count();
        let is_faulty = [failed, resets, aborts, unanswered, overflows].iter().any(|n| *n > 0);
        let state = match success_ratio {
            Some(ratio) if ratio < FAILING => HealthState::Failing,
            _ if is_silent => HealthState::Failing,
            _ if is_faulty => HealthState::Degraded,
            None if seen.requests.count() == 0 => HealthState::Idle,
            _ => HealthState::Ok,
        };
        Self {
            state,
            window_seconds,
            connects_ok,
            connects_failed: failed,
            success_ratio,
            requests: seen.requests.count(),
            unanswered,
            p50_seconds: quantile(0.5).map(|us| us / 1e6),
            p99_seconds: quantile(0.99).map(|us| us / 1e6),
            resets,
            aborts,
            listen_overflows: overflows,
        }
    }
}

// === impl HealthState ===

impl HealthState {
    /// The name used in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Degraded => "degraded",
            Self::Ok => "ok",
            Self::Idle => "idle",
        }
    }
}
