//! What keys ask for: pages of the screen, and work for the program.

use api_types::WindowChoice;

/// What a key asks the program for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Nothing but to draw again.
    Draw,
    /// To end.
    Quit,
    /// To ask agents for another window.
    Window(WindowChoice),
    /// To diagnose an edge of a host.
    Diagnose { host: usize, client: String, server: String },
    /// To write what is shown to a file.
    Export,
}

/// What fills the lower part of the screen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Page {
    Table,
    /// The row with this key in full.
    Row(String),
    /// A text: the report of `portolan diagnose`.
    Text {
        title: String,
        lines: Vec<String>,
    },
    /// What keys and columns mean.
    Help,
}

/// The title of a diagnosis.
pub(crate) fn diagnosis(client: &str, server: &str) -> String {
    format!("diagnose {client} {server}")
}
