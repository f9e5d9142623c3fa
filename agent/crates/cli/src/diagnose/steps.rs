//! The steps between a client and its server, from the name to the policy, each with its state and
//! what was found.

mod server;

use std::fmt::Write as _;

use serde::Serialize;

use super::cause::{Cause, Step};
use super::evidence::{Connects, Evidence, Live, Silence, hops_in_words, in_words, is_noteworthy};
use crate::human;

/// A certificate that expires so soon is worth a word.
const DAYS: i64 = 14;

/// How a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Ok,
    Failed,
    Warning,
    /// Not looked at, or not used.
    Skipped,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    pub(super) step: Step,
    pub(super) state: State,
    /// What was found, a sentence each.
    pub(super) text: Vec<String>,
}

/// All steps. The step of the verdict has failed, whatever its own measure says.
pub(super) fn lines(evidence: &Evidence, cause: Cause) -> Vec<Line> {
    let line = |step: Step| {
        let (state, text) = match step {
            Step::Name => name(evidence),
            Step::Route => route(evidence),
            Step::Port => port(evidence),
            Step::Tcp => tcp(evidence),
            Step::Path => path(evidence),
            Step::Tls => server::tls(evidence),
            Step::Http => server::http(evidence),
            Step::Application => server::application(evidence),
            Step::Host => server::host(evidence),
            Step::Policy => server::policy(evidence),
        };
        let state = if cause.step() == Some(step) { State::Failed } else { state };
        Line { step, state, text }
    };
    Step::ALL.into_iter().map(line).collect()
}

type Found = (State, Vec<String>);

fn skipped(why: &str) -> Found {
    (State::Skipped, vec![why.to_owned()])
}

fn name(evidence: &Evidence) -> Found {
    match &evidence.probes.name {
        Some(lookup) => match &lookup.result {
            Ok(addresses) => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                let text = format!("{} → {} ({})", lookup.name, addresses.join(", "), lookup.by);
                (State::Ok, vec![text])
            }
            Err(why) => (State::Failed, vec![format!("{}: {why} ({})", lookup.name, lookup.by)]),
        },
        None => match evidence.address() {
            Some(address) => {
                skipped(&format!("{} (the name that the client uses is not known)", address.ip()))
            }
            None => skipped("not known"),
        },
    }
}

fn route(evidence: &Evidence) -> Found {
    let Some(route) = &evidence.probes.route else {
        return skipped(why_not(evidence));
    };
    let path = match route {
        Ok(path) => path,
        Err(blocked) if blocked.is_certain => return (State::Failed, vec![blocked.text.clone()]),
        Err(blocked) => return skipped(&blocked.text),
    };
    let mtu = |mtu: Option<u32>| mtu.map_or_else(|| "unknown".to_owned(), |mtu| mtu.to_string());
    let mut state = State::Ok;
    let there = mtu(path.mtu);
    let sizes = match &evidence.probes.back {
        Some(Ok(back)) if back.mtu == path.mtu => format!("MTU {there} both ways"),
        Some(Ok(back)) => {
            state = State::Warning;
            format!("MTU {there} there and {} back", mtu(back.mtu))
        }
        Some(Err(blocked)) if blocked.is_certain => {
            state = State::Warning;
            format!("MTU {there}; back: {}", blocked.text)
        }
        _ => format!("MTU {there}"),
    };
    let mut text = format!("{}, {sizes}", path.text);
    if path.is_silent {
        state = State::Warning;
        text.push_str("; the next hop does not answer (ARP, neighbour discovery)");
    }
    let mut text = vec![text];
    if let Some(hops) = &evidence.probes.hops {
        let port = evidence.address().map_or(evidence.pair.port, |address| address.port());
        text.push(format!("SYNs to port {port} by TTL: {}", hops_in_words(hops)));
    }
    (state, text)
}

fn port(evidence: &Evidence) -> Found {
    let Some(live) = &evidence.live else { return skipped("no agent has seen the server") };
    if !live.is_here {
        return skipped(evidence.why_not_here());
    }
    let Some(one) = live.listeners.iter().max_by_key(|one| one.backlog) else {
        if !live.sees_listeners {
            return skipped("the agent sees no listeners on this host: portolan status says why");
        }
        return (State::Failed, vec![format!("nothing listens on port {}", evidence.pair.port)]);
    };
    let reached = evidence
        .address()
        .is_none_or(|address| live.listeners.iter().any(|one| one.accepts(address.ip())));
    let state = match one {
        one if one.is_full() || live.listen_drops > 0 => State::Warning,
        _ if !reached => State::Warning,
        _ => State::Ok,
    };
    let addresses: Vec<String> = live
        .listeners
        .iter()
        .map(|one| std::net::SocketAddr::new(one.address, evidence.pair.port).to_string())
        .collect();
    let drops = if live.listen_drops == 0 {
        "nothing dropped".to_owned()
    } else {
        human::counted(live.listen_drops, "connection request") + " dropped"
    };
    let text = format!(
        "{} (pid {}) listens on {}, accept queue {} of {}, {drops}",
        if one.command.is_empty() { "a program" } else { &one.command },
        one.pid,
        addresses.join(", "),
        one.backlog,
        one.max_backlog
    );
    (state, vec![text])
}

fn tcp(evidence: &Evidence) -> Found {
    let mut text = Vec::new();
    let mut failed = false;
    if let Some(live) = evidence.live.as_ref().filter(|live| live.is_busy()) {
        let (line, is_bad) = connects_of(live);
        failed |= is_bad;
        text.push(line);
    }
    if let Some(connect) = &evidence.probes.connect {
        failed |= connect.ok() < connect.attempts || connect.after_a_second() > 0;
        let why = evidence.probes.skipped.as_ref();
        let why = why.map_or_else(String::new, |why| format!("; no more: {why}"));
        text.push(probes_of(connect, &evidence.probes.from) + &why);
    } else if let (Some(why), false) = (&evidence.probes.skipped, text.is_empty()) {
        text.push(format!("no probe: {why}"));
    }
    if text.is_empty() {
        return skipped(&format!("no traffic in the window; {}", why_not(evidence)));
    }
    (if failed { State::Warning } else { State::Ok }, text)
}

fn connects_of(live: &Live) -> (String, bool) {
    let attempts = live.attempts();
    let mut line = match attempts {
        0 => format!("live: no new connects, {} open", human::counted(live.active, "connection")),
        _ => format!(
            "live: {} in {}",
            human::counted(attempts, "connect"),
            human::span(live.seconds)
        ),
    };
    let failed: Vec<String> =
        live.failed.iter().map(|(result, n)| format!("{n} {}", in_words(result))).collect();
    if attempts > 0 && failed.is_empty() {
        line.push_str(", none failed");
    }
    for part in failed {
        line.push_str(", ");
        line.push_str(&part);
    }
    if live.syn_retransmits > 0 {
        // Writing into a String cannot fail, here and below.
        let _ = write!(line, ", SYN retransmits {}", live.syn_retransmits);
    }
    if let Some(used) = live.local_ports {
        let _ = write!(line, ", local ports {} in use", human::percent(used));
    }
    let mut is_bad = is_noteworthy(attempts - live.ok.min(attempts), attempts);
    let resets: u64 = live
        .resets
        .iter()
        .filter(|(cause, _)| !matches!(cause.as_str(), "unused" | "stopping" | "no_listener"))
        .map(|(_, n)| n)
        .sum();
    let aborts: u64 = live.aborts.values().sum();
    for (n, what) in [(resets, "reset"), (aborts, "dead connection")] {
        if n > 0 {
            is_bad = true;
            let _ = write!(line, ", {}", human::counted(n, what));
        }
    }
    (line, is_bad)
}

fn probes_of(connect: &Connects, from: &str) -> String {
    let target = connect.target.map_or_else(String::new, |target| format!(" to {target}"));
    let mut line =
        format!("probe: {}{target} from {from}:", human::counted(connect.attempts, "connect"));
    let late = connect.after_a_second();
    let fast = connect.ok() - late;
    let mut parts = Vec::new();
    if fast > 0 {
        let median = connect.median().map_or_else(String::new, human::duration);
        parts.push(format!("{fast} in {median}"));
    }
    if late > 0 {
        parts.push(format!("{late} after more than a second (SYN lost)"));
    }
    parts.extend(connect.failed.iter().map(|(result, n)| format!("{n} {}", in_words(result))));
    line.push(' ');
    line.push_str(&parts.join(", "));
    if let Some(error) = &connect.error {
        let _ = write!(line, " ({error})");
    }
    line
}

fn path(evidence: &Evidence) -> Found {
    let Some(live) =
        evidence.live.as_ref().filter(|live| live.rtt.p50.is_some() || live.segments > 0)
    else {
        return skipped("no data was sent in the window");
    };
    let mut text = format!("{} retransmits", human::percent(live.loss()));
    if live.rtt.p50.is_some() {
        let _ = write!(
            text,
            "; RTT {} p50, {} p99",
            human::quantile(live.rtt.p50),
            human::quantile(live.rtt.p99)
        );
        if live.usual_rtt.p50.is_some() {
            let _ =
                write!(text, " (since the agent's start {})", human::quantile(live.usual_rtt.p50));
        }
    }
    let mut lines = vec![text];
    let lossy = live.loss() >= 0.02;
    if lossy && !live.others.is_empty() {
        let others: Vec<String> = live
            .others
            .iter()
            .take(4)
            .map(|(name, loss)| format!("{name} {}", human::percent(*loss)))
            .collect();
        lines.push(format!("other connections of the two: {}", others.join(", ")));
    }
    (if lossy { State::Warning } else { State::Ok }, lines)
}

/// Why there was no probe.
fn why_not(evidence: &Evidence) -> &str {
    evidence.probes.skipped.as_deref().unwrap_or("not tried")
}

// === impl State ===

impl State {
    /// Its mark: never by colour alone.
    pub(super) const fn mark(self) -> char {
        match self {
            Self::Ok => '✓',
            Self::Failed => '✗',
            Self::Warning => '!',
            Self::Skipped => '–',
        }
    }
}

// === impl Silence ===

impl Silence {
    /// In words.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Timeout => "no answer".to_owned(),
            Self::Closed => "the server closes the connection".to_owned(),
            Self::Refused(said) => format!("the server refuses: {said}"),
            Self::Other(said) => format!("not an answer of this protocol: {said}"),
        }
    }
}
