//! What a command found, for the exit code.

use clap::Args;

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what was asked for.
    Done,
    /// There is something to look at, and the exit code has to say so (`--exit-code`,
    /// `check`, `diagnose`).
    Found,
    /// Too little is known to say anything, or something could not be looked at.
    Incomplete,
}

/// The flag with which a command reports findings by its exit code.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Report {
    /// Exit with 1 if anything shown is not well.
    #[arg(long)]
    exit_code: bool,
}

// === impl Report ===

impl Report {
    /// The outcome if something was `found`.
    pub(super) fn of(self, found: bool) -> Outcome {
        if self.exit_code && found { Outcome::Found } else { Outcome::Done }
    }
}
