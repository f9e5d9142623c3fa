//! What a pipe gets: the screen as plain text once, or JSON.

use std::time::{Duration, Instant};

use api_types::{Finding, Timestamp, WindowChoice};
use ratatui_core::text::Line;
use serde::Serialize;

use crate::agents::Host;
use crate::rows::{Item, Mark};
use crate::screen::{Head, Room, problem_lines, table_lines, totals, window};
use crate::summary::{Totals, problems};
use crate::text::Text;
use crate::views::{View, Wanted};

/// The width of a pipe's head; its table is as wide as its cells.
const WIDTH: usize = 160;

/// One tick as JSON.
#[derive(Serialize)]
struct Tick<'a> {
    /// When the latest numbers were read.
    timestamp: Option<Timestamp>,
    window: String,
    hosts: Vec<JsonHost<'a>>,
    totals: Totals,
    problems: Vec<JsonProblem<'a>>,
    view: &'static str,
    rows: Vec<JsonRow<'a>>,
}

#[derive(Serialize)]
struct JsonHost<'a> {
    host: &'a str,
    version: Option<&'a str>,
    /// The time that the numbers cover.
    window_seconds: Option<f64>,
    /// Why there are no newer numbers.
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct JsonProblem<'a> {
    host: &'a str,
    /// How many findings follow from it.
    effects: usize,
    #[serde(flatten)]
    finding: &'a Finding,
}

#[derive(Serialize)]
struct JsonRow<'a> {
    host: &'a str,
    mark: Mark,
    #[serde(flatten)]
    item: Item<'a>,
}

/// The screen as JSON, in one line.
pub(crate) fn json<'a>(
    hosts: &'a [Host],
    wanted: &Wanted,
    choice: WindowChoice,
) -> anyhow::Result<String> {
    let table = wanted.table(hosts);
    let name = |host: usize| hosts.get(host).map_or("", |host| host.name.as_str());
    let looks = hosts.iter().filter_map(|host| host.look.as_deref());
    let of_host = |Host { name, look, error, .. }: &'a Host| JsonHost {
        host: name,
        version: look.as_ref().map(|look| look.answers.status.version.as_str()),
        window_seconds: look.as_ref().map(|look| look.answers.edges.window.seconds),
        error: error.as_deref(),
    };
    let problems = problems(hosts);
    let tick = Tick {
        timestamp: looks.map(|look| look.answers.edges.timestamp).max(),
        window: window(choice),
        hosts: hosts.iter().map(of_host).collect(),
        totals: Totals::of(hosts),
        problems: problems
            .iter()
            .map(|one| JsonProblem {
                host: name(one.host),
                effects: one.effects,
                finding: &one.found.finding,
            })
            .collect(),
        view: wanted.view.as_str(),
        rows: table
            .rows
            .iter()
            .map(|row| JsonRow { host: name(row.host), mark: row.mark, item: row.item })
            .collect(),
    };
    Ok(serde_json::to_string(&tick)? + "\n")
}

/// The screen as text: problems, then every row. `room` is the width of a terminal, if it is one.
pub(crate) fn text(
    hosts: &[Host],
    wanted: &Wanted,
    choice: WindowChoice,
    every: Duration,
    room: Option<usize>,
) -> Vec<Text> {
    let table = wanted.table(hosts);
    let width = room.unwrap_or(WIDTH);
    let head = Head { hosts, window: choice, every, now: Instant::now(), is_frozen: false };
    let mut lines = head.lines(&table, width);
    lines.push(totals(hosts, width));
    if wanted.view != View::Problems {
        let problems = problem_lines(hosts, Room { width, height: usize::MAX });
        if !problems.is_empty() {
            lines.push(Line::default());
            lines.extend(problems);
        }
    }
    lines.push(Line::default());
    lines.extend(table_lines(&table, room));
    if let Some(hidden) = &table.hidden {
        let text = format!("… {}", hidden.replace(": a", ": --all"));
        lines.push(Line::raw(text));
    }
    lines
}

/// Lines without styles.
pub(crate) fn plain(lines: &[Text]) -> String {
    let line = |line: &Text| {
        let text: String = line.spans.iter().map(|span| span.content.as_ref()).collect();
        text.trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}
