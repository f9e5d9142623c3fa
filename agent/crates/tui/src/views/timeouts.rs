//! After how long idle connections are closed, and are still used.

use api_types::{EdgeTimeouts, KeepAlive};
use cli::fit::Column;
use cli::words;
use notation::filter::{NumberField, TextField};

use super::Of;
use crate::rows::{Fields, Item, Mark, Row, Table, number, text};

pub(super) const HELP: &[&str] = &[
    "SERVER CLOSES, CLIENT CLOSES  after how long each end closes idle connections, as observed",
    "USED AFTER  the longest pause after which the client sent a request again",
    "! the server closes first what the client still uses: a request will be reset",
    "Numbers count from the start of the agent",
];

const COLUMNS: &[Column] = &[
    text("", 0),
    text("CLIENT", 0),
    text("SERVER", 0),
    number("PORT", 0),
    number("SERVER CLOSES", 0),
    number("CLIENT CLOSES", 1),
    number("USED AFTER", 0),
    number("RESET", 2),
    number("P99", 3),
    text("VERDICT", 0),
];

pub(super) fn table<'a>(looks: &[Of<'a>]) -> Table<'a> {
    let rows = looks.iter().flat_map(|Of { host, look }| {
        let edges = look.answers.timeouts.iter().flat_map(|timeouts| &timeouts.edges);
        edges.map(move |edge| row(*host, edge))
    });
    Table {
        columns: COLUMNS.to_vec(),
        rows: rows.collect(),
        hidden: None,
        empty: "No connection was idle for half a second and then used again or closed.",
    }
}

fn row(host: usize, edge: &EdgeTimeouts) -> Row<'_> {
    let EdgeTimeouts { client, client_namespace, server, server_namespace, port, .. } = edge;
    let (mark, said) = match edge.verdict {
        KeepAlive::Mismatch if edge.idle_reuse_resets > 0 => (Mark::Error, "mismatch"),
        KeepAlive::Mismatch => (Mark::Warning, "mismatch"),
        KeepAlive::ServerFirst => (Mark::Ok, "server first, unused"),
        KeepAlive::ClientFirst => (Mark::Ok, "client first"),
        KeepAlive::Unknown => (Mark::Idle, "too few closed"),
    };
    let seconds = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), words::duration);
    let names =
        [words::full_name(client_namespace, client), words::full_name(server_namespace, server)];
    let key = format!("{} {port} {}", names.join(" "), edge.role.as_str());
    let [client_name, server_name] = names;
    let cells = vec![
        mark.as_char().to_string(),
        client_name,
        server_name,
        port.to_string(),
        seconds(edge.server_timeout_seconds),
        seconds(edge.client_timeout_seconds),
        seconds(edge.reuse.longest_seconds),
        words::count(edge.idle_reuse_resets),
        words::quantile(edge.request.p99_seconds),
        said.to_owned(),
    ];
    let fields = Fields::default()
        .service(TextField::Client, client_namespace, client)
        .service(TextField::Server, server_namespace, server)
        .text(TextField::Role, edge.role.as_str())
        .text(TextField::Why, said)
        .number(NumberField::Port, f64::from(*port))
        .measured(NumberField::P99, edge.request.p99_seconds);
    Row {
        mark,
        cells,
        item: Item::Timeouts(edge),
        host,
        key,
        weight: (edge.idle_reuse_resets, edge.reuse.count),
        fields,
    }
}
