//! The agent itself: hooks, losses, tables, sources of names.

use api_types::NameSourceState;
use cli::fit::Column;
use cli::words;
use notation::filter::TextField;

use super::Of;
use crate::rows::{Fields, Item, Mark, Row, Table, text};

pub(super) const HELP: &[&str] = &[
    "hook    a program in the kernel; off: what is not observed without it",
    "events  seen and dropped by class; table  rows in use; names  a source of names",
];

const COLUMNS: &[Column] =
    &[text("", 0), text("PART", 1), text("NAME", 0), text("STATE", 0), text("DETAIL", 0)];

pub(super) fn table<'a>(looks: &[Of<'a>]) -> Table<'a> {
    let mut rows = Vec::new();
    for Of { host, look } in looks {
        let status = &look.answers.status;
        for hook in &status.hooks {
            let reason = || hook.reason.as_deref().unwrap_or("no reason known");
            let missing = || format!("{}; not observed: {}", reason(), hook.observes);
            let (mark, state, detail) = if hook.attached {
                (Mark::Ok, "attached", String::new())
            } else {
                (Mark::Warning, "off", missing())
            };
            rows.push(row(*host, mark, "hook", &hook.name, state.to_owned(), detail));
        }
        for entry in &status.ledger {
            let lost: u64 = entry.lost.values().sum();
            let mark = if lost > 0 { Mark::Warning } else { Mark::Ok };
            let why = entry.lost.iter().filter(|(_, count)| **count > 0);
            let why: Vec<_> =
                why.map(|(reason, count)| format!("{reason} {}", words::count(*count))).collect();
            let state = format!("{} seen", words::count(entry.seen));
            let detail = if why.is_empty() {
                "none dropped".to_owned()
            } else {
                format!("dropped: {}", why.join(", "))
            };
            rows.push(row(*host, mark, "events", &entry.class, state, detail));
        }
        for one in &status.tables {
            let is_full = one.entries >= one.capacity;
            let mark = if is_full { Mark::Warning } else { Mark::Ok };
            let share = one.entries as f64 / one.capacity.max(1) as f64;
            let detail =
                format!("{} of {} rows", words::count(one.entries), words::count(one.capacity));
            rows.push(row(*host, mark, "table", &one.name, words::percent(share), detail));
        }
        for source in &status.name_sources {
            let mark = match source.state {
                NameSourceState::Up => Mark::Ok,
                NameSourceState::Down => Mark::Warning,
                NameSourceState::Starting | NameSourceState::Absent => Mark::Idle,
            };
            let detail = source.detail.clone().unwrap_or_else(|| {
                format!(
                    "{}, {}",
                    words::counted(source.entries, "name"),
                    words::counted(source.errors, "error")
                )
            });
            rows.push(row(
                *host,
                mark,
                "names",
                &source.name,
                source.state.as_str().to_owned(),
                detail,
            ));
        }
    }
    Table { columns: COLUMNS.to_vec(), rows, hidden: None, empty: "No agent has answered." }
}

fn row<'a>(
    host: usize,
    mark: Mark,
    part: &'static str,
    name: &'a str,
    state: String,
    detail: String,
) -> Row<'a> {
    let fields = Fields::default()
        .text(TextField::Kind, part)
        .text(TextField::Service, name)
        .text(TextField::Why, &state)
        .text(TextField::Why, &detail);
    let cells = vec![mark.as_char().to_string(), part.to_owned(), name.to_owned(), state, detail];
    Row {
        mark,
        cells,
        item: Item::Part { part, name },
        host,
        key: format!("{part} {name}"),
        weight: (0, 0),
        fields,
    }
}
