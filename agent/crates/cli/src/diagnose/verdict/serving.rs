//! What goes wrong on a connection that was made: TLS, answers, resets, connections that stay.

use super::{CLOSE_WAIT, Certainty, UNREAD, Verdict, sure, waits_for};
use crate::diagnose::cause::Cause;
use crate::diagnose::evidence::{Evidence, Silence, TlsFault, Uneven, is_noteworthy};
use crate::human;

pub(super) fn tls_fails(evidence: &Evidence) -> Option<Verdict> {
    let Some(Err(fault)) = &evidence.probes.tls else { return None };
    let server = evidence.pair.endpoint();
    let (cause, text, next) = match fault {
        TlsFault::Expired { days_ago } => {
            let since = days_ago.map_or_else(String::new, |days| {
                format!(" {} ago", human::counted(days.max(0) as u64, "day"))
            });
            (
                Cause::CertificateExpired,
                format!("the certificate of {server} has expired{since}."),
                "renew the certificate, and let the server load it",
            )
        }
        TlsFault::NotYetValid => (
            Cause::CertificateExpired,
            format!("the certificate of {server} is not valid yet."),
            "the clocks of both hosts",
        ),
        TlsFault::OtherName { wanted, presented } => (
            Cause::CertificateName,
            format!("the certificate of {server} is for {}, not for {wanted}.", list(presented)),
            "the name that the client connects to, or the certificate that the server presents for it (SNI)",
        ),
        TlsFault::Alert(alert) => (
            Cause::TlsFails,
            format!("{server} ends the TLS handshake with the alert {alert}."),
            "versions, ciphers and client certificates that the server requires",
        ),
        TlsFault::NotTls => (
            Cause::TlsFails,
            format!("{server} does not speak TLS."),
            "the scheme and the port in the client's configuration",
        ),
        TlsFault::Silent => (
            Cause::TlsFails,
            format!("{server} does not answer the TLS handshake."),
            "whether the port expects TLS",
        ),
        TlsFault::Other(why) => (
            Cause::TlsFails,
            format!("the TLS handshake with {server} fails: {why}."),
            "openssl s_client -connect ADDRESS",
        ),
    };
    let verdict = Verdict::new(
        cause,
        text,
        Certainty::High,
        "a handshake from the client's network namespace",
    );
    Some(verdict.look_at(next))
}

pub(super) fn keepalive_mismatch(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { live, pair, .. } = evidence;
    let count = *live.as_ref()?.resets.get("idle_reuse")?;
    let text = format!(
        "{} closes idle connections while {} still uses them: {} in the window hit a connection that was already closed.",
        pair.server,
        pair.client(),
        human::counted(count, "request")
    );
    let verdict = Verdict::new(
        Cause::KeepaliveMismatch,
        text,
        Certainty::High,
        "the kernel's reason of the resets",
    );
    Some(
        verdict
            .look_at("keep-alive timeouts: the client's has to be shorter than the server's")
            .look_at("portolan explain PortolanKeepaliveMismatch"),
    )
}

pub(super) fn not_reading(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { live, pair, .. } = evidence;
    let (unread, program, _) = live.as_ref()?.unread.worst(pair);
    if unread < UNREAD {
        return None;
    }
    let text =
        format!("{program} does not read: {} wait in its receive queues.", human::bytes(unread));
    let verdict =
        Verdict::new(Cause::NotReading, text, Certainty::High, "the kernel counts what is unread");
    Some(
        verdict
            .look_at(&format!("what the threads of {program} wait for"))
            .look_at("portolan explain PortolanReceiverNotReading"),
    )
}

pub(super) fn unanswered(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { live, probes, pair, .. } = evidence;
    let silent =
        |result: Option<&Silence>| matches!(result, Some(Silence::Timeout | Silence::Closed));
    let http = probes.http.as_ref().is_some_and(|http| silent(http.result.as_ref().err()));
    let hello = probes.hello.as_ref().is_some_and(|hello| silent(hello.result.as_ref().err()));
    let open = live
        .as_ref()
        .filter(|live| is_noteworthy(live.unanswered, live.requests + live.unanswered));
    let probed = u64::from(http || hello);
    let count = open.map_or(0, |live| live.unanswered);
    if count == 0 && probed == 0 {
        return None;
    }
    let facts = match open {
        Some(live) => format!(
            "{count} of {} in the window got no answer",
            human::counted(live.requests + live.unanswered, "request")
        ),
        None => "a probe got no answer".to_owned(),
    };
    let is_tried = probes.http.is_some() || probes.hello.is_some();
    let certain = |cause, text| {
        if is_tried {
            return sure(Verdict::of(cause, text), evidence, count, probed);
        }
        let reason = "seen in live traffic; no request was tried (--http PATH)";
        Verdict::new(cause, text, Certainty::Medium, reason)
    };
    if let Some(hop) = open.and_then(|live| live.dependencies.iter().find(|hop| hop.is_failing())) {
        let text = format!(
            "{} does not answer because of a service that it calls: {}; {facts}.",
            pair.server,
            waits_for(hop)
        );
        return Some(certain(Cause::SlowDependency, text).because_of(hop));
    }
    let text = format!("{} does not answer: {facts}.", pair.server);
    Some(
        certain(Cause::NeverAnswers, text)
            .look_at("its log, and what its threads wait for")
            .look_at("portolan explain PortolanRequestsUnanswered"),
    )
}

pub(super) fn connections_die(evidence: &Evidence) -> Option<Verdict> {
    let live = evidence.live.as_ref()?;
    let count: u64 = live.aborts.values().sum();
    if !is_noteworthy(count, live.opened) {
        return None;
    }
    let causes: Vec<String> = live.aborts.iter().map(|(cause, n)| format!("{n} {cause}")).collect();
    let text = format!(
        "established connections die: a kernel gave {} up because the other end did not answer ({}).",
        human::counted(count, "connection"),
        causes.join(", ")
    );
    let verdict = Verdict::new(
        Cause::ConnectionsDie,
        text,
        Certainty::High,
        "counted by the kernel that gave up",
    );
    Some(
        verdict
            .look_at("a firewall or NAT that forgets idle connections; a host that went away")
            .look_at("portolan explain PortolanConnectionsAborted"),
    )
}

pub(super) fn resets(evidence: &Evidence) -> Option<Verdict> {
    let live = evidence.live.as_ref()?;
    let ours = live.resets.iter().filter(|(cause, _)| {
        !matches!(cause.as_str(), "idle_reuse" | "stopping" | "unused" | "no_listener")
    });
    let (causes, count) = ours.fold((Vec::new(), 0), |(mut causes, sum), (cause, n)| {
        causes.push(format!("{n} {cause}"));
        (causes, sum + n)
    });
    if !is_noteworthy(count, live.opened.max(live.requests)) {
        return None;
    }
    let text = format!(
        "connections are cut with a reset: {} ({}).",
        human::counted(count, "reset"),
        causes.join(", ")
    );
    let verdict = Verdict::new(
        Cause::Resets,
        text,
        Certainty::Medium,
        "the kernel's reason; which program did it and why is in its log",
    );
    Some(
        verdict
            .look_at("the logs of both programs at these times: portolan events --kind reset")
            .look_at("portolan explain PortolanResetStorm"),
    )
}

pub(super) fn server_error(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { probes, pair, live, .. } = evidence;
    let http = probes.http.as_ref().and_then(|http| match http.result {
        Ok(status) if status >= 500 => Some(format!("GET {} is answered with {status}", http.path)),
        _ => None,
    });
    let hello = probes.hello.as_ref().and_then(|hello| match &hello.result {
        Err(Silence::Refused(said)) => Some(format!("{} says: {said}", hello.protocol)),
        _ => None,
    });
    let seen = live.as_ref().and_then(|live| {
        let count: u64 = live.errors.values().sum();
        let errors: Vec<String> =
            live.errors.iter().map(|(what, n)| format!("{n} {what}")).collect();
        let all = human::counted(live.responses, "response");
        is_noteworthy(count, live.responses)
            .then(|| format!("{} of {all} in the window", errors.join(", ")))
    });
    let reason = match (&seen, http.is_some() || hello.is_some()) {
        (Some(_), true) => "live traffic and a probe agree",
        (Some(_), false) => "the server's own message, seen in live traffic",
        (None, _) => "the server's own message",
    };
    let what: Vec<String> = seen.into_iter().chain(http.or(hello)).collect();
    if what.is_empty() {
        return None;
    }
    let what = what.join("; ");
    let failing =
        live.as_ref().and_then(|live| live.dependencies.iter().find(|hop| hop.is_failing()));
    if let Some(hop) = failing {
        let text = format!(
            "{} answers with an error ({what}), and a service that it calls fails: {}.",
            pair.server,
            waits_for(hop)
        );
        let verdict =
            Verdict::new(Cause::SlowDependency, text, Certainty::Medium, "both at the same time");
        return Some(verdict.because_of(hop));
    }
    let text = format!("{} can be reached, and answers with an error: {what}.", pair.server);
    let verdict = Verdict::new(Cause::ServerError, text, Certainty::High, reason);
    Some(verdict.look_at("its log").look_at("portolan explain PortolanErrorResponses"))
}

pub(super) fn not_closed(evidence: &Evidence) -> Option<Verdict> {
    let (count, program, other) = evidence.live.as_ref()?.close_wait.worst(&evidence.pair);
    if count <= CLOSE_WAIT {
        return None;
    }
    let text = format!(
        "{program} does not close its connections: {} in CLOSE_WAIT, which {other} has closed.",
        human::counted(count, "connection")
    );
    let verdict = Verdict::new(Cause::NotClosed, text, Certainty::High, "counted by the kernel");
    Some(
        verdict
            .look_at(&format!(
                "where {program} reads the end of a connection, or an error, and does not close it"
            ))
            .look_at("portolan explain PortolanConnectionsNotClosed"),
    )
}

pub(super) fn uneven(evidence: &Evidence) -> Option<Verdict> {
    let Evidence { live, pair, .. } = evidence;
    let Uneven { backend, what, share, expected } = live.as_ref()?.uneven.as_ref()?;
    let text = format!(
        "{} spreads its load unevenly: {backend} gets {} of the {what}, expected {}.",
        pair.client(),
        human::percent(*share),
        human::percent(*expected)
    );
    let reason = "counted per backend, and too many to be chance";
    let verdict = Verdict::new(Cause::Uneven, text, Certainty::High, reason);
    let all = format!("portolan balance {}", pair.server);
    Some(
        verdict
            .look_at("weights and policy of the load balancer; connections that it keeps open")
            .look_at(&all)
            .look_at("portolan explain PortolanUnevenBalance"),
    )
}

pub(super) fn forbidden(evidence: &Evidence) -> Option<Verdict> {
    let (client, server, verdict) = evidence.live.as_ref()?.segments_of.as_ref()?;
    if *verdict != api_types::SegmentVerdict::Violation {
        return None;
    }
    let text =
        format!("the connection works, but the segments do not allow it: {client} → {server}.");
    let verdict = Verdict::new(
        Cause::Forbidden,
        text,
        Certainty::High,
        "the rules of the agent's configuration",
    );
    Some(verdict.look_at("portolan segments violations"))
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "no name".to_owned() } else { names.join(", ") }
}
