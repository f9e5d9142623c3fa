//! Reading what test programs print: the sums, and what was skipped.
//!
//! Cargo has no stable machine-readable form of this, but its lines have not changed in years:
//! `---- name stdout ----` starts what a test printed, `test result: …` ends a test program.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::shell;

/// What a test prints, at the start of a line, to say that it cannot run here.
const SKIPPED: &str = "SKIPPED:";

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    /// Not at the first try, but at the second, alone.
    Retried,
    Failed,
    /// By its own word, and why.
    Skipped(String),
}

/// The sums over all test programs.
#[derive(Default)]
pub struct Report {
    pub passed: usize,
    pub failed: usize,
    /// Ignored by attribute, or by their own word.
    pub skipped: usize,
    reasons: Vec<String>,
    /// Names of failed tests, as their programs gave them.
    failures: Vec<String>,
    retried: Vec<String>,
    /// By the names that the programs gave.
    verdicts: BTreeMap<String, Verdict>,
    program: Program,
}

/// Where we are in the output of one test program.
#[derive(Default)]
struct Program {
    /// Within the output of passed tests, and of which.
    quoting: Option<String>,
    /// Tests that said they were skipped.
    skipped: BTreeSet<String>,
}

impl Report {
    /// Runs tests, shows what they print as it comes, and adds them up.
    pub fn watch(&mut self, command: &mut Command) -> Result<()> {
        let name = shell::name_of(command);
        let failed = self.failed;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting `{name}`"))?;
        let output = child.stdout.take().context("no pipe to the tests")?;
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("reading what the tests print")?;
            let line = String::from_utf8_lossy(&line);
            if self.read(&line) {
                println!("{line}");
                std::io::stdout().flush().context("writing to the terminal")?;
            }
        }
        let status = child.wait().with_context(|| format!("waiting for `{name}`"))?;
        self.program = Program::default();
        // It did not compile, or a test took its whole program down.
        if !status.success() && self.failed == failed {
            self.failed += 1;
        }
        Ok(())
    }

    /// Notes that something was left out altogether.
    pub fn skip(&mut self, what: &str) {
        println!("{SKIPPED} {what}");
        self.skipped += 1;
        self.reasons.push(what.to_owned());
    }

    /// The names of the tests that failed so far.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Whether a test whose name contains `word` has run, or has said why it did not.
    pub fn has_test(&self, word: &str) -> bool {
        self.verdicts.keys().any(|test| test.contains(word))
    }

    /// How every test ended.
    pub fn into_verdicts(self) -> BTreeMap<String, Verdict> {
        self.verdicts
    }

    /// Notes how a failed test did when it ran again, alone.
    pub fn retried(&mut self, test: &str, again: &Self) {
        if again.failed == 0 && again.passed == 1 {
            self.failed = self.failed.saturating_sub(1);
            self.passed += 1;
            self.retried.push(test.to_owned());
            self.verdicts.insert(test.to_owned(), Verdict::Retried);
        }
    }

    /// Adds what was found out elsewhere, such as on another kernel.
    pub fn add_sums(&mut self, (passed, failed, skipped): (usize, usize, usize)) {
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
    }

    /// Repeats what was skipped, then the sums as the last line.
    pub fn print(&self) {
        let Self { passed, failed, skipped, reasons, retried, .. } = self;
        if !retried.is_empty() {
            println!(
                "\n{} passed only at the second try; their first failure is above:",
                retried.len()
            );
            for test in retried {
                println!("  RETRIED: {test}");
            }
        }
        if !reasons.is_empty() {
            println!("\n{skipped} skipped:");
            for reason in reasons {
                println!("  {SKIPPED} {reason}");
            }
        }
        println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    }

    /// Takes a line in; false if it is not worth showing.
    pub fn read(&mut self, line: &str) -> bool {
        if let Some(sums) = line.strip_prefix("test result: ") {
            self.add(sums);
            return true;
        }
        let ended = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"));
        if let Some(test) = ended {
            self.failures.push(test.to_owned());
            self.verdicts.insert(test.to_owned(), Verdict::Failed);
        }
        let passed = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... ok"));
        if let Some(test) = passed {
            self.verdicts.insert(test.to_owned(), Verdict::Passed);
        }
        if line == "successes:" {
            self.program.quoting = Some(String::new());
            return false;
        }
        if line == "failures:" {
            self.program.quoting = None;
            return true;
        }
        let test = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        if let (Some(quoting), Some(test)) = (self.program.quoting.as_mut(), test) {
            test.clone_into(quoting);
            return false;
        }
        if let Some(reason) = line.strip_prefix(SKIPPED) {
            return self.skipped_by_itself(reason.trim());
        }
        self.program.quoting.is_none()
    }

    fn skipped_by_itself(&mut self, reason: &str) -> bool {
        let Program { quoting, skipped } = &mut self.program;
        match quoting.as_ref().filter(|test| !test.is_empty()) {
            Some(test) => {
                self.reasons.push(format!("{test}: {reason}"));
                skipped.insert(test.clone());
                self.verdicts.insert(test.clone(), Verdict::Skipped(reason.to_owned()));
            }
            // From a program that a test started: said, but no test to count.
            None => self.reasons.push(reason.to_owned()),
        }
        true
    }

    /// Adds `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
    fn add(&mut self, sums: &str) {
        let said = std::mem::take(&mut self.program).skipped.len();
        self.passed += count(sums, "passed").saturating_sub(said);
        self.failed += count(sums, "failed");
        self.skipped += count(sums, "ignored") + said;
    }
}

/// The number before `word`.
fn count(sums: &str, word: &str) -> usize {
    let words: Vec<&str> = sums.split([' ', ';']).filter(|word| !word.is_empty()).collect();
    let at = words.iter().position(|here| *here == word).and_then(|at| at.checked_sub(1));
    at.and_then(|at| words.get(at)).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str) -> (Report, Vec<&str>) {
        let mut report = Report::default();
        let shown = output.lines().filter(|line| report.read(line)).collect();
        (report, shown)
    }

    #[test]
    fn a_second_try_counts_only_if_it_passed() {
        let (mut report, _) =
            read("test a::b ... FAILED\ntest result: FAILED. 1 passed; 1 failed; 0 ignored;");
        assert_eq!(report.failures(), ["a::b"]);
        report.retried("a::b", &read("test result: FAILED. 0 passed; 1 failed; 0 ignored;").0);
        assert_eq!((report.passed, report.failed), (1, 1));
        report.retried("a::b", &read("test result: ok. 1 passed; 0 failed; 0 ignored;").0);
        assert_eq!((report.passed, report.failed), (2, 0));
    }

    #[test]
    fn sums_are_added_over_programs() {
        let (report, _) = read(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.01s\n\
             test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3s\n",
        );
        assert_eq!((report.passed, report.failed, report.skipped), (13, 2, 1));
    }

    #[test]
    fn a_test_that_says_so_is_skipped_and_not_passed() {
        let (report, shown) = read(
            "running 2 tests\ntest a ... ok\ntest b ... ok\n\nsuccesses:\n\n---- a stdout ----\nchatter\n\
             SKIPPED: no BTF\nSKIPPED: no fentry\n\n\nsuccesses:\n    a\n    b\n\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!((report.passed, report.failed, report.skipped), (1, 0, 1));
        assert_eq!(report.reasons, ["a: no BTF", "a: no fentry"]);
        assert!(!shown.contains(&"chatter") && shown.contains(&"SKIPPED: no BTF"), "{shown:?}");
    }

    #[test]
    fn what_a_failed_test_printed_is_shown() {
        let (report, shown) = read(
            "successes:\n\n---- a stdout ----\nquiet\n\nsuccesses:\n    a\n\nfailures:\n\n\
             ---- b stdout ----\nloud\n\nfailures:\n    b\n\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!((report.passed, report.failed), (1, 1));
        assert!(shown.contains(&"loud") && !shown.contains(&"quiet"), "{shown:?}");
    }

    #[test]
    fn tests_that_do_not_compile_count_as_a_failure() {
        let mut report = Report::default();
        let mut command = Command::new("false");
        report.watch(&mut command).unwrap();
        assert_eq!(report.failed, 1);
    }
}
