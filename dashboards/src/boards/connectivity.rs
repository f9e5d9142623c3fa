//! Connectivity: which connections come to nothing or break, and why?

use super::super::board::{Board, Row};
use super::super::limits::Limits;
use super::super::panel::{Column, Panel, Unit};
use super::super::promql::PAIR;
use super::{CLUSTER, LISTENERS, NAMESPACE, SERVICE, SERVICE_URL, TABLE_LABELS, TO};

pub fn board(limits: &Limits) -> Board {
    Board {
        uid: "portolan-connectivity",
        title: "Portolan / Connectivity",
        description: "Which connections come to nothing or break, between which services, and why? Needs the recording rules of Portolan.",
        variables: vec![CLUSTER, NAMESPACE, SERVICE],
        explore: "sum by (client, server, result) (edge:portolan_tcp_connects:rate5m{result!=\"ok\"})",
        rows: vec![
            Row { title: "Connecting", height: 9, panels: connecting() },
            Row { title: "The budget: 99.9 % of all attempts", height: 9, panels: budget(limits) },
            Row { title: "Not allowed", height: 7, panels: forbidden() },
            Row { title: "Breaking", height: 9, panels: breaking(limits) },
        ],
    }
}

fn connecting() -> Vec<Panel> {
    vec![
        Panel::lines("Failed connects", "Attempts a second that failed, by pair and result. refused: nothing listens. timeout, aborted: no answer. unreachable, denied: no way there.", Unit::PerSecond, 8)
            .query(format!("sum by (client, server, result) (edge:portolan_tcp_connects:rate5m{{{TO}, result!=\"ok\"}}) > 0"), "{{client}} → {{server}}: {{result}}")
            .or_else("none"),
        Panel::lines("Time to connect", "One attempt in a hundred takes longer; a second and more means that the first SYN got no answer.", Unit::Seconds, 8)
            .query(format!("topk(10, max by (client, server) (edge:portolan_tcp_connect_duration_seconds:p99_5m{{{TO}}}))"), "{{client}} → {{server}}")
            .by_factors()
            .from(1.0, "red")
            .marked(),
        Panel::lines("Dropped at the listener", "A second: connection requests that the listener dropped (its queue is full), and SYN-ACKs that it had to send again (the client, or the way to it, does not answer).", Unit::PerSecond, 8)
            .query(format!("sum by (service, port) (rate(portolan_listen_overflows_total{{{LISTENERS}}}[$__rate_interval]))"), "{{service}}:{{port}} dropped")
            .query(format!("sum by (service, port) (rate(portolan_tcp_synack_retransmits_total{{{LISTENERS}}}[$__rate_interval]))"), "{{service}}:{{port}} SYN-ACK again")
            .or_else("none"),
    ]
}

fn budget(limits: &Limits) -> Vec<Panel> {
    let column = |title, window: &str| Column {
        expr: format!(
            "sum by ({PAIR}) (pair:portolan_tcp_connects_failures:ratio_rate{window}{{{TO}}})"
        ),
        title,
        unit: Unit::Ratio,
        bad_from: Some(limits.connect_failures),
    };
    vec![
        Panel::table(
            "Failed share by pair",
            "Share of the attempts that failed, over growing windows: high on the left only is new, high on the right only is over.",
            16,
            &TABLE_LABELS[..4],
            &[
                column("5 minutes", "5m"),
                column("30 minutes", "30m"),
                column("1 hour", "1h"),
                column("6 hours", "6h"),
                column("3 days", "3d"),
            ],
        )
        .leads_to("Server", "Both sides of this service", SERVICE_URL),
        Panel::lines("How fast the budget is spent", "1 spends exactly what the objective allows; at 14.4 the budget of 30 days is gone in two.", Unit::Count, 8)
            .query(format!("topk(10, pair:portolan_tcp_connects_failures:ratio_rate1h{{{TO}}} / {} > 0)", limits.connect_failures), "{{client}} → {{server}}")
            .or_else("nothing spent")
            .from(limits.burn_rate, "red")
            .marked(),
    ]
}

fn forbidden() -> Vec<Panel> {
    vec![Panel::table(
        "Connections between segments that may not connect",
        "Established connections that the declared matrix of segments does not allow, since the agents started.",
        24,
        &[
            ("client_segment", "From segment"),
            ("server_segment", "To segment"),
            ("client", "Client"),
            ("server", "Server"),
            ("port", "Port"),
        ],
        &[Column {
            expr: format!(
                "sum by (client_segment, server_segment, client, server, port) (portolan_segment_violations_total{{{TO}}})"
            ),
            title: "Connections",
            unit: Unit::Count,
            bad_from: Some(1.0),
        }],
    )
    .or_else("none")]
}

fn breaking(limits: &Limits) -> Vec<Panel> {
    vec![
        Panel::lines("Resets", "A second, by pair and cause, each counted once. idle_reuse: client and server disagree about how long a connection may idle.", Unit::PerSecond, 8)
            .query(format!("sum by (client, server, cause) (edge:portolan_tcp_resets:rate5m{{{TO}}}) > 0"), "{{client}} → {{server}}: {{cause}}")
            .or_else("none"),
        Panel::lines("Who sends resets, who gets them", "A second, as each side's host counted: the same reset is sent here and received there.", Unit::PerSecond, 8)
            .query(format!("sum by (role, direction, cause) (rate(portolan_tcp_resets_total{{{TO}}}[$__rate_interval])) > 0"), "{{role}} {{direction}}: {{cause}}")
            .or_else("none"),
        Panel::lines("Segments sent again", "At most this share of the segments had to be sent again: full segments and one per request are counted, there may have been more. Above 2 % requests get slow.", Unit::Ratio, 8)
            .query(format!("topk(10, max by (client, server) (edge:portolan_tcp_retransmits:ratio_rate5m{{{TO}}}))"), "{{client}} → {{server}}")
            .from(limits.retransmits, "red")
            .marked(),
    ]
}
