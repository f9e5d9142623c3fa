//! The dashboards, one file each, one question each.

mod agent;
mod connectivity;
mod overview;
mod ports;
mod service;

use super::board::{Board, Variable};
use super::limits::Limits;

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
const SERVICE_URL: &str = "/d/portolan-service?var-cluster=${cluster}&var-service=${__data.fields.Server}&${__url_time_range}";
