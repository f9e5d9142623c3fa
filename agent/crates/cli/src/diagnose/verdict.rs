//! The verdict: the first cause that explains the rest, from the evidence alone.
//!
//! [`CANDIDATES`] are in the order in which one explains another: a stopped process fills its accept
//! queue, a full queue makes connects time out, timeouts look like loss, loss makes requests slow.

mod connecting;
mod refusal;
mod serving;
mod slowness;

use serde::Serialize;

use super::cause::Cause;
use super::evidence::{Connects, Evidence, Hop, SLOW_SECONDS, is_noteworthy};
use crate::human;

/// A share of retransmitted segments that delays many requests; the alert
/// PortolanRetransmitsHigh has the same.
const LOSS: f64 = 0.02;
/// Fewer retransmissions are chance.
const FEW_RETRANSMITS: u64 = 5;
/// A latency that has grown by this factor has changed.
const GROWTH: f64 = 3.0;
/// A share of the latency that explains it.
const MOST_OF_IT: f64 = 0.6;
/// Below this a slower request or round trip does not matter.
const UNNOTICED_SECONDS: f64 = 0.01;
const UNNOTICED_RTT_SECONDS: f64 = 0.002;
/// A share of throttled periods that slows a service.
const THROTTLED: f64 = 0.1;
/// Bytes that the program does not read, as in WHY.
const UNREAD: u64 = 65_536;
/// Connections in CLOSE_WAIT that a pool does not explain, as in WHY.
const CLOSE_WAIT: u64 = 20;

/// What a diagnosis says in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    pub(super) cause: Cause,
    /// In one or two sentences.
    pub(super) text: String,
    pub(super) certainty: Certainty,
    /// Why it is so certain.
    pub(super) reason: String,
    /// What to do or to run next.
    pub(super) look_at: Vec<String>,
    /// What the server waits for: a service as hops name it, and its port.
    #[serde(skip)]
    pub(super) waits_for: Option<(String, u16)>,
}

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Certainty {
    Low,
    Medium,
    High,
}

/// Results of connects that nobody answers, or that somebody on the way does.
pub(super) const NO_ANSWER: &[&str] = &["unreachable", "timeout", "aborted"];

/// The first that applies is the verdict.
const CANDIDATES: &[fn(&Evidence) -> Option<Verdict>] = &[
    connecting::process_stopped,
    connecting::name_not_resolved,
    connecting::oom_killed,
    connecting::no_local_port,
    connecting::source_address,
    connecting::denied,
    connecting::link_down,
    connecting::without_scope,
    connecting::no_route,
    connecting::host_gone,
    refusal::refused,
    connecting::out_of_descriptors,
    connecting::accept_queue_full,
    connecting::tracking_full,
    connecting::no_route_back,
    connecting::dropped,
    serving::tls_fails,
    slowness::loss,
    serving::keepalive_mismatch,
    serving::not_reading,
    serving::unanswered,
    serving::connections_die,
    serving::resets,
    serving::server_error,
    slowness::slow,
    slowness::cpu_throttled,
    serving::not_closed,
    serving::uneven,
    serving::forbidden,
];

/// The verdict on this evidence.
pub(super) fn judge(evidence: &Evidence) -> Verdict {
    CANDIDATES.iter().find_map(|candidate| candidate(evidence)).unwrap_or_else(|| well(evidence))
}

/// Nothing is wrong, or nothing is known.
fn well(evidence: &Evidence) -> Verdict {
    let Evidence { live, probes, .. } = evidence;
    let seen = live.as_ref().filter(|live| live.is_busy());
    let tried = probes.connect.as_ref().filter(|connect| connect.ok() > 0);
    let window = seen.map(|live| format!("in the last {}", human::span(live.seconds)));
    let count = tried.map(|connect| format!("in {}", human::counted(connect.ok(), "probe")));
    let both: Vec<String> = window.into_iter().chain(count).collect();
    if both.is_empty() {
        let text = "there was no traffic, and no probe: nothing can be said.".to_owned();
        let why = probes.skipped.clone().unwrap_or_else(|| "no traffic in the window".to_owned());
        let verdict = Verdict::new(Cause::NotEnoughData, text, Certainty::Low, &why);
        return verdict.look_at("a longer --window (5m), or name SERVER:PORT to probe it");
    }
    let text = format!("nothing is wrong {}.", both.join(" and "));
    let (certainty, reason) = match (seen, tried) {
        (Some(_), Some(_)) => (Certainty::High, "live traffic and probes agree"),
        (Some(_), None) => (Certainty::Medium, "live traffic only"),
        _ => (Certainty::Medium, "probes only: there was no traffic"),
    };
    Verdict::new(Cause::Healthy, text, certainty, reason)
}

/// Attempts to connect with these results, in the window and of the probes, if they are more than
/// exceptions.
pub(super) fn failures(evidence: &Evidence, results: &[&str]) -> Option<(u64, u64)> {
    let live = evidence.live.as_ref().map_or(0, |live| {
        let failed = live.failed(results);
        if is_noteworthy(failed, live.attempts()) { failed } else { 0 }
    });
    let probed = evidence.probes.connect.as_ref().map_or(0, |connect| connect.failed(results));
    (live + probed > 0).then_some((live, probed))
}

/// How certain it is, by whether live traffic and probes agree.
pub(super) fn sure(verdict: Verdict, evidence: &Evidence, live: u64, probed: u64) -> Verdict {
    let probes = evidence.probes.connect.is_some();
    let (certainty, reason) = match (live > 0, probed > 0) {
        (true, true) => (Certainty::High, "live traffic and probes agree".to_owned()),
        (true, false) if evidence.probes.connect.as_ref().is_some_and(Connects::none_succeeds) => (
            Certainty::Medium,
            "seen in live traffic; the probes fail too, in another way".to_owned(),
        ),
        (true, false) if probes => (
            Certainty::Medium,
            "seen in live traffic; the probes succeed now, so it has passed or comes and goes"
                .to_owned(),
        ),
        (true, false) => {
            let why = evidence.probes.skipped.as_deref().unwrap_or("not asked for");
            (Certainty::Medium, format!("seen in live traffic; no probe ({why})"))
        }
        (false, true) if evidence.live.as_ref().is_some_and(|live| live.ok > 0) => {
            (Certainty::Low, "only probes fail: live connects succeeded in the window".to_owned())
        }
        (false, _) => {
            (Certainty::Medium, "probes alone: there was no such traffic in the window".to_owned())
        }
    };
    Verdict { certainty, reason, ..verdict }
}

fn waits_for(hop: &Hop) -> String {
    let server =
        if hop.port == 0 { hop.server.clone() } else { format!("{}:{}", hop.server, hop.port) };
    match (&hop.p99_seconds, hop.why.is_empty()) {
        (_, false) => format!("{server} ({})", hop.why),
        (Some(p99), true) => format!("{server} (p99 {})", human::quantile(Some(*p99))),
        (None, true) => server,
    }
}

/// The command that looks at an edge.
fn command_for(hop: &Hop) -> String {
    format!("portolan diagnose {} {}:{}", hop.client, hop.server, hop.port)
}

// === impl Verdict ===

impl Verdict {
    pub(super) fn new(cause: Cause, text: String, certainty: Certainty, reason: &str) -> Self {
        let reason = reason.to_owned();
        Self { cause, text, certainty, reason, look_at: Vec::new(), waits_for: None }
    }

    /// Before it is known how certain it is.
    pub(super) fn of(cause: Cause, text: String) -> Self {
        Self::new(cause, text, Certainty::Low, "")
    }

    /// The same of a server that waits for another service.
    #[must_use]
    pub(super) fn because_of(mut self, hop: &Hop) -> Self {
        self.waits_for = Some((hop.server.clone(), hop.port));
        self.look_at(&command_for(hop))
    }

    /// The same with one more thing to do.
    #[must_use]
    pub(super) fn look_at(mut self, what: &str) -> Self {
        self.look_at.push(what.to_owned());
        self
    }
}

// === impl Certainty ===

impl Certainty {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

#[cfg(test)]
mod tests;
