//! `portolan ports`: a row for each port that a process holds or that is reserved.

use clap::Args;

use crate::table::{self, Column};
use crate::target::Target;
use crate::{Output, print};
use api_types::{
    EphemeralPorts, Port, PortState, Ports, Process, Protocol, Reservation, Source, Timestamp,
};
use notation::duration::ago;

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    target: Target,
}

/// A namespace that uses this part of its ephemeral ports is reported.
const SCARCE: f64 = 0.7;

const COLUMNS: &[Column] = &[
    Column::right("PORT"),
    Column::left("PROTOCOL").rank(1),
    Column::left("ADDRESS"),
    Column::left("STATE").rank(5),
    Column::left("HOLDER"),
    Column::right("PID").rank(6),
    Column::left("SINCE").rank(7),
    Column::right("BACKLOG").rank(8),
    Column::left("RESERVED FOR").rank(3),
    Column::left("LAST CONFLICT").rank(2),
    Column::left("NETNS").rank(4),
];

/// A row with its position in the table: port, protocol, whether it is vacant.
type Placed = ((u16, Protocol, bool), Vec<String>);

pub(super) fn run(arguments: &ListArgs) -> anyhow::Result<()> {
    let target = &arguments.target;
    let body = target.text("/api/v1/ports")?;
    match target.output {
        Output::Json => print(&format!("{}\n", body.trim_end())),
        Output::Text => print(&text(&client::read(&body)?, table::room())),
    }
}

/// The ports as a table.
pub(super) fn text(answer: &Ports, room: Option<usize>) -> String {
    if answer.ports.is_empty() && answer.unused_reservations.is_empty() {
        return "No ports yet.\n".to_owned();
    }
    let host = answer.host_netns;
    let held = answer.ports.iter().map(|port| row(port, answer.timestamp, host));
    let mut rows: Vec<Placed> =
        held.chain(answer.unused_reservations.iter().map(unused_row)).collect();
    rows.sort_by_key(|(place, _)| *place);
    let mut rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    let mut columns = COLUMNS;
    // If there is only the host's namespace the column is omitted.
    if let Some((_, others)) = COLUMNS.split_last()
        && rows.iter().all(|row| row.last().is_none_or(|netns| netns == HOST))
    {
        columns = others;
        for row in &mut rows {
            row.truncate(others.len());
        }
    }
    let mut text = table::render(columns, &rows, room);
    for scarce in answer.ephemeral_ports.iter().filter(|one| is_scarce(one)) {
        text.push_str(&warning(scarce));
    }
    text
}

/// Whether a namespace is about to run out of ephemeral ports.
fn is_scarce(ports: &EphemeralPorts) -> bool {
    ports.used_ratio().max(ports.destination_ratio()) >= SCARCE
}

fn warning(ports: &EphemeralPorts) -> String {
    let most = ports.busiest_destination.map_or_else(String::new, |destination| {
        format!(", {} of them to {}", destination.used, destination.address)
    });
    format!(
        "warning: {}: {} of {} ephemeral ports in use{most}; {} sockets in TIME_WAIT\n",
        ports.service.name,
        ports.used_tcp.max(ports.used_udp),
        ports.size(),
        ports.time_wait
    )
}

fn row(port: &Port, now: Timestamp, host: Option<u32>) -> Placed {
    let when = |at: Option<Timestamp>, never: &str| {
        at.map_or_else(|| never.to_owned(), |at| format!("{} ago", ago(now.seconds_since(at))))
    };
    let backlog = if port.max_backlog == 0 {
        String::new()
    } else {
        // The kernel queues one more than the limit (sk_acceptq_is_full).
        let full = if port.backlog > port.max_backlog { " (full)" } else { "" };
        format!("{}/{}{full}", port.backlog, port.max_backlog)
    };
    let mut address = port.address.to_string();
    if port.v6_only && port.address.is_unspecified() {
        address.push_str(" (IPv6 only)");
    }
    let cells = vec![
        port.port.to_string(),
        port.protocol.as_str().to_owned(),
        address,
        port.state.as_str().to_owned(),
        holder(&port.holder, port.sockets),
        if port.holder.pid == 0 { String::new() } else { port.holder.pid.to_string() },
        when(port.since, "before the agent started"),
        backlog,
        port.reserved_for.clone().unwrap_or_default(),
        when(port.last_conflict, ""),
        netns((Some(port.netns) != host).then_some(port.netns)),
    ];
    ((port.port, port.protocol, false), cells)
}

/// A reserved port without a holder.
fn unused_row(one: &Reservation) -> Placed {
    let none = String::new;
    let cells = vec![
        one.port.to_string(),
        one.protocol.as_str().to_owned(),
        none(),
        PortState::Reserved.as_str().to_owned(),
        none(),
        none(),
        none(),
        none(),
        one.service.clone(),
        none(),
        netns(one.netns),
    ];
    ((one.port, one.protocol, true), cells)
}

/// The name of the host's network namespace.
const HOST: &str = "host";

fn netns(inode: Option<u32>) -> String {
    inode.map_or_else(|| HOST.to_owned(), |inode| inode.to_string())
}

fn holder(party: &Process, sockets: u32) -> String {
    let service = &party.service;
    // A pre-existing socket whose process is hidden.
    let name = if service.source == Source::Unknown && party.pid == 0 {
        "(unidentified)".to_owned()
    } else if service.namespace.is_empty() {
        service.name.clone()
    } else {
        format!("{}/{}", service.namespace, service.name)
    };
    if sockets > 1 { format!("{name} ×{sockets}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::{Kind, Service};
    use model::reservations;
    use server::convert::ToApi as _;

    fn postgres() -> Port {
        Port {
            port: 5432,
            protocol: Protocol::Tcp,
            address: "::".parse().unwrap(),
            v6_only: true,
            netns: 1,
            state: PortState::Listening,
            holder: Process {
                service: Service {
                    name: "postgres".to_owned(),
                    namespace: String::new(),
                    kind: Kind::Process,
                    source: Source::Process,
                },
                pid: 811,
                command: "postgres".to_owned(),
            },
            uid: 33,
            since: Some(Timestamp::from_seconds(1000.0)),
            sockets: 2,
            backlog: 1,
            max_backlog: 200,
            reserved_for: None,
            last_conflict: Some(Timestamp::from_seconds(4540.0)),
        }
    }

    fn check(ports: Vec<Port>, reserved: &[&str], expected: &str) {
        let unused =
            reserved.iter().map(|one| reservations::Reservation::from_config(one).expect("valid"));
        let answer = Ports {
            timestamp: Timestamp::from_seconds(4600.0),
            host_netns: Some(1),
            ports,
            unused_reservations: unused.map(|one| one.to_api()).collect(),
            ephemeral_ports: Vec::new(),
        };
        assert_eq!(text(&answer, None), expected);
    }

    #[test]
    fn a_row_shows_the_holder_the_state_and_since_when() {
        check(
            vec![postgres()],
            &[],
            "\
PORT  PROTOCOL  ADDRESS         STATE      HOLDER       PID  SINCE       BACKLOG  RESERVED FOR  LAST CONFLICT
5432  tcp       :: (IPv6 only)  listening  postgres ×2  811  1 hour ago    1/200                1 minute ago
",
        );
        check(Vec::new(), &[], "No ports yet.\n");
    }

    #[test]
    fn a_reserved_port_is_listed_with_and_without_a_holder() {
        let reserved = Port { reserved_for: Some("shop/db".to_owned()), ..postgres() };
        check(
            vec![reserved],
            &["80 web", "5432/udp statsd"],
            "\
PORT  PROTOCOL  ADDRESS         STATE      HOLDER       PID  SINCE       BACKLOG  RESERVED FOR  LAST CONFLICT
  80  tcp                       reserved                                          web
5432  tcp       :: (IPv6 only)  listening  postgres ×2  811  1 hour ago    1/200  shop/db       1 minute ago
5432  udp                       reserved                                          statsd
",
        );
    }

    #[test]
    fn the_same_port_in_two_namespaces_has_two_rows() {
        let mut there = postgres();
        there.netns = 4_026_532_000;
        check(
            vec![postgres(), there],
            &[],
            "\
PORT  PROTOCOL  ADDRESS         STATE      HOLDER       PID  SINCE       BACKLOG  RESERVED FOR  LAST CONFLICT  NETNS
5432  tcp       :: (IPv6 only)  listening  postgres ×2  811  1 hour ago    1/200                1 minute ago   host
5432  tcp       :: (IPv6 only)  listening  postgres ×2  811  1 hour ago    1/200                1 minute ago   4026532000
",
        );
    }
}
