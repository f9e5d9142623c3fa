//! The steps at the server: TLS, HTTP, the program, its host, and the policy.

use std::fmt::Write as _;

use api_types::SegmentVerdict;

use super::{DAYS, Found, State, skipped};
use crate::diagnose::evidence::{Certificate, Evidence, Hello, Host, Http, TlsFault};
use crate::human;

pub(super) fn tls(evidence: &Evidence) -> Found {
    match &evidence.probes.tls {
        None => skipped("not tried (--tls-name NAME tries it)"),
        Some(Ok(Certificate { version, seconds, days_left, untrusted })) => {
            let mut text = format!("{version} in {}", human::duration(*seconds));
            let mut state = State::Ok;
            if let Some(days) = days_left {
                // Writing into a String cannot fail, here and below.
                let _ = write!(
                    text,
                    ", certificate valid for {}",
                    human::counted((*days).max(0) as u64, "day")
                );
                if *days < DAYS {
                    state = State::Warning;
                }
            }
            if let Some(why) = untrusted {
                let _ = write!(text, "; this host would not trust it ({why}), the client may");
            }
            (state, vec![text])
        }
        Some(Err(fault)) => (State::Failed, vec![fault_text(fault)]),
    }
}

fn fault_text(fault: &TlsFault) -> String {
    match fault {
        TlsFault::Expired { days_ago: Some(days) } => {
            format!("the certificate expired {} ago", human::counted((*days).max(0) as u64, "day"))
        }
        TlsFault::Expired { days_ago: None } => "the certificate has expired".to_owned(),
        TlsFault::NotYetValid => "the certificate is not valid yet".to_owned(),
        TlsFault::OtherName { wanted, presented } => {
            format!("the certificate is for {}, not for {wanted}", presented.join(", "))
        }
        TlsFault::Alert(alert) => format!("the server sends the alert {alert}"),
        TlsFault::NotTls => "the server does not speak TLS".to_owned(),
        TlsFault::Silent => "no answer to the handshake".to_owned(),
        TlsFault::Other(why) => why.clone(),
    }
}

pub(super) fn http(evidence: &Evidence) -> Found {
    let (mut state, mut text) = (State::Ok, Vec::new());
    if let Some(Http { path, seconds, result }) = &evidence.probes.http {
        let took = human::duration(*seconds);
        match result {
            Ok(status) => {
                text.push(format!("probe GET {path}: {status} in {took}"));
                if *status >= 500 {
                    state = State::Failed;
                }
            }
            Err(silence) => {
                state = State::Failed;
                text.push(format!("probe GET {path}: {} ({took})", silence.text()));
            }
        }
    }
    if let Some(Hello { protocol, seconds, result }) = &evidence.probes.hello {
        let took = human::duration(*seconds);
        match result {
            Ok(said) => text.push(format!("probe {protocol}: {said} in {took}")),
            Err(silence) => {
                state = State::Failed;
                text.push(format!("probe {protocol}: {} ({took})", silence.text()));
            }
        }
    }
    if text.is_empty() { skipped("not tried (--http PATH tries it)") } else { (state, text) }
}

pub(super) fn application(evidence: &Evidence) -> Found {
    let Some(live) = evidence.live.as_ref().filter(|live| live.requests + live.unanswered > 0)
    else {
        return skipped("no requests in the window");
    };
    let server = &evidence.pair.server;
    let mut state = State::Ok;
    let mut line =
        format!("{} in {}", human::counted(live.requests, "request"), human::span(live.seconds));
    if live.server.p99.is_some() {
        let _ = write!(
            line,
            "; {server} answers in p50 {}, p99 {}",
            human::quantile(live.server.p50),
            human::quantile(live.server.p99)
        );
    }
    if live.client.p99.is_some() {
        let _ = write!(
            line,
            "; the client sees p50 {}, p99 {}",
            human::quantile(live.client.p50),
            human::quantile(live.client.p99)
        );
    }
    if live.unanswered > 0 {
        state = State::Warning;
        let _ = write!(line, "; {} without an answer", live.unanswered);
    }
    for (what, count) in &live.errors {
        state = State::Warning;
        let _ = write!(line, "; {count} {what} of {}", live.responses);
    }
    let mut lines = vec![line];
    let (unread, program, _) = live.unread.worst(&evidence.pair);
    if unread > 0 {
        lines.push(format!("unread by {program}: {}", human::bytes(unread)));
    }
    if !live.dependencies.is_empty() {
        let calls: Vec<String> = live
            .dependencies
            .iter()
            .take(4)
            .map(|hop| {
                let why =
                    if hop.why.is_empty() { String::new() } else { format!(" ({})", hop.why) };
                format!("{}:{} p99 {}{why}", hop.server, hop.port, human::quantile(hop.p99_seconds))
            })
            .collect();
        lines.push(format!("its own calls: {}", calls.join(", ")));
    }
    (state, lines)
}

pub(super) fn host(evidence: &Evidence) -> Found {
    let Host {
        skipped: why,
        pid,
        state,
        descriptors,
        cpu_pressure,
        memory_pressure,
        oom_kills,
        ..
    } = &evidence.host;
    if let Some(why) = why {
        return skipped(why);
    }
    let Some(letter) = state else { return skipped("the server's process is not known") };
    let mut parts = vec![format!(
        "pid {pid} {}",
        if evidence.host.is_stopped() { "is stopped" } else { "runs" }
    )];
    let mut warns = evidence.host.is_stopped() || *letter == 'Z';
    if let Some((open, limit)) = descriptors {
        parts.push(format!("{open} of {limit} descriptors"));
        warns |= evidence.host.is_short_of_descriptors();
    }
    if let Some(share) = evidence.host.throttled_share() {
        parts.push(format!("CPU throttled in {} of the periods", human::percent(share)));
        warns |= share >= 0.1;
    }
    for (pressure, what) in [(cpu_pressure, "CPU"), (memory_pressure, "memory")] {
        if let Some(share) = pressure.filter(|share| *share >= 0.05) {
            parts.push(format!("{what} pressure {}", human::percent(share)));
        }
    }
    if let Some(kills) = oom_kills.filter(|kills| *kills > 0) {
        parts.push(format!("OOM kills in its cgroup: {kills}"));
        warns = true;
    }
    (if warns { State::Warning } else { State::Ok }, vec![parts.join(", ")])
}

pub(super) fn policy(evidence: &Evidence) -> Found {
    let Some(live) = evidence.live.as_ref().filter(|live| live.has_segments) else {
        return skipped("no segments are declared");
    };
    let Some((client, server, verdict)) = &live.segments_of else {
        // The agent lists every pair that has ever violated them.
        return match live.ok + live.opened {
            0 => skipped("no connection was made that the segments could judge"),
            _ => (State::Ok, vec!["no connection of the two violates the segments".to_owned()]),
        };
    };
    let (state, word) = match verdict {
        SegmentVerdict::Allowed => (State::Ok, "allowed"),
        SegmentVerdict::Violation => (State::Warning, "not allowed"),
        SegmentVerdict::NotJudged => (State::Skipped, "no rule is about it"),
    };
    (state, vec![format!("{client} → {server}: {word}")])
}
