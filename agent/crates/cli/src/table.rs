//! Tables that fit: as wide as needed in a pipe, as wide as the terminal else.

use std::fmt::Write;
use std::io::IsTerminal;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Names stand left, numbers right.
    pub left: bool,
    /// Omitted before all of a lower rank if there is no room; 0 = never.
    pub rank: u8,
}

/// Between two columns.
const GAP: usize = 2;

/// A name longer than this is cut when the room is limited.
const LONG_NAME: usize = 28;

/// The room there is: `COLUMNS`, the width of the terminal, or no limit.
pub(super) fn room() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    columns.or_else(|| Table::new().width().map(usize::from))
}

/// The table as text, followed by a line with the columns that did not fit.
pub(super) fn render(columns: &[Column], rows: &[Vec<String>], room: Option<usize>) -> String {
    let cut = |cell: &String| match room {
        Some(_) => shortened(cell),
        None => cell.clone(),
    };
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(cut).collect()).collect();
    let (shown, dropped) = choose(columns, &rows, room);

    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(shown.iter().filter_map(|i| columns.get(*i)).map(|column| column.title));
    for row in &rows {
        table.add_row(shown.iter().filter_map(|i| row.get(*i)));
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
        let _ = writeln!(text, "(no room for {})", dropped.join(", "));
    }
    text
}

/// Indices of the columns that fit, and titles of the others.
fn choose(
    columns: &[Column],
    rows: &[Vec<String>],
    room: Option<usize>,
) -> (Vec<usize>, Vec<&'static str>) {
    let width = |i: usize| {
        let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count());
        let title = columns.get(i).map_or(0, |column| column.title.len());
        cells.max().unwrap_or_default().max(title) + GAP
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

fn shortened(cell: &str) -> String {
    if cell.chars().count() <= LONG_NAME {
        return cell.to_owned();
    }
    let mut short: String = cell.chars().take(LONG_NAME - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column { title: "NAME", left: true, rank: 0 },
        Column { title: "COUNT", left: false, rank: 1 },
        Column { title: "REST", left: false, rank: 2 },
    ];

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
a-rather-long-name-of-a-ser…      1
b                              1000
(no room for REST)
"
        );
    }

    #[test]
    fn what_must_be_shown_is_shown_in_any_room() {
        assert!(render(COLUMNS, &rows(), Some(1)).starts_with("NAME\n"));
    }
}
