//! Pieces of lines: texts without anything that a terminal could take for a command, their widths and
//! their colours.

use cli::fit::{Column, GAP, fitted, shortened};
use ratatui_core::style::{Color, Modifier, Style};
use ratatui_core::text::{Line, Span};

use crate::rows::Mark;

/// A line of the screen.
pub(crate) type Text = Line<'static>;

/// A text in which everything can be shown: characters that control a terminal or the direction of
/// writing become `_`.
pub(crate) fn clean(text: &str) -> String {
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if is_odd(c) { '_' } else { c }).collect()
}

/// A piece without a style.
pub(crate) fn plain(text: &str) -> Span<'static> {
    Span::raw(clean(text))
}

/// A piece with one.
pub(crate) fn styled(text: &str, style: Style) -> Span<'static> {
    Span::styled(clean(text), style)
}

/// What stands back.
pub(crate) const fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// What stands out.
pub(crate) const fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// The colour of a state; the mark itself says the same.
pub(crate) const fn of_mark(mark: Mark) -> Style {
    match mark {
        Mark::Error => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        Mark::Warning => Style::new().fg(Color::Yellow),
        Mark::Ok => Style::new().fg(Color::Green),
        Mark::Idle => dim(),
    }
}

/// The columns a text takes.
pub(crate) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// A text in at most so many columns, cut with `…`.
pub(crate) fn cut(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut taken = 1;
    for c in text.chars() {
        taken += width(c.encode_utf8(&mut [0; 4]));
        if taken > room {
            break;
        }
        kept.push(c);
    }
    if room > 0 {
        kept.truncate(kept.trim_end().len());
        kept.push('…');
    }
    kept
}

/// Words in lines of so many columns.
pub(crate) fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let word = cut(word, room.max(1));
        match lines.last_mut() {
            Some(line) if line.is_empty() => *line = word,
            Some(line) if width(line) + 1 + width(&word) <= room => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

/// Two texts at the two ends of a line, with a space between at least; the left one gives way.
pub(crate) fn ends(left: &str, right: &str, room: usize) -> (String, String) {
    let right = cut(right, room);
    let left = cut(left, room.saturating_sub(width(&right) + 1));
    let gap = room.saturating_sub(width(&left) + width(&right));
    (left + &" ".repeat(gap), right)
}

/// How a table fits into a room.
#[derive(Clone, Debug)]
pub(crate) struct Layout(Vec<(Column, usize, usize)>);

impl Layout {
    /// The columns that fit into `room`; without one all of them, with nothing cut.
    pub fn new(columns: &[Column], rows: &[Vec<String>], room: Option<usize>) -> Self {
        let natural = |(at, column): (usize, &Column)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| width(cell));
            (*column, at, cells.max().unwrap_or_default().max(width(column.title)))
        };
        let Some(room) = room else {
            return Self(columns.iter().enumerate().map(natural).collect());
        };
        let shown = fitted(columns, rows, room).into_iter();
        Self(shown.filter_map(|(at, width)| Some((*columns.get(at)?, at, width))).collect())
    }

    /// The titles.
    pub fn head(&self) -> Text {
        let cells =
            self.0.iter().map(|(column, _, width)| padded(column.title, *width, column.left));
        let text: Vec<String> = cells.collect();
        Line::styled(text.join(&" ".repeat(GAP)).trim_end().to_owned(), bold())
    }

    /// A row, each cell in the style that its title asks for.
    pub fn line(&self, cells: &[String], style: impl Fn(&str, &str) -> Style) -> Text {
        let mut spans: Vec<Span<'static>> = Vec::new();
        for (column, at, width) in &self.0 {
            let cell = clean(cells.get(*at).map_or("", String::as_str));
            let text = padded(&shortened(&cell, *width), *width, column.left);
            if !spans.is_empty() {
                spans.push(Span::raw(" ".repeat(GAP)));
            }
            spans.push(Span::styled(text, style(column.title, &cell)));
        }
        Line::from(spans)
    }
}

fn padded(text: &str, room: usize, left: bool) -> String {
    let space = " ".repeat(room.saturating_sub(width(text)));
    if left { format!("{text}{space}") } else { format!("{space}{text}") }
}

/// The style of a cell, by the title of its column.
pub(crate) fn of_cell(title: &str, cell: &str, mark: Mark) -> Style {
    let is_none = matches!(cell, "0" | "-" | "");
    match title {
        "" | "HEALTH" | "VERDICT" => of_mark(mark),
        "WHY" | "FAIL/S" | "FAILED" | "ERR%" | "UNANS" if !is_none => {
            of_mark(mark.max(Mark::Warning))
        }
        _ if is_none => dim(),
        _ => Style::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_controls_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\u{9b}c\nd\u{202e}e\u{feff}"), "a_[2Jb_c_d_e_");
        assert_eq!(clean("größe ▁█ → ✗"), "größe ▁█ → ✗");
    }

    #[test]
    fn a_text_that_is_cut_says_so_and_counts_wide_characters_twice() {
        let check = |text, room, expected: &str| {
            assert_eq!(cut(text, room), expected);
            assert!(width(expected) <= room);
        };
        check("postgres", 8, "postgres");
        check("postgres", 5, "post…");
        check("a b c", 3, "a…");
        check("日本語", 5, "日本…");
        check("日本語", 4, "日…");
        check("x", 0, "");
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("", 7), [""]);
        assert_eq!(wrapped("incomprehensible", 5), ["inco…"]);
    }

    #[test]
    fn what_is_at_the_right_stays_there() {
        assert_eq!(ends("left", "right", 12), ("left   ".to_owned(), "right".to_owned()));
        assert_eq!(ends("a long left", "right", 10), ("a l… ".to_owned(), "right".to_owned()));
        assert_eq!(ends("left", "right", 3), (String::new(), "ri…".to_owned()));
    }
}
