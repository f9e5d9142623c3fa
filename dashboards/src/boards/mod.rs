//! The dashboards, one file each, one question each.

mod agent;
mod connectivity;
mod overview;
mod ports;
mod service;

use super::board::{Board, Variable};
use super::limits::Limits;
use super::namespaces;

/// All of them; `limits` are drawn where alerts have them.
pub fn all(limits: &Limits) -> Vec<Board> {
    vec![
        overview::board(limits),
        service::board(limits),
        ports::board(limits),
        connectivity::board(limits),
        agent::board(limits),
    ]
}

/// The chosen services as the ones that are connected to.
const TO: &str = r#"cluster=~"$cluster", server_namespace=~"$namespace", server=~"$service""#;
/// The chosen services as the ones that connect.
const FROM: &str = r#"cluster=~"$cluster", client_namespace=~"$namespace", client=~"$service""#;
/// The chosen services as listeners.
const LISTENERS: &str =
    r#"cluster=~"$cluster", service_namespace=~"$namespace", service=~"$service""#;
/// Resets of connections that were in use: one that answers a connect is a failed connect
/// (`no_listener`), and health checks cut connections that nobody used (`unused`).
const RESETS: &str = r#"cause!~"no_listener|unused""#;
/// The width of a column of namespaces, in pixels: its heading fits, and names such as
/// `netns-shop-orders-lb` do.
const NAMESPACE_WIDTH: u64 = 165;
/// An address that stands for no service: nothing listens there.
const LOOPBACK: &str = r"127\\..*|::1";
/// The label columns of a table of edges.
const TABLE_LABELS: &[(&str, &str)] = &[
    ("client", "Client"),
    ("client_namespace", "Client namespace"),
    ("server", "Server"),
    ("server_namespace", "Server namespace"),
    ("port", "Port"),
];

const CLUSTER: Variable = Variable {
    name: "cluster",
    title: "Cluster",
    values: "label_values(portolan_build_info, cluster)",
};
const NAMESPACE: Variable = Variable {
    name: "namespace",
    title: "Namespace",
    values: r#"label_values(portolan_service_info{cluster=~"$cluster"}, service_namespace)"#,
};
const SERVICE: Variable = Variable {
    name: "service",
    title: "Service",
    values: r#"label_values(portolan_service_info{cluster=~"$cluster", service_namespace=~"$namespace"}, service)"#,
};
const INSTANCE: Variable = Variable {
    name: "instance",
    title: "Agent",
    values: r#"label_values(portolan_build_info{cluster=~"$cluster"}, instance)"#,
};

/// Where a row of a table of edges leads: its server's dashboard.
const SERVICE_URL: &str = r#"/d/portolan-service?var-cluster=${cluster}&var-namespace=${__data.fields["Server namespace"]}&var-service=${__data.fields.Server}&${__url_time_range}"#;

/// `expr` with services named `namespace/name`, or `name` where they have no namespace, in each of
/// these labels: two services of one name are two lines, with a legend each.
fn named(expr: impl Into<String>, labels: &[&str]) -> String {
    labels.iter().fold(expr.into(), |expr, label| {
        let namespace = namespaces::of(label);
        format!(
            "label_replace(label_join({expr}, \"{label}\", \"/\", \"{namespace}\", \"{label}\"), \"{label}\", \"$1\", \"{label}\", \"/(.*)\")"
        )
    })
}

/// The ends of a pair, for [`named`].
const ENDS: &[&str] = &["client", "server"];

/// By how much a counter of something rare rose in the time range shown. Such a counter starts with
/// its first event, which `increase` does not see: of a series that did not exist at the beginning,
/// everything is new.
fn within_range(series: &str) -> String {
    format!(
        "(increase({series}[$__range]) and {series} offset $__range or max_over_time({series}[$__range]) unless {series} offset $__range)"
    )
}
