//! What delays requests: loss, the network, the server, what the server waits for.

use super::{
    Certainty, FEW_RETRANSMITS, GROWTH, LOSS, MOST_OF_IT, SLOW_SECONDS, THROTTLED,
    UNNOTICED_RTT_SECONDS, UNNOTICED_SECONDS, Verdict, failures, waits_for,
};
use crate::diagnose::cause::Cause;
use crate::diagnose::evidence::{Connects, Evidence, Hop, Live, is_polling};
use crate::human;

/// So many live connects show loss if there is any.
const MANY_CONNECTS: u64 = 20;
/// Fewer late probes are chance.
const FEW_LATE: u64 = 3;

pub(super) fn loss(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { live, probes, .. } = evidence;
    let retransmits = live
        .as_ref()
        .is_some_and(|live| live.retransmits >= FEW_RETRANSMITS && live.loss() >= LOSS);
    let (timeouts, failed_probes) = failures(evidence, &["timeout", "aborted"]).unwrap_or_default();
    let late = probes.connect.as_ref().map_or(0, Connects::after_a_second);
    if !retransmits && timeouts == 0 && failed_probes + late == 0 {
        return None;
    }
    // Many live connects of which none lost a SYN outweigh a few late probes: twenty at once may be
    // more than a short accept queue holds for a moment.
    let live_is_well = live.as_ref().is_some_and(|live| {
        live.ok >= MANY_CONNECTS && live.syn_retransmits == 0 && !retransmits && timeouts == 0
    });
    if live_is_well && failed_probes == 0 && late < FEW_LATE {
        return None;
    }
    let mut facts = Vec::new();
    if let Some(live) = live.as_ref().filter(|_| retransmits) {
        facts.push(format!("{} of the segments are retransmitted", human::percent(live.loss())));
    }
    if timeouts > 0
        && let Some(live) = live
    {
        facts
            .push(format!("{timeouts} of {} time out", human::counted(live.attempts(), "connect")));
    }
    let mut reason = String::from("seen in live traffic only");
    if let Some(connect) = &probes.connect {
        let lost = failed_probes + late;
        if lost > 0 {
            facts.push(format!(
                "the SYN of {lost} of {} was lost",
                human::counted(connect.attempts, "probe")
            ));
        }
        reason = margin(lost, connect.attempts);
    }
    let rtt = live.as_ref().and_then(|live| Some((live.rtt.p50?, live.usual_rtt.p50?)));
    let queueing = match rtt {
        Some((now, usual)) if now < usual * GROWTH => {
            " The round-trip time has not grown: it is loss, not congestion."
        }
        Some(_) => " The round-trip time has grown, too: a queue on the path is full.",
        None => "",
    };
    let text = format!("packets between them are lost: {}.{queueing}", facts.join(", "));
    let agree = (retransmits || timeouts > 0) && failed_probes + late > 0;
    let certainty = if agree { Certainty::High } else { Certainty::Medium };
    let reason = if agree { format!("live and probes agree; {reason}") } else { reason };
    let verdict = Verdict::new(Cause::Loss, text, certainty, &reason);
    Some(
        verdict
            .look_at("nft list ruleset: rules with a limit or a probability")
            .look_at("tc -s qdisc; ip -s link: a policer, a full queue, errors of an interface"),
    )
}

pub(super) fn slow(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { live, host, pair, .. } = evidence;
    let live = live.as_ref()?;
    let grown = |now: Option<f64>, usual: Option<f64>| match (now, usual) {
        (Some(now), Some(usual)) => now > usual * GROWTH && now - usual > UNNOTICED_SECONDS,
        _ => false,
    };
    let total = live.client.p99.or(live.server.p99)?;
    if total < SLOW_SECONDS && !grown(live.client.p50, live.usual.p50) {
        return None;
    }
    if is_polling(live.waits, live.requests, live.client.p50.or(live.server.p50)) {
        return None;
    }
    let usual = live.usual.p50.filter(|_| grown(live.client.p50, live.usual.p50));
    let usual = usual.map_or_else(String::new, |usual| {
        format!(
            ", median {} instead of {}",
            human::quantile(live.client.p50),
            human::duration(usual)
        )
    });
    let latency = format!("p99 {}{usual}", human::quantile(Some(total)));
    let inside = live.server.p99;
    if inside.is_none_or(|inside| inside < total * MOST_OF_IT) {
        if let Some(verdict) = slow_path(live, &latency) {
            return Some(verdict);
        }
        if inside.is_some() {
            let text = format!(
                "requests are slow ({latency}), but {} itself answers in {}: the time is spent between the two programs.",
                pair.server,
                human::quantile(inside)
            );
            let verdict = Verdict::new(
                Cause::SlowPath,
                text,
                Certainty::Medium,
                "both sides are measured, and they differ",
            );
            return Some(
                verdict.look_at(
                    "the client's own delay in reading, and the path: retransmits, a proxy",
                ),
            );
        }
    }
    if let Some(share) = host.throttled_share().filter(|share| *share >= THROTTLED) {
        let text = format!(
            "{} is slow ({latency}): its cgroup has used up its CPU quota in {} of the periods.",
            pair.server,
            human::percent(share)
        );
        let verdict = Verdict::new(
            Cause::CpuThrottled,
            text,
            Certainty::High,
            "the cgroup counts throttled periods",
        );
        return Some(verdict.look_at("cpu.max of its cgroup (limits.cpu of its container)"));
    }
    let waited = inside.unwrap_or(total);
    let slowest = live.dependencies.iter().filter(|hop| {
        hop.p99_seconds.is_some_and(|p99| p99 >= waited * MOST_OF_IT) || hop.is_failing()
    });
    let slowest = slowest.max_by(|a, b| {
        a.p99_seconds.unwrap_or_default().total_cmp(&b.p99_seconds.unwrap_or_default())
    });
    if let Some(hop) = slowest {
        let text =
            format!("{} is slow ({latency}) because it waits for {}.", pair.server, waits_for(hop));
        let verdict = Verdict::new(
            Cause::SlowDependency,
            text,
            Certainty::Medium,
            "the service that it calls takes as long at the same time",
        );
        return Some(verdict.because_of(hop));
    }
    let called = busiest(live);
    let reason = match (inside, called) {
        (Some(_), Some(_)) => {
            "measured at the server; of what it calls, only first bytes are timed"
        }
        (Some(_), None) => "measured at the server; it calls nothing that the agent sees",
        (None, _) => "the server has no agent on its host; the path is fast",
    };
    let pressure = host.cpu_pressure.filter(|share| *share >= 0.2);
    let pressure = pressure.map_or_else(String::new, |share| {
        format!(
            " Its processes waited for a CPU in {} of the last ten seconds.",
            human::percent(share)
        )
    });
    let text = match called {
        None => format!("{} itself is slow: {latency}.{pressure}", pair.server),
        Some(hop) => format!(
            "{0} is slow: {latency}. What it calls begins to answer in time, so it is {0} itself, or the rest of a response that it reads comes late, as of {1}.{pressure}",
            pair.server,
            waits_for(hop)
        ),
    };
    let verdict = Verdict::new(Cause::SlowServer, text, Certainty::Medium, reason);
    let verdict = verdict.look_at("a profile or thread dump of it: does it compute, or read?");
    let verdict = match called {
        Some(hop) => verdict.look_at(&format!(
            "how long {} takes for a whole response: its log, or curl -w '%{{time_total}}'",
            hop.server
        )),
        None => verdict,
    };
    Some(verdict.look_at("portolan explain PortolanLatencyHigh"))
}

/// What a slow server calls most: one whose bodies could take the time.
fn busiest(live: &Live) -> Option<&Hop> {
    let used = live.dependencies.iter().filter(|hop| hop.requests > 0);
    used.max_by_key(|hop| hop.requests)
}

fn slow_path(live: &Live, latency: &str) -> Option<Verdict> {
    let (now, usual) = (live.rtt.p50?, live.usual_rtt.p50?);
    if now < usual * GROWTH || now - usual < UNNOTICED_RTT_SECONDS {
        return None;
    }
    let text = format!(
        "the network between them is slow ({latency}): a round trip takes {} instead of {}.",
        human::duration(now),
        human::duration(usual)
    );
    let verdict = Verdict::new(Cause::SlowPath, text, Certainty::High, "measured by TCP itself");
    Some(
        verdict
            .look_at("tc -s qdisc and ip -s link on the path: a full queue, a shaper")
            .look_at("tracepath ADDRESS"),
    )
}

/// Throttled, although nothing was slow in the window.
pub(super) fn cpu_throttled(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { host, pair, .. } = evidence;
    let share = host.throttled_share().filter(|share| *share >= 0.5)?;
    let text = format!(
        "the cgroup of {} has used up its CPU quota in {} of the periods.",
        pair.server,
        human::percent(share)
    );
    let verdict = Verdict::new(
        Cause::CpuThrottled,
        text,
        Certainty::Medium,
        "counted by the cgroup; no request was slow in the window",
    );
    Some(verdict.look_at("cpu.max of its cgroup (limits.cpu of its container)"))
}

/// A share of probes with its margin of error (95 %).
fn margin(n: u64, all: u64) -> String {
    if all == 0 {
        return "no probes".to_owned();
    }
    // Of nothing the usual error would be nothing: three in all is the limit then.
    if n == 0 {
        let most = (3.0 / all as f64).min(1.0);
        return format!("none of {all} probes: fewer than {:.0} %, most likely", most * 100.0);
    }
    let share = n as f64 / all as f64;
    let error = 1.96 * (share * (1.0 - share) / all as f64).sqrt();
    format!("{n} of {all} probes is {:.0} % ± {:.0}", share * 100.0, error * 100.0)
}
