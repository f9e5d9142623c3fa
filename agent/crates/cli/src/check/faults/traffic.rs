//! Performance: slow requests, retransmits, programs that do not read or close, accept queues, balance.

use std::collections::BTreeMap;

use api_types::{Edge, Finding, Role, Severity, code};

use super::{Answers, Blame, Checks, Found, Kind, Name, Pair, Sum, changes_before, share, since};
use crate::check::limits::{
    CLOSE_WAIT, DROPS_PER_MINUTE, FEW, LEAST_REQUESTS, RETRANSMITS_PER_SECOND, RETRANSMITS_SHARE,
    SLOW_SECONDS, UNREAD_BYTES, UNREAD_SECONDS,
};
use crate::check::section::Section;
use crate::human;

pub(super) const KINDS: [Kind; 4] = [
    Kind {
        code: code::SLOW,
        blame: Blame::Server,
        counted: "requests",
        of: None,
        events: |_| false,
        count: slow,
        grade: |_, _| Severity::Warning,
        says: |sum| {
            let note = sum.note.map(|note| format!(", {note}")).unwrap_or_default();
            format!("p99 {}{note}", human::quantile(Some(sum.worst)))
        },
        fix: |_, _, server| format!("`portolan diagnose {server}` shows where the time goes"),
    },
    Kind {
        code: code::RETRANSMITS,
        blame: Blame::Server,
        counted: "retransmits",
        of: Some("segments"),
        events: |_| false,
        count: |pair, answers| {
            let (again, all) = pair.segments();
            // No answer at all is a host that is gone, not loss.
            let silent = pair.connects(&["timeout", "aborted", "unreachable"]);
            let is_gone = silent.saturating_mul(2) > pair.attempts();
            let is_much = again as f64 > RETRANSMITS_SHARE * all
                && again as f64 > RETRANSMITS_PER_SECOND * answers.seconds()
                && again >= FEW;
            (is_much && !is_gone && !pair.is_internet).then_some(Sum {
                count: again,
                of: all as u64,
                ..Sum::default()
            })
        },
        grade: |_, _| Severity::Warning,
        says: |sum| share(sum, "of segments are retransmitted"),
        fix: |_, client, server| {
            format!(
                "packets between {client} and {server} are lost: look at firewall rules, queues (`tc -s qdisc show`), interface errors (`ip -s link`) and links"
            )
        },
    },
    Kind {
        code: code::NOT_READING,
        blame: Blame::Server,
        counted: "unread_bytes",
        of: None,
        events: |_| false,
        count: |pair, answers| {
            let rows = pair.rows().filter(|edge| {
                let unread = edge.receive_queue_bytes.unwrap_or_default();
                let per_second = edge.received_bytes as f64 / answers.seconds();
                unread > UNREAD_BYTES && unread as f64 > UNREAD_SECONDS * per_second
            });
            let rows: Vec<_> = rows.collect();
            of_side(&rows, |edge| edge.receive_queue_bytes)
        },
        grade: |_, _| Severity::Warning,
        says: |sum| {
            let (program, _) = program(sum);
            format!("{program} has {} unread", human::bytes(sum.count))
        },
        fix: |sum, client, server| {
            let name = if is_of_server(sum) { server } else { client };
            format!(
                "see what {name} is busy with: is it stopped, out of threads, or does it wait for another?"
            )
        },
    },
    Kind {
        code: code::NOT_CLOSED,
        blame: Blame::Server,
        counted: "connections",
        of: None,
        events: |_| false,
        count: |pair, _| {
            let rows = pair.rows().filter(|edge| edge.close_wait.unwrap_or_default() > CLOSE_WAIT);
            let rows: Vec<_> = rows.collect();
            of_side(&rows, |edge| edge.close_wait)
        },
        grade: |_, _| Severity::Warning,
        says: |sum| {
            let (program, other) = program(sum);
            let count = human::counted(sum.count, "connection");
            format!("{program} has not closed {count} that {other} closed")
        },
        fix: |sum, client, server| {
            let name = if is_of_server(sum) { server } else { client };
            format!(
                "a fault in the program of {name}: close a connection after reading its end, also after errors"
            )
        },
    },
];

/// Requests of a pair that are slow, unless they wait on purpose.
fn slow(pair: &Pair<'_>, answers: &Answers) -> Option<Sum> {
    let (requests, p99) = (pair.requests(), pair.p99()?);
    // A single one does not make a percentile: the sum has to have room for a few.
    let is_slow = p99 > SLOW_SECONDS
        && requests >= LEAST_REQUESTS
        && pair.request_seconds() > FEW as f64 * SLOW_SECONDS;
    if !is_slow {
        return None;
    }
    // Whether long requests in a row are long polling the agent can tell for a service.
    let services = &answers.services.services;
    let server = services.iter().find(|one| {
        (&*one.service_namespace, &*one.service) == (&*pair.server.namespace, &*pair.server.name)
    });
    let is_polling = pair.waits().saturating_mul(100) > requests;
    let is_slow =
        server.is_some_and(|one| one.health.reasons.contains(&api_types::HealthReason::Slow));
    if is_polling && !is_slow {
        return None;
    }
    let note = match pair.server_p99() {
        Some(seconds) if seconds > SLOW_SECONDS => Some(inside(pair, seconds, answers)),
        Some(_) => {
            Some("but the server itself is faster: the time is spent on the path or in the client")
        }
        None => None,
    };
    Some(Sum { count: requests, worst: p99, note, ..Sum::default() })
}

/// Part of the time of a server that explains it, as for `portolan diagnose`.
const MOST_OF_IT: f64 = 0.6;

/// What is known of a server that takes this long: it may only wait for what it calls.
fn inside(pair: &Pair<'_>, seconds: f64, answers: &Answers) -> &'static str {
    let is_call = |edge: &&Edge| {
        edge.role == Role::Client
            && (&*edge.client_namespace, &*edge.client)
                == (&*pair.server.namespace, &*pair.server.name)
    };
    let calls: Vec<&Edge> = answers.edges.edges.iter().filter(is_call).collect();
    let is_late = |edge: &&Edge| {
        edge.request.p99_seconds.is_some_and(|p99| p99 >= seconds * MOST_OF_IT)
            || edge.unanswered.saturating_mul(100) > edge.request.count
    };
    let has_requests = |edge: &&Edge| edge.request.count > 0;
    if calls.iter().any(is_late) {
        "and the server waits for a service that it calls"
    } else if calls.iter().any(has_requests) {
        // Only the first byte of a response is timed.
        "and the server takes that long, while what it calls begins to answer in time"
    } else {
        "and the server itself is slow"
    }
}

/// Counts of rows that are over a limit: those of the side with more.
fn of_side(rows: &[&Edge], count: fn(&Edge) -> Option<u64>) -> Option<Sum> {
    let worst = rows.iter().max_by_key(|edge| count(edge))?;
    let side = worst.role;
    let same = rows.iter().filter(|edge| edge.role == side);
    let count = same.filter_map(|edge| count(edge)).sum();
    Some(Sum { count, side: Some(side), ..Sum::default() })
}

fn is_of_server(sum: &Sum) -> bool {
    sum.side == Some(Role::Server)
}

/// The program at fault, and the other.
fn program(sum: &Sum) -> (&'static str, &'static str) {
    if is_of_server(sum) { ("the server", "the client") } else { ("the client", "the server") }
}

/// Accept queues, keep-alive and balance, and what passed.
pub(super) fn summarize(answers: &Answers, pairs: &[Pair<'_>], checks: &mut Checks) {
    accept_queues(answers, checks);
    keep_alive(answers, checks);
    balance(answers, checks);
    let timed = pairs.iter().filter(|pair| pair.requests() > 0).count();
    let section = Section::Performance;
    if timed == 0 {
        checks.skip(section, "latency", "no requests in the window");
    } else if !checks.has(&[code::SLOW]) {
        checks.pass(section, format!("latency: {} below 500 ms or too few requests", edges(timed)));
    }
    if !checks.has(&[code::RETRANSMITS]) {
        let ratio = |pair: &Pair<'_>| {
            let (again, all) = pair.segments();
            if all > 0.0 { again as f64 / all } else { 0.0 }
        };
        let worst = pairs.iter().map(ratio).fold(0.0, f64::max);
        let text = if worst > RETRANSMITS_SHARE {
            "retransmits: few where their share is over 2%, or of clients of the internet"
                .to_owned()
        } else {
            format!("retransmits: at most {} (limit 2%)", human::percent(worst))
        };
        checks.pass(section, text);
    }
    if !checks.has(&[code::NOT_READING, code::NOT_CLOSED]) {
        checks.pass(section, "programs read what arrives and close their connections");
    }
}

fn edges(n: usize) -> String {
    human::counted(n as u64, "edge")
}

/// What an accept queue dropped, and its length and limit if it is over that now.
type Overflow = (u64, Option<(u32, u32)>);

/// Listeners that drop connection requests, or whose queue is full now.
fn accept_queues(answers: &Answers, checks: &mut Checks) {
    let listeners = &answers.listeners.listeners;
    let mut faults: BTreeMap<(Name, u16), Overflow> = BTreeMap::new();
    let rows = answers.edges.edges.iter().filter(|edge| {
        edge.role == Role::Listener && edge.listen_overflows > 0 && edge.unverified_user.is_none()
    });
    for edge in rows {
        let server = Name::new(&edge.server_namespace, &edge.server);
        faults.entry((server, edge.port)).or_default().0 += edge.listen_overflows;
    }
    let mut fullest: f64 = 0.0;
    for one in listeners {
        let server = Name::new(&one.service_namespace, &one.service);
        fullest = fullest.max(f64::from(one.backlog) / f64::from(one.max_backlog.max(1)));
        // The kernel lets one more wait than the limit.
        if one.backlog > one.max_backlog {
            let fault = faults.entry((server, one.port)).or_default();
            fault.1 = fault.1.max(Some((one.backlog, one.max_backlog)));
        }
    }
    let is_well = faults.is_empty();
    for ((server, port), (drops, queue)) in faults {
        let subject = server.at(port);
        let said = match (drops, queue) {
            (0, Some((length, limit))) => {
                format!("the accept queue is full ({length} wait, {limit} may)")
            }
            (drops, queue) => format!(
                "{} dropped, because the accept queue was full{}",
                match drops {
                    1 => "1 connection request was".to_owned(),
                    n => format!("{} connection requests were", human::count(n)),
                },
                queue.map(|(length, _)| format!(" ({length} wait now)")).unwrap_or_default()
            ),
        };
        let is_much = drops >= FEW && answers.per_minute(drops) > DROPS_PER_MINUTE;
        let severity = if is_much || queue.is_some() { Severity::Error } else { Severity::Warning };
        let title = format!("{subject}: {said}");
        let mut finding = Finding::new(code::ACCEPT_QUEUE, severity, &subject, title)
            .with("dropped", drops)
            .with("port", u64::from(port));
        let limits = listeners.iter().filter(|one| {
            one.port == port
                && (&*one.service_namespace, &*one.service) == (&*server.namespace, &*server.name)
        });
        if let Some(limit) = limits.map(|one| one.max_backlog).min() {
            finding = finding.with("limit", u64::from(limit));
        }
        let health = answers.services.services.iter().find(|one| {
            (&*one.service_namespace, &*one.service) == (&*server.namespace, &*server.name)
        });
        let changes = health.into_iter().flat_map(|one| &one.changes_before);
        if let Some(before) = changes_before(changes, answers) {
            finding = finding.with("changes_before", before);
        }
        finding.remediation = Some(format!(
            "let {server} accept faster (more workers, nothing slow in the accept loop), or raise its backlog and net.core.somaxconn"
        ));
        finding.since = since::of_server(&answers.events.events, "listen_drop", &server, port);
        checks.found.push(Found {
            finding,
            clients: Vec::new(),
            server: Some(server),
            port: Some(port),
        });
    }
    if is_well && !listeners.is_empty() {
        let text = format!(
            "accept queues: {}, fullest {}",
            human::counted(listeners.len() as u64, "listener"),
            human::percent(fullest)
        );
        checks.pass(Section::Performance, text);
    }
}

/// Servers that close idle connections which their clients still use, and services that wait for
/// others when their callers no longer do, since the agent started.
fn keep_alive(answers: &Answers, checks: &mut Checks) {
    let Some(timeouts) = &answers.timeouts else { return };
    let mut known = 0;
    for edge in &timeouts.edges {
        known += u64::from(edge.verdict != api_types::KeepAlive::Unknown);
        let Some(finding) = &edge.finding else { continue };
        let client = Name::new(&edge.client_namespace, &edge.client);
        let server = Name::new(&edge.server_namespace, &edge.server);
        checks.found.push(of_edge(finding, client, server, edge.port));
    }
    for edge in &timeouts.waits {
        let Some(finding) = &edge.finding else { continue };
        let client = Name::new(&edge.client_namespace, &edge.client);
        let server = Name::new(&edge.server_namespace, &edge.server);
        checks.found.push(of_edge(finding, client, server, edge.port));
    }
    if !checks.has(&[code::KEEPALIVE_MISMATCH]) {
        match known {
            0 => checks.skip(Section::Performance, "keep-alive", "no idle connection closed yet"),
            n => {
                let edges = human::counted(n, "edge");
                checks
                    .pass(Section::Performance, format!("keep-alive: {edges} without a mismatch"));
            }
        }
    }
}

/// What the agent has found of an edge.
fn of_edge(finding: &Finding, client: Name, server: Name, port: u16) -> Found {
    let mut finding = finding.clone();
    finding.subject = format!("{client} → {}", server.at(port));
    Found { finding, clients: vec![client], server: Some(server), port: Some(port) }
}

/// Services whose load is not spread evenly.
fn balance(answers: &Answers, checks: &mut Checks) {
    use api_types::BalanceVerdict::{Balanced, Unbalanced};
    let (mut balanced, mut unbalanced) = (0u64, 0u64);
    for group in &answers.balance.groups {
        let by_requests = group.requests.verdict == Unbalanced;
        if !by_requests && group.connections.verdict != Unbalanced {
            let verdicts = [group.requests.verdict, group.connections.verdict];
            balanced += u64::from(verdicts.contains(&Balanced));
            continue;
        }
        unbalanced += 1;
        let share = |one: &api_types::Backend| {
            if by_requests { one.requests_share } else { one.connections_share }
        };
        let off = |one: &&api_types::Backend| {
            share(one).map_or(0.0, |share| (share - one.expected_share).abs())
        };
        let Some(worst) = group.backends.iter().max_by(|a, b| off(a).total_cmp(&off(b))) else {
            continue;
        };
        let client = Name::new(&group.client_namespace, &group.client);
        let server = Name::new(&group.server_namespace, &group.server);
        let subject = format!("{client} → {}", server.at(group.port));
        let what = if by_requests { "requests" } else { "connections" };
        let got = share(worst).unwrap_or_default();
        let title = format!(
            "{subject}: {} gets {} of the {what}, expected {}",
            worst.instance.as_ref().unwrap_or(&worst.backend),
            human::percent(got),
            human::percent(worst.expected_share)
        );
        let mut finding = Finding::new(code::UNBALANCED, Severity::Warning, &subject, title)
            .with("backend", worst.backend.as_str())
            .with("share", human::percent(got))
            .with("expected_share", human::percent(worst.expected_share));
        finding.remediation = Some(
            "`portolan balance` shows every backend; look at the policy and the weights of the load balancer"
                .to_owned(),
        );
        checks.found.push(Found {
            finding,
            clients: vec![client],
            server: Some(server),
            port: Some(group.port),
        });
    }
    match (balanced, unbalanced) {
        (_, 1..) => {}
        (0, 0) => checks.skip(Section::Performance, "balance", "no service with enough traffic"),
        (n, 0) => {
            let services = human::counted(n, "service");
            checks.pass(Section::Performance, format!("balance: {services}, within the tolerance"));
        }
    }
}
