//! Why a connect is refused: nothing listens, or something else than the client connects to.

use std::net::{IpAddr, SocketAddr};

use super::{Certainty, Verdict, failures, sure};
use crate::diagnose::cause::Cause;
use crate::diagnose::evidence::{Evidence, Listening, Live};
use notation::duration::ago;

/// A refused connect, with what listens on the port in the server's network namespace.
pub(super) fn refused(evidence: &Evidence) -> Option<Verdict> {
    let (live, probed) = failures(evidence, &["refused", "reset"])?;
    let Evidence { pair, probes, host, .. } = evidence;
    let server = pair.endpoint();
    let Some((known, address)) = evidence
        .live
        .as_ref()
        .filter(|live| live.is_here && live.sees_listeners)
        .zip(evidence.address())
    else {
        let text = format!(
            "{server} refuses connects: nothing listens there, or a firewall rejects them{}.",
            stopped(evidence)
        );
        let verdict = sure(Verdict::of(Cause::NothingListens, text), evidence, live, probed);
        let port = pair.port;
        let is_own = evidence.address().is_some_and(|address| address.ip().is_loopback());
        let host = if is_own { "the client's" } else { "the server's" };
        return Some(verdict.look_at(&format!("portolan ports who {port}, on {host} host")));
    };
    let port = address.port();
    let listeners = &known.listeners;
    let starts = ["service_started", "service_restarted", "service_changed"];
    let started = known.change(&pair.server, &starts);
    let works_now = match &probes.connect {
        Some(connect) => connect.ok() > 0 && probed == 0,
        // Without a probe: it listens, and has not done so for long.
        None => started.is_some() && listeners.iter().any(|one| one.accepts(address.ip())),
    };
    if works_now {
        let since = started.map_or_else(String::new, |change| {
            format!("; {} {} ago", change.text, ago(change.seconds_ago))
        });
        let text = format!("{server} refused connects in the window and accepts them now{since}.");
        let certainty = if since.is_empty() { Certainty::Medium } else { Certainty::High };
        let verdict = Verdict::new(
            Cause::WasNotListening,
            text,
            certainty,
            "live traffic failed, and it listens now",
        );
        return Some(verdict.look_at(&format!(
            "why it was not listening: portolan events --server {}",
            pair.server.name
        )));
    }
    let Some(reached) = listeners.iter().find(|one| one.accepts(address.ip())) else {
        return Some(match listeners.first() {
            None => {
                let killed = match host.oom_kills {
                    Some(kills) if kills > 0 => {
                        format!(" The OOM killer has killed {kills} of its cgroup.")
                    }
                    _ => String::new(),
                };
                let text = format!(
                    "nothing listens on port {port} of {}{}.{killed}",
                    pair.server,
                    stopped(evidence)
                );
                let verdict =
                    sure(Verdict::of(Cause::NothingListens, text), evidence, live, probed);
                certain(verdict, "no socket listens there, by the kernel's list").look_at(&format!(
                    "start the server, or correct the port in the client's configuration: portolan ports who {port}"
                ))
            }
            Some(other) => elsewhere(evidence, other, address),
        });
    };
    let text = format!(
        "{server} is refused although {} (pid {}) listens on {}: a firewall rejects the connects with a reset.",
        reached.command,
        reached.pid,
        SocketAddr::new(reached.address, port)
    );
    let verdict = sure(Verdict::of(Cause::Rejected, text), evidence, live, probed);
    Some(verdict.look_at("nft list ruleset (rules with `reject`), in both network namespaces"))
}

/// The server listens, but not where the client connects to.
fn elsewhere(evidence: &Evidence, other: &Listening, wanted: SocketAddr) -> Verdict {
    let listens = SocketAddr::new(other.address, wanted.port());
    let who = if other.command.is_empty() {
        evidence.pair.server.to_string()
    } else {
        format!("{} (pid {})", other.command, other.pid)
    };
    let (cause, text, next) = if other.address.is_loopback() && !wanted.ip().is_loopback() {
        (
            Cause::LoopbackOnly,
            format!(
                "{who} listens on the loopback only ({listens}); the client connects to {wanted}."
            ),
            format!("let the server listen on 0.0.0.0 or on {}", wanted.ip()),
        )
    } else if is_v4(other.address) != is_v4(wanted.ip()) {
        let (has, lacks) = if is_v4(other.address) { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
        (
            Cause::OtherAddress,
            format!(
                "{who} listens for {has} only ({listens}); the client connects over {lacks} to {wanted}."
            ),
            format!("let the server listen for {lacks} too, or the client use {has}"),
        )
    } else {
        (
            Cause::OtherAddress,
            format!("{who} listens on {listens} only; the client connects to {wanted}."),
            "the server's listen address, or the address in the client's configuration".to_owned(),
        )
    };
    let (live, probed) = failures(evidence, &["refused", "reset"]).unwrap_or_default();
    let verdict = sure(Verdict::of(cause, text), evidence, live, probed);
    certain(verdict, "the kernel's list of listening sockets").look_at(&next)
}

/// A verdict that a list of the kernel proves.
fn certain(verdict: Verdict, proof: &str) -> Verdict {
    let reason = format!("{proof}; {}", verdict.reason);
    Verdict { certainty: Certainty::High, reason, ..verdict }
}

/// When the server ended, if the agent has seen it.
fn stopped(evidence: &Evidence) -> String {
    let change = |live: &Live| live.change(&evidence.pair.server, &["service_stopped"]).cloned();
    let change = evidence.live.as_ref().and_then(change);
    change
        .map_or_else(String::new, |change| format!(": it stopped {} ago", ago(change.seconds_ago)))
}

const fn is_v4(address: IpAddr) -> bool {
    address.is_ipv4()
}
