//! Checks of the API's own answers: as they are, without any fault, and with one fault each.

use std::collections::BTreeMap;

use api_types::{
    BalanceVerdict, Cause, Edge, Evidence, Finding, Latency, Listener, Role, Severity, Timestamp,
    code,
};
use clap::Parser;

use super::*;

/// The arguments of the command alone.
#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    arguments: CheckArgs,
}

pub(super) fn arguments(line: &str) -> CheckArgs {
    let words = std::iter::once("check").chain(line.split_whitespace());
    Line::try_parse_from(words).expect(line).arguments
}

macro_rules! golden {
    ($name:literal) => {
        serde_json::from_str(include_str!(concat!("../../../server/golden/", $name, ".json")))
            .expect($name)
    };
}

/// The answers of an agent that has seen some faults: the goldens of the API.
pub(super) fn answers() -> Answers {
    Answers {
        status: golden!("status"),
        edges: golden!("edges"),
        services: golden!("services"),
        listeners: golden!("listeners"),
        ports: golden!("ports"),
        conflicts: golden!("conflicts"),
        reservations: golden!("reservations"),
        segments: Some(golden!("segments")),
        balance: golden!("balance"),
        events: golden!("events"),
        timeouts: golden!("timeouts"),
    }
}

/// The same without any fault: prod/shop calls postgres.
pub(super) fn healthy() -> Answers {
    let mut answers = answers();
    answers.status.findings.clear();
    answers.status.ledger.iter_mut().for_each(|one| one.lost.clear());
    answers.status.memory.overflow_mode = false;
    answers.conflicts.conflicts.clear();
    answers.reservations.breaches.clear();
    answers.events.events.clear();
    for edge in answers.timeouts.iter_mut().flat_map(|timeouts| &mut timeouts.edges) {
        edge.finding = None;
    }
    for range in &mut answers.ports.ephemeral_ports {
        (range.used_tcp, range.busiest_destination) = (100, None);
    }
    for group in &mut answers.balance.groups {
        group.requests.verdict = BalanceVerdict::Balanced;
    }
    for one in &mut answers.services.services {
        one.health.reasons.clear();
        one.changes_before.clear();
    }
    answers.edges.edges.retain(|edge| edge.role != Role::Listener);
    for edge in &mut answers.edges.edges {
        *edge = calm(edge.clone());
    }
    answers
}

/// An edge on which nothing fails.
fn calm(edge: Edge) -> Edge {
    let request = Latency {
        count: 1000,
        sum_seconds: 2.0,
        p50_seconds: Some(0.002),
        p99_seconds: Some(0.01),
    };
    Edge {
        why: Vec::new(),
        changes_before: Vec::new(),
        connects: [("ok".to_owned(), 1000)].into(),
        retransmits: 0,
        retransmits_by_phase: [].into(),
        resets_sent: [].into(),
        resets_received: [].into(),
        aborts: [].into(),
        unanswered: 0,
        unanswered_stopping: 0,
        responses: [].into(),
        dns: [].into(),
        protocols: [].into(),
        waits: 0,
        close_wait: Some(0),
        request,
        ..edge
    }
}

/// The edge prod/shop → postgres:5432.
pub(super) fn edge(answers: &mut Answers) -> &mut Edge {
    answers.edges.edges.iter_mut().find(|edge| edge.client == "shop").expect("the edge")
}

pub(super) fn judged(answers: Answers, line: &str) -> Done {
    judged_with(answers, None, line)
}

/// The same with what was read of network namespaces.
pub(super) fn judged_with(answers: Answers, seen: Option<Seen>, line: &str) -> Done {
    let gathered = Gathered { answers: Ok(answers), seen, resolver: None, probed: None };
    let mut done = arguments(line)
        .judge(&Connection::default(), gathered, &Baseline::default())
        .expect("a report");
    done.report.host = "shop-01".to_owned();
    done
}

/// Codes and severities of warnings and errors that follow from nothing.
fn roots(done: &Done) -> Vec<(&str, Severity)> {
    let all = done.report.findings.iter();
    let grave = all.filter(|one| one.severity > Severity::Info && one.caused_by.is_none());
    grave.map(|one| (one.code.as_str(), one.severity)).collect()
}

/// Responses of HTTP by status.
fn responses(counts: &[(&str, u64)]) -> BTreeMap<String, BTreeMap<String, u64>> {
    let counts = counts.iter().map(|(status, count)| ((*status).to_owned(), *count));
    [("http".to_owned(), counts.collect())].into()
}

fn cause(cause: &str, count: u64) -> Cause {
    Cause { cause: cause.to_owned(), text: cause.to_owned(), count }
}

#[test]
fn without_a_fault_there_is_nothing_to_fix_and_a_line_says_so() {
    let done = judged(healthy(), "");
    assert_eq!(roots(&done), []);
    let text = Format::Text.text(&done, false).expect("text");
    assert!(text.contains(" passed, nothing to fix (last 100 s)."), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let text = Format::Text.text(&done, true).expect("text");
    assert!(text.contains("✓ 2 edges connect (0 of 2000 failed)"), "{text}");
}

#[test]
fn each_fault_has_its_code_and_no_other_root() {
    use Severity::{Error, Warning};
    type Fault = fn(&mut Answers);
    fn connects(answers: &mut Answers, result: &str, count: u64) {
        edge(answers).connects.insert(result.to_owned(), count);
    }
    let faults: [(&str, Severity, Fault); 26] = [
        ("PC101", Error, |all| connects(all, "refused", 100)),
        ("PC101", Warning, |all| connects(all, "refused", 3)),
        ("PC102", Error, |all| connects(all, "unreachable", 100)),
        ("PC102", Error, |all| connects(all, "denied", 100)),
        ("PC103", Error, |all| connects(all, "timeout", 100)),
        ("PC103", Error, |all| {
            connects(all, "aborted", 100);
            edge(all).retransmits_by_phase.insert("syn".to_owned(), 100);
        }),
        // Nobody answers ARP: no SYN is sent, and none again.
        ("PC103", Error, |all| {
            connects(all, "ok", 0);
            connects(all, "aborted", 12);
        }),
        // Rejected by a host that limits its ICMP messages.
        ("PC102", Error, |all| {
            connects(all, "ok", 0);
            connects(all, "aborted", 9);
            connects(all, "unreachable", 9);
            edge(all).retransmits_by_phase.insert("syn".to_owned(), 18);
        }),
        ("PC104", Error, |all| connects(all, "address_unavailable", 100)),
        ("PC105", Error, |all| connects(all, "ports_exhausted", 100)),
        ("PD702", Error, |all| {
            edge(all).port = 53;
            connects(all, "timeout", 100);
        }),
        ("PC106", Warning, |all| edge(all).unanswered = 20),
        ("PC106", Error, |all| {
            edge(all).unanswered = 20;
            edge(all).request.count = 10;
        }),
        ("PC107", Warning, |all| edge(all).why = vec![cause("abort_keepalive", 5)]),
        ("PC108", Warning, |all| edge(all).why = vec![cause("reset_idle_reuse", 5)]),
        ("PC110", Warning, |all| {
            edge(all).responses = responses(&[("2xx", 900), ("5xx", 60)]);
        }),
        ("PC110", Error, |all| edge(all).responses = responses(&[("5xx", 60)])),
        ("PC109", Warning, |all| edge(all).why = vec![cause("reset_protocol", 500)]),
        ("PP201", Warning, |all| {
            edge(all).request.p99_seconds = Some(1.2);
            edge(all).request.sum_seconds = 30.0;
        }),
        ("PP202", Warning, |all| {
            all.balance.groups[0].requests.verdict = BalanceVerdict::Unbalanced;
        }),
        ("PP203", Error, |all| all.listeners.listeners[0].backlog = 129),
        ("PP204", Warning, |all| {
            edge(all).retransmits = 100;
            edge(all).sent_bytes = 1_000_000;
        }),
        ("PP205", Warning, |all| {
            edge(all).receive_queue_bytes = Some(5_000_000);
            edge(all).received_bytes = 1_000_000;
        }),
        ("PP206", Warning, |all| edge(all).close_wait = Some(21)),
        ("PO320", Warning, |all| all.ports.ephemeral_ports[0].used_tcp = 24_000),
        ("PA507", Warning, |all| all.status.memory.overflow_mode = true),
    ];
    for (code, severity, fault) in faults {
        let mut answers = healthy();
        fault(&mut answers);
        let done = judged(answers, "");
        assert_eq!(roots(&done), [(code, severity)], "{:#?}", done.report.findings);
        assert_eq!(done.report.has(Error), severity == Error);
    }
}

#[test]
fn what_is_no_fault_is_no_finding() {
    type Calm = fn(&mut Answers);
    let calm: [Calm; 6] = [
        // A server that stops refuses.
        |all| {
            edge(all).connects.insert("stopping".to_owned(), 500);
        },
        // A race that a client gave up, without a lost SYN.
        |all| {
            edge(all).connects.insert("aborted".to_owned(), 500);
        },
        // The slower half of connects over IPv6 and IPv4 at once.
        |all| {
            let won = edge(all).clone();
            all.edges.edges.push(Edge {
                server: "fd00::5".to_owned(),
                connects: [("ok".to_owned(), 0), ("aborted".to_owned(), 1000)].into(),
                ..won
            });
        },
        // Long polling.
        |all| {
            edge(all).request.p99_seconds = Some(10.0);
            edge(all).request.sum_seconds = 5000.0;
            edge(all).waits = 500;
        },
        // A user made it up.
        |all| {
            edge(all).unverified_user = Some(1000);
            edge(all).connects.insert("refused".to_owned(), 500);
        },
        // Neither packet loss for a host that is down nor a reset storm for a few resets.
        |all| edge(all).why = vec![cause("reset_protocol", 3)],
    ];
    for (at, change) in calm.iter().enumerate() {
        let mut answers = healthy();
        change(&mut answers);
        let done = judged(answers, "");
        assert_eq!(roots(&done), [], "{at}: {:#?}", done.report.findings);
    }
}

#[test]
fn loss_explains_timeouts_and_slow_requests_of_callers() {
    let mut answers = healthy();
    let lossy = edge(&mut answers);
    lossy.retransmits = 100;
    lossy.sent_bytes = 1_000_000;
    lossy.connects.insert("timeout".to_owned(), 100);
    lossy.retransmits_by_phase.insert("syn".to_owned(), 100);
    let slow = Latency { p99_seconds: Some(1.2), sum_seconds: 30.0, ..lossy.request };
    let caller = answers.edges.edges.iter_mut().find(|edge| edge.client == "internet");
    caller.expect("the caller").request = slow;
    let done = judged(answers, "");
    assert_eq!(roots(&done), [("PP204", Severity::Error)]);
    let of = |code: &str| done.report.findings.iter().find(|one| one.code == code).expect("it");
    assert_eq!(of("PC103").caused_by.as_deref(), Some("PP204"));
    assert!(of("PP201").caused_by.is_some());
    assert_eq!(of("PP201").subject, "internet → prod/shop:8080");
}

#[test]
fn a_server_that_waits_for_a_slow_one_is_not_called_slow() {
    // prod/shop is slow for the internet, on both sides; its own call takes this long.
    let title = |called: Option<f64>| {
        let mut answers = healthy();
        let slow = |seconds| Latency {
            count: 1000,
            sum_seconds: 700.0,
            p50_seconds: Some(seconds),
            p99_seconds: Some(seconds),
        };
        let caller = answers.edges.edges.iter_mut().find(|edge| edge.client == "internet");
        let caller = caller.expect("the caller");
        caller.request = slow(0.9);
        let inside = Edge { role: Role::Server, other_side: true, ..caller.clone() };
        caller.role = Role::Client;
        answers.edges.edges.push(inside);
        match called {
            Some(seconds) => edge(&mut answers).request = slow(seconds),
            None => answers.edges.edges.retain(|edge| edge.client != "shop"),
        }
        let done = judged(answers, "");
        let about = |one: &&Finding| one.code == "PP201" && one.subject.starts_with("internet");
        let finding = done.report.findings.iter().find(about).expect("slow").clone();
        (finding.title, finding.caused_by)
    };
    let check = |called, words: &str, cause: Option<&str>| {
        let (title, caused_by) = title(called);
        assert!(title.ends_with(words), "{title}");
        assert_eq!(caused_by.as_deref(), cause, "{title}");
    };
    check(Some(0.85), "and the server waits for a service that it calls", Some("PP201"));
    check(Some(0.002), "while what it calls begins to answer in time", None);
    check(None, "and the server itself is slow", None);
}

#[test]
fn the_program_that_does_not_read_or_close_is_the_one_to_fix() {
    let check = |code: &str, role: Role, title: &str, name: &str| {
        let mut answers = healthy();
        let row = edge(&mut answers);
        row.role = role;
        if code == "PP206" {
            row.close_wait = Some(30);
        } else {
            (row.receive_queue_bytes, row.received_bytes) = (Some(5_000_000), 1_000_000);
        }
        let done = judged(answers, "");
        assert_eq!(roots(&done), [(code, Severity::Warning)]);
        let finding = done.report.findings.iter().find(|one| one.code == code).expect("it");
        assert!(finding.title.ends_with(title), "{}", finding.title);
        let fix = finding.remediation.as_deref().unwrap_or_default();
        let other = if name == "postgres" { "prod/shop" } else { "postgres" };
        assert!(fix.contains(name) && !fix.contains(other), "{fix}");
    };
    let of_client = "the client has not closed 30 connections that the server closed";
    check("PP206", Role::Client, of_client, "prod/shop");
    let of_server = "the server has not closed 30 connections that the client closed";
    check("PP206", Role::Server, of_server, "postgres");
    check("PP205", Role::Client, "the client has 5 MB unread", "prod/shop");
    check("PP205", Role::Server, "the server has 5 MB unread", "postgres");
}

#[test]
fn a_server_that_runs_and_refuses_is_not_told_to_start() {
    let check = |listens: &[&str], title: &str, fix: &str| {
        let mut answers = healthy();
        edge(&mut answers).connects = [("ok".to_owned(), 0), ("refused".to_owned(), 100)].into();
        let one = answers.listeners.listeners[0].clone();
        let at = |address: &&str| Listener {
            address: address.parse().expect("an address"),
            ..one.clone()
        };
        answers.listeners.listeners.retain(|one| one.port != 5432);
        answers.listeners.listeners.extend(listens.iter().map(at));
        let done = judged(answers, "");
        let finding = done.report.findings.iter().find(|one| one.code == "PC101").expect("it");
        assert!(finding.title.ends_with(title), "{}", finding.title);
        let said = finding.remediation.as_deref().unwrap_or_default();
        assert!(said.starts_with(fix), "{said}");
    };
    check(&[], "(100 of 100)", "start postgres");
    let loopback = "the server listens on the loopback only";
    check(&["127.0.0.1"], loopback, "let postgres listen on the address");
    check(&["127.0.0.1", "::1"], loopback, "let postgres listen on the address");
    check(&["127.0.0.1", "10.0.0.3"], "the server listens there now", "see whether postgres");
}

#[test]
fn a_link_local_address_without_an_interface_is_no_missing_source_address() {
    let mut answers = healthy();
    let broken = edge(&mut answers);
    broken.server = "fe80::1".to_owned();
    broken.connects = [("ok".to_owned(), 0), ("other".to_owned(), 5)].into();
    let done = judged(answers, "");
    let finding = done.report.findings.iter().find(|one| one.code == "PC104").expect("it");
    assert!(finding.title.contains("a link-local address needs its interface"), "{finding:?}");
    let fix = finding.remediation.as_deref().unwrap_or_default();
    assert!(fix.ends_with("as in fe80::1%eth0"), "{fix}");
}

#[test]
fn a_client_that_scans_is_one_finding() {
    let mut answers = healthy();
    let scanned = edge(&mut answers).clone();
    let scan = (1..=200).map(|port| Edge {
        port,
        client: "scanner".to_owned(),
        connects: [("refused".to_owned(), 4)].into(),
        ..scanned.clone()
    });
    answers.edges.edges.extend(scan);
    let done = judged(answers, "");
    assert_eq!(roots(&done), [("PC101", Severity::Error)]);
    let finding = &done.report.findings[0];
    assert_eq!(finding.evidence.get("refused"), Some(&Evidence::Number(800)));
    assert!(finding.title.contains("200 servers and ports"), "{}", finding.title);
}

#[test]
fn clients_of_a_dead_server_are_one_finding() {
    let mut answers = healthy();
    let one = edge(&mut answers).clone();
    for client in ["cart", "orders"] {
        answers.edges.edges.push(Edge {
            client: client.to_owned(),
            connects: [("refused".to_owned(), 50)].into(),
            ..one.clone()
        });
    }
    let done = judged(answers, "");
    assert_eq!(roots(&done), [("PC101", Severity::Error)]);
    let title = &done.report.findings[0].title;
    assert!(title.starts_with("postgres:5432: 100% of connects are refused (100 of 100): the server listens there now; clients: prod/cart, prod/orders"), "{title}");
}

#[test]
fn events_and_changes_say_since_when_and_after_what() {
    let done = judged(answers(), "");
    let refused = done.report.findings.iter().find(|one| one.code == code::CONNECTS_REFUSED);
    let refused = refused.expect("refused connects");
    assert_eq!(refused.since, "2023-11-14T22:14:21.5Z".parse::<Timestamp>().ok());
    let changes = Some(&Evidence::Text("postgres restarted 40 seconds ago".to_owned()));
    assert_eq!(refused.evidence.get("changes_before"), changes);
}

#[test]
fn sections_services_and_skips_choose_what_is_shown() {
    let codes = |line: &str| {
        let done = judged(answers(), line);
        done.report.findings.into_iter().map(|one| one.code).collect::<Vec<_>>()
    };
    assert!(codes("--ports-only").iter().all(|code| code.starts_with("PO")));
    assert!(codes("--only ports,security").iter().all(|code| !code.starts_with("PC")));
    assert!(codes("").contains(&"PO301".to_owned()));
    assert!(!codes("--skip PO301=prod/shop*").contains(&"PO301".to_owned()));
    assert!(codes("--skip PO301=other").contains(&"PO301".to_owned()));
    assert!(codes("--service billing").is_empty());
    assert!(codes("--service postgres").contains(&"PP203".to_owned()));
    let gathered = Gathered { answers: Ok(answers()), seen: None, resolver: None, probed: None };
    let refused = arguments("--service postgers").judge(
        &Connection::default(),
        gathered,
        &Baseline::default(),
    );
    let error = refused.err().expect("no such service").to_string();
    assert_eq!(error, "no service is named postgers; did you mean postgres?");
}

#[test]
fn what_the_configuration_knows_is_no_finding_and_is_said_to_be_left_out() {
    let mut known = answers();
    known.status.check_skip = vec!["PO301=prod/shop*".to_owned()];
    let is_conflict = |one: &Finding| one.code == "PO301";
    let before = judged(answers(), "").report;
    let after = judged(known.clone(), "").report;
    assert!(before.findings.iter().any(is_conflict));
    assert!(!after.findings.iter().any(is_conflict));
    let reason = "left out by check.skip of the agent's configuration";
    assert!(after.skipped.iter().any(|one| one.section == Section::Ports && one.reason == reason));
    // A report about another section has nothing to say of it.
    let other = judged(known.clone(), "--only dns").report;
    assert!(other.skipped.iter().all(|one| one.reason != reason));
    assert!(!findings(&known).iter().any(|one| is_conflict(&one.finding)));
}

#[test]
fn without_an_agent_the_report_is_incomplete() {
    let gathered = Gathered {
        answers: Err("nobody".to_owned()),
        seen: Some(Seen::default()),
        resolver: None,
        probed: None,
    };
    let done = arguments("")
        .judge(&Connection::default(), gathered, &Baseline::default())
        .expect("a report");
    assert_eq!(done.report.incomplete.as_deref(), Some("nobody"));
    for format in [Format::Text, Format::Markdown, Format::Junit, Format::Html] {
        let text = format.text(&done, false).expect("text");
        assert!(text.contains("nobody"), "{text}");
    }
}

#[test]
fn an_address_without_an_answer_is_the_cause_of_its_clients_errors() {
    let mut answers = healthy();
    edge(&mut answers).connects = [("ok".to_owned(), 0), ("aborted".to_owned(), 12)].into();
    let caller = answers.edges.edges.iter_mut().find(|edge| edge.client == "internet");
    caller.expect("the caller").responses = responses(&[("5xx", 60)]);
    let done = judged(answers, "");
    assert_eq!(roots(&done), [("PC103", Severity::Error)]);
    let titles: Vec<&str> = done.report.findings.iter().map(|one| one.title.as_str()).collect();
    let expected = "100% of connects get no answer before the client gives up (12 of 12)";
    assert!(titles[0].ends_with(expected), "{titles:?}");
    let effect = done.report.findings.iter().find(|one| one.code == "PC110").expect("errors");
    assert_eq!(effect.caused_by.as_deref(), Some("PC103"));
}

#[test]
fn rejected_connects_are_not_said_to_be_dropped() {
    let mut answers = healthy();
    edge(&mut answers).connects =
        [("ok".to_owned(), 0), ("aborted".to_owned(), 9), ("unreachable".to_owned(), 9)].into();
    let done = judged(answers, "");
    let title = &done.report.findings[0].title;
    let expected = "100% of connects have no route or are rejected, or get no answer (18 of 18)";
    assert!(title.ends_with(expected), "{title}");
}
