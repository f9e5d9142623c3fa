//! Ports: listeners, bind conflicts, and how full local ports and accept queues are.

use super::super::board::{Board, Row};
use super::super::limits::Limits;
use super::super::panel::{Column, Panel, Unit};
use super::{CLUSTER, LISTENERS, NAMESPACE, SERVICE, named, within_range};

/// A row of a table of listeners.
const LABELS: &[(&str, &str)] = &[
    ("service", "Service"),
    ("service_namespace", "Namespace"),
    ("port", "Port"),
    ("protocol", "Protocol"),
    ("instance", "Agent"),
];
const BY: &str = "service, service_namespace, port, protocol, instance";

pub fn board(limits: &Limits) -> Board {
    Board {
        uid: "portolan-ports",
        title: "Portolan / Ports",
        description: "Which service listens on which port, which binds fail, and are local ports or accept queues running out?",
        variables: vec![CLUSTER, NAMESPACE, SERVICE],
        explore: "portolan_port_listeners",
        rows: vec![
            Row { title: "Listeners", height: 11, panels: listeners() },
            Row { title: "Bind conflicts", height: 8, panels: conflicts() },
            Row { title: "Local ports", height: 8, panels: running_out(limits) },
            Row { title: "Accept queues", height: 8, panels: queues() },
        ],
    }
}

fn listeners() -> Vec<Panel> {
    let all = |metric: &str| format!("sum by ({BY}) ({metric}{{{LISTENERS}}})");
    let column = |title, bad_from, expr| Column { expr, title, unit: Unit::Exact, bad_from };
    vec![Panel::table(
        "Listeners",
        "Every listening socket. Sockets: how many share the port. Backlog: connections that are not accepted yet. Backlog limit: how many may wait. Listen drops: connections dropped within the time range shown.",
        24,
        LABELS,
        &[
            column("Sockets", None, all("portolan_port_listeners")),
            column("Backlog", Some(16.0), all("portolan_listen_backlog")),
            column("Backlog limit", None, all("portolan_listen_backlog_max")),
            Column {
                expr: format!(
                    "sum by ({BY}) (increase(portolan_listen_overflows_total{{{LISTENERS}}}[$__range]))"
                ),
                title: "Listen drops",
                unit: Unit::Count,
                bad_from: Some(1.0),
            },
        ],
    )]
}

fn conflicts() -> Vec<Panel> {
    let mine = r#"cluster=~"$cluster", claimant_namespace=~"$namespace", claimant=~"$service""#;
    let column = |title, bad_from, expr| Column { expr, title, unit: Unit::Exact, bad_from };
    let by = "claimant, claimant_namespace, holder, holder_namespace, port, protocol, errno";
    vec![
        Panel::table(
            "Failed binds",
            "Binds and listens that failed within the time range shown. Held by: the service that holds the port; none if no process does, then the error gives the reason.",
            24,
            &[
                ("claimant", "Service"),
                ("claimant_namespace", "Namespace"),
                ("port", "Port"),
                ("protocol", "Protocol"),
                ("holder", "Held by"),
                ("holder_namespace", "Holder namespace"),
                ("errno", "Errno"),
            ],
            &[column("Failures", Some(1.0), format!("round(sum by ({by}) ({})) > 0", within_range(&format!("portolan_port_conflicts_total{{{mine}}}"))))],
        )
        .or_else("none"),
        Panel::lines("Port reservations", "Reservations in force, and breaches of them.", Unit::Count, 12)
            .query(r#"sum by (origin) (portolan_port_reservations{cluster=~"$cluster"})"#, "reserved by {{origin}}")
            .query(r#"sum by (owner, offender, port, action) (increase(portolan_port_reservation_breaches_total{cluster=~"$cluster"}[$__rate_interval])) > 0"#, "breach: {{offender}} on {{port}} of {{owner}} ({{action}})")
            .or_else("none"),
        Panel::lines("Failed binds by service", "Failed binds and listens per minute, by service and port.", Unit::PerMinute, 12)
            .query(named(format!("60 * sum by (claimant, claimant_namespace, port) (rate(portolan_port_conflicts_total{{{mine}}}[$__rate_interval])) > 0"), &["claimant"]), "{{claimant}}: {{port}}")
            .or_else("none"),
    ]
}

fn running_out(limits: &Limits) -> Vec<Panel> {
    let top = |metric: &str| format!("topk(10, {metric}{{cluster=~\"$cluster\"}})");
    vec![
        Panel::lines("Local ports in use", "Share of the ephemeral ports in use, by the service that owns the network namespace; the ten fullest.", Unit::Ratio, 8)
            .query(top("portolan_ephemeral_ports_used_ratio"), "{{netns_of}}")
            .from(limits.local_ports, "red")
            .marked(),
        Panel::lines("Local ports in use for one destination", "The same for the destination address and port that uses most; at 100 % the next connect to it fails.", Unit::Ratio, 8)
            .query(top("portolan_ephemeral_ports_destination_ratio"), "{{netns_of}}")
            .from(limits.local_ports, "red")
            .marked(),
        Panel::lines("Connections in TIME_WAIT", "Closed connections that occupy their local ports for a minute; many of them mean that clients do not reuse connections.", Unit::Count, 8)
            .query(top("portolan_tcp_time_wait_connections"), "{{netns_of}}"),
    ]
}

fn queues() -> Vec<Panel> {
    vec![
        Panel::lines("Backlog in use", "Connections that are not accepted yet, as a share of the backlog limit; at 100 % the kernel drops new ones. The ten fullest.", Unit::Ratio, 12)
            .query(named(format!("topk(10, portolan_listen_backlog{{{LISTENERS}}} / (portolan_listen_backlog_max{{{LISTENERS}}} > 0) > 0)"), &["service"]), "{{service}}:{{port}}")
            .between(0.0, 1.0)
            .from(0.8, "red")
            .marked()
            .or_else("no connection waits"),
        Panel::lines("Listen drops", "Connections per minute that a listener dropped; the clients retry after a second or more.", Unit::PerMinute, 12)
            .query(named(format!("60 * sum by (service, service_namespace, port) (rate(portolan_listen_overflows_total{{{LISTENERS}}}[$__rate_interval])) > 0"), &["service"]), "{{service}}:{{port}}")
            .or_else("none"),
    ]
}
