//! Events, latest first.

use api_types::{Event, Service};
use cli::fit::Column;
use cli::words;
use notation::filter::{NumberField, TextField};

use super::Of;
use crate::rows::{Fields, Item, Mark, Row, Table, number, text};

pub(super) const HELP: &[&str] = &[
    "✗ fails, ! may fail, · a change; TIME is that of the last one, UTC",
    "COUNT  what repeats within a minute is one event",
    "Enter shows what changed before",
];

const COLUMNS: &[Column] = &[
    text("", 0),
    text("TIME", 0),
    text("KIND", 1),
    text("CLIENT", 0),
    text("SERVER", 0),
    number("PORT", 0),
    number("COUNT", 2),
    text("WHAT", 0),
];

pub(super) fn table<'a>(looks: &[Of<'a>]) -> Table<'a> {
    let rows = looks.iter().flat_map(|Of { host, look }| {
        look.answers.events.events.iter().map(move |event| row(*host, event))
    });
    Table {
        columns: COLUMNS.to_vec(),
        rows: rows.collect(),
        hidden: None,
        empty: "No events in the last hour.",
    }
}

fn row(host: usize, event: &Event) -> Row<'_> {
    let mark = Mark::from(event.severity);
    let name = |service: &Option<Service>| match service {
        Some(service) => words::full_name(&service.namespace, &service.name),
        None => "-".to_owned(),
    };
    let cells = vec![
        mark.as_char().to_string(),
        crate::screen::clock(event.last_seen),
        event.kind.as_str().to_owned(),
        name(&event.client),
        name(&event.server),
        event.port.map_or_else(|| "-".to_owned(), |port| port.to_string()),
        words::count(event.count),
        event.text.clone(),
    ];
    let mut fields = Fields::default()
        .text(TextField::Kind, event.kind.as_str())
        .text(TextField::Why, &event.cause)
        .text(TextField::Why, &event.text)
        .measured(NumberField::Port, event.port.map(f64::from))
        .number(NumberField::Count, event.count as f64);
    for (end, service) in [(TextField::Client, &event.client), (TextField::Server, &event.server)] {
        if let Some(service) = service {
            fields = fields.service(end, &service.namespace, &service.name);
        }
    }
    if let Some(role) = event.role {
        fields = fields.text(TextField::Role, role.as_str());
    }
    Row {
        mark,
        cells,
        item: Item::Event(event),
        host,
        key: format!("{:020}", u64::MAX - event.id),
        weight: (event.cursor, 0),
        fields,
    }
}
