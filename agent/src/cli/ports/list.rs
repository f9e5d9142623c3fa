//! `portolan ports`: a row for each port that somebody has.

use std::net::SocketAddr;

use clap::Args;

use crate::api::ports::{Port, Ports};
use crate::cli::client::Target;
use crate::cli::table::{self, Column};
use crate::cli::{Output, print};
use crate::model::conflicts::Party;
use crate::model::ephemeral::EphemeralView;
use crate::model::words::ago;

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    target: Target,
}

/// A namespace that uses this part of its ephemeral ports is worth a word.
const SCARCE: f64 = 0.7;

const fn left(title: &'static str, rank: u8) -> Column {
    Column { title, left: true, rank }
}

const COLUMNS: &[Column] = &[
    Column { title: "PORT", left: false, rank: 0 },
    left("PROTOCOL", 1),
    left("ADDRESS", 0),
    left("STATE", 3),
    left("HOLDER", 0),
    Column { title: "PID", left: false, rank: 4 },
    left("SINCE", 5),
    Column { title: "WAITING", left: false, rank: 6 },
    left("LAST CONFLICT", 2),
];

pub(super) fn run(arguments: &ListArgs) -> anyhow::Result<()> {
    let target = &arguments.target;
    let body = target.text("/api/v1/ports")?;
    match target.output {
        Output::Json => print(&format!("{}\n", body.trim_end())),
        Output::Table => print(&text(&target.read(&body)?, table::room())),
    }
}

/// The ports as a table.
pub(super) fn text(answer: &Ports, room: Option<usize>) -> String {
    if answer.ports.is_empty() {
        return "No program has asked for a port yet.\n".to_owned();
    }
    let rows: Vec<_> = answer.ports.iter().map(|port| row(port, answer.taken_seconds)).collect();
    let mut text = table::render(COLUMNS, &rows, room);
    for scarce in answer.ephemeral.iter().filter(|one| is_scarce(one)) {
        text.push_str(&warning(scarce));
    }
    text
}

/// Whether a namespace is about to run out of ephemeral ports.
fn is_scarce(view: &EphemeralView) -> bool {
    view.ephemeral.used_ratio().max(view.ephemeral.destination_ratio()) >= SCARCE
}

fn warning(view: &EphemeralView) -> String {
    let EphemeralView { netns_of, ephemeral, .. } = view;
    let most = ephemeral.most_to.map_or_else(String::new, |(address, port)| {
        format!(", {} of them to {}", ephemeral.most, SocketAddr::new(address, port))
    });
    format!(
        "{} has {} of {} ephemeral ports in use{most}; {} closed connections are remembered (TIME_WAIT)\n",
        netns_of.name,
        ephemeral.used_tcp.max(ephemeral.used_udp),
        ephemeral.size(),
        ephemeral.time_wait
    )
}

fn row(port: &Port, now: f64) -> Vec<String> {
    let Port { view, last_conflict_seconds } = port;
    let when = |at: Option<f64>, never: &str| {
        at.map_or_else(|| never.to_owned(), |at| format!("{} ago", ago(now - at)))
    };
    let waiting = if view.max_backlog == 0 {
        String::new()
    } else {
        format!("{}/{}", view.backlog, view.max_backlog)
    };
    let mut address = view.address.to_string();
    if view.v6_only && view.address.is_unspecified() {
        address.push_str(" (IPv6 only)");
    }
    vec![
        view.port.to_string(),
        view.protocol.as_str().to_owned(),
        address,
        view.state.as_str().to_owned(),
        holder(&view.holder, view.sockets),
        if view.holder.pid == 0 { String::new() } else { view.holder.pid.to_string() },
        when(view.since_seconds, "before the agent"),
        waiting,
        when(*last_conflict_seconds, ""),
    ]
}

fn holder(party: &Party, sockets: u32) -> String {
    let service = &party.service;
    let name = if service.namespace.is_empty() {
        service.name.to_string()
    } else {
        format!("{}/{}", service.namespace, service.name)
    };
    if sockets > 1 { format!("{name} ×{sockets}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::port::{PortState, PortView, Protocol};
    use crate::model::service::{Service, Source};

    #[test]
    fn a_row_says_who_has_it_how_and_since_when() {
        let view = PortView {
            port: 5432,
            protocol: Protocol::Tcp,
            address: "::".parse().unwrap(),
            v6_only: true,
            netns: 1,
            state: PortState::Listening,
            holder: Party {
                service: Service::new("postgres", Source::Process),
                pid: 811,
                command: "postgres".to_owned(),
            },
            uid: 33,
            since_seconds: Some(1000.0),
            sockets: 2,
            backlog: 1,
            max_backlog: 200,
        };
        let ports = vec![Port { view, last_conflict_seconds: Some(4540.0) }];
        let answer = Ports { taken_seconds: 4600.0, ports, ephemeral: Vec::new() };
        assert_eq!(
            text(&answer, None),
            "\
PORT  PROTOCOL  ADDRESS         STATE      HOLDER       PID  SINCE       WAITING  LAST CONFLICT
5432  tcp       :: (IPv6 only)  listening  postgres ×2  811  1 hour ago    1/200  1 minute ago
"
        );
        let nothing = Ports { taken_seconds: 1.0, ports: Vec::new(), ephemeral: Vec::new() };
        assert_eq!(text(&nothing, None), "No program has asked for a port yet.\n");
    }
}
