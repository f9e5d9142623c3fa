//! What keys, columns and filters mean.

use notation::filter::FORM;
use ratatui_core::text::Line;

use crate::text::{Text, bold, cut, plain};
use crate::views::View;

/// The keys in the last line of the screen.
pub(crate) const KEYS: &str = "?help /filter s sort ⏎ open Esc back w window c side a all z freeze d diagnose e export q quit";

const ALL_KEYS: &[&str] = &[
    "↑ ↓ PgUp PgDn Home End   move                 Enter  open a row       Esc  back, or no filter",
    "1 … 0, p                 views; p: problems   /      filter           s    sort by the next column",
    "w  window: 10s 1m 5m start                    c      side of edges    a    also what is idle",
    "z  freeze and go on                           d      portolan diagnose of the row",
    "e  write what is shown as JSON to a file      ?      this help        q    quit",
];

const FILTER: &[&str] = &[
    FORM,
    "Fields: client server service ns role why state kind host; port req p50 p99 err unans conn",
    "fail retr rtt active count. * stands for anything in a name; ! negates; a bare word is a part.",
];

/// The page of key `?`.
pub(crate) fn lines(view: View, width: usize) -> Vec<Text> {
    let title = format!("View {}", view.as_str());
    let parts: [(&str, &[&str]); 3] =
        [("Keys", ALL_KEYS), (&title, view.help()), ("Filter", FILTER)];
    let mut lines: Vec<Text> = Vec::new();
    for (title, text) in parts {
        if !lines.is_empty() {
            lines.push(Line::default());
        }
        lines.push(Line::styled(title.to_owned(), bold()));
        lines.extend(text.iter().map(|line| plain(&cut(line, width)).into()));
    }
    lines
}
