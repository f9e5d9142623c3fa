//! Results of all kernels, test by test; saved from run to run, so that one kernel can be tried at
//! a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use portolan_kit::report::{Report, Verdict};
use serde_json::{Value, json};

/// The start of the generated part of a document.
const HEADING: &str = "## Results\n";

/// The result on one kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The full version.
    release: String,
    /// The message of an agent that refused as expected.
    refusal: Option<String>,
    seconds: u64,
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
        Self { release, passed, failed, skipped, tests, ..Self::default() }
    }

    /// Of an agent that refused, with its sentence.
    pub fn refused(release: String, sentence: String) -> Self {
        Self { release, refusal: Some(sentence), ..Self::default() }
    }

    /// The same, and how long it took.
    pub fn within(self, time: Duration) -> Self {
        Self { seconds: time.as_secs(), ..self }
    }

    /// Passed, failed and skipped; an expected refusal has passed.
    pub fn counts(&self) -> (usize, usize, usize) {
        match self.refusal {
            Some(_) => (1, 0, 0),
            None => (self.passed, self.failed, self.skipped),
        }
    }

    fn sums(&self) -> String {
        match &self.refusal {
            Some(_) => "refused, as expected".to_owned(),
            None => {
                format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
            }
        }
    }

    /// Saves it in a file.
    pub fn save(&self, file: &Path) -> Result<()> {
        let Self { release, refusal, seconds, passed, failed, skipped, tests } = self;
        let tests: BTreeMap<&String, String> =
            tests.iter().map(|(name, verdict)| (name, written(verdict))).collect();
        let whole = json!({
            "release": release, "refusal": refusal, "seconds": seconds,
            "passed": passed, "failed": failed, "skipped": skipped, "tests": tests,
        });
        fs::write(file, format!("{whole:#}\n"))
            .with_context(|| format!("writing {}", file.display()))
    }

    /// Loads what an earlier run saved, if there was one.
    pub fn load(file: &Path) -> Option<Self> {
        let whole: Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
        let count = |name: &str| whole[name].as_u64().and_then(|n| usize::try_from(n).ok());
        let tests = whole["tests"]
            .as_object()?
            .iter()
            .filter_map(|(name, verdict)| Some((name.clone(), verdict_of(verdict.as_str()?))));
        Some(Self {
            release: whole["release"].as_str()?.to_owned(),
            refusal: whole["refusal"].as_str().map(str::to_owned),
            seconds: whole["seconds"].as_u64()?,
            passed: count("passed")?,
            failed: count("failed")?,
            skipped: count("skipped")?,
            tests: tests.collect(),
        })
    }
}

fn written(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Passed => "passed".to_owned(),
        Verdict::Retried => "passed on retry".to_owned(),
        Verdict::Failed => "failed".to_owned(),
        Verdict::Skipped(why) => format!("skipped: {why}"),
    }
}

fn verdict_of(text: &str) -> Verdict {
    match text.strip_prefix("skipped: ") {
        Some(why) => Verdict::Skipped(why.to_owned()),
        None if text == "passed" => Verdict::Passed,
        None if text.starts_with("passed") => Verdict::Retried,
        None => Verdict::Failed,
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

    /// Puts the whole into a document: below the heading that is ours, if it has one already.
    pub fn write(&self, file: &Path) -> Result<()> {
        let before = fs::read_to_string(file).unwrap_or_default();
        let prose = before.split_once(HEADING).map_or(before.as_str(), |(prose, _)| prose);
        let text = format!("{}\n\n{HEADING}\n{}", prose.trim_end(), self.markdown());
        fs::write(file, text.trim_start()).with_context(|| format!("writing {}", file.display()))
    }

    fn markdown(&self) -> String {
        let mut text = String::from(
            "Generated by `cargo xtask vm --table docs/kernels.md`. Minutes exclude the build.\n\n\
             | Linux | release | result | minutes |\n|---|---|---|---|\n",
        );
        for (version, outcome) in &self.0 {
            let minutes = outcome.seconds.div_ceil(60);
            let _ = writeln!(
                text,
                "| {version} | {} | {} | {minutes} |",
                outcome.release,
                outcome.sums()
            );
        }
        for (version, outcome) in &self.0 {
            if let Some(sentence) = &outcome.refusal {
                let _ = writeln!(text, "\nOn {version} the agent refuses: *{sentence}*");
            }
        }
        let ran: Vec<_> = self.0.iter().filter(|(_, outcome)| outcome.refusal.is_none()).collect();
        let names: BTreeSet<&String> =
            ran.iter().flat_map(|(_, outcome)| outcome.tests.keys()).collect();
        let heads: Vec<&str> = ran.iter().map(|(version, _)| version.as_str()).collect();
        // Which kernels gave this reason for skipping a test.
        let mut reasons: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        let _ = writeln!(text, "\n| test | {} |", heads.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(heads.len()));
        for name in names {
            let cells = ran.iter().map(|(version, outcome)| match outcome.tests.get(name) {
                Some(Verdict::Passed) => "passed",
                Some(Verdict::Retried) => "passed on retry",
                Some(Verdict::Failed) => "**failed**",
                Some(Verdict::Skipped(why)) => {
                    reasons.entry((name, why)).or_default().push(version);
                    "skipped"
                }
                None => "",
            });
            let cells: Vec<&str> = cells.collect();
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
        if !reasons.is_empty() {
            text.push_str("\nSkipped tests:\n\n");
            for ((name, why), versions) in reasons {
                let only = if versions.len() < ran.len() {
                    format!(" ({})", versions.join(", "))
                } else {
                    String::new()
                };
                let _ = writeln!(text, "* {name}{only}: {why}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let mut report = Report::default();
        let output = "test a ... ok\ntest b ... FAILED\ntest c ... ok\nsuccesses:\n\n\
                      ---- c stdout ----\nSKIPPED: no nft\n\n\nsuccesses:\n    c\n\n\
                      test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured;";
        for line in output.lines() {
            report.read(line);
        }
        Outcome::of("6.1.0-1".to_owned(), report)
    }

    #[test]
    fn a_table_has_every_test_and_every_reason() {
        let mut table = Table::default();
        table.add("6.1", outcome());
        assert_eq!(table.failures(), 1);
        assert_eq!(table.summary(), "Linux 6.1 (6.1.0-1): 1 passed, 1 failed, 1 skipped");
        let text = table.markdown();
        for line in ["| a | passed |", "| b | **failed** |", "| c | skipped |", "* c: no nft"] {
            assert!(text.lines().any(|there| there == line), "{line} in {text}");
        }
    }

    #[test]
    fn an_outcome_that_was_kept_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("6.1.json");
        assert_eq!(Outcome::load(&file), None);
        let refused = Outcome::refused("5.10.0-1".to_owned(), "too old".to_owned());
        for outcome in [outcome().within(Duration::from_secs(90)), refused] {
            outcome.save(&file).unwrap();
            assert_eq!(Outcome::load(&file), Some(outcome));
        }
    }

    #[test]
    fn prose_above_the_results_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kernels.md");
        fs::write(&file, "# Kernels\n\nWords.\n").unwrap();
        let mut table = Table::default();
        table.add("6.1", outcome());
        table.write(&file).unwrap();
        let once = fs::read_to_string(&file).unwrap();
        table.write(&file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), once);
        assert!(once.starts_with("# Kernels\n\nWords.\n\n## Results\n") && once.contains("| a |"));
    }
}
