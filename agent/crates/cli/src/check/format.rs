//! The formats of a report.

mod escape;
mod html;
mod junit;
mod markdown;
mod text;

use clap::ValueEnum;

use super::Done;
use crate::table;

/// Output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Readable text.
    #[default]
    #[value(alias = "table")]
    Text,
    /// JSON for programs.
    Json,
    /// JUnit XML for pipelines.
    Junit,
    /// Markdown for tickets.
    Markdown,
    /// One HTML file, to read, to print, to attach.
    Html,
}

impl Format {
    /// The report; `all` shows what is for information, and sections in which nothing is wrong.
    pub fn text(self, done: &Done, all: bool) -> anyhow::Result<String> {
        Ok(match self {
            Self::Text => text::text(&done.report, all, table::has_colours()),
            Self::Json => serde_json::to_string_pretty(&done.report)? + "\n",
            Self::Junit => junit::text(&done.report),
            Self::Markdown => markdown::text(&done.report),
            Self::Html => html::text(done),
        })
    }
}

#[cfg(test)]
mod tests;
