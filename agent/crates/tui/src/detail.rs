//! One row in full: everything that explains its colour.

mod edge;

use api_types::{Change, Conflict, Edge, Event, ServiceStatus, Timestamp};
use cli::fit::Column;
use cli::judgement::{Found, Name};
use cli::words;
use notation::duration::ago;
use ratatui_core::style::Style;
use ratatui_core::text::{Line, Span};

use crate::agents::{Host, Look};
use crate::rows::{Item, Row, number, text};
use crate::screen::{clock, finding_lines, labelled, small_table};
use crate::text::{Text, bold, cut, dim, of_mark, plain, styled, width};

/// Events and edges of a page.
const EVENTS: usize = 8;
const EDGES: usize = 12;

/// The page of a row.
pub(crate) fn lines(row: &Row<'_>, columns: &[Column], hosts: &[Host], room: usize) -> Vec<Text> {
    let Some(look) = hosts.get(row.host).and_then(|host| host.look.as_deref()) else {
        return Vec::new();
    };
    let page = Page { look, room, now: look.answers.edges.timestamp };
    match row.item {
        Item::Edge(edge) => page.edge(row, edge),
        Item::Service(service) => page.service(row, columns, service),
        Item::Conflict(conflict) => page.conflict(row, columns, conflict),
        Item::Event(event) => page.event(row, columns, event),
        Item::Finding(finding) => {
            let mut found = look.found.iter().filter(|found| found.finding == *finding);
            found.next().map_or_else(Vec::new, |found| finding_lines(found, room))
        }
        _ => page.cells(row, columns),
    }
}

struct Page<'a> {
    look: &'a Look,
    room: usize,
    now: Timestamp,
}

impl Page<'_> {
    fn add(&self, lines: &mut Vec<Text>, label: &str, text: &str) {
        lines.extend(labelled(label, text, self.room, dim()));
    }

    /// A row without a page of its own: title and cell.
    fn cells(&self, row: &Row<'_>, columns: &[Column]) -> Vec<Text> {
        let mut lines = vec![self.state(row, "")];
        for (column, cell) in columns.iter().zip(&row.cells).skip(1) {
            self.add(&mut lines, column.title, cell);
        }
        lines
    }

    fn state(&self, row: &Row<'_>, why: &str) -> Text {
        let state = format!("{} {}", row.mark.as_char(), row.mark.as_str());
        let gap = " ".repeat(13_usize.saturating_sub(width("STATE")));
        Line::from(vec![
            styled("STATE", dim()),
            Span::raw(gap),
            styled(&state, of_mark(row.mark)),
            plain(&cut(&format!("  {why}"), self.room.saturating_sub(13 + width(&state)))),
        ])
    }

    fn changes(&self, lines: &mut Vec<Text>, changes: &[Change]) {
        for change in changes {
            let name = words::full_name(&change.service_namespace, &change.service);
            let when = ago(self.now.seconds_since(change.time).max(0.0));
            self.add(lines, "CHANGED", &format!("{name} {} {when} ago", change.text));
        }
    }

    fn events(&self, lines: &mut Vec<Text>, is_it: impl Fn(&&Event) -> bool) {
        let events: Vec<&Event> =
            self.look.answers.events.events.iter().rev().filter(is_it).take(EVENTS).collect();
        if events.is_empty() {
            return;
        }
        lines.push(Line::default());
        lines.push(Line::styled("LAST EVENTS", bold()));
        for event in events {
            let line = words::event(event, &clock(event.last_seen));
            lines.push(plain(&cut(&line, self.room)).into());
        }
    }

    fn service(&self, row: &Row<'_>, columns: &[Column], one: &ServiceStatus) -> Vec<Text> {
        let mut lines = self.cells(row, columns);
        self.changes(&mut lines, &one.changes_before);
        let name = Name::new(&one.service_namespace, &one.service);
        let is_name =
            |namespace: &str, service: &str| namespace == name.namespace && service == name.name;
        const COLUMNS: &[Column] = &[
            text("CLIENT", 0),
            text("SERVER", 0),
            number("PORT", 0),
            number("REQUESTS", 1),
            number("P99", 0),
            number("FAILED", 0),
            text("WHY", 0),
        ];
        let edges = self.look.answers.edges.edges.iter().filter(|edge| {
            !edge.other_side
                && (is_name(&edge.client_namespace, &edge.client)
                    || is_name(&edge.server_namespace, &edge.server))
        });
        let cells = |edge: &Edge| {
            vec![
                words::client(edge),
                words::full_name(&edge.server_namespace, &edge.server),
                edge.port.to_string(),
                words::count(edge.request.count),
                words::quantile(edge.request.p99_seconds),
                words::count(words::failed(edge)),
                words::why(edge),
            ]
        };
        let mut edges: Vec<&Edge> = edges.collect();
        edges.sort_by_key(|edge| std::cmp::Reverse((words::urgency(edge), edge.request.count)));
        let rows: Vec<Vec<String>> = edges.into_iter().map(cells).collect();
        if !rows.is_empty() {
            lines.push(Line::default());
            lines.extend(small_table(COLUMNS, &rows, self.room, EDGES));
        }
        for found in self.look.found.iter().filter(|found| found.server.as_ref() == Some(&name)) {
            lines.push(Line::default());
            lines.extend(finding_lines(found, self.room));
        }
        self.events(&mut lines, |event| {
            let ends = [&event.client, &event.server, &event.holder];
            ends.iter().any(|end| end.as_ref().is_some_and(|one| Name::from(one) == name))
        });
        lines
    }

    fn conflict(&self, row: &Row<'_>, columns: &[Column], one: &Conflict) -> Vec<Text> {
        let mut lines = self.cells(row, columns);
        let process = |pid: u32, command: &str| match pid {
            0 => "unknown, or ended".to_owned(),
            pid => format!("pid {pid} ({command})"),
        };
        self.add(&mut lines, "PROCESS", &process(one.claimant.pid, &one.claimant.command));
        if let Some(holder) = &one.holder {
            self.add(&mut lines, "HELD BY", &process(holder.pid, &holder.command));
        }
        lines.push(Line::default());
        let found = Found {
            finding: one.finding.clone(),
            clients: Vec::new(),
            server: None,
            port: Some(one.port),
        };
        lines.extend(finding_lines(&found, self.room));
        lines
    }

    fn event(&self, row: &Row<'_>, columns: &[Column], event: &Event) -> Vec<Text> {
        let mut lines = self.cells(row, columns);
        self.add(&mut lines, "FIRST SEEN", &clock(event.first_seen));
        self.add(&mut lines, "CAUSE", &event.cause);
        self.changes(&mut lines, &event.changes_before);
        lines
    }
}

/// A heading with a hint at its right.
pub(crate) fn heading(title: &str, hint: &str, room: usize) -> Text {
    let (left, right) = crate::text::ends(title, hint, room);
    Line::from(vec![styled(&left, bold()), Span::styled(right, Style::new())])
}
