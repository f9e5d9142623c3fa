//! All findings of the agents' answers, what follows from another behind its cause.

use cli::fit::Column;
use cli::judgement::Found;
use notation::filter::{NumberField, TextField};

use super::Of;
use crate::rows::{Fields, Item, Mark, Row, Table, text};

pub(super) const HELP: &[&str] = &[
    "Findings of portolan check, without its look at interfaces and routes of this host",
    "FOLLOWS FROM  fix that one first; Enter shows evidence and fix",
    "portolan explain CODE prints what a code means",
];

const COLUMNS: &[Column] =
    &[text("", 0), text("CODE", 0), text("PROBLEM", 0), text("FOLLOWS FROM", 1)];

pub(super) fn table<'a>(looks: &[Of<'a>]) -> Table<'a> {
    let mut rows = Vec::new();
    for Of { host, look } in looks {
        rows.extend(look.found.iter().map(|found| row(*host, found)));
    }
    Table {
        columns: COLUMNS.to_vec(),
        rows,
        hidden: None,
        empty: "Nothing is wrong, as far as the agents' answers tell.",
    }
}

fn row(host: usize, found: &Found) -> Row<'_> {
    let finding = &found.finding;
    let mark = Mark::from(finding.severity);
    let follows = super::follows(found);
    let cells = vec![
        mark.as_char().to_string(),
        finding.code.clone(),
        finding.title.clone(),
        follows.clone().unwrap_or_else(|| "-".to_owned()),
    ];
    let mut fields = Fields::default()
        .text(TextField::Why, &finding.code)
        .text(TextField::Why, &finding.title)
        .measured(NumberField::Port, found.port.map(f64::from));
    for client in &found.clients {
        fields = fields.service(TextField::Client, &client.namespace, &client.name);
    }
    if let Some(server) = &found.server {
        fields = fields.service(TextField::Server, &server.namespace, &server.name);
    }
    Row {
        mark,
        cells,
        item: Item::Finding(finding),
        host,
        key: format!("{} {}", finding.code, finding.subject),
        weight: (u64::from(follows.is_none()), 0),
        fields,
    }
}
