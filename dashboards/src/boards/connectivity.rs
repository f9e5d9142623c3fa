//! Connectivity: which connections fail or are reset, and why?

use super::super::board::{Board, Row};
use super::super::limits::Limits;
use super::super::panel::{Column, Panel, Unit};
use super::super::promql::PAIR;
use super::{
    CLUSTER, ENDS, LISTENERS, NAMESPACE, NAMESPACE_WIDTH, RESETS, SERVICE, SERVICE_URL,
    TABLE_LABELS, TO, named, within_range,
};

pub fn board(limits: &Limits) -> Board {
    Board {
        uid: "portolan-connectivity",
        title: "Portolan / Connectivity",
        description: "Which connections fail or are reset, which requests get no answer, between which services, and why? Needs the recording rules of Portolan.",
        variables: vec![CLUSTER, NAMESPACE, SERVICE],
        explore: "sum by (client, client_namespace, server, server_namespace, result) (edge:portolan_tcp_connects:rate5m{result!=\"ok\"})",
        rows: vec![
            Row { title: "Connects", height: 11, panels: connecting() },
            Row { title: "Error budget of connects", height: 9, panels: budget(limits) },
            Row { title: "Segment violations", height: 7, panels: forbidden() },
            Row {
                title: "Resets, unanswered requests, retransmits",
                height: 11,
                panels: breaking(limits),
            },
            Row { title: "Loss", height: 8, panels: loss() },
            Row { title: "Stuck connections", height: 11, panels: stuck() },
            Row { title: "Network namespaces", height: 7, panels: namespaces(limits) },
        ],
    }
}

fn connecting() -> Vec<Panel> {
    vec![
        Panel::lines("Failed connects", "Connects per minute that failed, by pair and result. refused: nothing listens. timeout, aborted: no answer. unreachable: no route. denied: a policy.", Unit::PerMinute, 8)
            .query(named(format!("60 * sum by (client, client_namespace, server, server_namespace, result) (edge:portolan_tcp_connects:rate5m{{{TO}, result!=\"ok\"}}) > 0"), ENDS), "{{client}} → {{server}}: {{result}}")
            .or_else("none"),
        Panel::lines("Connect duration p99", "One connect in 100 takes longer, for the five slowest pairs; a second or more means that the first SYN got no answer. Logarithmic axis.", Unit::Seconds, 8)
            .query(named(format!("topk(5, max by (client, client_namespace, server, server_namespace) (edge:portolan_tcp_connect_duration_seconds:p99_5m{{{TO}}}))"), ENDS), "{{client}} → {{server}}")
            .by_factors()
            .from(1.0, "red")
            .marked(),
        Panel::lines("Listen drops and SYN-ACK retransmits", "Per minute: connections that the listener dropped because its accept queue is full, and SYN-ACKs that it retransmitted because the client did not answer.", Unit::PerMinute, 8)
            .query(named(format!("60 * sum by (service, service_namespace, port) (rate(portolan_listen_overflows_total{{{LISTENERS}}}[$__rate_interval]))"), &["service"]), "{{service}}:{{port}} listen drops")
            .query(named(format!("60 * sum by (service, service_namespace, port) (rate(portolan_tcp_synack_retransmits_total{{{LISTENERS}}}[$__rate_interval]))"), &["service"]), "{{service}}:{{port}} SYN-ACK retransmits")
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
            "Connect error ratio by pair",
            "Share of the connects that failed, over growing windows. High on the left only: it is new. High on the right only: it is over.",
            18,
            &TABLE_LABELS[..4],
            &[
                column("5 min", "5m"),
                column("30 min", "30m"),
                column("1 h", "1h"),
                column("6 h", "6h"),
                column("3 d", "3d"),
            ],
        )
        .leads_to("Server", "Dashboard of this service", SERVICE_URL)
        .wide("Client namespace", NAMESPACE_WIDTH)
        .wide("Server namespace", NAMESPACE_WIDTH)
        .wide("5 min", 85)
        .wide("30 min", 85)
        .wide("1 h", 85)
        .wide("6 h", 85)
        .wide("3 d", 85),
        Panel::lines("Error-budget burn rate (1 h)", format!("1× spends exactly what the objective allows ({:.1} % of the connects may fail); at {}× the budget of 30 days is spent in two days.", 100.0 * limits.connect_failures, limits.burn_rate), Unit::Times, 6)
            .query(named(format!("topk(10, pair:portolan_tcp_connects_failures:ratio_rate1h{{{TO}}} / {} > 0)", limits.connect_failures), ENDS), "{{client}} → {{server}}")
            .or_else("no failed connects")
            .from(limits.burn_rate, "red")
            .marked(),
    ]
}

fn forbidden() -> Vec<Panel> {
    vec![Panel::table(
        "Connections that the segment matrix does not allow",
        "Established connections that break the rules between segments, within the time range shown. not_allowed: the matrix has no permission. plaintext: the matrix requires TLS.",
        24,
        &[
            ("client_segment", "From segment"),
            ("server_segment", "To segment"),
            ("client", "Client"),
            ("client_namespace", "Client namespace"),
            ("server", "Server"),
            ("server_namespace", "Server namespace"),
            ("port", "Port"),
            ("reason", "Reason"),
        ],
        &[Column {
            expr: format!(
                "round(sum by (reason, client_segment, server_segment, client, client_namespace, server, server_namespace, port) ({})) > 0",
                within_range(&format!("portolan_segment_violations_total{{{TO}}}"))
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
        Panel::lines("Resets", "Resets per minute by pair and cause, each counted once; those that answer a connect are failed connects. idle_reuse: the keep-alive timeout of the client is longer than that of the server.", Unit::PerMinute, 12)
            .query(named(format!("60 * sum by (client, client_namespace, server, server_namespace, cause) (edge:portolan_tcp_resets:rate5m{{{TO}, {RESETS}}}) > 0"), ENDS), "{{client}} → {{server}}: {{cause}}")
            .or_else("none"),
        Panel::lines("Resets by side", "Resets per minute as the host of each side counts them: the same reset is sent by one and received by the other.", Unit::PerMinute, 12)
            .query(format!("60 * sum by (role, direction, cause) (rate(portolan_tcp_resets_total{{{TO}, {RESETS}}}[$__rate_interval])) > 0"), "{{role}} {{direction}}: {{cause}}")
            .or_else("none"),
        Panel::lines("Aborts", "Established connections per minute that the kernel gave up because the other end did not answer: TCP_USER_TIMEOUT, keep-alive probes, retransmissions, or an unreachable host.", Unit::PerMinute, 8)
            .query(named(format!("60 * sum by (client, client_namespace, server, server_namespace, cause) (edge:portolan_tcp_aborts:rate5m{{{TO}}}) > 0"), ENDS), "{{client}} → {{server}}: {{cause}}")
            .or_else("none"),
        Panel::lines("Unanswered requests", "Requests per minute without a response: the client gave up, or the connection ended while it waited.", Unit::PerMinute, 8)
            .query(named(format!("60 * sum by (client, client_namespace, server, server_namespace) (edge:portolan_requests_unanswered:rate5m{{{TO}}}) > 0"), ENDS), "{{client}} → {{server}}")
            .or_else("none"),
        Panel::lines("Retransmits", "Share of the segments that were retransmitted, of the five worst pairs, an upper bound: the kernel does not count segments, so bytes / 1448 plus one per request stands for them.", Unit::Ratio, 8)
            .query(named(format!("topk(5, max by (client, client_namespace, server, server_namespace) (edge:portolan_tcp_retransmits:ratio_rate5m{{{TO}}}))"), ENDS), "{{client}} → {{server}}")
            .from(limits.retransmits, "red")
            .marked(),
    ]
}

fn loss() -> Vec<Panel> {
    vec![
        Panel::lines("Retransmits by phase", "Per minute, of either side. syn: the SYN got no answer. established: data. closing: the FIN, or data before it.", Unit::PerMinute, 8)
            .query(named(format!("60 * sum by (client, client_namespace, server, server_namespace, phase) (rate(portolan_tcp_retransmits_total{{{TO}}}[$__rate_interval])) > 0"), ENDS), "{{client}} → {{server}}: {{phase}}")
            .or_else("none"),
        Panel::lines("Retransmission timeouts", "Per minute, of either side: nothing was acknowledged for at least 200 ms. Other retransmits are faster. Needs Linux 6.7.", Unit::PerMinute, 8)
            .query(named(format!("60 * sum by (client, client_namespace, server, server_namespace) (rate(portolan_tcp_rto_total{{{TO}}}[$__rate_interval])) > 0"), ENDS), "{{client}} → {{server}}")
            .or_else("none"),
        Panel::lines("Segments received twice", "Per minute, as the receiver reported them to the sender (DSACK): the retransmit was unnecessary, or the network duplicates packets.", Unit::PerMinute, 8)
            .query(named(format!("60 * sum by (client, client_namespace, server, server_namespace) (rate(portolan_tcp_dsacks_total{{{TO}}}[$__rate_interval])) > 0"), ENDS), "{{client}} → {{server}}")
            .or_else("none"),
    ]
}

fn stuck() -> Vec<Panel> {
    vec![
        Panel::lines("Unread and unacknowledged data", "Unread: it arrived, and the program of that side does not read it. Unacknowledged: that side sent it, or would like to.", Unit::Bytes, 12)
            .query(named(format!("topk(5, sum by (client, client_namespace, server, server_namespace, role) (portolan_tcp_receive_queue_bytes{{{TO}}}) > 0)"), ENDS), "{{client}} → {{server}}: unread by the {{role}}")
            .query(named(format!("topk(5, sum by (client, client_namespace, server, server_namespace, role) (portolan_tcp_send_queue_bytes{{{TO}}}) > 0)"), ENDS), "{{client}} → {{server}}: unacknowledged, of the {{role}}")
            .or_else("none"),
        Panel::lines("Limited senders", "Connections that wait at a time, on average. receive_window: the other end does not read, or too slowly. send_buffer: the buffer of the sender is too small.", Unit::Count, 12)
            .query(named(format!("topk(10, sum by (client, client_namespace, server, server_namespace, role, by) (rate(portolan_tcp_limited_seconds_total{{{TO}}}[$__rate_interval])) > 0)"), ENDS), "{{client}} → {{server}}: {{role}} by {{by}}")
            .or_else("none"),
        Panel::lines("Not closed", "Connections in CLOSE_WAIT for at least a minute: the other end has closed them, the program of that side has not.", Unit::Count, 8)
            .query(named(format!("sum by (client, client_namespace, server, server_namespace, role) (portolan_tcp_close_wait_connections{{{TO}}}) > 0"), ENDS), "{{client}} → {{server}}: {{role}}")
            .or_else("none"),
        Panel::lines("Idle connections", "After how long ends close idle connections (median), and after which pauses clients still use them (P99), in the time shown. A server that closes as early as a client comes back resets a request sooner or later.", Unit::Seconds, 8)
            .query(named(format!("histogram_quantile(0.5, sum by (client, client_namespace, server, server_namespace, closed_by, le) (increase(portolan_tcp_idle_close_seconds_bucket{{{TO}}}[$__range])))"), ENDS), "{{client}} → {{server}}: closed by the {{closed_by}}")
            .query(named(format!("histogram_quantile(0.99, sum by (client, client_namespace, server, server_namespace, le) (increase(portolan_tcp_idle_reuse_seconds_bucket{{{TO}}}[$__range])))"), ENDS), "{{client}} → {{server}}: used again")
            .or_else("none"),
        Panel::lines("Requests that waited", "Requests per minute that took half a second or longer, one right after the other on a connection: long polling, or a client that keeps a slow server busy.", Unit::PerMinute, 8)
            .query(named(format!("60 * sum by (client, client_namespace, server, server_namespace, role) (rate(portolan_requests_waited_total{{{TO}}}[$__rate_interval])) > 0"), ENDS), "{{client}} → {{server}}: {{role}}")
            .or_else("none"),
    ]
}

/// What goes wrong below the sockets.
fn namespaces(limits: &Limits) -> Vec<Panel> {
    vec![
        Panel::lines("Connection tracking", "Tracked connections as a share of nf_conntrack_max, by the service that owns the network namespace; at 100 % new connections are dropped. The ten fullest.", Unit::Ratio, 12)
            .query(r#"topk(10, max by (instance, netns_of) (portolan_conntrack_used_ratio{cluster=~"$cluster"}))"#, "{{netns_of}} on {{instance}}")
            .between(0.0, 1.0)
            .from(limits.conntrack, "red")
            .marked()
            .or_else("not tracked"),
        Panel::lines("Interface drops and errors", "Packets per minute that an interface dropped, and errors, in both directions. veth, tun, macvlan: all of them in the namespace.", Unit::PerMinute, 12)
            .query(r#"60 * sum by (instance, netns_of, interface) (rate(portolan_interface_drops_total{cluster=~"$cluster"}[$__rate_interval])) > 0"#, "{{netns_of}} on {{instance}}: {{interface}} drops")
            .query(r#"60 * sum by (instance, netns_of, interface) (rate(portolan_interface_errors_total{cluster=~"$cluster"}[$__rate_interval])) > 0"#, "{{netns_of}} on {{instance}}: {{interface}} errors")
            .or_else("none"),
        Panel::lines("TCP memory", "Times that TCP was short of memory, per minute. pressure: it began to save memory. aborted: it gave up connections. pruned: it dropped data that a socket had received.", Unit::PerMinute, 12)
            .query(r#"60 * sum by (instance, netns_of, event) (rate(portolan_tcp_memory_pressure_total{cluster=~"$cluster"}[$__rate_interval])) > 0"#, "{{netns_of}} on {{instance}}: {{event}}")
            .or_else("none"),
        Panel::lines("Network namespaces not read", "Namespaces that are missing in this row. denied: they cannot be entered. untrusted: a user made them who is not in trusted_users. over_share, over_limit: there are too many.", Unit::Count, 12)
            .query(r#"sum by (instance, state) (portolan_network_namespaces{cluster=~"$cluster", state!="read"}) > 0"#, "{{instance}}: {{state}}")
            .or_else("all are read"),
    ]
}
