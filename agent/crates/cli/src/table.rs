//! Tables that fit: as wide as needed in a pipe, as wide as the terminal else.
//!
//! Where room is short, columns of a high rank go first, and are named below the table; then names
//! lose their middle and words their end, marked with `…`. Nothing is cut without a mark.

use std::fmt::Write;
use std::io::IsTerminal;

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets};

use super::human;

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Names are aligned left, numbers right.
    pub left: bool,
    /// Omitted before all of a lower rank if there is no room; 0 = never.
    pub rank: u8,
}

impl Column {
    /// A column of names that is never omitted.
    pub const fn left(title: &'static str) -> Self {
        Self { title, left: true, rank: 0 }
    }

    /// A column of numbers that is never omitted.
    pub const fn right(title: &'static str) -> Self {
        Self { title, left: false, rank: 0 }
    }

    /// The same with this [rank](Self::rank).
    #[must_use]
    pub const fn rank(self, rank: u8) -> Self {
        Self { rank, ..self }
    }
}

/// Between two columns.
pub const GAP: usize = 2;

/// A text longer than this is shortened when the room is limited; words take what is left over.
const LONG_NAME: usize = 28;

/// Words get this much before columns are omitted.
const LEAST_WORDS: usize = 24;

/// No text is shortened below this.
const SHORT_NAME: usize = 6;

/// The room there is: `COLUMNS`, the width of the terminal, or no limit.
pub fn room() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    columns.or_else(|| Table::new().width().map(usize::from))
}

/// Whether standard output shows colours: a terminal, unless `NO_COLOR` (no-color.org) or a
/// terminal without them (`TERM=dumb`) says otherwise.
pub fn has_colours() -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    std::io::stdout().is_terminal()
        && set("NO_COLOR").is_none()
        && set("TERM").is_none_or(|term| term != "dumb")
}

/// The colour of a cell: of states, and of what has failed.
fn colour(title: &str, cell: &str) -> Option<Color> {
    match (title, cell) {
        ("HEALTH" | "STATE", "failing" | "down" | "off") => Some(Color::Red),
        ("HEALTH" | "STATE", "degraded" | "starting") => Some(Color::Yellow),
        ("HEALTH" | "STATE", "ok" | "up" | "attached") => Some(Color::Green),
        ("FAILED" | "UNANS" | "WHY" | "ERRORS" | "BREACHES" | "LISTEN DROPS", count)
            if count != "0" && count != "-" =>
        {
            Some(Color::Red)
        }
        ("ABORTS" | "RESETS" | "RETRANS" | "DROPPED" | "MISSED", count)
            if count != "0" && count != "-" =>
        {
            Some(Color::Yellow)
        }
        _ => None,
    }
}

/// The table as text, followed by a line with the columns that did not fit.
pub fn render(columns: &[Column], rows: &[Vec<String>], room: Option<usize>) -> String {
    painted(columns, rows, room, has_colours())
}

fn painted(
    columns: &[Column],
    rows: &[Vec<String>],
    room: Option<usize>,
    in_colour: bool,
) -> String {
    let (shown, dropped) = choose(columns, rows, room);
    let widths = room.map(|room| fit(columns, rows, &shown, room));
    let cut = |(i, cell): (usize, &String)| match &widths {
        Some(widths) => {
            let place = shown.iter().position(|shown| *shown == i);
            let width = place.and_then(|place| widths.get(place)).copied().unwrap_or(LONG_NAME);
            shortened(cell, width)
        }
        // A list of words is not a name.
        None if is_words(cell) => cell.clone(),
        None => human::readable(cell),
    };
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().enumerate().map(cut).collect()).collect();

    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(shown.iter().filter_map(|i| columns.get(*i)).map(|column| column.title));
    // Decided here, not by the library.
    if in_colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let cell = |row: &[String], i: usize| {
        let (text, title) = (row.get(i)?, columns.get(i)?.title);
        let cell = Cell::new(text);
        Some(match colour(title, text).filter(|_| in_colour) {
            Some(colour) => cell.fg(colour),
            None => cell,
        })
    };
    for row in &rows {
        table.add_row(shown.iter().filter_map(|i| cell(row, *i)));
    }
    for (column, i) in table.column_iter_mut().zip(&shown) {
        column.set_padding((0, GAP as u16));
        if columns.get(*i).is_some_and(|column| !column.left) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if !dropped.is_empty() {
        // Writing into a String cannot fail.
        let _ =
            writeln!(text, "{}", wrapped(&format!("(no room for {})", dropped.join(", ")), room));
    }
    text
}

/// The columns that fit into `room` by their index, each with its width; names and words may have to
/// be [`shortened`] to it.
pub fn fitted(columns: &[Column], rows: &[Vec<String>], room: usize) -> Vec<(usize, usize)> {
    let (shown, _) = choose(columns, rows, Some(room));
    let widths = fit(columns, rows, &shown, room);
    shown.into_iter().zip(widths).collect()
}

/// Indices of the columns that fit, and titles of the others.
fn choose(
    columns: &[Column],
    rows: &[Vec<String>],
    room: Option<usize>,
) -> (Vec<usize>, Vec<&'static str>) {
    let width = |i: usize| {
        let longest = if has_words(rows, i) { LEAST_WORDS } else { LONG_NAME };
        let title = columns.get(i).map_or(0, |column| column.title.chars().count());
        let is_text = columns.get(i).is_some_and(|column| column.left);
        let widest = widest(columns, rows, i);
        GAP + if is_text { widest.min(longest).max(title) } else { widest }
    };
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let mut by_rank: Vec<usize> = (0..columns.len()).collect();
    by_rank.sort_by_key(|i| columns.get(*i).map_or(0, |column| column.rank));
    let room = room.unwrap_or(usize::MAX);
    while shown.iter().map(|i| width(*i)).sum::<usize>() > room.saturating_add(GAP) {
        match by_rank.pop() {
            Some(i) if columns.get(i).is_some_and(|column| column.rank > 0) => {
                shown.retain(|shown| *shown != i);
            }
            _ => break,
        }
    }
    let missing = columns.iter().enumerate().filter(|(i, _)| !shown.contains(i));
    let missing = missing.map(|(_, column)| column.title).collect();
    (shown, missing)
}

/// The widths of the columns that are shown: names up to [`LONG_NAME`], words with what is left
/// over; less for the widest if it is too much.
fn fit(columns: &[Column], rows: &[Vec<String>], shown: &[usize], room: usize) -> Vec<usize> {
    let natural: Vec<usize> = shown.iter().map(|i| widest(columns, rows, *i)).collect();
    let mut widths: Vec<usize> = natural.iter().map(|width| (*width).min(LONG_NAME)).collect();
    let room = room.saturating_sub(GAP * shown.len().saturating_sub(1));
    for (width, (i, natural)) in widths.iter_mut().zip(shown.iter().zip(natural)) {
        // Numbers are never cut.
        if !columns.get(*i).is_some_and(|column| column.left) || has_words(rows, *i) {
            *width = natural;
        }
    }
    let least = |i: usize| {
        columns.get(i).map_or(SHORT_NAME, |column| column.title.chars().count().max(SHORT_NAME))
    };
    while widths.iter().sum::<usize>() > room {
        let can_shrink = |(i, width): &(&usize, &mut usize)| {
            columns.get(**i).is_some_and(|column| column.left) && **width > least(**i)
        };
        let widest = shown.iter().zip(&mut widths).filter(can_shrink);
        match widest.max_by_key(|(_, width)| **width) {
            Some((_, width)) => *width -= 1,
            None => break,
        }
    }
    widths
}

/// The widest cell of a column, its title included.
fn widest(columns: &[Column], rows: &[Vec<String>], i: usize) -> usize {
    let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count());
    let title = columns.get(i).map_or(0, |column| column.title.chars().count());
    cells.max().unwrap_or_default().max(title)
}

/// A line in as many as it needs.
fn wrapped(line: &str, room: Option<usize>) -> String {
    let room = room.unwrap_or(usize::MAX);
    let (mut text, mut length) = (String::new(), 0);
    for word in line.split(' ') {
        let longer = length + word.chars().count() + usize::from(length > 0);
        if length > 0 && longer > room {
            text.push('\n');
            length = word.chars().count();
        } else {
            text.push_str(if length > 0 { " " } else { "" });
            length = longer;
        }
        text.push_str(word);
    }
    text
}

/// Whether a column has words, and not only names and numbers.
fn has_words(rows: &[Vec<String>], i: usize) -> bool {
    rows.iter().filter_map(|row| row.get(i)).any(|cell| is_words(cell))
}

/// Whether a cell is a text of words, and no name.
fn is_words(cell: &str) -> bool {
    cell.contains(' ')
}

/// A cell that is too long: words lose their end, a name its middle.
pub fn shortened(cell: &str, longest: usize) -> String {
    if !is_words(cell) {
        return human::shortened(cell, longest);
    }
    if cell.chars().count() <= longest {
        return cell.to_owned();
    }
    let kept: String = cell.chars().take(longest.saturating_sub(1)).collect();
    // Of a list whole items, if that leaves most of it.
    let kept = match kept.rsplit_once(", ") {
        Some((items, _)) if items.chars().count() * 2 >= longest => items,
        _ => kept.trim_end(),
    };
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] =
        &[Column::left("NAME"), Column::right("COUNT").rank(1), Column::right("REST").rank(2)];

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        vec![row(["a-rather-long-name-of-a-service-indeed", "1", "x"]), row(["b", "1000", "y"])]
    }

    #[test]
    fn a_pipe_gets_everything() {
        assert_eq!(
            render(COLUMNS, &rows(), None),
            "\
NAME                                    COUNT  REST
a-rather-long-name-of-a-service-indeed      1     x
b                                        1000     y
"
        );
    }

    #[test]
    fn a_terminal_gets_the_columns_that_fit_and_the_names_of_the_others() {
        assert_eq!(
            render(COLUMNS, &rows(), Some(36)),
            "\
NAME                          COUNT
a-rather-long-…ervice-indeed      1
b                              1000
(no room for REST)
"
        );
    }

    #[test]
    fn where_room_is_short_names_lose_their_middle_and_words_their_end() {
        const COLUMNS: &[Column] =
            &[Column::left("NAME"), Column::right("COUNT"), Column::left("WHY")];
        let row = ["checkout-service-7", "1234", "12 connect timed out, 3 unanswered"];
        let rows = [row.map(str::to_owned).to_vec()];
        let check = |room, expected: &str| {
            let text = render(COLUMNS, &rows, Some(room));
            let line = text.lines().nth(1).expect("a row").to_owned();
            assert_eq!(line, expected);
            assert!(line.chars().count() <= room, "{line}");
        };
        check(80, "checkout-service-7   1234  12 connect timed out, 3 unanswered");
        check(52, "checkout-service-7   1234  12 connect timed out…");
        check(40, "checkout…rvice-7   1234  12 connect tim…");
        check(21, "che…-7   1234  12 co…");
    }

    #[test]
    fn a_pipe_gets_names_that_people_can_read_and_every_word_of_a_list() {
        let (name, list) = ("n".repeat(255), "no_slot 1, ".repeat(10));
        let text = render(COLUMNS, &[vec![name, "1".to_owned(), list.clone()]], None);
        assert!(text.contains(&format!("{}…{}", "n".repeat(32), "n".repeat(31))), "{text}");
        assert!(text.contains(list.trim_end()), "{text}");
    }

    #[test]
    fn colours_are_for_states_and_failures_and_change_no_column() {
        const COLUMNS: &[Column] =
            &[Column::left("NAME"), Column::left("HEALTH"), Column::right("FAILED")];
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["failing", "failing", "7"]), row(["b", "ok", "0"])];
        let plain = painted(COLUMNS, &rows, None, false);
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
        let coloured = painted(COLUMNS, &rows, None, true);
        assert_eq!(coloured.matches("failing").count(), 2);
        let mut stripped = String::new();
        let mut codes = 0;
        let mut rest = coloured.as_str();
        while let Some((before, after)) = rest.split_once('\u{1b}') {
            stripped.push_str(before);
            rest = after.split_once('m').expect("the end of a code").1;
            codes += 1;
        }
        stripped.push_str(rest);
        let lines =
            |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
        assert_eq!(lines(&stripped), lines(&plain));
        // Three coloured cells, each with a beginning and an end.
        assert_eq!(codes, 6, "{coloured:?}");
    }

    #[test]
    fn what_must_be_shown_is_shown_in_any_room() {
        assert!(render(COLUMNS, &rows(), Some(1)).starts_with("NAME\n"));
    }
}
