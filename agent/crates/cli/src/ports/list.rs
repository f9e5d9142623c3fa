//! `portolan ports`: a row for each port that a process holds or that is reserved.

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use crate::fleet::{self, Heard, Host, Targets};
use crate::table::{self, Column};
use crate::{Outcome, Output, print};
use api_types::{
    EphemeralPorts, Port, PortState, Ports, Process, Protocol, Reservation, Source, Timestamp,
};
use notation::duration::ago;

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    targets: Targets,
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

/// The answer of several hosts as JSON: that of each, with the host in every entry.
#[derive(Serialize)]
struct Document<'a> {
    timestamp: Option<Timestamp>,
    hosts: &'a [Host],
    ports: Vec<OfHost<'a, Port>>,
    unused_reservations: Vec<OfHost<'a, Reservation>>,
    ephemeral_ports: Vec<OfHost<'a, EphemeralPorts>>,
}

#[derive(Serialize)]
struct OfHost<'a, T> {
    host: &'a str,
    #[serde(flatten)]
    what: &'a T,
}

pub(super) fn run(arguments: &ListArgs) -> anyhow::Result<Outcome> {
    let ListArgs { targets: Targets { agents, output } } = arguments;
    let path = "/api/v1/ports";
    if let Some(only) = agents.only() {
        let body = only.text(path)?;
        let shown = match output {
            Output::Json => format!("{}\n", body.trim_end()),
            Output::Text => text(&client::read(&body)?, table::room()),
        };
        return print(&shown).map(|()| Outcome::Done);
    }
    let heard: Heard<Ports> = agents.ask(move |agent| Ok(client::read(&agent.text(path)?)?))?;
    let shown = match output {
        Output::Json => json(&heard)?,
        Output::Text => of_hosts(&heard, table::room()) + &fleet::remarks(&heard.hosts),
    };
    print(&shown).map(|()| fleet::outcome(&heard.hosts, Outcome::Done))
}

/// The ports of each host, by its name.
fn by_host(heard: &Heard<Ports>) -> impl Iterator<Item = (&str, &Ports)> {
    let Heard { answers, hosts } = heard;
    answers.iter().filter_map(|(host, ports)| Some((&*hosts.get(*host)?.host, ports)))
}

fn json(heard: &Heard<Ports>) -> serde_json::Result<String> {
    fn all<'a, T>(
        heard: &'a Heard<Ports>,
        of: impl Fn(&'a Ports) -> &'a [T],
    ) -> Vec<OfHost<'a, T>> {
        let of_host = |(host, ports)| of(ports).iter().map(move |what| OfHost { host, what });
        by_host(heard).flat_map(of_host).collect()
    }
    let document = Document {
        timestamp: by_host(heard).map(|(_, ports)| ports.timestamp).max(),
        hosts: &heard.hosts,
        ports: all(heard, |ports| &ports.ports),
        unused_reservations: all(heard, |ports| &ports.unused_reservations),
        ephemeral_ports: all(heard, |ports| &ports.ephemeral_ports),
    };
    Ok(serde_json::to_string(&document)? + "\n")
}

/// The ports of several hosts as a table.
fn of_hosts(heard: &Heard<Ports>, room: Option<usize>) -> String {
    let mut rows = Vec::new();
    let mut warnings = String::new();
    for (host, ports) in by_host(heard) {
        for mut row in placed(ports) {
            row.insert(0, host.to_owned());
            rows.push(row);
        }
        for scarce in ports.ephemeral_ports.iter().filter(|one| is_scarce(one)) {
            // Writing into a String cannot fail.
            let _ = write!(warnings, "{host}: {}", warning(scarce));
        }
    }
    if rows.is_empty() {
        return "No ports yet.\n".to_owned();
    }
    let columns: Vec<Column> =
        [Column::left("ON")].into_iter().chain(COLUMNS.iter().copied()).collect();
    table::render(&columns, &rows, room) + &warnings
}

/// A row for each port, in their order.
fn placed(answer: &Ports) -> Vec<Vec<String>> {
    let held = answer.ports.iter().map(|port| row(port, answer.timestamp, answer.host_netns));
    let mut rows: Vec<Placed> =
        held.chain(answer.unused_reservations.iter().map(unused_row)).collect();
    rows.sort_by_key(|(place, _)| *place);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// The ports as a table.
pub(super) fn text(answer: &Ports, room: Option<usize>) -> String {
    if answer.ports.is_empty() && answer.unused_reservations.is_empty() {
        return "No ports yet.\n".to_owned();
    }
    let mut rows = placed(answer);
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
