//! What Prometheus is asked for: samples of counters and of histograms in the window and before it, and
//! gauges at its end. Three queries, however many edges there are.

use api_types::Timestamp;

use super::Error;
use super::counters::{self, COUNTERS, HISTOGRAMS};
use super::samples::instant;

/// How far before the window a sample may be that it begins with, seconds: Prometheus scrapes every
/// minute by default, and may miss one.
const BEFORE_SECONDS: u64 = 150;

/// A counter that every agent has once: its samples say when the agent was scraped.
pub(super) const CLOCK: &str = "portolan_drains_total";

/// What is so at a moment.
pub(super) const GAUGES: &[&str] = &[
    ACTIVE,
    RECEIVE_QUEUE,
    SEND_QUEUE,
    CLOSE_WAIT,
    LISTENERS,
    BACKLOG,
    BACKLOG_MAX,
    SERVICE_INFO,
    BUILD_INFO,
];
pub(super) const ACTIVE: &str = "portolan_tcp_active_connections";
pub(super) const RECEIVE_QUEUE: &str = "portolan_tcp_receive_queue_bytes";
pub(super) const SEND_QUEUE: &str = "portolan_tcp_send_queue_bytes";
pub(super) const CLOSE_WAIT: &str = "portolan_tcp_close_wait_connections";
pub(super) const LISTENERS: &str = "portolan_port_listeners";
pub(super) const BACKLOG: &str = "portolan_listen_backlog";
pub(super) const BACKLOG_MAX: &str = "portolan_listen_backlog_max";
pub(super) const SERVICE_INFO: &str = "portolan_service_info";
pub(super) const BUILD_INFO: &str = "portolan_build_info";

/// The paths, below the URL of Prometheus, whose responses [`Recorded::read`](super::Recorded::read) takes, in this order.
pub fn queries(at: Timestamp, window_seconds: u64) -> Vec<String> {
    let range = window_seconds + BEFORE_SECONDS;
    let counters = names(&[COUNTERS, &[CLOCK, ACTIVE]].concat());
    let histograms = names(HISTOGRAMS);
    [
        format!("{{__name__=~\"{counters}\"}}[{range}s]"),
        format!("{{__name__=~\"{histograms}\"}}[{range}s]"),
        // VictoriaMetrics answers a query for a moment with values of half a minute before.
        format!("{{__name__=~\"{}\"}}[{BEFORE_SECONDS}s]", names(GAUGES)),
    ]
    .map(|query| path(&query, Some(at)))
    .to_vec()
}

/// The path that asks how many agents there are now, for who found none at another time.
pub fn agents_now() -> String {
    path(&format!("count({BUILD_INFO})"), None)
}

/// The number in the response to [`agents_now`].
pub fn count_of_agents(body: &str) -> Result<u64, Error> {
    let all = instant(body)?;
    Ok(all
        .first()
        .and_then(|series| series.samples.first())
        .map_or(0, |(_, n)| counters::whole(*n)))
}

fn names(all: &[&str]) -> String {
    all.join("|")
}

fn path(query: &str, at: Option<Timestamp>) -> String {
    let time = at.map(|at| ("time", format!("{:.3}", at.seconds())));
    let pairs = std::iter::once(("query", query.to_owned())).chain(time);
    // Texts in pairs cannot fail to be written.
    let query = serde_urlencoded::to_string(pairs.collect::<Vec<_>>()).unwrap_or_default();
    format!("/api/v1/query?{query}")
}
