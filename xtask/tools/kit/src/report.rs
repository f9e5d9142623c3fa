//! Reading the output of test programs: the sums, and skipped tests.
//!
//! Cargo has no stable machine-readable form of this, but its lines have not changed in years:
//! `---- name stdout ----` starts the output of a test, `test result: …` ends a test program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// Printed at the start of a line by a test that cannot run here.
const SKIPPED: &str = "SKIPPED:";
/// A test whose name is unknown, because many ran at once.
const UNKNOWN: &str = "one of those that ran at once";

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// At the first try.
    Passed,
    /// Not at the first try, but at the second, alone.
    Retried,
    /// At every try, or with its program.
    Failed,
    /// By its own decision, and why.
    Skipped(String),
}

/// The sums over all test programs.
#[derive(Default)]
pub struct Report {
    /// Tests that passed, at the first or second try.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Ignored by attribute, or by their own decision.
    pub skipped: usize,
    reasons: Vec<String>,
    /// Names of failed tests, as their programs gave them.
    failures: Vec<String>,
    retried: Vec<String>,
    /// By the names that the programs gave.
    verdicts: BTreeMap<String, Verdict>,
    program: Program,
    /// The test in which a program ended, until it is taken.
    cut: Option<String>,
}

/// Where we are in the output of one test program.
#[derive(Default)]
struct Program {
    /// Between its first line and its sums.
    running: bool,
    /// The running test; known if tests run one after the other.
    began: Option<String>,
    /// The tests that ended.
    ended: Vec<String>,
    /// Within the output of passed tests, and of which.
    quoting: Option<String>,
    /// Tests that printed that they were skipped.
    skipped: BTreeSet<String>,
}

impl Report {
    /// Records that something was skipped altogether.
    pub fn skip(&mut self, what: &str) {
        println!("{SKIPPED} {what}");
        self.skipped += 1;
        self.reasons.push(what.to_owned());
    }

    /// The names of the tests that failed so far.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Whether a test whose name contains `word` has run, or has printed why it did not.
    pub fn has_test(&self, word: &str) -> bool {
        self.verdicts.keys().any(|test| test.contains(word))
    }

    /// Whether the result of a test is known.
    pub fn has_ended(&self, test: &str) -> bool {
        self.verdicts.contains_key(test)
    }

    /// How every test ended.
    pub fn into_verdicts(self) -> BTreeMap<String, Verdict> {
        self.verdicts
    }

    /// Records the second run of a failed test, alone.
    pub fn retried(&mut self, test: &str, second: &Self) {
        if second.failed == 0 && second.passed == 1 {
            self.failed = self.failed.saturating_sub(1);
            self.passed += 1;
            self.retried.push(test.to_owned());
            self.verdicts.insert(test.to_owned(), Verdict::Retried);
        }
    }

    /// Adds the results of other tests, which ran beside these.
    pub fn append(&mut self, other: Self) {
        let Self { passed, failed, skipped, reasons, failures, retried, verdicts, .. } = other;
        self.add_sums((passed, failed, skipped));
        self.reasons.extend(reasons);
        self.failures.extend(failures);
        self.retried.extend(retried);
        self.verdicts.extend(verdicts);
    }

    /// Adds the results of another run, such as on another kernel.
    pub fn add_sums(&mut self, (passed, failed, skipped): (usize, usize, usize)) {
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
    }

    /// Writes the sums and the skipped tests, for the parent command.
    pub fn write_sums(&self, file: &Path) -> Result<()> {
        let Self { passed, failed, skipped, reasons, .. } = self;
        let sums =
            json!({"passed": passed, "failed": failed, "skipped": skipped, "reasons": reasons});
        fs::write(file, sums.to_string()).with_context(|| format!("writing {}", file.display()))
    }

    /// Adds the results that a child command wrote with [`Self::write_sums`].
    pub fn add_written(&mut self, file: &Path) -> Result<()> {
        let text = fs::read_to_string(file).context("it wrote no sums")?;
        let sums: Value = serde_json::from_str(&text).context("reading its sums")?;
        let count = |name: &str| {
            let count = sums[name].as_u64().and_then(|count| usize::try_from(count).ok());
            count.with_context(|| format!("its sums have no number `{name}`"))
        };
        self.add_sums((count("passed")?, count("failed")?, count("skipped")?));
        let reasons = sums["reasons"].as_array().into_iter().flatten();
        self.reasons.extend(reasons.filter_map(|reason| reason.as_str().map(str::to_owned)));
        Ok(())
    }

    /// Repeats the skipped tests, then the sums as the last line.
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

    /// Processes a line; returns false if it is not worth showing.
    pub fn read(&mut self, line: &str) -> bool {
        // What a test prints may be the output of tests, too.
        let is_quoted = self.program.quoting.as_ref().is_some_and(|test| !test.is_empty());
        if let Some(sums) = line.strip_prefix("test result: ").filter(|_| !is_quoted) {
            self.add(sums);
            return true;
        }
        if self.program.quoting.is_none() {
            self.read_progress(line);
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

    /// Takes in that a program or a test began or ended.
    fn read_progress(&mut self, line: &str) {
        if line.starts_with("running ") && line.trim_end_matches('s').ends_with(" test") {
            self.end_of_program();
            self.program.running = true;
        }
        let test = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
        if let Some((test, end)) = test {
            self.test_ended(test, end);
        }
    }

    /// Records the result of a test; an empty one means that its output follows.
    fn test_ended(&mut self, test: &str, end: &str) {
        let test = test.to_owned();
        let verdict = match end {
            "ok" => Verdict::Passed,
            "FAILED" => Verdict::Failed,
            "" => {
                self.program.began = Some(test);
                return;
            }
            _ => return,
        };
        if verdict == Verdict::Failed {
            self.failures.push(test.clone());
        }
        self.program.ended.push(test.clone());
        self.verdicts.insert(test, verdict);
    }

    /// Whether a program has started and has not printed its sums.
    pub fn is_within_program(&self) -> bool {
        self.program.running
    }

    /// Records that the running program, if any, has ended without printing its sums: the current
    /// test has failed, the results of the others are unknown.
    pub fn end_of_program(&mut self) {
        let Program { running, began, ended, .. } = std::mem::take(&mut self.program);
        if !running {
            return;
        }
        for test in ended {
            self.failures.retain(|failure| *failure != test);
            self.verdicts.remove(&test);
        }
        let test = began.unwrap_or_else(|| UNKNOWN.to_owned());
        self.failed += 1;
        self.failures.push(test.clone());
        self.verdicts.insert(test.clone(), Verdict::Failed);
        self.cut = Some(test);
    }

    /// The test in which a program came to an end, once.
    pub fn take_cut(&mut self) -> Option<String> {
        self.cut.take()
    }

    fn skipped_by_itself(&mut self, reason: &str) -> bool {
        let Program { quoting, skipped, .. } = &mut self.program;
        match quoting.as_ref().filter(|test| !test.is_empty()) {
            Some(test) => {
                self.reasons.push(format!("{test}: {reason}"));
                skipped.insert(test.clone());
                self.verdicts.insert(test.clone(), Verdict::Skipped(reason.to_owned()));
            }
            // From a program that a test started: reported, but not a test to count.
            None => self.reasons.push(reason.to_owned()),
        }
        true
    }

    /// Adds `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
    fn add(&mut self, sums: &str) {
        let skipped = std::mem::take(&mut self.program).skipped.len();
        self.passed += count(sums, "passed").saturating_sub(skipped);
        self.failed += count(sums, "failed");
        self.skipped += count(sums, "ignored") + skipped;
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
    fn what_ran_beside_is_added_with_its_names() {
        let (mut report, _) =
            read("test a ... ok\ntest result: ok. 1 passed; 0 failed; 0 ignored;");
        let other = "test b ... FAILED\ntest result: FAILED. 0 passed; 1 failed; 2 ignored;";
        report.append(read(other).0);
        assert_eq!((report.passed, report.failed, report.skipped), (1, 1, 2));
        assert_eq!(report.failures(), ["b"]);
        assert!(report.has_ended("a") && report.has_ended("b"));
    }

    #[test]
    fn sums_cross_from_one_command_to_another() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (mut report, _) = read("test result: FAILED. 3 passed; 1 failed; 0 ignored;");
        // Not by `skip`, whose line would count this test as skipped.
        report.skipped += 1;
        report.reasons.push("no emulator".to_owned());
        report.write_sums(file.path()).unwrap();
        let (mut sum, _) = read("test result: ok. 10 passed; 0 failed; 0 ignored;");
        sum.add_written(file.path()).unwrap();
        assert_eq!((sum.passed, sum.failed, sum.skipped), (13, 1, 1));
        assert_eq!(sum.reasons, ["no emulator"]);
        assert!(sum.add_written("/nowhere".as_ref()).is_err());
    }

    #[test]
    fn sums_that_a_test_prints_are_not_its_programs() {
        let (report, shown) = read(
            "running 1 test\ntest a ... ok\n\nsuccesses:\n\n---- a stdout ----\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored\n\n\nsuccesses:\n    a\n\n\
             test result: ok. 1 passed; 0 failed; 0 ignored;",
        );
        assert_eq!((report.passed, report.failed), (1, 0), "{shown:?}");
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
    fn a_test_that_prints_skipped_counts_as_skipped_and_not_as_passed() {
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
}
