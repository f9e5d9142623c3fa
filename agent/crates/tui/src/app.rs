//! The state of the screen, what keys do to it, and how it is drawn.

use std::time::{Duration, Instant};

use api_types::WindowChoice;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use notation::filter::Filter;
use ratatui_core::style::Modifier;
use ratatui_core::terminal::Frame;
use ratatui_core::text::Line;

use crate::action::{Action, Page, diagnosis};
use crate::agents::{Heard, Host};
use crate::rows::{Sort, Table};
use crate::screen::{Head, Room, problem_lines, rule, table_lines, tabs, totals};
use crate::text::{Text, bold, clean, cut, dim, of_mark, plain, styled};
use crate::views::{View, Wanted};
use crate::{detail, help, rows};

/// The windows of key `w`.
const WINDOWS: [WindowChoice; 4] =
    [WindowChoice::Last(10), WindowChoice::Last(60), WindowChoice::Last(300), WindowChoice::Start];

/// The state of the screen.
#[derive(Debug)]
pub(crate) struct App {
    pub wanted: Wanted,
    pub window: WindowChoice,
    pub every: Duration,
    pub hosts: Vec<Host>,
    /// What is shown while the screen is frozen.
    frozen: Option<Vec<Host>>,
    pub page: Page,
    /// The key of the selected row, and where it was last.
    selected: Option<String>,
    place: usize,
    /// The first line that is shown of the table or page.
    top: usize,
    /// The filter that is being written.
    editing: Option<String>,
    /// An error, or what was done; until the next key.
    pub message: Option<String>,
    /// Lines of the table or page in the last drawing.
    height: usize,
}

// === impl App ===

impl App {
    pub fn new(hosts: Vec<Host>, wanted: Wanted, window: WindowChoice, every: Duration) -> Self {
        Self {
            wanted,
            window,
            every,
            hosts,
            frozen: None,
            page: Page::Table,
            selected: None,
            place: 0,
            top: 0,
            editing: None,
            message: None,
            height: 1,
        }
    }

    /// What is shown: the latest, or what was there when the screen was frozen.
    pub fn shown(&self) -> &[Host] {
        self.frozen.as_deref().unwrap_or(&self.hosts)
    }

    /// Takes an answer.
    pub fn hear(&mut self, heard: Heard, now: Instant) {
        if let Some(host) = self.hosts.get_mut(heard.host) {
            host.take(heard.result, now);
        }
    }

    /// Takes the report of a diagnosis, if it is still waited for.
    pub fn take_report(&mut self, of: &str, report: &str) {
        if let Page::Text { title, lines } = &mut self.page
            && title == of
        {
            *lines = report.lines().map(clean).collect();
        }
    }

    /// What a key does.
    pub fn press(&mut self, key: KeyEvent) -> Action {
        self.message = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Action::Quit;
        }
        if let Some(text) = self.editing.take() {
            self.edit(text, key);
            return Action::Draw;
        }
        match key.code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('?') => self.turn_to(Page::Help),
            KeyCode::Char('/') => {
                self.turn_to(Page::Table);
                self.editing = Some(self.wanted.filter.to_string());
            }
            KeyCode::Char('z') => {
                self.frozen = if self.frozen.is_some() { None } else { Some(self.hosts.clone()) };
            }
            KeyCode::Char('a') => self.wanted.all = !self.wanted.all,
            KeyCode::Char('c') => self.wanted.side = self.wanted.side.next(),
            KeyCode::Char('s') => {
                let next = self.wanted.sort.next(&self.table().rows);
                self.wanted.sort = next;
                self.selected = None;
                self.top = 0;
            }
            KeyCode::Char('w') => {
                let at = WINDOWS.iter().position(|window| *window == self.window);
                let next = at.and_then(|at| WINDOWS.get(at + 1)).or(WINDOWS.first());
                self.window = next.copied().unwrap_or(self.window);
                return Action::Window(self.window);
            }
            KeyCode::Char('d') => return self.diagnose(),
            KeyCode::Char('e') => return Action::Export,
            KeyCode::Char(c) => {
                if let Some((_, view)) = View::KEYS.iter().find(|(key, _)| *key == c) {
                    self.view(*view);
                } else if c == '7' {
                    self.message =
                        Some("operations need protocols, which agents do not read yet".to_owned());
                } else {
                    self.walk(match c {
                        'j' => 1,
                        'k' => -1,
                        'g' => isize::MIN,
                        'G' => isize::MAX,
                        _ => 0,
                    });
                }
            }
            KeyCode::Enter => self.open(),
            KeyCode::Esc | KeyCode::Backspace => self.back(),
            KeyCode::Down => self.walk(1),
            KeyCode::Up => self.walk(-1),
            KeyCode::PageDown => self.walk(self.height.max(2) as isize - 1),
            KeyCode::PageUp => self.walk(1 - self.height.max(2) as isize),
            KeyCode::Home => self.walk(isize::MIN),
            KeyCode::End => self.walk(isize::MAX),
            _ => {}
        }
        Action::Draw
    }

    /// The table that is shown.
    pub fn table(&self) -> Table<'_> {
        self.wanted.table(self.shown())
    }

    /// Draws the screen.
    pub fn draw(&mut self, frame: &mut Frame<'_>, now: Instant) {
        let area = frame.area();
        let room = Room { width: usize::from(area.width), height: usize::from(area.height) };
        for (line, y) in self.lines(room, now).iter().zip(area.y..area.bottom()) {
            frame.buffer_mut().set_line(area.x, y, line, area.width);
        }
    }

    /// The lines of the screen.
    pub fn lines(&mut self, room: Room, now: Instant) -> Vec<Text> {
        let Room { width, height } = room;
        let hosts = self.frozen.as_ref().unwrap_or(&self.hosts).clone();
        let table = self.wanted.table(&hosts);
        let head = Head {
            hosts: &hosts,
            window: self.window,
            every: self.every,
            now,
            is_frozen: self.frozen.is_some(),
        };
        let mut lines = head.lines(&table, width);
        lines.push(totals(&hosts, width));
        let (body, pinned, selected) = match &self.page {
            Page::Table => {
                lines.extend(self.upper(&hosts, room));
                let mut body = table_lines(&table, Some(width));
                let pinned = usize::from(!table.rows.is_empty());
                let selected = self.selected_place(&table);
                if let Some(hidden) = &table.hidden {
                    body.push(Line::styled(cut(&format!("… {hidden}"), width), dim()));
                }
                (body, pinned, selected)
            }
            Page::Row(key) => {
                let row = table.rows.iter().find(|row| row.key == *key);
                let title = row.map_or_else(|| "gone".to_owned(), title);
                lines.push(rule(width));
                lines.push(detail::heading(&title, "Esc back  d diagnose", width));
                let gone = || vec![plain("It is no longer among the answers (Esc).").into()];
                let body =
                    row.map_or_else(gone, |row| detail::lines(row, &table.columns, &hosts, width));
                (body, 0, None)
            }
            Page::Text { title, lines: text } => {
                lines.push(rule(width));
                lines.push(detail::heading(title, "Esc back", width));
                (text.iter().map(|line| plain(&cut(line, width)).into()).collect(), 0, None)
            }
            Page::Help => {
                lines.push(rule(width));
                (help::lines(self.wanted.view, width), 0, None)
            }
        };
        let room = height.saturating_sub(lines.len() + pinned + 2);
        self.height = room;
        let (first, rest) = body.split_at_checked(pinned).unwrap_or((&body, &[]));
        self.scroll(rest.len(), selected);
        lines.extend(first.iter().cloned());
        for (at, line) in rest.iter().enumerate().skip(self.top).take(room) {
            let mut line = line.clone();
            if selected == Some(at) {
                line = line.patch_style(
                    ratatui_core::style::Style::new().add_modifier(Modifier::REVERSED),
                );
            }
            lines.push(line);
        }
        lines.resize(height.saturating_sub(2), Line::default());
        lines.push(rule(width));
        lines.push(self.foot(width));
        lines
    }

    /// Problems and views above a table.
    fn upper(&self, hosts: &[Host], room: Room) -> Vec<Text> {
        let mut lines = Vec::new();
        if self.wanted.view != View::Problems {
            let problems = problem_lines(hosts, room);
            if !problems.is_empty() {
                lines.push(Line::default());
                lines.extend(problems);
            }
        }
        lines.push(rule(room.width));
        let side = match self.wanted.view {
            View::Edges => format!("side: {}", self.wanted.side.as_str()),
            _ => String::new(),
        };
        lines.push(tabs(self.wanted.view, self.wanted.sort, &side, room.width));
        lines
    }

    fn foot(&self, width: usize) -> Text {
        if let Some(text) = &self.editing {
            let tail: String = {
                let chars = text.chars().count();
                text.chars().skip(chars.saturating_sub(width.saturating_sub(12))).collect()
            };
            let mut spans = vec![styled("filter: ", bold()), plain(&tail), plain("█")];
            if let Some(error) = &self.message {
                spans.push(styled(&format!("  {error}"), of_mark(rows::Mark::Warning)));
            }
            return Line::from(spans);
        }
        if let Some(message) = &self.message {
            return Line::styled(cut(&clean(message), width), of_mark(rows::Mark::Warning));
        }
        let filter = self.wanted.filter.to_string();
        let keys = if filter.is_empty() {
            help::KEYS.to_owned()
        } else {
            format!("filter: {filter}  {}", help::KEYS)
        };
        Line::styled(cut(&clean(&keys), width), dim())
    }

    fn edit(&mut self, mut text: String, key: KeyEvent) {
        match key.code {
            KeyCode::Enter => match text.parse::<Filter>() {
                Ok(filter) => {
                    self.wanted.filter = filter;
                    (self.selected, self.top) = (None, 0);
                }
                Err(error) => {
                    // What was written stays, to be put right.
                    (self.message, self.editing) = (Some(error), Some(text));
                }
            },
            KeyCode::Esc => {}
            KeyCode::Backspace => {
                text.pop();
                self.editing = Some(text);
            }
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                self.editing = Some(String::new());
            }
            KeyCode::Char(c) if !key.modifiers.contains(KeyModifiers::CONTROL) => {
                text.push(c);
                self.editing = Some(text);
            }
            _ => self.editing = Some(text),
        }
    }

    fn view(&mut self, view: View) {
        if self.wanted.view != view {
            self.wanted.view = view;
            self.wanted.sort = Sort::Worst;
            self.selected = None;
        }
        self.turn_to(Page::Table);
    }

    fn turn_to(&mut self, page: Page) {
        self.page = page;
        self.top = 0;
    }

    fn back(&mut self) {
        match &self.page {
            Page::Table => self.wanted.filter = Filter::default(),
            _ => self.turn_to(Page::Table),
        }
    }

    fn open(&mut self) {
        if self.page != Page::Table {
            return;
        }
        let table = self.table();
        let key = self
            .selected_place(&table)
            .and_then(|at| table.rows.get(at))
            .map(|row| row.key.clone());
        if let Some(key) = key {
            self.selected = Some(key.clone());
            self.turn_to(Page::Row(key));
        }
    }

    fn diagnose(&mut self) -> Action {
        let table = self.table();
        let row = match &self.page {
            Page::Row(key) => table.rows.iter().find(|row| row.key == *key),
            _ => self.selected_place(&table).and_then(|at| table.rows.get(at)),
        };
        let Some((host, (client, server))) = row.and_then(|row| Some((row.host, row.ends()?)))
        else {
            self.message = Some("diagnose needs a row with a client and a server".to_owned());
            return Action::Draw;
        };
        let title = diagnosis(&client, &server);
        let lines =
            vec!["Looking, and trying what the client does; that takes some seconds …".to_owned()];
        self.turn_to(Page::Text { title, lines });
        Action::Diagnose { host, client, server }
    }

    /// Where the selected row is: by its key, else where it was.
    fn selected_place(&self, table: &Table<'_>) -> Option<usize> {
        let by_key = self
            .selected
            .as_ref()
            .and_then(|key| table.rows.iter().position(|row| row.key == *key));
        let last = table.rows.len().checked_sub(1)?;
        Some(by_key.unwrap_or(if self.selected.is_some() { self.place } else { 0 }).min(last))
    }

    /// Moves the selection, or the page.
    fn walk(&mut self, by: isize) {
        if self.page != Page::Table {
            self.top = self.top.saturating_add_signed(by);
            return;
        }
        let table = self.table();
        let Some(at) = self.selected_place(&table) else { return };
        let last = table.rows.len().saturating_sub(1);
        let place = at.saturating_add_signed(by).min(last);
        let key = table.rows.get(place).map(|row| row.key.clone());
        // The first row stays selected, whatever becomes the first, until a key says otherwise.
        (self.selected, self.place) = (key.filter(|_| by != isize::MIN), place);
    }

    /// Keeps the selected line, or the end of a page, in sight.
    fn scroll(&mut self, length: usize, selected: Option<usize>) {
        let room = self.height.max(1);
        if let Some(at) = selected {
            self.place = at;
            self.top = self.top.clamp((at + 1).saturating_sub(room), at);
        }
        self.top = self.top.min(length.saturating_sub(room));
    }
}

/// The name of a row.
fn title(row: &rows::Row<'_>) -> String {
    match row.ends() {
        Some((client, server)) => format!("{client} → {server}"),
        None => row.cells.iter().skip(1).take(3).cloned().collect::<Vec<_>>().join("  "),
    }
}
