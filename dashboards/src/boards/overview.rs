//! Network overview: is the network doing what it promised, and if not, where?

use super::super::board::{Board, Row};
use super::super::limits::Limits;
use super::super::panel::{Column, Panel, Unit};
use super::super::promql::{EDGE, SERVICE as OF_SERVICE};
use super::{CLUSTER, NAMESPACE, SERVICE, SERVICE_URL, TABLE_LABELS, TO};

pub fn board(limits: &Limits) -> Board {
    Board {
        uid: "portolan-overview",
        title: "Portolan / Network overview",
        description: "Is the network doing what it promised, and if not, between which services? Needs the recording rules of Portolan.",
        variables: vec![CLUSTER, NAMESPACE, SERVICE],
        explore: "topk(10, edge:portolan_request_duration_seconds:p99_5m)",
        rows: vec![
            Row { title: "Objectives", height: 4, panels: objectives(limits) },
            Row { title: "Where it hurts", height: 10, panels: worst(limits) },
            Row { title: "Over time", height: 9, panels: over_time(limits) },
        ],
    }
}

fn objectives(limits: &Limits) -> Vec<Panel> {
    let requests = format!("edge:portolan_request_duration_seconds:rate5m{{{TO}}}");
    vec![
        Panel::number(
            "Alerts firing",
            "Portolan's alerts above info that fire now, silenced or not.",
            Unit::Count,
            3,
            r#"count(ALERTS{alertname=~"Portolan.*", alertstate="firing", severity!="info"}) or vector(0)"#,
        )
        .from(1.0, "red"),
        Panel::number(
            "Over objective",
            "Services of which one request in a hundred takes longer than their objective (50 ms, unless the objectives say otherwise).",
            Unit::Count,
            4,
            format!("count(service:portolan_request_duration_seconds:breach{{{TO}}}) or vector(0)"),
        )
        .from(1.0, "red"),
        Panel::number(
            "Within 50 ms",
            "Share of all requests answered within 50 ms, as the clients saw it.",
            Unit::Ratio,
            4,
            format!(
                "sum(edge:portolan_request_duration_seconds_within_50ms:rate5m{{{TO}}}) / (sum({requests}) > 0)"
            ),
        )
        .else_("red")
        .from(0.95, "orange")
        .from(0.99, "green"),
        Panel::number(
            "Connects ok",
            "Share of the attempts to connect that succeed; the objective is 99.9 %.",
            Unit::Ratio,
            4,
            format!(
                "1 - sum(pair:portolan_tcp_connects_failures:rate5m{{{TO}}}) / (sum(pair:portolan_tcp_connects_attempts:rate5m{{{TO}}}) > 0)"
            ),
        )
        .else_("red")
        .from(0.99, "orange")
        .from(1.0 - limits.connect_failures, "green"),
        Panel::number(
            "Requests",
            "Requests a second over all edges, each counted once even if both sides saw it.",
            Unit::RequestsPerSecond,
            3,
            format!("sum({requests})"),
        )
        .else_("blue"),
        Panel::number(
            "Named",
            "Share of the connections of which both ends have a service's name; addresses and container ids are none.",
            Unit::Ratio,
            3,
            r#"avg(cluster:portolan_tcp_connects_named:ratio_rate5m{cluster=~"$cluster"})"#,
        )
        .else_("orange")
        .from(limits.identified, "green"),
        Panel::number(
            "Agents",
            "Agents that Prometheus gets answers from.",
            Unit::Count,
            3,
            r#"count(portolan_build_info{cluster=~"$cluster"}) or vector(0)"#,
        )
        .else_("red")
        .from(1.0, "green"),
        Panel::number(
            "Port conflicts",
            "Binds and listens that failed because somebody else has the port, within the range shown.",
            Unit::Count,
            6,
            r#"round(sum(increase(portolan_port_conflicts_total{cluster=~"$cluster", errno="EADDRINUSE"}[$__range]))) or vector(0)"#,
        )
        .from(0.5, "red"),
        Panel::number(
            "Segment violations",
            "Connections between segments that may not connect, within the range shown.",
            Unit::Count,
            6,
            r#"round(sum(increase(portolan_segment_violations_total{cluster=~"$cluster"}[$__range]))) or vector(0)"#,
        )
        .from(0.5, "red"),
        Panel::number(
            "Least even backends",
            "How far the share of a backend is off what it should get, in parts of all requests of its client; the worst of those with a hundred requests within five minutes. Up to 5 % is even.",
            Unit::Ratio,
            6,
            format!("max(edge:portolan_backend_requests:deviation_5m{{{TO}}})"),
        )
        .from(limits.imbalance, "orange")
        .or_else("too few"),
        Panel::number(
            "Local ports in use",
            "Share of the local ports in use on the host that has the fewest left.",
            Unit::Ratio,
            6,
            r#"max(portolan_ephemeral_ports_used_ratio{cluster=~"$cluster"}) or vector(0)"#,
        )
        .from(limits.local_ports, "red"),
    ]
}

fn worst(limits: &Limits) -> Vec<Panel> {
    let all = |series: &str| format!("sum by ({EDGE}) ({series}{{{TO}}})");
    let column = |title, unit, bad_from, expr| Column { expr, title, unit, bad_from };
    vec![
        Panel::table(
            "Worst edges",
            "Who calls whom: first those that alerts name, then the slowest. P99: one request in a hundred takes longer, as the client saw it; none, if no request was answered. Network: half of the round trips take longer, delayed acknowledgements (up to 40 ms) included. A long P99 over a short network is the server's own time. Failed: connects. Again: segments that had to be sent again.",
            15,
            TABLE_LABELS,
            &[
                column("Alerts", Unit::Count, Some(1.0), alerts()),
                column("P99", Unit::Seconds, Some(limits.latency), format!("topk(50, edge:portolan_request_duration_seconds:p99_5m{{{TO}}} > 0)")),
                column("Network", Unit::Seconds, Some(0.1), format!("edge:portolan_tcp_rtt_seconds:p50_5m{{{TO}}} > 0")),
                column("Requests", Unit::RequestsPerSecond, None, all("edge:portolan_request_duration_seconds:rate5m")),
                column("Failed", Unit::PerSecond, Some(limits.failed_connects), format!("sum by ({EDGE}) (edge:portolan_tcp_connects:rate5m{{{TO}, result!=\"ok\"}})")),
                column("Resets", Unit::PerSecond, Some(limits.resets), all("edge:portolan_tcp_resets:rate5m")),
                column("Again", Unit::Ratio, Some(limits.retransmits), format!("edge:portolan_tcp_retransmits:ratio_rate5m{{{TO}}}")),
            ],
        )
        .leads_to("Server", "Both sides of this service", SERVICE_URL)
        .wide("Port", 64)
        .wide("Alerts", 84),
        Panel::graph(
            "Who calls whom",
            "Services and the requests a second between them; 0 where they only connect.",
            Unit::RequestsPerSecond,
            9,
            format!(
                "label_join(label_join(label_join(\n  (\n    sum by (client, server) (pair:portolan_request_duration_seconds:rate5m{{{TO}}}) > 0\n    or\n    0 * (sum by (client, server) (pair:portolan_tcp_connects_attempts:rate5m{{{TO}}}) > 0)\n  ),\n  \"source\", \"\", \"client\"), \"target\", \"\", \"server\"), \"id\", \" → \", \"client\", \"server\")"
            ),
        ),
    ]
}

/// Alerts above info that name an edge, and those that name its server only.
fn alerts() -> String {
    let firing = format!(
        "ALERTS{{alertname=~\"Portolan.*\", alertstate=\"firing\", severity!=\"info\", server!=\"\", {TO}}}"
    );
    let of_edges = format!("count by ({EDGE}) ({firing} and ALERTS{{client!=\"\", port!=\"\"}})");
    let of_servers = format!("count by ({OF_SERVICE}) ({firing} unless ALERTS{{client!=\"\"}})");
    let edges = format!("sum by ({EDGE}) (0 * edge:portolan_tcp_retransmits:rate5m{{{TO}}})");
    format!("{of_edges}\nor on ({EDGE})\n{edges} + on ({OF_SERVICE}) group_left () {of_servers}")
}

fn over_time(limits: &Limits) -> Vec<Panel> {
    vec![
        Panel::lines(
            "P99 by service",
            "One request in a hundred takes longer: the ten slowest services, by the worse of what client and server saw. Mind the axis: each step is a factor.",
            Unit::Seconds,
            8,
        )
        .query(
            format!("topk(10, max by (server, server_namespace) (service_role:portolan_request_duration_seconds:p99_5m{{{TO}}}))"),
            "{{server}}",
        )
        .by_factors()
        .from(limits.latency, "red")
        .marked(),
        Panel::lines("Requests by service", "Requests a second that the ten busiest services answer.", Unit::RequestsPerSecond, 8)
            .query(
                format!("topk(10, sum by (server, server_namespace) (service:portolan_request_duration_seconds:rate5m{{{TO}}}))"),
                "{{server}}",
            ),
        Panel::lines(
            "Connects that fail",
            "Share of the attempts to connect that fail, the ten worst pairs; the objective allows 0.1 %.",
            Unit::Ratio,
            8,
        )
        .query(
            format!("topk(10, pair:portolan_tcp_connects_failures:ratio_rate5m{{{TO}}} > 0)"),
            "{{client}} → {{server}}",
        )
        .or_else("none")
        .from(limits.connect_failures, "red")
        .marked(),
    ]
}
