//! What a run of `portolan check` found: findings, passed and skipped checks. Its JSON is the output of
//! `-o json`, and what `--baseline` reads.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use api_types::{Finding, Severity, Skip, Timestamp};
use notation::FullName;
use serde::{Deserialize, Serialize};

use super::name::Name;
use super::section::Section;
use crate::fleet::Host;
use crate::human;

/// A report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    /// The host, or the URL of the agent.
    pub host: String,
    /// Of several hosts: each, and how asking it went.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Host>,
    /// When the numbers were read; null without an agent.
    pub timestamp: Option<Timestamp>,
    /// The time that they cover.
    pub window_seconds: Option<f64>,
    /// Version of the agent.
    pub version: Option<String>,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// Why the agent could not be asked.
    pub incomplete: Option<String>,
    /// How many of each.
    pub summary: Summary,
    /// Findings, by section; errors first, causes before what follows from them.
    pub findings: Vec<Finding>,
    /// What was checked and passed.
    pub passed: Vec<Passed>,
    /// What could not be checked.
    pub skipped: Vec<Skipped>,
}

/// Numbers of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Summary {
    /// Findings of this severity.
    pub error: u64,
    /// Findings of this severity.
    pub warning: u64,
    /// Findings of this severity.
    pub info: u64,
    /// Checks that passed.
    pub passed: u64,
    /// Checks that could not be made.
    pub skipped: u64,
    /// Findings that the baseline has too, and are left out.
    #[serde(default)]
    pub known: u64,
}

/// A check that passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Passed {
    /// Its section.
    pub section: Section,
    /// The result in words.
    pub text: String,
}

/// A check that was not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Skipped {
    /// Its section.
    pub section: Section,
    /// What would have been checked.
    pub check: String,
    /// Why it was not.
    pub reason: String,
}

/// A finding, and the services it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The finding.
    pub finding: Finding,
    /// The clients.
    pub clients: Vec<Name>,
    /// Who is connected to, binds, or is concerned otherwise.
    pub server: Option<Name>,
    /// The server's port.
    pub port: Option<u16>,
}

/// What checks collect.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub found: Vec<Found>,
    pub passed: Vec<Passed>,
    pub skipped: Vec<Skipped>,
}

/// What `--baseline` reads of a report.
#[derive(Deserialize)]
struct Earlier {
    findings: Vec<Finding>,
}

/// The findings of an earlier run, by code and subject.
#[derive(Debug, Default)]
pub(super) struct Baseline(HashSet<(String, String)>);

// === impl Found ===

impl Found {
    /// A finding about no service.
    pub fn new(finding: Finding) -> Self {
        Self { finding, clients: Vec::new(), server: None, port: None }
    }

    /// The finding that it follows from, by code and subject.
    pub fn cause(&self) -> Option<(String, String)> {
        cause(&self.finding)
    }

    /// Whether it is about this service.
    fn is_about(&self, service: &FullName) -> bool {
        self.clients.iter().chain(&self.server).any(|name| name.is(service))
    }
}

// === impl Checks ===

impl Checks {
    pub fn pass(&mut self, section: Section, text: impl Into<String>) {
        self.passed.push(Passed { section, text: text.into() });
    }

    pub fn skip(&mut self, section: Section, check: &str, reason: impl Into<String>) {
        let reason = reason.into();
        self.skipped.push(Skipped { section, check: check.to_owned(), reason });
    }

    /// Whether anything worse than information has one of these codes.
    pub fn has(&self, codes: &[&str]) -> bool {
        let grave = |found: &&Found| found.finding.severity > Severity::Info;
        self.found.iter().filter(grave).any(|found| codes.contains(&found.finding.code.as_str()))
    }

    /// Keeps these sections.
    pub fn keep(&mut self, sections: &[Section]) {
        let Self { found, passed, skipped } = self;
        found.retain(|one| sections.contains(&Section::of(&one.finding.code)));
        passed.retain(|one| sections.contains(&one.section));
        skipped.retain(|one| sections.contains(&one.section));
    }

    /// Keeps what is about a service, and the causes of that.
    pub fn keep_service(&mut self, service: &FullName) {
        let mut causes: HashSet<(String, String)> = HashSet::new();
        let mut kept: Vec<bool> = self.found.iter().map(|one| one.is_about(service)).collect();
        // A cause may have a cause.
        for _ in 0..self.found.len() {
            let about = self.found.iter().zip(&kept).filter(|(_, kept)| **kept);
            let before = causes.len();
            causes.extend(about.filter_map(|(one, _)| cause(&one.finding)));
            if causes.len() == before {
                break;
            }
            for (one, kept) in self.found.iter().zip(&mut kept) {
                let Finding { code, subject, .. } = &one.finding;
                *kept |= causes.contains(&(code.clone(), subject.clone()));
            }
        }
        let mut kept = kept.into_iter();
        self.found.retain(|_| kept.next().unwrap_or_default());
    }

    /// Leaves out what is to be skipped.
    pub fn leave_out(&mut self, skips: &[Skip]) {
        self.found.retain(|one| !skips.iter().any(|skip| skip.applies_to(&one.finding)));
    }

    /// Leaves out what the agent's configuration has in `check.skip`, and says so.
    pub fn leave_out_configured(&mut self, skips: &[String]) {
        for text in skips {
            // A newer agent may have codes that are not known here.
            let Ok(skip) = text.parse::<Skip>() else { continue };
            let before = self.found.len();
            self.found.retain(|one| !skip.applies_to(&one.finding));
            let n = (before - self.found.len()) as u64;
            if n > 0 {
                let check = format!("{}, {skip}", human::counted(n, "finding"));
                let reason = "left out by check.skip of the agent's configuration";
                self.skip(Section::of(skip.code()), &check, reason);
            }
        }
    }

    /// Leaves out what is known; returns how many findings.
    pub fn leave_known(&mut self, Baseline(known): &Baseline) -> u64 {
        let before = self.found.len();
        let is_known = |Finding { code, subject, .. }: &Finding| {
            known.contains(&(code.clone(), subject.clone()))
        };
        self.found.retain(|one| !is_known(&one.finding));
        (before - self.found.len()) as u64
    }

    /// The findings in the order of a report, and the numbers.
    pub fn finish(self, known: u64) -> (Vec<Finding>, Vec<Passed>, Vec<Skipped>, Summary) {
        let Self { found, mut passed, mut skipped } = self;
        let mut findings: Vec<Finding> = found.into_iter().map(|found| found.finding).collect();
        findings.sort_by(|a, b| {
            let key = |one: &Finding| {
                (Section::of(&one.code), std::cmp::Reverse(one.severity), one.caused_by.is_some())
            };
            key(a).cmp(&key(b)).then_with(|| (&a.code, &a.title).cmp(&(&b.code, &b.title)))
        });
        passed.sort_by_key(|one| one.section);
        skipped.sort_by_key(|one| one.section);
        let count =
            |severity| findings.iter().filter(|one| one.severity == severity).count() as u64;
        let summary = Summary {
            error: count(Severity::Error),
            warning: count(Severity::Warning),
            info: count(Severity::Info),
            passed: passed.len() as u64,
            skipped: skipped.len() as u64,
            known,
        };
        (findings, passed, skipped, summary)
    }
}

/// The finding that one follows from, by code and subject.
fn cause(finding: &Finding) -> Option<(String, String)> {
    let subject = match finding.evidence.get(super::causes::SUBJECT)? {
        api_types::Evidence::Text(subject) => subject.clone(),
        api_types::Evidence::Number(_) => return None,
    };
    Some((finding.caused_by.clone()?, subject))
}

// === impl Report ===

impl Report {
    /// Whether anything is at or above this severity.
    pub fn has(&self, least: Severity) -> bool {
        self.findings.iter().any(|finding| finding.severity >= least)
    }

    /// Findings of a section.
    pub fn of(&self, section: Section) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| Section::of(&finding.code) == section)
    }
}

// === impl Baseline ===

impl Baseline {
    /// The report in a file.
    pub fn read(path: &Path) -> Result<Self, client::Error> {
        let wrong = |why| client::Error::File { flag: "--baseline", path: path.to_owned(), why };
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let earlier: Earlier = serde_json::from_str(&text).map_err(|error| {
            wrong(format!("{error}; write it with `portolan check -o json > FILE`"))
        })?;
        Ok(Self(earlier.findings.into_iter().map(|one| (one.code, one.subject)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::code;

    fn found(code: &str, subject: &str, severity: Severity) -> Found {
        Found::new(Finding::new(code, severity, subject, format!("{subject} fails")))
    }

    fn three() -> Checks {
        let found = vec![
            found(code::SLOW, "a → b:1", Severity::Warning),
            found(code::CONNECTS_REFUSED, "a → b:1", Severity::Error),
            found(code::CONNECTS_REFUSED, "c → d:2", Severity::Info),
        ];
        let mut checks = Checks { found, ..Checks::default() };
        checks.pass(Section::Coverage, "all");
        checks.skip(Section::Dns, "DNS", "no reason");
        checks
    }

    #[test]
    fn what_is_skipped_is_left_out() {
        let left = |skip: &str| {
            let mut checks = three();
            checks.leave_out(&[skip.parse().expect("a skip")]);
            checks.found.len()
        };
        assert_eq!(left("PP201"), 2);
        assert_eq!(left("pc101=a*"), 2);
        assert_eq!(left("PC101=x"), 3);
    }

    #[test]
    fn what_the_configuration_leaves_out_is_said() {
        let mut checks = three();
        // The last is of a newer agent.
        let skips = ["PC101=a*", "PP201=nothing", "PX999"].map(str::to_owned);
        checks.leave_out_configured(&skips);
        let left: Vec<&str> = checks.found.iter().map(|one| one.finding.subject.as_str()).collect();
        assert_eq!(left, ["a → b:1", "c → d:2"], "{checks:?}");
        let said = checks.skipped.iter().map(|one| (one.section, one.check.as_str()));
        let expected = [(Section::Dns, "DNS"), (Section::Connectivity, "1 finding, PC101=a*")];
        assert_eq!(said.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_baseline_leaves_what_is_new() {
        let (findings, passed, skipped, summary) = three().finish(0);
        assert_eq!((summary.error, summary.warning, summary.info), (1, 1, 1));
        assert_eq!((summary.passed, summary.skipped), (1, 1));
        assert_eq!(findings[0].code, code::CONNECTS_REFUSED);
        let report = Report {
            host: "h".into(),
            hosts: Vec::new(),
            timestamp: None,
            window_seconds: None,
            version: None,
            kernel: None,
            incomplete: None,
            summary,
            findings,
            passed,
            skipped,
        };
        assert!(report.has(Severity::Error));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("earlier.json");
        fs::write(&path, serde_json::to_string(&report).expect("JSON")).expect("written");
        let baseline = Baseline::read(&path).expect("read");
        let mut checks = three();
        checks.found.push(found(code::SLOW, "e → f:3", Severity::Warning));
        assert_eq!(checks.leave_known(&baseline), 3);
        assert_eq!(checks.found.len(), 1);
        fs::write(&path, "{}").expect("written");
        let error = Baseline::read(&path).expect_err("refused");
        assert!(error.to_string().contains("portolan check -o json"), "{error}");
        assert_eq!(error.class(), client::Class::Usage);
    }
}
