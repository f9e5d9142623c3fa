//! Ports and their holders.

use api_types::{Port, PortState, Timestamp};
use cli::fit::Column;
use cli::words;
use notation::duration::ago;
use notation::filter::{NumberField, TextField};

use super::Of;
use crate::rows::{Fields, Item, Mark, Row, Table, number, text};

pub(super) const HELP: &[&str] = &[
    "BACKLOG   connections that wait to be accepted, and how many may",
    "CONFLICT  when another process last failed to bind it: 4 lists these",
    "NETNS     inode of the network namespace, or host",
    "✗ its accept queue is full; ! another process failed to bind it in the window",
    "a shows ports of connections and closed ones (TIME_WAIT), too",
];

const COLUMNS: &[Column] = &[
    text("", 0),
    number("PORT", 0),
    text("PROTO", 4),
    text("ADDRESS", 1),
    text("STATE", 2),
    text("SERVICE", 0),
    number("PID", 3),
    text("SINCE", 6),
    number("BACKLOG", 1),
    text("RESERVED FOR", 5),
    text("CONFLICT", 1),
    text("NETNS", 7),
];

pub(super) fn table<'a>(looks: &[Of<'a>], all: bool) -> Table<'a> {
    let mut rows = Vec::new();
    let mut hidden = 0_u64;
    for Of { host, look } in looks {
        let ports = &look.answers.ports;
        let begin = look.answers.edges.window.since;
        for port in &ports.ports {
            let is_kept = matches!(port.state, PortState::Listening | PortState::Bound);
            if all || is_kept || port.last_conflict.is_some() {
                rows.push(row(*host, port, ports.timestamp, begin, ports.host_netns));
            } else {
                hidden += 1;
            }
        }
    }
    Table {
        columns: COLUMNS.to_vec(),
        rows,
        hidden: (hidden > 0)
            .then(|| format!("{} of connections: a", words::counted(hidden, "more port"))),
        empty: "No ports in use.",
    }
}

fn row(
    host: usize,
    port: &Port,
    now: Timestamp,
    begin: Timestamp,
    host_netns: Option<u32>,
) -> Row<'_> {
    let is_full = port.max_backlog > 0 && port.backlog > port.max_backlog;
    let is_wanted = port.last_conflict.is_some_and(|last| last >= begin);
    let mark = match (is_full, is_wanted, port.state) {
        (true, ..) => Mark::Error,
        (_, true, _) => Mark::Warning,
        (.., PortState::Listening | PortState::Bound) => Mark::Ok,
        _ => Mark::Idle,
    };
    let service = &port.holder.service;
    let when = |at: Option<Timestamp>, never: &str| {
        at.map_or_else(
            || never.to_owned(),
            |at| format!("{} ago", ago(now.seconds_since(at).max(0.0))),
        )
    };
    let backlog = match port.max_backlog {
        0 => "-".to_owned(),
        limit => format!("{}/{limit}", port.backlog),
    };
    let is_host = host_netns == Some(port.netns);
    let netns = if is_host { "host".to_owned() } else { port.netns.to_string() };
    let cells = vec![
        mark.as_char().to_string(),
        port.port.to_string(),
        port.protocol.as_str().to_owned(),
        port.address.to_string(),
        port.state.as_str().to_owned(),
        words::full_name(&service.namespace, &service.name),
        if port.holder.pid == 0 { "-".to_owned() } else { port.holder.pid.to_string() },
        when(port.since, "before the agent"),
        backlog,
        port.reserved_for.clone().unwrap_or_else(|| "-".to_owned()),
        when(port.last_conflict, "-"),
        netns,
    ];
    let fields = Fields::default()
        .service(TextField::Server, &service.namespace, &service.name)
        .text(TextField::Kind, port.state.as_str())
        .text(TextField::Kind, port.protocol.as_str())
        .number(NumberField::Port, f64::from(port.port));
    Row {
        mark,
        cells,
        item: Item::Port(port),
        host,
        key: format!(
            "{:05} {} {} {} {}",
            port.port,
            port.protocol.as_str(),
            port.address,
            port.netns,
            port.state.as_str()
        ),
        weight: (0, 0),
        fields,
    }
}
