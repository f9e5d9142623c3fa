//! Ports: who listens where, and how full their queues are.

use super::super::board::{Board, Row};
use super::super::limits::Limits;
use super::super::panel::{Column, Panel, Unit};
use super::{CLUSTER, LISTENERS, NAMESPACE, SERVICE};

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
        description: "Who listens on which port, who wanted one and did not get it, and are ports or queues running out?",
        variables: vec![CLUSTER, NAMESPACE, SERVICE],
        explore: "portolan_port_listeners",
        rows: vec![
            Row { title: "Listeners", height: 11, panels: listeners() },
            Row { title: "Conflicts", height: 8, panels: conflicts() },
            Row { title: "Running out of local ports", height: 8, panels: running_out(limits) },
            Row { title: "Queues", height: 8, panels: queues() },
        ],
    }
}

fn listeners() -> Vec<Panel> {
    let all = |metric: &str| format!("sum by ({BY}) ({metric}{{{LISTENERS}}})");
    let column = |title, bad_from, expr| Column { expr, title, unit: Unit::Count, bad_from };
    vec![Panel::table(
        "Who listens where",
        "Every listening service as the kernel has it. Sockets: how many share the port. Waiting: connections not yet accepted, of those that may wait.",
        24,
        LABELS,
        &[
            column("Sockets", None, all("portolan_port_listeners")),
            column("Waiting", Some(16.0), all("portolan_listen_backlog")),
            column("May wait", None, all("portolan_listen_backlog_max")),
            Column {
                expr: format!(
                    "sum by ({BY}) (increase(portolan_listen_overflows_total{{{LISTENERS}}}[$__range]))"
                ),
                title: "Dropped",
                unit: Unit::Count,
                bad_from: Some(1.0),
            },
        ],
    )]
}

fn conflicts() -> Vec<Panel> {
    let mine = r#"cluster=~"$cluster", claimant_namespace=~"$namespace", claimant=~"$service""#;
    let column = |title, bad_from, expr| Column { expr, title, unit: Unit::Count, bad_from };
    let by = "claimant, claimant_namespace, holder, holder_namespace, port, protocol, errno";
    vec![
        Panel::table(
            "Who wanted a port and did not get it",
            "Binds and listens that failed, since the agents started. Holder: who has the port; none: nobody, the error says why.",
            14,
            &[
                ("claimant", "Wanted by"),
                ("claimant_namespace", "Namespace"),
                ("port", "Port"),
                ("protocol", "Protocol"),
                ("holder", "Held by"),
                ("holder_namespace", "Holder's namespace"),
                ("errno", "Error"),
            ],
            &[column("Times", Some(1.0), format!("sum by ({by}) (portolan_port_conflicts_total{{{mine}}})"))],
        )
        .or_else("none"),
        Panel::lines("Reservations", "Reservations in force, and their breaches within the range shown.", Unit::Count, 5)
            .query(r#"sum by (origin) (portolan_port_reservations{cluster=~"$cluster"})"#, "reserved by {{origin}}")
            .query(r#"sum by (owner, offender, port, action) (increase(portolan_port_reservation_breaches_total{cluster=~"$cluster"}[$__rate_interval])) > 0"#, "{{offender}} on {{port}} of {{owner}}: {{action}}")
            .or_else("none"),
        Panel::lines("Failed binds and listens", "A second, by who wanted the port.", Unit::PerSecond, 5)
            .query(format!("sum by (claimant, port) (rate(portolan_port_conflicts_total{{{mine}}}[$__rate_interval])) > 0"), "{{claimant}}: {{port}}")
            .or_else("none"),
    ]
}

fn running_out(limits: &Limits) -> Vec<Panel> {
    let top = |metric: &str| format!("topk(10, {metric}{{cluster=~\"$cluster\"}})");
    vec![
        Panel::lines("In use", "Share of the ephemeral ports in use, by the service of the network namespace; the ten fullest.", Unit::Ratio, 8)
            .query(top("portolan_ephemeral_ports_used_ratio"), "{{netns_of}}")
            .from(limits.local_ports, "red")
            .marked(),
        Panel::lines("Towards one destination", "The same for the one address and port that takes most; at 100 % the next connect there fails.", Unit::Ratio, 8)
            .query(top("portolan_ephemeral_ports_destination_ratio"), "{{netns_of}}")
            .from(limits.local_ports, "red")
            .marked(),
        Panel::lines("In TIME_WAIT", "Closed connections that keep their ports for a minute; many mean that nobody reuses connections.", Unit::Count, 8)
            .query(top("portolan_tcp_time_wait_connections"), "{{netns_of}}"),
    ]
}

fn queues() -> Vec<Panel> {
    vec![
        Panel::lines("Accept queues in use", "Connections that wait to be accepted, as a share of those that may; at 100 % the kernel drops new ones. The ten fullest.", Unit::Ratio, 12)
            .query(format!("topk(10, portolan_listen_backlog{{{LISTENERS}}} / (portolan_listen_backlog_max{{{LISTENERS}}} > 0))"), "{{service}}:{{port}}")
            .between(0.0, 1.0)
            .from(0.8, "red")
            .marked(),
        Panel::lines("Connection requests dropped", "A second, by listener; the clients wait a second and more, and try again.", Unit::PerSecond, 12)
            .query(format!("sum by (service, port) (rate(portolan_listen_overflows_total{{{LISTENERS}}}[$__rate_interval])) > 0"), "{{service}}:{{port}}")
            .or_else("none"),
    ]
}
