//! Network overview: does the network meet its objectives, and if not, where?

use super::super::Look;
use super::super::board::{Board, Row};
use super::super::limits::Limits;
use super::super::panel::{Column, Panel, Unit};
use super::super::promql::{EDGE, SERVICE as OF_SERVICE};
use super::{
    CLUSTER, ENDS, LOOPBACK, NAMESPACE, NAMESPACE_WIDTH, RESETS, SERVICE, SERVICE_URL,
    TABLE_LABELS, TO, named, within_range,
};

pub fn board(limits: &Limits) -> Board {
    Board {
        uid: "portolan-overview",
        title: "Portolan / Network overview",
        description: "Does the network meet its objectives, and if not, between which services? Needs the recording rules of Portolan.",
        variables: vec![CLUSTER, NAMESPACE, SERVICE],
        explore: "topk(10, edge:portolan_request_duration_seconds:p99_5m)",
        rows: vec![
            Row { title: "Objectives", height: 4, panels: objectives(limits) },
            Row { title: "Alerts", height: 12, panels: alerts_by_name() },
            Row { title: "Worst edges", height: 10, panels: worst(limits) },
            Row { title: "Service map", height: 10, panels: map() },
            Row { title: "Over time", height: 9, panels: over_time(limits) },
        ],
    }
}

fn objectives(limits: &Limits) -> Vec<Panel> {
    let requests = format!("edge:portolan_request_duration_seconds:rate5m{{{TO}}}");
    vec![
        Panel::number(
            "Alerts firing",
            "Alerts of Portolan that fire now, without those of severity info; silenced ones included.",
            Unit::Count,
            3,
            r#"count(ALERTS{alertname=~"Portolan.*", alertstate="firing", severity!="info"}) or vector(0)"#,
        )
        .from(1.0, "red"),
        Panel::number(
            "Services over objective",
            format!("Services whose p99 is longer than their objective: {} ms unless portolan-objectives.yaml sets another.", 1000.0 * limits.latency),
            Unit::Count,
            5,
            format!("count(service:portolan_request_duration_seconds:breach{{{TO}}}) or vector(0)"),
        )
        .from(1.0, "red"),
        Panel::number(
            "Requests within 50 ms",
            "Share of all requests that are answered within 50 ms, measured at the clients.",
            Unit::Ratio,
            5,
            format!(
                "sum(edge:portolan_request_duration_seconds_within_50ms:rate5m{{{TO}}}) / (sum({requests}) > 0)"
            ),
        )
        .else_("red")
        .from(0.95, "orange")
        .from(0.99, "green"),
        Panel::number(
            "Connect success",
            format!("Share of the connects that succeed; the objective is {:.1} %.", 100.0 * (1.0 - limits.connect_failures)),
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
            "Requests per second over all edges, each counted once even if both sides saw it.",
            Unit::RequestsPerSecond,
            3,
            format!("sum({requests})"),
        )
        .else_("blue"),
        Panel::number(
            "Identified",
            "Share of the connections whose two ends are both identified as services, not by an address or a container id.",
            Unit::Ratio,
            4,
            r#"avg(cluster:portolan_tcp_connects_named:ratio_rate5m{cluster=~"$cluster"})"#,
        )
        .else_("orange")
        .from(limits.identified, "green"),
        Panel::number(
            "Port conflicts",
            "Binds and listens that failed because another process holds the port, within the time range shown.",
            Unit::Count,
            5,
            format!("round(sum({})) or vector(0)", within_range(r#"portolan_port_conflicts_total{cluster=~"$cluster", errno="EADDRINUSE"}"#)),
        )
        .from(0.5, "red"),
        Panel::number(
            "Segment violations",
            "Connections that break the rules between segments, within the time range shown: pairs that are not allowed, or plain text where TLS is required.",
            Unit::Count,
            5,
            format!("round(sum({})) or vector(0)", within_range(r#"portolan_segment_violations_total{cluster=~"$cluster"}"#)),
        )
        .from(0.5, "red"),
        Panel::number(
            "Worst imbalance",
            format!("The largest difference between the share of requests that a backend gets and its expected share, among edges with 100 requests or more within five minutes. Up to {} % is even.", 100.0 * limits.imbalance),
            Unit::Ratio,
            5,
            format!("max(edge:portolan_backend_requests:deviation_5m{{{TO}}})"),
        )
        .from(limits.imbalance, "orange")
        .or_else("too few requests"),
        Panel::number(
            "Local ports in use",
            "Share of the local ports in use, in the network namespace that has the fewest left.",
            Unit::Ratio,
            5,
            r#"max(portolan_ephemeral_ports_used_ratio{cluster=~"$cluster"}) or vector(0)"#,
        )
        .from(limits.local_ports, "red"),
        Panel::number(
            "Agents up",
            "Agents that Prometheus scrapes or that push to it.",
            Unit::Count,
            4,
            r#"count(portolan_build_info{cluster=~"$cluster"}) or vector(0)"#,
        )
        .else_("red")
        .from(1.0, "green"),
    ]
}

fn worst(limits: &Limits) -> Vec<Panel> {
    let all = |series: &str| format!("sum by ({EDGE}) ({series}{{{TO}}})");
    let column = |title, unit, bad_from, expr| Column { expr, title, unit, bad_from };
    vec![
        Panel::table(
            "Worst edges",
            "Edges with alerts first, then the slowest. P99: one request in 100 takes longer, measured at the client. RTT p50: half of the round trips take longer, delayed acknowledgements (up to 40 ms) included. A long P99 with a short RTT is time in the server. Retransmits: share of the segments.",
            24,
            TABLE_LABELS,
            &[
                column("Alerts", Unit::Count, Some(1.0), alerts()),
                column("P99", Unit::Seconds, Some(limits.latency), format!("topk(50, edge:portolan_request_duration_seconds:p99_5m{{{TO}}} > 0)")),
                column("RTT p50", Unit::Seconds, Some(0.1), format!("edge:portolan_tcp_rtt_seconds:p50_5m{{{TO}}} > 0")),
                column("Requests", Unit::RequestsPerSecond, None, all("edge:portolan_request_duration_seconds:rate5m")),
                column("Failed connects", Unit::PerMinute, Some(limits.failed_connects), format!("60 * sum by ({EDGE}) (edge:portolan_tcp_connects:rate5m{{{TO}, result!=\"ok\"}})")),
                column("Resets", Unit::PerMinute, Some(limits.resets), format!("60 * sum by ({EDGE}) (edge:portolan_tcp_resets:rate5m{{{TO}, {RESETS}}})")),
                column("Retransmits", Unit::Ratio, Some(limits.retransmits), format!("edge:portolan_tcp_retransmits:ratio_rate5m{{{TO}}}")),
            ],
        )
        .leads_to("Server", "Dashboard of this service", SERVICE_URL)
        .wide("Client namespace", NAMESPACE_WIDTH)
        .wide("Server namespace", NAMESPACE_WIDTH)
        .wide("Port", 70)
        .wide("Alerts", 85)
        .wide("P99", 95)
        .wide("RTT p50", 95)
        .wide("Requests", 105)
        .wide("Failed connects", 160)
        .wide("Resets", 95)
        .wide("Retransmits", 130),
    ]
}

fn alerts_by_name() -> Vec<Panel> {
    let firing = r#"cluster=~"$cluster", alertname=~"Portolan.*""#;
    let by = "alertname, severity, server, server_namespace, client, client_namespace, port, role, instance, team";
    vec![
        Panel::table(
            "Firing alerts",
            "What fires now, by name, the newest first; the name links to the runbook. Service: the one that suffers, or that clients do not reach.",
            24,
            &[
                ("alertname", "Alert"),
                ("severity", "Severity"),
                ("server", "Service"),
                ("server_namespace", "Namespace"),
                ("port", "Port"),
                ("client", "Client"),
                ("client_namespace", "Client namespace"),
                ("role", "Side"),
                ("instance", "Agent"),
                ("team", "Team"),
            ],
            &[Column {
                title: "Since",
                unit: Unit::Since,
                bad_from: None,
                expr: format!(
                    "1000 * max by ({by}) (label_replace(ALERTS_FOR_STATE{{{firing}}} and ignoring (alertstate) ALERTS{{{firing}, alertstate=\"firing\"}}, \"server\", \"$1\", \"netns_of\", \"(.+)\"))"
                ),
            }],
        )
        .colored("Severity", &[("critical", "red"), ("warning", "orange"), ("info", "blue")])
        .leads_to("Alert", "Runbook", &format!("{}/runbooks/${{__data.fields.Alert}}.md", Look::DOCS))
        .leads_to("Service", "Dashboard of this service", "/d/portolan-service?var-cluster=${cluster}&var-namespace=${__data.fields.Namespace}&var-service=${__data.fields.Service}&${__url_time_range}")
        .wide("Alert", 260)
        .wide("Severity", 100)
        .wide("Namespace", NAMESPACE_WIDTH)
        .wide("Port", 70)
        .wide("Client namespace", NAMESPACE_WIDTH)
        .wide("Side", 75)
        .wide("Agent", 160)
        .wide("Team", 100)
        .wide("Since", 130)
        .or_else("no alert fires"),
    ]
}

fn map() -> Vec<Panel> {
    let services = format!("{TO}, client!~\"{LOOPBACK}\", server!~\"{LOOPBACK}\"");
    let pair = "sum by (client, client_namespace, server, server_namespace)";
    let edges = named(
        format!(
            "(\n  {pair} (pair:portolan_request_duration_seconds:rate5m{{{services}}}) > 0\n  or\n  0 * ({pair} (pair:portolan_tcp_connects_attempts:rate5m{{{services}}}) > 0)\n)"
        ),
        ENDS,
    );
    let end = |side: &str| format!("label_replace({edges}, \"id\", \"$1\", \"{side}\", \"(.*)\")");
    let ends = format!("count by (id) ({} or {})", end("client"), end("server"));
    // Who has no local port left is the client, not the service that it wants to reach.
    let firing = "cluster=~\"$cluster\", alertname=~\"Portolan.*\", alertstate=\"firing\"";
    let of_servers = |severity: &str| {
        format!(
            "max by (alertname, server, server_namespace) (ALERTS{{{firing}, alertname!=\"PortolanLocalPortsExhausted\", severity=\"{severity}\", server!=\"\"}})"
        )
    };
    let of_clients = format!(
        "max by (alertname, server, server_namespace) (label_replace(label_replace(ALERTS{{{firing}, alertname=\"PortolanLocalPortsExhausted\"}}, \"server\", \"$1\", \"client\", \"(.*)\"), \"server_namespace\", \"$1\", \"client_namespace\", \"(.*)\"))"
    );
    let or = "or on (server, server_namespace)";
    let worst = format!(
        "{} {or} {of_clients} {or} 0.5 * {}",
        of_servers("critical"),
        of_servers("warning")
    );
    let state = format!(
        "label_replace(label_replace({}, \"id\", \"$1\", \"server\", \"(.*)\"), \"subtitle\", \"$1\", \"alertname\", \"Portolan(.*)\")",
        named(worst, &["server"])
    );
    let nodes = format!(
        "label_join(\n  topk by (id) (1, max by (id, subtitle) ({state}))\n  and on (id) {ends}\n  or on (id) 0 * {ends},\n  \"title\", \"\", \"id\")"
    );
    vec![Panel::graph(
        "Service map",
        "Applications, and the requests per second between them; 0 where they connect without requests. Red: a critical alert fires for the service, yellow: a warning; its name is below. Left out: monitoring, health checkers and system services (names.monitoring, names.system), and loopback addresses at which nothing listens.",
        Unit::RequestsPerSecond,
        24,
        nodes,
        format!(
            "label_join(label_join(label_join({edges}, \"source\", \"\", \"client\"), \"target\", \"\", \"server\"), \"id\", \" → \", \"client\", \"server\")"
        ),
    )]
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
            "One request in 100 takes longer: the ten slowest services, measured at the client or the server, whichever is longer. Logarithmic axis.",
            Unit::Seconds,
            8,
        )
        .query(
            named(format!("topk(10, max by (server, server_namespace) (service_role:portolan_request_duration_seconds:p99_5m{{{TO}}}))"), &["server"]),
            "{{server}}",
        )
        .by_factors()
        .from(limits.latency, "red")
        .marked(),
        Panel::lines("Requests by service", "Requests per second of the ten busiest services.", Unit::RequestsPerSecond, 8)
            .query(
                named(format!("topk(10, sum by (server, server_namespace) (service:portolan_request_duration_seconds:rate5m{{{TO}}}))"), &["server"]),
                "{{server}}",
            ),
        Panel::lines(
            "Connect error ratio",
            format!("Share of the connects that fail, the ten worst pairs; the objective allows {:.1} %.", 100.0 * limits.connect_failures),
            Unit::Ratio,
            8,
        )
        .query(
            named(format!("topk(10, pair:portolan_tcp_connects_failures:ratio_rate5m{{{TO}}} > 0)"), ENDS),
            "{{client}} → {{server}}",
        )
        .or_else("none")
        .from(limits.connect_failures, "red")
        .marked(),
    ]
}
