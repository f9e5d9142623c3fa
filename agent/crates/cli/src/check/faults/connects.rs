//! Connectivity: connects that fail, connections that break, requests without a response.

use std::net::IpAddr;

use api_types::{Severity, code};

use super::attempts::{ON_LOOPBACK, is_rejected, listens, silent};
use super::{Answers, Blame, Checks, Kind, Pair, Sum, share};
use crate::check::limits::{
    BUDGET, DEAD_PER_MINUTE, ERRORS_ERROR, ERRORS_PER_MINUTE, ERRORS_SHARE, FAILED_PER_MINUTE,
    FAILED_SHARE, FEW, RESETS_PER_MINUTE, RESETS_SHARE, UNANSWERED_ERROR, UNANSWERED_PER_MINUTE,
    UNANSWERED_SHARE, UNANSWERED_SHARE_INTERNET,
};
use crate::check::section::Section;
use crate::human;

pub(super) const KINDS: [Kind; 10] = [
    Kind {
        code: code::CONNECTS_REFUSED,
        blame: Blame::Server,
        counted: "refused",
        of: Some("attempts"),
        events: |cause| matches!(cause, "connect_refused" | "connect_reset"),
        count: |pair, answers| {
            let sum = failed(pair, pair.connects(&["refused", "reset"]))?;
            Some(Sum { note: listens(pair, answers), ..sum })
        },
        grade: connects,
        says: |sum| {
            let note = sum.note.map(|note| format!(": {note}")).unwrap_or_default();
            share(sum, "of connects are refused") + &note
        },
        fix: |sum, client, server| match sum.note {
            None => {
                format!("start {server}, or correct the address and port that {client} connects to")
            }
            Some(ON_LOOPBACK) => format!(
                "let {server} listen on the address that {client} connects to, or on all of them (0.0.0.0, ::)"
            ),
            Some(_) => format!(
                "see whether {server} has just started, listens on the address that {client} connects to, or a firewall rejects: `portolan diagnose {client} {server}`"
            ),
        },
    },
    Kind {
        code: code::CONNECTS_UNREACHABLE,
        blame: Blame::Server,
        counted: "unreachable",
        of: Some("attempts"),
        events: |cause| matches!(cause, "connect_unreachable" | "connect_denied"),
        count: |pair, answers| {
            let rejected = pair.connects(&["unreachable", "denied"]);
            let sum = failed(pair, rejected)?;
            if !is_rejected(pair) {
                return Some(sum);
            }
            let count = rejected + silent(pair, answers);
            Some(Sum { count, note: (count > rejected).then_some(", or get no answer"), ..sum })
        },
        grade: connects,
        says: |sum| {
            let note = sum.note.unwrap_or_default();
            share(sum, &format!("of connects have no route or are rejected{note}"))
        },
        fix: |_, client, server| {
            format!(
                "see whether the host of {server} is up (`ip neigh`: does anybody answer for its address?), and look at routes and firewall rules at both ends and between them: `ip route get ADDRESS` in the network namespace of {client}, `nft list ruleset`"
            )
        },
    },
    Kind {
        code: code::CONNECTS_TIME_OUT,
        blame: Blame::Server,
        counted: "timed_out",
        of: Some("attempts"),
        events: |cause| matches!(cause, "connect_timeout" | "connect_aborted"),
        count: |pair, answers| {
            // Part of what is rejected: who rejects does not answer every packet.
            let count = if is_rejected(pair) { 0 } else { silent(pair, answers) };
            let is_given_up = pair.connects(&["timeout"]) == 0;
            let note = is_given_up.then_some("get no answer before the client gives up");
            failed(pair, count).map(|sum| Sum { note, ..sum })
        },
        grade: connects,
        says: |sum| share(sum, &format!("of connects {}", sum.note.unwrap_or("time out"))),
        fix: |_, _, server| {
            format!(
                "nothing answers, and nothing refuses: is the host of {server} up, and its interface? (`ip neigh`, `ip link`); else packets are dropped: look at rules that drop (`nft list ruleset`), queues (`tc -s qdisc show`) and links on the path"
            )
        },
    },
    Kind {
        code: code::CONNECTS_FAIL_LOCALLY,
        blame: Blame::Client,
        counted: "failed",
        of: Some("attempts"),
        events: |cause| {
            matches!(
                cause,
                "connect_address_unavailable"
                    | "connect_port_in_use"
                    | "connect_time_wait"
                    | "connect_other"
            )
        },
        count: |pair, _| {
            let results = ["address_unavailable", "port_in_use", "time_wait", "other"];
            let server: Option<IpAddr> = pair.server.name.parse().ok();
            let is_link_local =
                matches!(server, Some(IpAddr::V6(server)) if server.is_unicast_link_local());
            let note = is_link_local.then_some(": a link-local address needs its interface");
            failed(pair, pair.connects(&results)).map(|sum| Sum { note, ..sum })
        },
        grade: connects,
        says: |sum| {
            let note = sum.note.unwrap_or_default();
            share(sum, &format!("of connects fail on the client's own side{note}"))
        },
        fix: |sum, client, _| {
            if sum.note.is_some() {
                return format!(
                    "let {client} connect to the address with its interface, as in fe80::1%eth0"
                );
            }
            format!(
                "see WHY in `portolan edges`: {client} binds a source address or port that it cannot have"
            )
        },
    },
    Kind {
        code: code::NO_LOCAL_PORT,
        blame: Blame::Client,
        counted: "without_port",
        of: Some("attempts"),
        events: |cause| cause == "connect_ports_exhausted",
        count: |pair, _| failed(pair, pair.connects(&["ports_exhausted"])),
        grade: connects,
        says: |sum| share(sum, "of connects find no free local port"),
        fix: |_, client, _| {
            format!(
                "let {client} keep connections open and use them again; widen net.ipv4.ip_local_port_range; set net.ipv4.tcp_tw_reuse to 1"
            )
        },
    },
    Kind {
        code: code::UNANSWERED,
        blame: Blame::Server,
        counted: "unanswered",
        of: Some("requests"),
        events: |cause| cause == "request_unanswered",
        count: |pair, _| {
            let count = pair.unanswered();
            let of = pair.requests().saturating_add(count);
            let is_internet = pair.is_internet;
            (count > 0).then_some(Sum { count, of, is_internet, ..Sum::default() })
        },
        grade: |sum, answers| {
            let limit = if sum.is_internet { UNANSWERED_SHARE_INTERNET } else { UNANSWERED_SHARE };
            let is_much = sum.count as f64 > limit * sum.of as f64;
            if sum.count >= UNANSWERED_ERROR && sum.count > sum.of - sum.count {
                Severity::Error
            } else if is_much && answers.per_minute(sum.count) > UNANSWERED_PER_MINUTE {
                Severity::Warning
            } else {
                Severity::Info
            }
        },
        says: |sum| share(sum, "of requests get no response"),
        fix: |_, client, server| {
            format!(
                "find out why {server} does not answer in time (is it stuck, or does it wait for another?); {client} gives up, or the connection ends first"
            )
        },
    },
    Kind {
        code: code::ERROR_RESPONSES,
        blame: Blame::Server,
        counted: "errors",
        of: Some("responses"),
        events: |cause| cause.starts_with("response_"),
        count: |pair, _| {
            let (count, of) = pair.error_responses();
            (count > 0).then_some(Sum { count, of, ..Sum::default() })
        },
        grade: |sum, answers| {
            let is_much = sum.count as f64 > ERRORS_SHARE * sum.of as f64;
            if sum.count >= ERRORS_ERROR && sum.count > sum.of.saturating_sub(sum.count) {
                Severity::Error
            } else if is_much && answers.per_minute(sum.count) > ERRORS_PER_MINUTE {
                Severity::Warning
            } else {
                Severity::Info
            }
        },
        says: |sum| share(sum, "of responses are errors of the server"),
        fix: |_, _, server| {
            format!(
                "`portolan operations {server}` has the statuses, and `portolan edges` its dependencies: are they healthy? Its own log says more"
            )
        },
    },
    Kind {
        code: code::CONNECTIONS_DIE,
        blame: Blame::Server,
        counted: "connections",
        of: None,
        events: |cause| cause.starts_with("abort_"),
        // Clients in the internet vanish.
        count: |pair, _| {
            some(if pair.is_internet { 0 } else { pair.causes(|it| it.starts_with("abort_")) })
        },
        grade: |sum, answers| rare(sum, answers, DEAD_PER_MINUTE),
        says: |sum| {
            format!("{} died: the other end no longer answered", counted(sum.count, "connection"))
        },
        fix: |_, client, server| {
            format!(
                "look at the hosts of {client} and {server} and the path: one of them vanished, or a firewall forgot its connections"
            )
        },
    },
    Kind {
        code: code::IDLE_REUSE,
        blame: Blame::Server,
        counted: "resets",
        of: None,
        events: |cause| cause == "reset_idle_reuse",
        count: |pair, _| some(pair.causes(|cause| cause == "reset_idle_reuse")),
        grade: |sum, answers| rare(sum, answers, DEAD_PER_MINUTE),
        says: |sum| {
            format!(
                "{} to an idle connection that the server had closed",
                match sum.count {
                    1 => "1 request was sent".to_owned(),
                    n => format!("{} requests were sent", human::count(n)),
                }
            )
        },
        fix: |_, client, server| {
            format!(
                "let {client} close idle connections before {server} does: a shorter keep-alive timeout of the client, or a longer one of the server"
            )
        },
    },
    Kind {
        code: code::CONNECTIONS_RESET,
        blame: Blame::Server,
        counted: "resets",
        of: Some("connects_and_requests"),
        events: is_other_reset,
        count: |pair, _| {
            let count = pair.causes(is_other_reset);
            let of = pair.attempts() + pair.requests();
            (count > 0).then_some(Sum { count, of, ..Sum::default() })
        },
        grade: |sum, answers| {
            let is_much = sum.count as f64 > RESETS_SHARE * sum.of as f64;
            if is_much && answers.per_minute(sum.count) > RESETS_PER_MINUTE {
                Severity::Warning
            } else {
                Severity::Info
            }
        },
        says: |sum| format!("{} reset", were(sum.count, "connection")),
        fix: |_, _, server| {
            format!(
                "`portolan events --kind reset` has each with its cause; look at {server} and its proxies"
            )
        },
    },
];

/// What passed.
pub(super) fn summarize(pairs: &[Pair<'_>], checks: &mut Checks) {
    let tried: Vec<_> = pairs.iter().filter(|pair| pair.attempts() > 0).collect();
    let fails = |pair: &&Pair<'_>| {
        let codes = [
            code::CONNECTS_REFUSED,
            code::CONNECTS_UNREACHABLE,
            code::CONNECTS_TIME_OUT,
            code::CONNECTS_FAIL_LOCALLY,
            code::NO_LOCAL_PORT,
            code::RESOLVER_FAILS,
        ];
        checks.found.iter().any(|found| {
            let is_failed =
                found.finding.severity > Severity::Info && codes.contains(&&*found.finding.code);
            let client = found.clients.contains(&pair.client);
            let server = found.server.as_ref().is_none_or(|server| *server == pair.server);
            is_failed && client && server && found.port.is_none_or(|port| port == pair.port)
        })
    };
    let (failing, well): (Vec<&Pair<'_>>, Vec<_>) = tried.into_iter().partition(fails);
    let attempts: u64 = well.iter().map(|pair| pair.attempts()).sum();
    let ok: u64 = well.iter().map(|pair| pair.connects(&["ok"])).sum();
    let (other, s) = match (failing.is_empty(), well.len()) {
        (true, 1) => ("", ""),
        (true, _) => ("", "s"),
        (false, 1) => ("other ", ""),
        (false, _) => ("other ", "s"),
    };
    match well.len() {
        0 if failing.is_empty() => {
            checks.skip(Section::Connectivity, "connects", "no connects in the window");
        }
        0 => {}
        n => checks.pass(
            Section::Connectivity,
            format!(
                "{n} {other}edge{s} connect{} ({} of {} failed)",
                if n == 1 { "s" } else { "" },
                human::count(attempts.saturating_sub(ok)),
                human::count(attempts)
            ),
        ),
    }
    if !checks.has(&[code::CONNECTIONS_DIE, code::IDLE_REUSE, code::CONNECTIONS_RESET]) {
        checks.pass(Section::Connectivity, "connections: none died, few or none were reset");
    }
    let requests: u64 = pairs.iter().map(Pair::requests).sum();
    if requests == 0 && pairs.iter().all(|pair| pair.unanswered() == 0) {
        checks.skip(Section::Connectivity, "responses", "no requests in the window");
    } else if !checks.has(&[code::UNANSWERED]) {
        let requests = counted(requests, "request");
        checks.pass(Section::Connectivity, format!("responses: {requests} answered"));
    }
    let responses: u64 = pairs.iter().map(|pair| pair.error_responses().1).sum();
    if responses == 0 {
        let reason = "no response was recognised; the agent reads them with `responses = true`";
        checks.skip(Section::Connectivity, "error responses", reason);
    } else if !checks.has(&[code::ERROR_RESPONSES]) {
        let responses = counted(responses, "response");
        checks.pass(Section::Connectivity, format!("error responses: few or none of {responses}"));
    }
}

fn is_other_reset(cause: &str) -> bool {
    cause.starts_with("reset_") && !matches!(cause, "reset_idle_reuse" | "reset_stopping")
}

fn failed(pair: &Pair<'_>, count: u64) -> Option<Sum> {
    (count > 0).then(|| Sum { count, of: pair.attempts(), ..Sum::default() })
}

fn some(count: u64) -> Option<Sum> {
    (count > 0).then(|| Sum { count, ..Sum::default() })
}

fn connects(sum: &Sum, answers: &Answers) -> Severity {
    let share = sum.count as f64 / sum.of.max(1) as f64;
    if sum.count < FEW || share <= BUDGET {
        Severity::Info
    } else if share > FAILED_SHARE && answers.per_minute(sum.count) > FAILED_PER_MINUTE {
        Severity::Error
    } else {
        Severity::Warning
    }
}

fn rare(sum: &Sum, answers: &Answers, per_minute: f64) -> Severity {
    if sum.count >= FEW && answers.per_minute(sum.count) > per_minute {
        Severity::Warning
    } else {
        Severity::Info
    }
}

fn counted(count: u64, what: &str) -> String {
    human::counted(count, what)
}

fn were(count: u64, what: &str) -> String {
    format!("{} {}", human::counted(count, what), if count == 1 { "was" } else { "were" })
}
