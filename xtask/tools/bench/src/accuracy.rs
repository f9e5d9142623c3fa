//! Accuracy of the agent's figures, by the live tests that compare them: latency with a packet
//! capture, with the clock of the program that waited and with wrk's own figures; counts with the
//! kernel's of the same namespace (as `nstat` shows them).
//!
//! The tests print every comparison as a line that starts with `FIGURE`; here they are collected.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use portolan_kit::{build, tree};
use serde_json::Value;

/// The tests that compare.
const TESTS: [&str; 3] = ["latency::", "exactness::faults::", "exactness::http::"];
/// Allowed error of latency, in seconds, or as a share.
const NEAR: f64 = 20e-6;
const NEAR_SHARE: f64 = 0.05;

/// All comparisons.
#[derive(Default)]
pub struct Accuracy {
    /// Latencies, by figure and reference.
    pub latencies: BTreeMap<Pair, Vec<Compared>>,
    /// Counts likewise.
    pub counts: BTreeMap<Pair, Vec<Compared>>,
    /// Tests that ran, and those of them that failed.
    pub tests: usize,
    pub failed: Vec<String>,
    /// Comparisons that are not possible here, and why.
    pub skipped: Vec<String>,
}

/// The figure and its reference.
pub type Pair = (String, String);

/// One comparison: counts, or means in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    pub ours: f64,
    pub truth: f64,
}

/// Runs the tests with this agent.
pub fn measure(binary: &Path) -> Result<Accuracy> {
    let program = build::Target::Host.tests("live")?.program("live")?;
    let mut command = Command::new(program);
    command.args(TESTS).args(["--test-threads=1", "--show-output"]);
    command.current_dir(tree::root().join("agent")).env("PORTOLAN_BIN", binary);
    // Messages of a failed test are in its output too.
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.context("starting the live tests")?;
    let output = String::from_utf8_lossy(&output.stdout);
    let accuracy = Accuracy::read(&output)?;
    if accuracy.tests == 0 {
        bail!("no test of accuracy ran:\n{output}");
    }
    for failed in &accuracy.failed {
        println!("  FAILED: {failed}");
    }
    for skipped in &accuracy.skipped {
        println!("  {skipped}");
    }
    Ok(accuracy)
}

// === impl Accuracy ===

impl Accuracy {
    fn read(output: &str) -> Result<Self> {
        let mut accuracy = Self::default();
        for line in output.lines() {
            if let Some(figure) = line.strip_prefix("FIGURE ") {
                accuracy.take(figure).with_context(|| format!("no figure: {line}"))?;
            } else if line.starts_with("SKIPPED: ") {
                accuracy.skipped.push(line.to_owned());
            } else if let Some(result) = line.strip_prefix("test ") {
                let Some((name, verdict)) = result.split_once(" ... ") else { continue };
                accuracy.tests += 1;
                if verdict.starts_with("FAILED") {
                    accuracy.failed.push(name.to_owned());
                }
            }
        }
        Ok(accuracy)
    }

    fn take(&mut self, figure: &str) -> Option<()> {
        let figure: Value = serde_json::from_str(figure).ok()?;
        let word = |name: &str| Some(figure[name].as_str()?.to_owned());
        let pair = (word("what")?, word("against")?);
        let (table, values) = match figure["seconds"].as_object() {
            Some(values) => (&mut self.latencies, values),
            None => (&mut self.counts, figure["counts"].as_object()?),
        };
        let number = |name: &str| values.get(name)?.as_f64();
        let compared = Compared { ours: number("ours")?, truth: number("truth")? };
        table.entry(pair).or_default().push(compared);
        Some(())
    }
}

// === impl Compared ===

impl Compared {
    /// The difference of two latencies, as a share of the allowed one.
    pub fn of_allowed(&self) -> f64 {
        (self.ours - self.truth).abs() / NEAR.max(self.truth * NEAR_SHARE)
    }

    /// The one that is furthest off.
    pub fn worst(all: &[Self]) -> Option<Self> {
        all.iter().copied().max_by(|a, b| a.of_allowed().total_cmp(&b.of_allowed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_among_what_tests_say() {
        let output = "test latency::a ... ok\ntest latency::b ... FAILED\nwords\n\
            FIGURE {\"what\": \"requests\", \"against\": \"a capture\", \
            \"seconds\": {\"ours\": 0.00011, \"truth\": 0.0001}}\n\
            FIGURE {\"what\": \"connects\", \"against\": \"ActiveOpens\", \
            \"counts\": {\"ours\": 7, \"truth\": 8}}\nSKIPPED: no wrk\n";
        let accuracy = Accuracy::read(output).unwrap();
        assert_eq!((accuracy.tests, accuracy.failed), (2, vec!["latency::b".to_owned()]));
        assert_eq!(accuracy.skipped, ["SKIPPED: no wrk"]);
        let requests = &accuracy.latencies[&("requests".to_owned(), "a capture".to_owned())];
        assert!((requests[0].of_allowed() - 0.5).abs() < 1e-9);
        let connects = &accuracy.counts[&("connects".to_owned(), "ActiveOpens".to_owned())];
        assert_eq!(connects, &[Compared { ours: 7.0, truth: 8.0 }]);
        assert!(Accuracy::read("FIGURE {}").is_err());
    }

    #[test]
    fn the_worst_is_the_furthest_off_for_its_size() {
        let small = Compared { ours: 40e-6, truth: 50e-6 };
        let large = Compared { ours: 10.1e-3, truth: 10e-3 };
        assert_eq!(Compared::worst(&[large, small]), Some(small));
    }
}
