//! Services with their health.

use api_types::{HealthReason, HealthState, ServiceStatus};
use cli::fit::Column;
use cli::words;
use notation::filter::{NumberField, TextField};

use super::Of;
use crate::rows::{Fields, Item, Mark, Row, Table, number, text};

pub(super) const HELP: &[&str] = &[
    "HEALTH  failing: most connects fail or most requests are not answered; degraded: see WHY;",
    "        idle: no traffic in the window; - a client only",
    "REQ/S P50 P99 FAILED UNANS RESETS  of the service as a server, in the window",
    "QUEUE   connections that wait to be accepted, and how many may",
    "a shows idle services and mere clients, too",
];

const COLUMNS: &[Column] = &[
    text("", 0),
    text("SERVICE", 0),
    text("KIND", 5),
    text("PORTS", 2),
    text("HEALTH", 0),
    number("REQ/S", 0),
    number("P50", 6),
    number("P99", 0),
    number("FAILED", 0),
    number("UNANS", 1),
    number("RESETS", 3),
    number("QUEUE", 4),
    text("WHY", 0),
];

pub(super) fn table<'a>(looks: &[Of<'a>], all: bool) -> Table<'a> {
    let mut rows = Vec::new();
    let mut hidden = 0_u64;
    for Of { host, look } in looks {
        let seconds = look.answers.services.window.seconds.max(1.0);
        for one in &look.answers.services.services {
            let row = row(*host, one, seconds);
            if all || row.mark != Mark::Idle {
                rows.push(row);
            } else {
                hidden += 1;
            }
        }
    }
    Table {
        columns: COLUMNS.to_vec(),
        rows,
        hidden: (hidden > 0).then(|| {
            format!("{} (idle, or clients only): a", words::counted(hidden, "more service"))
        }),
        empty: "No services with traffic.",
    }
}

/// What is wrong with a service, in words.
pub(crate) const fn reason(reason: HealthReason) -> &'static str {
    match reason {
        HealthReason::ConnectsFail => "connects fail",
        HealthReason::Unanswered => "requests unanswered",
        HealthReason::Errors => "error responses",
        HealthReason::Slow => "slow",
        HealthReason::Resets => "resets",
        HealthReason::Aborts => "connections die",
        HealthReason::ListenDrops => "listener drops",
        HealthReason::AcceptQueueFull => "accept queue full",
        HealthReason::OwnConnectsFail => "its own connects fail",
    }
}

fn row(host: usize, one: &ServiceStatus, seconds: f64) -> Row<'_> {
    let health = &one.health;
    let mark = match health.state {
        HealthState::Failing => Mark::Error,
        HealthState::Degraded => Mark::Warning,
        HealthState::Ok => Mark::Ok,
        HealthState::Idle => Mark::Idle,
    };
    let requests = health.requests as f64 / seconds;
    let reasons: Vec<&str> = health.reasons.iter().map(|one| reason(*one)).collect();
    let why = if reasons.is_empty() { "-".to_owned() } else { reasons.join(", ") };
    let queue = health.accept_queue.map(|queue| format!("{}/{}", queue.length, queue.limit));
    let name = words::shown_name(one);
    let cells = vec![
        mark.as_char().to_string(),
        name.clone(),
        words::kind(one).to_owned(),
        words::places(one),
        words::state(one).to_owned(),
        words::rate(requests),
        words::quantile(health.p50_seconds),
        words::quantile(health.p99_seconds),
        words::count(health.connects_failed),
        words::count(health.unanswered),
        words::count(health.resets),
        queue.unwrap_or_else(|| "-".to_owned()),
        why,
    ];
    let mut fields = Fields::default()
        .service(TextField::Server, &one.service_namespace, &one.service)
        .text(TextField::Kind, words::kind(one))
        .number(NumberField::Requests, requests)
        .measured(NumberField::P50, health.p50_seconds)
        .measured(NumberField::P99, health.p99_seconds)
        .measured(NumberField::Errors, health.success_ratio.map(|ok| (1.0 - ok) * 100.0))
        .number(NumberField::Unanswered, health.unanswered as f64)
        .number(NumberField::Failed, health.connects_failed as f64 / seconds);
    for why in reasons {
        fields = fields.text(TextField::Why, why);
    }
    let ports = one.listens.iter().chain(&one.serves).filter_map(|port| port.split('/').next());
    for port in ports.filter_map(|port| port.parse::<u16>().ok()) {
        fields = fields.number(NumberField::Port, f64::from(port));
    }
    Row {
        mark,
        cells,
        item: Item::Service(one),
        host,
        key: name,
        weight: (health.connects_failed.saturating_add(health.unanswered), health.requests),
        fields,
    }
}
