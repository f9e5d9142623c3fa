//! Results of all kernels, test by test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::test::{Report, Verdict};

/// What one kernel showed.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The full version.
    release: String,
    /// The sentence of an agent that refused, as it was asked to.
    refusal: Option<String>,
    passed: usize,
    failed: usize,
    skipped: usize,
    tests: BTreeMap<String, Verdict>,
}

/// Outcomes by kernel, in the order they came.
#[derive(Default)]
pub struct Table(Vec<(String, Outcome)>);

impl Outcome {
    /// Of a run of the tests.
    pub fn of(release: String, report: Report) -> Self {
        let Report { passed, failed, skipped, .. } = report;
        let tests = report.into_verdicts();
        Self { release, refusal: None, passed, failed, skipped, tests }
    }

    /// Of an agent that refused, with its sentence.
    pub fn refused(release: String, sentence: String) -> Self {
        Self { release, refusal: Some(sentence), ..Self::default() }
    }

    fn sums(&self) -> String {
        match &self.refusal {
            Some(_) => "refused, as it should be".to_owned(),
            None => {
                format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
            }
        }
    }
}

impl Table {
    /// Adds a kernel.
    pub fn add(&mut self, version: &str, outcome: Outcome) {
        self.0.push((version.to_owned(), outcome));
    }

    /// Failed tests on all kernels.
    pub fn failures(&self) -> usize {
        self.0.iter().map(|(_, outcome)| outcome.failed).sum()
    }

    /// A line for each kernel.
    pub fn summary(&self) -> String {
        let line = |(version, outcome): &(String, Outcome)| {
            format!("Linux {version} ({}): {}", outcome.release, outcome.sums())
        };
        let lines: Vec<String> = self.0.iter().map(line).collect();
        if lines.is_empty() { "no kernel was tried".to_owned() } else { lines.join("\n") }
    }

    /// The whole, for docs.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "# The live tests on other kernels\n\nWritten by `cargo xtask vm --table \
             docs/kernels.md`: kernels of Debian in QEMU, emulated, two processors.\n\n\
             | Linux | release | result |\n|---|---|---|\n",
        );
        for (version, outcome) in &self.0 {
            let _ = writeln!(text, "| {version} | {} | {} |", outcome.release, outcome.sums());
        }
        for (version, outcome) in &self.0 {
            if let Some(sentence) = &outcome.refusal {
                let _ = writeln!(text, "\nOn {version} the agent says: *{sentence}*");
            }
        }
        let ran: Vec<_> = self.0.iter().filter(|(_, outcome)| outcome.refusal.is_none()).collect();
        let names: BTreeSet<&String> =
            ran.iter().flat_map(|(_, outcome)| outcome.tests.keys()).collect();
        let heads: Vec<&str> = ran.iter().map(|(version, _)| version.as_str()).collect();
        let _ = writeln!(text, "\n| test | {} |", heads.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(heads.len()));
        let mut reasons = BTreeSet::new();
        for name in names {
            let cells = ran.iter().map(|(_, outcome)| match outcome.tests.get(name) {
                Some(Verdict::Passed) => "passed",
                Some(Verdict::Failed) => "**failed**",
                Some(Verdict::Skipped(why)) => {
                    reasons.insert((name.as_str(), why.as_str()));
                    "skipped"
                }
                None => "",
            });
            let cells: Vec<&str> = cells.collect();
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
        if !reasons.is_empty() {
            text.push_str("\nSkipped, and why:\n\n");
            for (name, why) in reasons {
                let _ = writeln!(text, "* {name}: {why}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_every_test_and_every_reason() {
        let mut report = Report::default();
        let output = "test a ... ok\ntest b ... FAILED\ntest c ... ok\nsuccesses:\n\n\
                      ---- c stdout ----\nSKIPPED: no nft\n\n\
                      test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured;";
        for line in output.lines() {
            report.read(line);
        }
        let mut table = Table::default();
        table.add("6.1", Outcome::of("6.1.0-1".to_owned(), report));
        assert_eq!(table.failures(), 1);
        assert_eq!(table.summary(), "Linux 6.1 (6.1.0-1): 1 passed, 1 failed, 1 skipped");
        let text = table.markdown();
        for line in ["| a | passed |", "| b | **failed** |", "| c | skipped |", "* c: no nft"] {
            assert!(text.lines().any(|there| there == line), "{line} in {text}");
        }
    }
}
