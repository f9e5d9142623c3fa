//! How a service is, from what it did within the window.
//!
//! A failure belongs to the side that caused it. Refused and timed out connects, connections that
//! were cut while they were in use or that died, requests without a response or with an error,
//! dropped connection requests and slow responses are the server's, or those of the path to it.
//! Connects for which the client had no address, no port, no route or no permission, or which it
//! gave up, and connections that it cut are the client's. Health checks that cut a connection
//! without a byte count for neither side.

use agent_common::histogram::{BOUNDS_US, Histogram};
use agent_common::wait::LONG_US;
use serde::{Deserialize, Serialize};

use super::traffic::{Client, Totals};

/// Below this share of connects that succeed a service is failing.
const FAILING: f64 = 0.5;
/// From this many requests without a response on, a service is failing if it answers fewer.
const MANY_UNANSWERED: u64 = 10;
/// From this many responses that are errors on, a service is failing if most are.
const MANY_ERRORS: u64 = 10;
/// Fewer errors, or a smaller share of them, are exceptions.
const FEW_ERRORS: u64 = 3;
const SHARE_OF_ERRORS: u64 = 20;
/// Fewer slow responses are no reason to call a service slow.
const FEW_SLOW: u64 = 3;

/// How a service is, over the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// One-word summary.
    pub state: HealthState,
    /// What is wrong, if anything is.
    pub reasons: Vec<HealthReason>,
    /// Length of the window, seconds.
    pub window_seconds: f64,
    /// Connections to it that were established.
    pub connects_ok: u64,
    /// Attempts to connect to it that failed, as clients of this host saw them, without those that
    /// failed on the clients' own side.
    pub connects_failed: u64,
    /// Share of the attempts that succeeded; null without attempts.
    pub success_ratio: Option<f64>,
    /// Requests it answered.
    pub requests: u64,
    /// Those of them that waited on purpose (long polling); not in the quantiles.
    pub waits: u64,
    /// Requests without a response: the connection ended, or the client gave up.
    pub unanswered: u64,
    /// Responses whose status is known.
    pub responses: u64,
    /// Those of them that are errors of the server.
    pub errors: u64,
    /// Half of the answered ones took at most this long; null without requests.
    pub p50_seconds: Option<f64>,
    /// 99 of 100 took at most this long.
    pub p99_seconds: Option<f64>,
    /// Connections that it cut, or that were cut on the path.
    pub resets: u64,
    /// Established connections that a kernel gave up because the other end did not answer.
    pub aborts: u64,
    /// Connection requests its listeners dropped.
    pub listen_overflows: u64,
    /// Failed connects, resets and requests without a response while it was stopping; no fault.
    pub stopping: u64,
    /// The fullest of its accept queues; null if it does not listen here.
    pub accept_queue: Option<AcceptQueue>,
    /// Its own failures as a client.
    pub as_client: ClientHealth,
}

/// The accept queue of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptQueue {
    /// Connections that wait to be accepted.
    pub length: u32,
    /// How many may wait.
    pub limit: u32,
}

/// What a service did as a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHealth {
    /// Its attempts to connect that succeeded.
    pub connects_ok: u64,
    /// Those that failed on its own side: no address, port, route or permission, or given up.
    pub connects_failed: u64,
    /// Connections that it cut with a reset.
    pub resets: u64,
}

/// One-word health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Most attempts to connect fail, or most of many requests are not answered, or with an error.
    Failing,
    /// Something is wrong: see [`HealthReason`].
    Degraded,
    /// Traffic, and nothing wrong with it.
    Ok,
    /// No traffic within the window.
    Idle,
}

/// What is wrong with a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthReason {
    /// Attempts to connect to it fail.
    ConnectsFail,
    /// Requests are not answered.
    Unanswered,
    /// More than one in 20 responses is an error of the server.
    Errors,
    /// 99 of 100 requests take up to more than half a second.
    Slow,
    /// Connections are cut.
    Resets,
    /// Connections die.
    Aborts,
    /// Its listeners drop connection requests.
    ListenDrops,
    /// An accept queue is full.
    AcceptQueueFull,
    /// As a client, most of its connects fail on its own side, or it has no free port.
    OwnConnectsFail,
}

// === impl AcceptQueue ===

impl AcceptQueue {
    /// Whether it is fuller than `other`, by its own measure.
    pub const fn is_fuller(self, other: Self) -> bool {
        // Shares, without a division.
        let (mine, others) =
            (self.length as u64 * other.limit as u64, other.length as u64 * self.limit as u64);
        mine > others || (mine == others && self.length > other.length)
    }

    /// Whether the next connection request is dropped: the kernel lets one more wait than the limit.
    pub const fn is_full(self) -> bool {
        self.length > self.limit
    }
}

// === impl Health ===

impl Health {
    pub(super) fn of(totals: &Totals, window_seconds: f64) -> Self {
        let Totals { by_clients, by_itself, as_client, overflows } = totals;
        // A connection within this host is seen by both sides and must count once. The service's
        // own side sees everything that reached it, from other hosts too; only clients see
        // failures.
        let seen =
            if by_itself.ok > 0 || by_itself.requests.count() > 0 { by_itself } else { by_clients };
        let attempts = seen.ok + by_clients.failed;
        let worked = seen.worked();
        let quantile = |q| worked.quantile_seconds(q);
        let mut health = Self {
            state: HealthState::Idle,
            reasons: Vec::new(),
            window_seconds,
            connects_ok: seen.ok,
            connects_failed: by_clients.failed,
            success_ratio: (attempts > 0).then(|| seen.ok as f64 / attempts as f64),
            requests: seen.requests.count(),
            waits: seen.waits,
            // A client may also give up a response that comes later, so it may know of more.
            unanswered: by_itself.unanswered.max(by_clients.unanswered),
            // Seen at the server only.
            responses: by_itself.responses,
            errors: by_itself.errors,
            p50_seconds: quantile(0.5),
            p99_seconds: quantile(0.99),
            // Connections that break may be older than the window.
            resets: by_itself.resets.max(by_clients.resets),
            aborts: by_itself.aborts.max(by_clients.aborts),
            listen_overflows: *overflows,
            stopping: by_itself.stopping.max(by_clients.stopping),
            accept_queue: None,
            as_client: ClientHealth {
                connects_ok: as_client.ok,
                connects_failed: as_client.failed,
                resets: as_client.resets,
            },
        };
        health.judge(is_slow(&worked), as_client);
        health
    }

    /// Takes in one of its listening sockets.
    pub(super) fn add_queue(&mut self, queue: AcceptQueue) {
        if self.accept_queue.is_none_or(|fullest| queue.is_fuller(fullest)) {
            self.accept_queue = Some(queue);
        }
        if queue.is_full() && !self.reasons.contains(&HealthReason::AcceptQueueFull) {
            self.reasons.push(HealthReason::AcceptQueueFull);
            self.reasons.sort_unstable();
            self.state = self.state.min(HealthState::Degraded);
        }
    }

    fn judge(&mut self, is_slow: bool, as_client: &Client) {
        let is_broken = self.errors >= MANY_ERRORS && self.errors * 2 > self.responses;
        let has_errors =
            self.errors >= FEW_ERRORS && self.errors * SHARE_OF_ERRORS > self.responses;
        let is_silent = self.unanswered >= MANY_UNANSWERED && self.unanswered > self.requests;
        let faults = [
            (HealthReason::ConnectsFail, self.connects_failed > 0),
            (HealthReason::Unanswered, self.unanswered > 0),
            (HealthReason::Errors, has_errors),
            (HealthReason::Slow, is_slow),
            (HealthReason::Resets, self.resets > 0),
            (HealthReason::Aborts, self.aborts > 0),
            (HealthReason::ListenDrops, self.listen_overflows > 0),
            (
                HealthReason::OwnConnectsFail,
                as_client.failed > as_client.ok || as_client.without_port > 0,
            ),
        ];
        self.reasons =
            faults.iter().filter(|(_, applies)| *applies).map(|(reason, _)| *reason).collect();
        self.state = match self.success_ratio {
            Some(ratio) if ratio < FAILING => HealthState::Failing,
            _ if is_silent || is_broken => HealthState::Failing,
            _ if !self.reasons.is_empty() => HealthState::Degraded,
            None if self.requests == 0 && self.stopping == 0 => HealthState::Idle,
            _ => HealthState::Ok,
        };
    }
}

/// Whether more of these requests were slow than chance explains.
fn is_slow(requests: &Histogram) -> bool {
    let bounds = BOUNDS_US.iter().map(|bound| u64::from(*bound)).chain([u64::MAX]);
    let slow: u64 = bounds
        .zip(&requests.buckets)
        .filter(|(bound, _)| *bound > LONG_US)
        .map(|(_, count)| count)
        .sum();
    slow >= FEW_SLOW && slow.saturating_mul(100) > requests.count()
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
