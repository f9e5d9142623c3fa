//! From metrics to the counters of an edge that they were made from.

use std::collections::BTreeMap;

use agent_common::abort::ABORT_CAUSE_NAMES;
use agent_common::counters::EdgeCounters;
use agent_common::edge::{CONNECT_OK, CONNECT_RESULT_NAMES};
use agent_common::histogram::{BOUNDS, BOUNDS_US, Histogram};
use agent_common::limit::LIMIT_NAMES;
use agent_common::lookup::{RESULT_NAMES, RESULTS, TYPE_NAMES};
use agent_common::on_demand::OnDemand;
use agent_common::reset::CAUSE_NAMES;
use agent_common::response::{PROTOCOL_NAMES, STATUS_NAMES, STATUSES};
use agent_common::retransmit::PHASE_NAMES;

use super::samples::Series;

/// Counters that [`Growing::add`] knows, but for histograms.
pub(super) const COUNTERS: &[&str] = &[
    "portolan_tcp_connects_total",
    "portolan_tcp_preexisting_connections_total",
    "portolan_tcp_sent_bytes_total",
    "portolan_tcp_received_bytes_total",
    "portolan_tcp_retransmits_total",
    "portolan_tcp_rto_total",
    "portolan_tcp_dsacks_total",
    "portolan_tcp_limited_seconds_total",
    "portolan_tcp_resets_total",
    "portolan_tcp_aborts_total",
    "portolan_requests_unanswered_total",
    "portolan_requests_waited_total",
    "portolan_responses_total",
    "portolan_connection_security_total",
    "portolan_dns_lookups_total",
    "portolan_listen_overflows_total",
    "portolan_tcp_synack_retransmits_total",
];

/// Series of the histograms.
pub(super) const HISTOGRAMS: &[&str] = &[
    "portolan_tcp_connect_duration_seconds_(bucket|sum)",
    "portolan_tcp_rtt_seconds_(bucket|sum)",
    "portolan_request_duration_seconds_(bucket|sum)",
    "portolan_dns_lookup_duration_seconds_(bucket|sum)",
];

/// What an edge counted, while series are added.
#[derive(Debug)]
pub(super) struct Growing {
    counters: EdgeCounters,
    /// Connections that are open at the end and were not at the beginning.
    opened_more: f64,
    lookups: Histogram,
    connect: Durations,
    rtt: Durations,
    request: Durations,
    lookup: Durations,
}

/// A histogram: observations up to each bound, microseconds, as Prometheus has them.
#[derive(Clone, Debug, Default)]
struct Durations {
    up_to: BTreeMap<u64, f64>,
    sum_seconds: f64,
}

/// The most that a series grows by: more than a link carries in five minutes, and sums of as many
/// series as a response can have stay in 64 bits.
const MOST: u64 = 1 << 42;

/// A count that was a number with a fraction.
pub(super) fn whole(value: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let count = value.round() as u64;
    count.min(MOST)
}

// === impl Growing ===

impl Default for Growing {
    fn default() -> Self {
        Self {
            counters: EdgeCounters::ZERO,
            opened_more: 0.0,
            lookups: Histogram::EMPTY,
            connect: Durations::default(),
            rtt: Durations::default(),
            request: Durations::default(),
            lookup: Durations::default(),
        }
    }
}

impl Growing {
    /// Adds what a series of this metric grew by. A label value that this version does not know is
    /// passed over.
    pub fn add(&mut self, name: &str, series: &Series, grown: f64) {
        let n = whole(grown);
        let Self { counters, lookups, connect, rtt, request, lookup, .. } = self;
        let place = |names: &[&str], label: &str| {
            names.iter().position(|name| *name == series.label(label))
        };
        let add = |counts: &mut [u64], at: Option<usize>| {
            if let Some(count) = at.and_then(|at| counts.get_mut(at)) {
                *count += n;
            }
        };
        match name {
            "portolan_tcp_connects_total" => {
                add(&mut counters.connects, place(&CONNECT_RESULT_NAMES, "result"));
            }
            "portolan_tcp_preexisting_connections_total" => counters.preexisting += n,
            "portolan_tcp_sent_bytes_total" => counters.sent_bytes += n,
            "portolan_tcp_received_bytes_total" => counters.received_bytes += n,
            "portolan_tcp_retransmits_total" => {
                add(&mut counters.retransmits, place(&PHASE_NAMES, "phase"));
            }
            "portolan_tcp_rto_total" => counters.timeouts += n,
            "portolan_tcp_dsacks_total" => counters.dsacks += n,
            "portolan_tcp_limited_seconds_total" => {
                let at = place(&LIMIT_NAMES, "by");
                if let Some(us) = at.and_then(|at| counters.limited_us.get_mut(at)) {
                    *us += whole(grown * 1e6);
                }
            }
            "portolan_tcp_resets_total" => {
                let resets = match series.label("direction") {
                    "sent" => &mut counters.resets_sent,
                    _ => &mut counters.resets_received,
                };
                add(resets, place(&CAUSE_NAMES, "cause"));
            }
            "portolan_tcp_aborts_total" => {
                add(&mut counters.aborts, place(&ABORT_CAUSE_NAMES, "cause"));
            }
            "portolan_requests_unanswered_total" => match series.label("cause") {
                "stopping" => counters.unanswered_stopping += n,
                _ => counters.unanswered += n,
            },
            "portolan_requests_waited_total" => counters.waits += n,
            "portolan_responses_total" => {
                let wanted = (series.label("protocol"), series.label("status"));
                let at = STATUS_NAMES.iter().position(|name| *name == wanted);
                add(&mut counters.responses, at);
            }
            "portolan_connection_security_total" => {
                let at = place(&PROTOCOL_NAMES, "protocol").map(|at| at + STATUSES);
                add(&mut counters.responses, at);
            }
            "portolan_dns_lookups_total" => {
                let (of, result) = (place(&TYPE_NAMES, "qtype"), place(&RESULT_NAMES, "rcode"));
                let at = of.zip(result).map(|(of, result)| of * RESULTS + result);
                add(&mut lookups.buckets, at);
            }
            "portolan_listen_overflows_total" => counters.listen_drops += n,
            "portolan_tcp_synack_retransmits_total" => counters.synack_retransmits += n,
            _ => {
                let of = [
                    ("portolan_tcp_connect_duration_seconds", connect),
                    ("portolan_tcp_rtt_seconds", rtt),
                    ("portolan_request_duration_seconds", request),
                    ("portolan_dns_lookup_duration_seconds", lookup),
                ];
                for (metric, durations) in of {
                    if let Some(part) = name.strip_prefix(metric) {
                        durations.add(part, series.label("le"), grown);
                    }
                }
            }
        }
    }

    /// So many connections more are open than were.
    pub fn opened_more(&mut self, n: f64) {
        self.opened_more += n;
    }

    /// What the edge counted.
    pub fn counters(&self) -> EdgeCounters {
        let Self { counters, opened_more, lookups, connect, rtt, request, lookup } = self;
        let mut counters = counters.clone();
        // Not metrics of their own: what was made or met is open, or was closed.
        let made = counters.connects.get(usize::from(CONNECT_OK)).copied().unwrap_or_default();
        counters.opened = made + counters.preexisting;
        counters.closed = whole((counters.opened as f64 - opened_more).max(0.0));
        counters.connect = connect.histogram();
        counters.rtt = rtt.histogram();
        counters.request = request.histogram();
        counters.lookup = lookup.histogram();
        if lookups.count() > 0 {
            counters.lookup_results = OnDemand::after(None, Some(lookups));
        }
        counters
    }
}

// === impl Durations ===

impl Durations {
    fn add(&mut self, part: &str, le: &str, grown: f64) {
        match part {
            "_sum" => self.sum_seconds += grown,
            // Bounds have different decimals in different stores: 1, 1.0, 1e+00.
            "_bucket" => {
                let bound = match le.parse::<f64>() {
                    Ok(seconds) if seconds.is_finite() => whole(seconds * 1e6),
                    _ => u64::MAX,
                };
                *self.up_to.entry(bound).or_default() += grown;
            }
            _ => {}
        }
    }

    /// In the agent's buckets, of which the exported ones are some.
    fn histogram(&self) -> OnDemand {
        let mut histogram = Histogram { sum_us: whole(self.sum_seconds * 1e6), ..Histogram::EMPTY };
        let mut below = 0.0;
        for (bound, up_to) in &self.up_to {
            let at = match *bound {
                u64::MAX => Some(BOUNDS),
                bound => BOUNDS_US.iter().position(|known| u64::from(*known) == bound),
            };
            if let Some(count) = at.and_then(|at| histogram.buckets.get_mut(at)) {
                *count += whole((up_to - below).max(0.0));
                below = *up_to;
            }
        }
        if histogram.count() == 0 {
            return OnDemand::EMPTY;
        }
        OnDemand::after(None, Some(&histogram))
    }
}
