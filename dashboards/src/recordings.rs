//! Recording rules: a thousand agents become one series per edge, pair or service, and what both
//! sides of a connection saw becomes one count.
//!
//! `edge_role:` keeps which side counted. `edge:` and `pair:` count as the client did, because
//! only it knows of attempts that came to nothing; `service:` counts as the server did, because
//! one agent saw all of its clients. Where the preferred side has no agent, the other counts.

use super::promql::{EDGE, PAIR, SERVICE, as_server, client_first, copied, server_first};
use super::rules::{Group, Recording, Rule};

/// The windows of the connect objective, apart from 5m.
const WINDOWS: [(&str, &str); 4] = [
    ("pair:portolan_tcp_connects_failures:ratio_rate30m", "30m"),
    ("pair:portolan_tcp_connects_failures:ratio_rate1h", "1h"),
    ("pair:portolan_tcp_connects_failures:ratio_rate6h", "6h"),
    ("pair:portolan_tcp_connects_failures:ratio_rate3d", "3d"),
];

/// A name that is no service: what exceeded a table, what has no process, an address, a
/// container's id.
const NO_SERVICE: &str = "other|unknown|none|[0-9.]+|[0-9a-f:]*:[0-9a-f:]*|[0-9a-f]{12}";

pub fn groups() -> Vec<Group> {
    vec![
        Group { name: "portolan-edges", rules: edges() },
        Group { name: "portolan-services", rules: services() },
        Group { name: "portolan-connects", rules: connects() },
        Group { name: "portolan-balance", rules: balance() },
    ]
}

fn record(record: &'static str, expr: impl Into<String>) -> Rule {
    Rule::Record(Recording { record, expr: expr.into() })
}

fn edges() -> Vec<Rule> {
    let rate = |metric: &str, by: &str| {
        format!("sum by ({EDGE}, {by}) (rate({metric}{{role=~\"client|server\"}}[5m]))")
    };
    let quantile = |q: &str, buckets: &str| format!("histogram_quantile({q}, {buckets})");
    let requests = "edge_role:portolan_request_duration_seconds:rate5m";
    let buckets = "edge_role:portolan_request_duration_seconds_bucket:rate5m";
    vec![
        record(buckets, rate("portolan_request_duration_seconds_bucket", "role, le")),
        record(requests, rate("portolan_request_duration_seconds_count", "role")),
        record("edge:portolan_request_duration_seconds:rate5m", client_first(requests, EDGE)),
        record(
            "edge:portolan_request_duration_seconds_within_50ms:rate5m",
            format!(
                "sum by ({EDGE}) ({buckets}{{role=\"client\", le=\"0.05\"}})\n\
                 or on ({EDGE})\nsum by ({EDGE}) ({buckets}{{role=\"server\", le=\"0.05\"}})"
            ),
        ),
        record("edge_role:portolan_request_duration_seconds:p99_5m", quantile("0.99", buckets)),
        record(
            "edge:portolan_request_duration_seconds:p99_5m",
            format!(
                "max by ({EDGE}) (edge_role:portolan_request_duration_seconds:p99_5m{{role=\"client\"}})\n\
                 or on ({EDGE})\n\
                 max by ({EDGE}) (edge_role:portolan_request_duration_seconds:p99_5m{{role=\"server\"}})"
            ),
        ),
        record(
            "edge:portolan_tcp_rtt_seconds:p50_5m",
            quantile("0.5", &rate("portolan_tcp_rtt_seconds_bucket", "le")),
        ),
        record(
            "edge:portolan_tcp_connect_duration_seconds:p99_5m",
            quantile("0.99", &rate("portolan_tcp_connect_duration_seconds_bucket", "le")),
        ),
        // What a client sent its server received: in doubt the client's word.
        record(
            "edge:portolan_tcp_sent_bytes:rate5m",
            format!(
                "sum by ({EDGE}) (rate(portolan_tcp_sent_bytes_total{{role=\"client\"}}[5m]))\n\
                 or on ({EDGE})\n\
                 sum by ({EDGE}) (rate(portolan_tcp_received_bytes_total{{role=\"server\"}}[5m]))"
            ),
        ),
        record(
            "edge:portolan_tcp_received_bytes:rate5m",
            format!(
                "sum by ({EDGE}) (rate(portolan_tcp_received_bytes_total{{role=\"client\"}}[5m]))\n\
                 or on ({EDGE})\n\
                 sum by ({EDGE}) (rate(portolan_tcp_sent_bytes_total{{role=\"server\"}}[5m]))"
            ),
        ),
        // Each side counts what it sent again itself: here the sum of both is right. How many
        // segments there were nobody counts; full ones and one per request are the fewest.
        record(
            "edge:portolan_tcp_retransmits:rate5m",
            format!(
                "sum by ({EDGE}) (rate(portolan_tcp_retransmits_total{{role=~\"client|server\"}}[5m]))"
            ),
        ),
        record(
            "edge:portolan_tcp_retransmits:ratio_rate5m",
            format!(
                "edge:portolan_tcp_retransmits:rate5m\n/ on ({EDGE})\n\
                 (\n  edge:portolan_tcp_retransmits:rate5m\n  + on ({EDGE})\n  \
                 sum by ({EDGE}) (rate(portolan_tcp_sent_bytes_total{{role=~\"client|server\"}}[5m])) / 1448\n  \
                 + on ({EDGE})\n  sum by ({EDGE}) ({requests})\n  > 0\n)"
            ),
        ),
        // One reset is sent here and received there. Who sends knows the cause; `idle_reuse` is
        // known to who receives, and another count.
        record(
            "edge:portolan_tcp_resets:rate5m",
            format!(
                "sum by ({EDGE}, cause) (rate(portolan_tcp_resets_total{{direction=\"sent\"}}[5m]))\n\
                 or on ({EDGE})\n\
                 sum by ({EDGE}, cause) (rate(portolan_tcp_resets_total{{direction=\"received\"}}[5m]))\n\
                 or\n\
                 sum by ({EDGE}, cause) (rate(portolan_tcp_resets_total{{cause=\"idle_reuse\"}}[5m]))"
            ),
        ),
    ]
}

fn services() -> Vec<Rule> {
    let p99 = "service_role:portolan_request_duration_seconds:p99_5m";
    let breach = "service:portolan_request_duration_seconds:breach";
    let objective = "service:portolan_latency_objective:seconds";
    let rate = "service:portolan_request_duration_seconds:rate5m";
    let over = |role: &str| {
        format!(
            "max by ({SERVICE}) ({p99}{{role=\"{role}\"}}) > on ({SERVICE}) {objective} and on ({SERVICE}) {rate} > 0.2"
        )
    };
    let layer = |expr: &str, layer: &str| {
        format!("label_replace(\n  {expr},\n  \"layer\", \"{layer}\", \"\", \"\"\n)")
    };
    // The reverse of every pair: whoever calls back is nobody's dependency, and neither is one
    // that calls itself.
    let pairs = "pair:portolan_request_duration_seconds:rate5m";
    let mut reverse = pairs.to_owned();
    for (from, to) in [("client", "was"), ("server", "client"), ("was", "server")] {
        reverse = copied(&reverse, from, to);
    }
    for (from, to) in [
        ("client_namespace", "was"),
        ("server_namespace", "client_namespace"),
        ("was", "server_namespace"),
    ] {
        reverse = copied(&reverse, from, to);
    }
    let slow_dependency = format!(
        "({pairs} > 0 unless on ({PAIR}) {reverse}) * on ({SERVICE}) group_left () (max by ({SERVICE}) ({breach}) > bool 0)"
    );
    let mut slow_dependency = copied(&slow_dependency, "server", "dependency");
    slow_dependency = copied(&slow_dependency, "server_namespace", "dependency_namespace");
    slow_dependency = copied(&slow_dependency, "client", "server");
    slow_dependency = copied(&slow_dependency, "client_namespace", "server_namespace");
    // So does a dependency that gives no answer at all, and therefore has no latency.
    let no_answer = "max by (cluster, client, client_namespace) (ALERTS{alertname=~\"PortolanConnections.*|PortolanRequestsAbandoned|PortolanRetransmitsHigh|PortolanLocalPortsExhausted\"})";
    let troubled =
        copied(&copied(no_answer, "client", "server"), "client_namespace", "server_namespace");
    vec![
        record(
            "service_role:portolan_request_duration_seconds_bucket:rate5m",
            format!(
                "sum by ({SERVICE}, role, le) (edge_role:portolan_request_duration_seconds_bucket:rate5m)"
            ),
        ),
        record(
            p99,
            "histogram_quantile(0.99, service_role:portolan_request_duration_seconds_bucket:rate5m)",
        ),
        record(rate, server_first("edge_role:portolan_request_duration_seconds:rate5m")),
        record(pairs, format!("sum by ({PAIR}) (edge:portolan_request_duration_seconds:rate5m)")),
        record(
            objective,
            format!(
                "0 * {rate} + on (server, server_namespace) group_left ()\n  \
                 max by (server, server_namespace) (portolan:latency_objective:seconds{{server!=\"\"}})\n\
                 or on ({SERVICE})\n\
                 0 * {rate} + scalar(max(portolan:latency_objective:seconds{{server=\"\"}}))"
            ),
        ),
        // The server's own time is too long; or it is not, and what the clients see is the way
        // there; or nobody looks at the server's side.
        record(
            breach,
            format!(
                "{}\nor on ({SERVICE})\n{}\nor on ({SERVICE})\n{}",
                layer(&over("server"), "application"),
                layer(
                    &format!("{} and on ({SERVICE}) {p99}{{role=\"server\"}} >= 0", over("client")),
                    "network"
                ),
                layer(&over("client"), "unknown"),
            ),
        ),
        record(
            "service:portolan_request_duration_seconds:breach_inherited",
            format!(
                "{breach} and on ({SERVICE})\n(max by ({SERVICE}) ({slow_dependency}) or max by ({SERVICE}) ({troubled}))"
            ),
        ),
        record(
            "service:portolan_listen_overflows:rate5m",
            as_server(
                "sum by (cluster, service, service_namespace, port) (rate(portolan_listen_overflows_total[5m]))",
            ),
        ),
    ]
}

fn connects() -> Vec<Rule> {
    let attempts = "pair:portolan_tcp_connects_attempts:rate5m";
    let failures = "pair:portolan_tcp_connects_failures:rate5m";
    let mut rules = vec![
        record(
            attempts,
            format!("sum by ({PAIR}) (rate(portolan_tcp_connects_total{{role=\"client\"}}[5m]))"),
        ),
        // All but the successes, so that a pair without a failure has a zero here, not nothing.
        record(
            failures,
            format!(
                "clamp_min({attempts} - sum by ({PAIR}) (rate(portolan_tcp_connects_total{{role=\"client\", result=\"ok\"}}[5m])), 0)"
            ),
        ),
        record(
            "edge:portolan_tcp_connects:rate5m",
            format!(
                "sum by ({EDGE}, result) (rate(portolan_tcp_connects_total{{role=\"client\"}}[5m]))\n\
                 or on ({EDGE})\n\
                 sum by ({EDGE}, result) (rate(portolan_tcp_connects_total{{role=\"server\"}}[5m]))"
            ),
        ),
        record(
            "pair:portolan_tcp_connects_failures:ratio_rate5m",
            format!("{failures} / ({attempts} > 0)"),
        ),
        record(
            "cluster:portolan_tcp_connects_named:ratio_rate5m",
            format!(
                "sum by (cluster) (edge:portolan_tcp_connects:rate5m{{result=\"ok\", client!~\"{NO_SERVICE}\", server!~\"{NO_SERVICE}\"}})\n\
                 / (sum by (cluster) (edge:portolan_tcp_connects:rate5m{{result=\"ok\"}}) > 0)"
            ),
        ),
    ];
    for (name, window) in WINDOWS {
        rules.push(record(
            name,
            format!(
                "sum_over_time({failures}[{window}]) / (sum_over_time({attempts}[{window}]) > 0)"
            ),
        ));
    }
    rules
}

/// What each backend gets of the requests of one client to one server and port, and what it should.
///
/// Of backends that got nothing those count that an agent knows to be there, by a weight; whether
/// others are starved or have gone nobody can tell.
fn balance() -> Vec<Rule> {
    let increase = |role: &str| {
        format!(
            "sum by ({EDGE}, backend) (increase(portolan_backend_requests_total{{role=\"{role}\", backend!=\"other\"}}[5m])) > 0"
        )
    };
    let some = format!("({}\nor on ({EDGE})\n{})", increase("client"), increase("server"));
    let declared = format!("max by ({EDGE}, backend) (portolan_backend_weight)");
    let got = "backend:portolan_backend_requests:increase5m";
    let share = "backend:portolan_backend_requests:share_5m";
    let due = "backend:portolan_backend_requests:due_5m";
    // Where no weight is declared it is 1.
    let weight = format!("(\n  {declared} and {got}\n  or\n  0 * {got} + 1\n)");
    vec![
        record(got, format!("{some}\nor\n0 * {declared} and on ({EDGE})\n{some}")),
        record(share, format!("{got} / on ({EDGE}) group_left () sum by ({EDGE}) ({got})")),
        record(due, format!("{weight}\n/ on ({EDGE}) group_left ()\nsum by ({EDGE}) {weight}")),
        // Fewer than a hundred are no balance yet.
        record(
            "edge:portolan_backend_requests:deviation_5m",
            format!("max by ({EDGE}) (abs({share} - {due}))\nand\nsum by ({EDGE}) ({got}) >= 100"),
        ),
    ]
}
