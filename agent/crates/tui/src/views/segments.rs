//! Connections between segments, those that are not allowed first.

use api_types::{SegmentPair, SegmentVerdict, Violation};
use cli::fit::Column;
use cli::words;
use notation::filter::{NumberField, TextField};

use super::Of;
use crate::rows::{Fields, Item, Mark, Row, Table, number, text};

pub(super) const HELP: &[&str] = &[
    "✗ connections that violate the rules, by their ends, since the agent started",
    "✓ pairs of segments with allowed connections; · no rule is about them, or none were seen",
];

const COLUMNS: &[Column] = &[
    text("", 0),
    text("FROM", 0),
    text("TO", 0),
    text("CLIENT", 0),
    text("SERVER", 0),
    number("PORT", 0),
    number("CONNECTIONS", 0),
    text("VERDICT", 0),
];

pub(super) fn table<'a>(looks: &[Of<'a>]) -> Table<'a> {
    let mut rows = Vec::new();
    for Of { host, look } in looks {
        let Some(segments) = &look.answers.segments else { continue };
        rows.extend(segments.violations.iter().map(|one| violation(*host, one)));
        rows.extend(segments.matrix.iter().map(|one| pair(*host, one)));
    }
    Table {
        columns: COLUMNS.to_vec(),
        rows,
        hidden: None,
        empty: "No segments are declared (the section [segments] of the configuration).",
    }
}

fn violation(host: usize, one: &Violation) -> Row<'_> {
    let Violation { reason, client_segment, server_segment, client, client_namespace, .. } = one;
    let Violation { server, server_namespace, port, connections, .. } = one;
    let client_name = words::full_name(client_namespace, client);
    let server_name = words::full_name(server_namespace, server);
    let key =
        format!("{reason:?} {client_segment} {server_segment} {client_name} {server_name} {port}");
    let cells = vec![
        Mark::Error.as_char().to_string(),
        client_segment.clone(),
        server_segment.clone(),
        client_name,
        server_name,
        port.to_string(),
        words::count(*connections),
        reason.as_str().to_owned(),
    ];
    let fields = Fields::default()
        .service(TextField::Client, client_namespace, client)
        .service(TextField::Server, server_namespace, server)
        .text(TextField::Why, "violation")
        .number(NumberField::Port, f64::from(*port))
        .number(NumberField::Count, *connections as f64);
    Row {
        mark: Mark::Error,
        cells,
        item: Item::Violation(one),
        host,
        key,
        weight: (1, *connections),
        fields,
    }
}

fn pair(host: usize, one: &SegmentPair) -> Row<'_> {
    let SegmentPair { client_segment, server_segment, verdict, connections, require_tls: _ } = one;
    let (mark, said) = match (verdict, connections) {
        (SegmentVerdict::Allowed, 0) => (Mark::Idle, "allowed"),
        (SegmentVerdict::Allowed, _) => (Mark::Ok, "allowed"),
        (SegmentVerdict::Violation, 0) => (Mark::Idle, "not allowed"),
        (SegmentVerdict::Violation, _) => (Mark::Error, "not allowed"),
        (SegmentVerdict::NotJudged, _) => (Mark::Idle, "no rule"),
    };
    let none = || "-".to_owned();
    let cells = vec![
        mark.as_char().to_string(),
        client_segment.clone(),
        server_segment.clone(),
        none(),
        none(),
        none(),
        words::count(*connections),
        said.to_owned(),
    ];
    let fields = Fields::default()
        .text(TextField::Why, said)
        .number(NumberField::Count, *connections as f64);
    Row {
        mark,
        cells,
        item: Item::Pair(one),
        host,
        key: format!("{client_segment} {server_segment}"),
        weight: (0, *connections),
        fields,
    }
}
