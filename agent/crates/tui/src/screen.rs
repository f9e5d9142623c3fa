//! The screen as lines of text: header, totals, problems, a table or a page, keys. The same lines are
//! what `--once` prints.

use std::time::{Duration, Instant};

use api_types::{Timestamp, WindowChoice};
use cli::fit::Column;
use cli::words;
use ratatui_core::style::Modifier;
use ratatui_core::text::{Line, Span};

use crate::agents::Host;
use crate::rows::{Mark, Sort, Table};
use crate::summary::{Problem, Totals, problems};
use crate::text::{
    Layout, Text, bold, clean, cut, dim, ends, of_cell, of_mark, plain, styled, width, wrapped,
};
use crate::views::{View, follows};

/// Problems on a screen of this height.
const fn most_problems(height: usize) -> usize {
    match height {
        0..=15 => 1,
        16..=29 => 2,
        _ => 4,
    }
}

/// The room there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub width: usize,
    pub height: usize,
}

/// What the head of a screen says.
pub(crate) struct Head<'a> {
    pub hosts: &'a [Host],
    pub window: WindowChoice,
    pub every: Duration,
    pub now: Instant,
    pub is_frozen: bool,
}

/// The time of day, UTC.
pub(crate) fn clock(time: Timestamp) -> String {
    let seconds = Timestamp::from_seconds(time.seconds().floor()).to_string();
    seconds.split_once('T').map_or(seconds.clone(), |(_, clock)| clock.to_owned())
}

/// The window, as `--window` takes it.
pub(crate) fn window(choice: WindowChoice) -> String {
    match choice.seconds() {
        None => "start".to_owned(),
        Some(seconds) => notation::duration::text(Duration::from_secs(seconds)),
    }
}

// === impl Head ===

impl Head<'_> {
    /// The first lines: who, when, how many, and what is missing.
    pub fn lines(&self, table: &Table<'_>, room: usize) -> Vec<Text> {
        let count = |mark| table.rows.iter().filter(|row| row.mark == mark).count();
        let marks = [Mark::Error, Mark::Warning, Mark::Ok];
        let counts: Vec<(Mark, String)> = marks
            .iter()
            .map(|mark| (*mark, format!("{}{}", mark.as_char(), count(*mark))))
            .collect();
        let states: Vec<&str> = counts.iter().map(|(_, text)| text.as_str()).collect();
        let states = states.join(" ");
        let window = window(self.window);
        let every = format!("every {} s", self.every.as_secs_f64());
        let frozen = if self.is_frozen { "FROZEN (z)  " } else { "" };
        let right = |parts: &[&str]| format!("{frozen}{}", parts.join("  "));
        let window = format!("window {window}");
        let time = self.time();
        let left = format!("portolan top  {}", self.who());
        let all = right(&[&time, &window, &every]);
        let fewer = right(&[&window]);
        let is_enough = |right: &str| width(&left) + width(right) + width(&states) + 3 <= room;
        let right = if is_enough(&all) { all } else { fewer };
        let rest = room.saturating_sub(width(&states) + 2);
        let (left, right) = ends(&left, &right, rest);
        let mut spans = vec![styled(&left, bold()), plain(&right), Span::raw("  ")];
        for (at, (mark, text)) in counts.iter().enumerate() {
            spans.push(Span::raw(if at > 0 { " " } else { "" }));
            let is_none = count(*mark) == 0;
            spans.push(styled(text, if is_none { dim() } else { of_mark(*mark) }));
        }
        let mut lines = vec![Line::from(spans)];
        lines.extend(self.hosts.iter().flat_map(|host| self.trouble(host, room)));
        lines
    }

    /// Hosts by name; of one host its version and up time, too.
    fn who(&self) -> String {
        match self.hosts {
            [host] => {
                let Some(look) = &host.look else { return host.name.clone() };
                let up = look.answers.timeouts.as_ref().map(|timeouts| timeouts.window.seconds);
                let up = up.map_or_else(String::new, |up| format!(" · up {}", words::span(up)));
                format!("{} · {}{up}", host.name, look.answers.status.version)
            }
            hosts => {
                let there = hosts.iter().filter(|host| host.look.is_some() && host.error.is_none());
                format!("{} of {} hosts", there.count(), hosts.len())
            }
        }
    }

    fn time(&self) -> String {
        let times = self.hosts.iter().filter_map(|host| host.look.as_deref());
        let latest = times.map(|look| look.answers.edges.timestamp).max();
        latest.map_or_else(String::new, clock)
    }

    /// Why a host has no new numbers.
    fn trouble(&self, host: &Host, room: usize) -> Vec<Text> {
        let silent = self.now.saturating_duration_since(host.heard);
        let ago = words::span(silent.as_secs_f64());
        let say = |mark: Mark, text: String| {
            let line = cut(&clean(&format!("{} {text}", mark.as_char())), room);
            vec![Line::styled(line, of_mark(mark).add_modifier(Modifier::BOLD))]
        };
        match (&host.error, &host.look) {
            (Some(error), Some(_)) => {
                say(Mark::Error, format!("{}: no answer for {ago}: {error}", host.name))
            }
            (Some(error), None) => say(Mark::Error, format!("{}: {error}", host.name)),
            (None, _) if self.is_frozen => Vec::new(),
            (None, None) => say(Mark::Idle, format!("{}: asking for {ago}", host.name)),
            (None, Some(_)) if silent > self.every * 2 + Duration::from_secs(2) => {
                say(Mark::Warning, format!("{}: slow: these numbers are {ago} old", host.name))
            }
            (None, Some(_)) => Vec::new(),
        }
    }
}

/// Totals in a line; sparklines, then numbers go if there is no room.
pub(crate) fn totals(hosts: &[Host], room: usize) -> Text {
    let totals = Totals::of(hosts).shown(hosts);
    let length = |with_spark: bool, count: usize| {
        let one = |total: &crate::summary::Total| {
            let spark =
                if with_spark && !total.spark.is_empty() { width(&total.spark) + 1 } else { 0 };
            width(total.name) + 1 + width(&total.value) + spark
        };
        totals.iter().take(count).map(one).sum::<usize>() + 3 * count.saturating_sub(1)
    };
    let with_spark = length(true, totals.len()) <= room;
    let count = (0..=totals.len()).rev().find(|count| length(with_spark, *count) <= room);
    let mut spans = Vec::new();
    for (at, total) in totals.iter().take(count.unwrap_or_default()).enumerate() {
        if at > 0 {
            spans.push(Span::raw("   "));
        }
        spans.push(styled(total.name, dim()));
        let style = if total.is_bad { of_mark(Mark::Error) } else { bold() };
        spans.push(Span::raw(" "));
        spans.push(styled(&total.value, style));
        if with_spark && !total.spark.is_empty() {
            spans.push(plain(&format!(" {}", total.spark)));
        }
    }
    Line::from(spans)
}

/// Problems, two lines each, and how many more there are.
pub(crate) fn problem_lines(hosts: &[Host], room: Room) -> Vec<Text> {
    let problems = problems(hosts);
    let most = most_problems(room.height);
    let mut lines: Vec<Text> = problems
        .iter()
        .take(most)
        .flat_map(|problem| two_lines(*problem, hosts, room.width))
        .collect();
    let rest = problems.len().saturating_sub(most);
    if rest > 0 {
        let text = format!("  … {}: p", words::counted(rest as u64, "more problem"));
        lines.push(Line::styled(cut(&text, room.width), dim()));
    }
    lines
}

fn two_lines(problem: Problem<'_>, hosts: &[Host], room: usize) -> Vec<Text> {
    let Problem { host, found, effects } = problem;
    let finding = &found.finding;
    let mark = Mark::from(finding.severity);
    let place = match hosts.get(host) {
        Some(one) if hosts.len() > 1 => format!("{}: ", one.name),
        _ => String::new(),
    };
    let first = format!("{place}{}", finding.title);
    let since = finding.since.map(|since| format!("since {}", clock(since)));
    let effects = (effects > 0).then(|| format!("{effects} more follow from it"));
    let fix = finding.remediation.as_ref().map(|fix| format!("fix: {fix}"));
    let second: Vec<String> = since.into_iter().chain(effects).chain(fix).collect();
    let head = format!("{} {} ", mark.as_char(), finding.code);
    let indent = width(&head);
    vec![
        Line::from(vec![
            styled(&head, of_mark(mark)),
            styled(&cut(&first, room.saturating_sub(indent)), bold()),
        ]),
        Line::from(vec![
            Span::raw(" ".repeat(indent)),
            plain(&cut(&second.join(" · "), room.saturating_sub(indent))),
        ]),
    ]
}

/// A line across.
pub(crate) fn rule(room: usize) -> Text {
    Line::styled("─".repeat(room), dim())
}

/// The views with their keys; the present one stands out.
pub(crate) fn tabs(view: View, sort: Sort, extra: &str, room: usize) -> Text {
    let mut spans = Vec::new();
    let mut taken = 0;
    let right = match sort {
        Sort::Worst => extra.to_owned(),
        sort => format!("{extra}  sort {}", sort.as_str()),
    };
    let left = room.saturating_sub(width(&right) + 1);
    for (key, one) in View::KEYS {
        // What is chosen is in capitals, for people who see no colours.
        let name = if *one == view { one.as_str().to_uppercase() } else { one.as_str().to_owned() };
        let text = format!("{key} {name} ");
        if taken + width(&text) > left {
            break;
        }
        taken += width(&text);
        spans.push(if *one == view { styled(&text, bold()) } else { styled(&text, dim()) });
    }
    spans.push(Span::raw(" ".repeat(room.saturating_sub(taken + width(&right)))));
    spans.push(plain(&cut(&right, room)));
    Line::from(spans)
}

/// A table as lines; the first is that of the titles.
pub(crate) fn table_lines(table: &Table<'_>, room: Option<usize>) -> Vec<Text> {
    if table.rows.is_empty() {
        return vec![plain(table.empty).into()];
    }
    let cells: Vec<Vec<String>> = table.rows.iter().map(|row| row.cells.clone()).collect();
    let layout = Layout::new(&table.columns, &cells, room);
    let row = |row: &crate::rows::Row<'_>| {
        layout.line(&row.cells, |title, cell| of_cell(title, cell, row.mark))
    };
    std::iter::once(layout.head()).chain(table.rows.iter().map(row)).collect()
}

/// A finding in full: what, since when, on what evidence, and what to do.
pub(crate) fn finding_lines(found: &cli::judgement::Found, room: usize) -> Vec<Text> {
    let finding = &found.finding;
    let mark = Mark::from(finding.severity);
    let mut lines = labelled(
        &format!("{} {}", mark.as_char(), finding.code),
        &finding.title,
        room,
        of_mark(mark),
    );
    let mut add = |label: &str, text: &str| lines.extend(labelled(label, text, room, dim()));
    if let Some(since) = finding.since {
        add("since", &clock(since));
    }
    if let Some(follows) = follows(found) {
        add("follows", &follows);
    }
    for (name, value) in &finding.evidence {
        let value = match value {
            api_types::Evidence::Number(number) => number.to_string(),
            api_types::Evidence::Text(text) => text.clone(),
        };
        add(&name.replace('_', " "), &value);
    }
    if let Some(fix) = &finding.remediation {
        add("fix", fix);
    }
    add("more", &format!("portolan explain {}", finding.code));
    lines
}

/// The width of labels.
const LABEL: usize = 12;

/// A label and a text behind it, in as many lines as it needs.
pub(crate) fn labelled(
    label: &str,
    text: &str,
    room: usize,
    style: ratatui_core::style::Style,
) -> Vec<Text> {
    let rest = room.saturating_sub(LABEL + 1).max(1);
    let lines = wrapped(&clean(text), rest).into_iter().enumerate();
    let line = |(at, text): (usize, String)| {
        let label = if at == 0 { cut(&clean(label), LABEL) } else { String::new() };
        let space = " ".repeat((LABEL + 1).saturating_sub(width(&label)));
        Line::from(vec![Span::styled(label, style), Span::raw(space), Span::raw(text)])
    };
    lines.map(line).collect()
}

/// Some rows as a table of their own, in at most so many lines.
pub(crate) fn small_table(
    columns: &[Column],
    rows: &[Vec<String>],
    room: usize,
    most: usize,
) -> Vec<Text> {
    let layout = Layout::new(columns, rows, Some(room.saturating_sub(1)));
    let indent = |line: Text| {
        let mut line = line;
        line.spans.insert(0, Span::raw(" "));
        line
    };
    let shown = rows.iter().take(most);
    let line = |row: &Vec<String>| layout.line(row, |title, cell| of_cell(title, cell, Mark::Ok));
    std::iter::once(layout.head()).chain(shown.map(line)).map(indent).collect()
}
