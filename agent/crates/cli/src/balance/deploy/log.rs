//! What a deployment says while it runs.

use anyhow::Context as _;
use serde::Serialize;

use crate::{Outcome, Output, print};

/// What was done, step by step: at once for people, at the end for programs.
#[derive(Serialize)]
pub(super) struct Log {
    #[serde(skip)]
    output: Output,
    outcome: &'static str,
    reason: Option<String>,
    steps: Vec<String>,
}

// === impl Log ===

impl Log {
    pub(super) fn new(output: Output) -> Self {
        Self { output, outcome: "", reason: None, steps: Vec::new() }
    }

    /// A step that is done.
    pub(super) fn say(&mut self, step: impl Into<String>) -> anyhow::Result<()> {
        let step = step.into();
        if self.output == Output::Text {
            print(&format!("{step}\n"))?;
        }
        self.steps.push(step);
        Ok(())
    }

    /// The end, and why if it is a bad one.
    pub(super) fn end(
        self,
        outcome: &'static str,
        reason: Option<String>,
    ) -> anyhow::Result<Outcome> {
        let is_bad = reason.is_some();
        match self.output {
            Output::Text => {
                let words = outcome.replace('_', " ");
                let because = reason.map(|why| format!(": {why}")).unwrap_or_default();
                print(&format!("{words}{because}\n"))?;
            }
            Output::Json => {
                let all = Self { outcome, reason, ..self };
                print(&(serde_json::to_string(&all).context("writing JSON")? + "\n"))?;
            }
        }
        Ok(if is_bad { Outcome::Found } else { Outcome::Done })
    }
}
