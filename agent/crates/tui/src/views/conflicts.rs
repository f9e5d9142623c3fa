//! Failed binds.

use api_types::{Conflict, Timestamp};
use cli::fit::Column;
use cli::words;
use notation::duration::ago;
use notation::filter::{NumberField, TextField};

use super::Of;
use crate::rows::{Fields, Item, Mark, Row, Table, number, text};

pub(super) const HELP: &[&str] = &[
    "COUNT  how often it failed within five minutes; HOLDER  who has the port",
    "NEXT FREE  a free port nearby",
    "Enter shows the process, the errno and the fix",
];

const COLUMNS: &[Column] = &[
    text("", 0),
    text("LAST", 1),
    number("COUNT", 0),
    text("SERVICE", 0),
    number("PORT", 0),
    text("ADDRESS", 3),
    text("ERRNO", 2),
    text("REASON", 0),
    text("HOLDER", 0),
    number("NEXT FREE", 1),
];

pub(super) fn table<'a>(looks: &[Of<'a>]) -> Table<'a> {
    let rows = looks.iter().flat_map(|Of { host, look }| {
        let conflicts = &look.answers.conflicts;
        conflicts.conflicts.iter().map(move |one| row(*host, one, conflicts.timestamp))
    });
    Table {
        columns: COLUMNS.to_vec(),
        rows: rows.collect(),
        hidden: None,
        empty: "No failed bind in the window.",
    }
}

fn row(host: usize, one: &Conflict, now: Timestamp) -> Row<'_> {
    let mark = Mark::from(one.finding.severity).max(Mark::Warning);
    let claimant = &one.claimant.service;
    let holder = one.holder.as_ref().map(|holder| &holder.service);
    let holder_name = holder.map(|service| words::full_name(&service.namespace, &service.name));
    let name = words::full_name(&claimant.namespace, &claimant.name);
    let cells = vec![
        mark.as_char().to_string(),
        format!("{} ago", ago(now.seconds_since(one.last_seen).max(0.0))),
        words::count(one.count),
        name.clone(),
        one.port.to_string(),
        one.address.to_string(),
        one.errno.clone(),
        one.reason.as_str().replace('_', " "),
        holder_name.unwrap_or_else(|| "-".to_owned()),
        one.next_free.map_or_else(|| "-".to_owned(), |port| port.to_string()),
    ];
    let mut fields = Fields::default()
        .service(TextField::Client, &claimant.namespace, &claimant.name)
        .text(TextField::Why, one.reason.as_str())
        .text(TextField::Why, &one.errno)
        .number(NumberField::Count, one.count as f64)
        .number(NumberField::Port, f64::from(one.port));
    if let Some(holder) = holder {
        fields = fields.service(TextField::Server, &holder.namespace, &holder.name);
    }
    Row {
        mark,
        cells,
        item: Item::Conflict(one),
        host,
        key: format!("{name} {} {} {}", one.port, one.address, one.netns),
        weight: (one.last_seen.seconds().max(0.0) as u64, one.count),
        fields,
    }
}
