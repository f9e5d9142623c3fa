//! A diagnosis for people (text, Markdown) and for programs (JSON).

use std::fmt::Write as _;
use std::net::SocketAddr;

use notation::duration::ago;
use serde::Serialize;

use super::cause::Cause;
use super::evidence::{Changed, Evidence, Hop, Pair};
use super::ports::Fault;
use super::steps::{self, Line, State};
use super::verdict::{self, Verdict};
use crate::human;

/// Lines are broken here.
const WIDTH: usize = 100;
/// Where the text of a step begins.
const INDENT: usize = 14;
/// Where the text of a verdict begins.
const VERDICT_INDENT: usize = 11;
/// More changes and other victims are not shown.
const MOST: usize = 6;

/// One diagnosis.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    pub(super) pair: Pair,
    /// Where the client connects to.
    pub(super) address: Option<SocketAddr>,
    /// Length of the window; null without an agent.
    pub(super) window_seconds: Option<f64>,
    /// Where probes were made from; null without probes.
    pub(super) probed_from: Option<String>,
    pub(super) steps: Vec<Line>,
    pub(super) verdict: Verdict,
    /// What it is not.
    pub(super) is_not: Vec<&'static str>,
    /// Changes of both services in the ten minutes before.
    pub(super) changes: Vec<Changed>,
    /// Who suffers with the client: other callers of the server, and callers of these.
    pub(super) also: Vec<Hop>,
    /// What the agent saw may have been made up by this user.
    pub(super) unverified_user: Option<u32>,
}

/// All that a command has found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Findings {
    /// What has to be said about all of it.
    pub(super) notes: Vec<String>,
    /// Edges were looked at and none has a fault, so there is no report.
    #[serde(skip)]
    pub(super) is_well: bool,
    /// There are many reports: people get the verdicts alone.
    #[serde(skip)]
    pub(super) is_list: bool,
    /// The chain of a gateway, in the order of a request.
    pub(super) chain: Vec<Hop>,
    pub(super) reports: Vec<Report>,
    /// Binds that failed in the window: of the service, or of all.
    pub(super) failed_binds: Vec<Fault>,
}

// === impl Report ===

impl Report {
    /// Judges the evidence.
    pub(super) fn of(evidence: Evidence, also: Vec<Hop>) -> Self {
        let verdict = verdict::judge(&evidence);
        let steps = steps::lines(&evidence, verdict.cause);
        let well = steps.iter().filter(|line| line.state == State::Ok && verdict.cause.is_fault());
        let is_not = well.map(|line| line.step.subject()).collect();
        let address = evidence.address();
        let Evidence { pair, live, probes, .. } = evidence;
        let changes = live.as_ref().map_or_else(Vec::new, |live| live.changes.clone());
        Self {
            pair,
            address,
            window_seconds: live.as_ref().map(|live| live.seconds),
            probed_from: probes.connect.is_some().then_some(probes.from),
            steps,
            also: if verdict.cause.is_fault() { also } else { Vec::new() },
            is_not,
            changes: if verdict.cause.is_fault() { changes } else { Vec::new() },
            verdict,
            unverified_user: live.and_then(|live| live.unverified_user),
        }
    }

    fn title(&self) -> String {
        let Self { pair, address, window_seconds, probed_from, .. } = self;
        let mut title = pair.to_string();
        if let Some(address) = address.filter(|address| address.to_string() != pair.endpoint()) {
            let _ = write!(title, " ({address})");
        }
        match window_seconds {
            Some(seconds) => {
                let _ = write!(title, ", last {}", human::span(*seconds));
            }
            None => title.push_str(", without an agent"),
        }
        match probed_from {
            Some(from) => {
                let _ = write!(title, ", probes from {from}");
            }
            None => title.push_str(", no probes"),
        }
        title
    }

    fn text(&self) -> String {
        // Writing into a String cannot fail, here and below.
        let mut text = format!("{}\n\n", self.title());
        for (at, Line { step, state, text: found }) in self.steps.iter().enumerate() {
            let head = format!(" {:>2} {:<7} {} ", at + 1, step.title(), state.mark());
            push(&mut text, &head, INDENT, found);
        }
        text.push('\n');
        let Verdict { text: said, certainty, reason, look_at, .. } = &self.verdict;
        let mut lines = vec![said.clone()];
        if !self.is_not.is_empty() {
            lines.push(format!("Not: {}.", self.is_not.join(", ")));
        }
        push(&mut text, "  VERDICT  ", VERDICT_INDENT, &lines);
        if !look_at.is_empty() {
            push(&mut text, "  LOOK AT  ", VERDICT_INDENT, look_at);
        }
        push(
            &mut text,
            "  SURE?    ",
            VERDICT_INDENT,
            &[format!("{}: {reason}", certainty.as_str())],
        );
        let changes: Vec<String> = self.changes.iter().take(MOST).map(changed).collect();
        if !changes.is_empty() {
            push(&mut text, "  BEFORE   ", VERDICT_INDENT, &changes);
        }
        let also: Vec<String> = self.also.iter().take(MOST).map(Hop::to_string).collect();
        if !also.is_empty() {
            push(&mut text, "  ALSO     ", VERDICT_INDENT, &also);
        }
        if let Some(user) = self.unverified_user {
            push(
                &mut text,
                "  NOTE     ",
                VERDICT_INDENT,
                &[format!("user {user} can have made this traffic up")],
            );
        }
        text
    }

    fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n| | step | found |\n|---|---|---|\n", self.title());
        for Line { step, state, text: found } in &self.steps {
            let found = found.join("<br>").replace('|', "\\|");
            let _ = writeln!(text, "| {} | {} | {found} |", state.mark(), step.title());
        }
        let Verdict { text: said, certainty, reason, look_at, .. } = &self.verdict;
        let _ = write!(text, "\n**Verdict:** {said}");
        if !self.is_not.is_empty() {
            let _ = write!(text, " Not: {}.", self.is_not.join(", "));
        }
        let _ = write!(text, "\n\nCertainty: {} ({reason}).\n", certainty.as_str());
        let changes: Vec<String> = self.changes.iter().take(MOST).map(changed).collect();
        let also: Vec<String> = self.also.iter().take(MOST).map(Hop::to_string).collect();
        for (title, list) in [("Look at", look_at), ("Before", &changes), ("Also affected", &also)]
        {
            if !list.is_empty() {
                let _ = write!(text, "\n{title}:\n\n");
                for one in list {
                    let _ = writeln!(text, "* {one}");
                }
            }
        }
        text
    }
}

// === impl Findings ===

impl Findings {
    /// The worst that was found.
    pub(super) fn is_fault(&self) -> bool {
        !self.failed_binds.is_empty()
            || self.reports.iter().any(|report| report.verdict.cause.is_fault())
    }

    /// Whether nothing can be said.
    pub(super) fn is_unknown(&self) -> bool {
        if self.is_well {
            return false;
        }
        !self.is_fault()
            && self.reports.iter().all(|report| report.verdict.cause == Cause::NotEnoughData)
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for note in &self.notes {
            push(&mut text, "", 0, std::slice::from_ref(note));
        }
        if !self.chain.is_empty() {
            text.push_str("Chain:\n");
            for hop in &self.chain {
                let _ = writeln!(text, "  {} {hop}", hop.mark());
            }
        }
        for report in &self.reports {
            if self.is_list {
                let Report { pair, verdict: Verdict { text: said, .. }, .. } = report;
                push(&mut text, "✗ ", 2, &[format!("{pair}: {said}")]);
                continue;
            }
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&report.text());
        }
        if !self.failed_binds.is_empty() && !text.is_empty() {
            text.push('\n');
        }
        for fault in &self.failed_binds {
            text.push_str(&fault.text("✗ ", "  fix: "));
        }
        text
    }

    /// For an incident's page.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        for note in &self.notes {
            let _ = writeln!(text, "{note}\n");
        }
        for hop in &self.chain {
            let _ = writeln!(text, "* {} {hop}", hop.mark());
        }
        for report in &self.reports {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&report.markdown());
        }
        for fault in &self.failed_binds {
            text.push_str(&fault.text("* ✗ ", "  Fix: "));
        }
        text
    }
}

fn changed(change: &Changed) -> String {
    let Changed { service, text, seconds_ago, .. } = change;
    format!("{} {text} {} ago", human::readable(service), ago(*seconds_ago))
}

/// Appends sentences behind a head, broken into lines.
fn push(text: &mut String, head: &str, indent: usize, sentences: &[String]) {
    let mut line = head.to_owned();
    for sentence in sentences {
        let mut is_first = true;
        for word in sentence.split(' ') {
            let length = line.chars().count();
            if !is_first && length + 1 + word.chars().count() > WIDTH {
                text.push_str(line.trim_end());
                text.push('\n');
                line = " ".repeat(indent);
            } else if !is_first {
                line.push(' ');
            }
            line.push_str(word);
            is_first = false;
        }
        text.push_str(line.trim_end());
        text.push('\n');
        line = " ".repeat(indent);
    }
}

/// A step of a report, each of which has all of them.
#[cfg(test)]
pub(super) fn step(report: &Report, wanted: super::cause::Step) -> &Line {
    report.steps.iter().find(|line| line.step == wanted).expect("every step is there")
}

#[cfg(test)]
mod tests {
    use super::super::cause::Step;
    use super::super::evidence::{Connects, Listening, Live, Name};
    use super::*;

    fn evidence() -> Evidence {
        let failed = [("refused".to_owned(), 12)].into();
        let live = Live {
            seconds: 60.0,
            ok: 0,
            failed,
            is_here: true,
            sees_listeners: true,
            addresses: vec!["10.0.0.2:3002".parse().expect("an address")],
            listeners: vec![Listening {
                address: [127, 0, 0, 1].into(),
                v6_only: false,
                backlog: 0,
                max_backlog: 128,
                pid: 42,
                command: "node".to_owned(),
            }],
            ..Live::default()
        };
        let mut evidence = Evidence {
            pair: Pair {
                client: Some(Name::new("", "gateway")),
                server: Name::new("", "catalog.js"),
                port: 3002,
            },
            live: Some(live),
            ..Evidence::default()
        };
        evidence.probes.connect = Some(Connects {
            target: Some("10.0.0.2:3002".parse().expect("an address")),
            attempts: 3,
            failed: [("refused", 3)].into(),
            ..Connects::default()
        });
        evidence.probes.from = "the network namespace of gateway".to_owned();
        evidence
    }

    #[test]
    fn a_report_has_every_step_the_verdict_and_what_to_do() {
        let report = Report::of(evidence(), Vec::new());
        assert_eq!(step(&report, Step::Port).state, State::Failed);
        let text = report.text();
        let expected = "\
gateway → catalog.js:3002 (10.0.0.2:3002), last 60 s, probes from the network namespace of gateway

  1 name    – 10.0.0.2 (the name that the client uses is not known)
  2 route   – not tried
  3 port    ✗ node (pid 42) listens on 127.0.0.1:3002, accept queue 0 of 128, nothing dropped
  4 TCP     ! live: 12 connects in 60 s, 12 refused
              probe: 3 connects to 10.0.0.2:3002 from the network namespace of gateway: 3 refused
  5 path    – no data was sent in the window
  6 TLS     – not tried (--tls-name NAME tries it)
  7 HTTP    – not tried (--http PATH tries it)
  8 app     – no requests in the window
  9 host    – the server's process is not known
 10 policy  – no segments are declared

  VERDICT  node (pid 42) listens on the loopback only (127.0.0.1:3002); the client connects to
           10.0.0.2:3002.
  LOOK AT  let the server listen on 0.0.0.0 or on 10.0.0.2
  SURE?    high: the kernel's list of listening sockets; live traffic and probes agree
";
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        let markdown = report.markdown();
        assert!(markdown.contains("| ✗ | port | node (pid 42) listens on"), "{markdown}");
        assert!(markdown.contains("**Verdict:** node (pid 42) listens on the loopback only"));
    }

    #[test]
    fn json_has_words_for_programs() {
        let findings =
            Findings { reports: vec![Report::of(evidence(), Vec::new())], ..Findings::default() };
        assert!(findings.is_fault() && !findings.is_unknown());
        let json = serde_json::to_value(&findings).expect("JSON");
        let report = &json["reports"][0];
        assert_eq!(report["server"]["name"], "catalog.js");
        assert_eq!(report["verdict"]["cause"], "loopback_only");
        assert_eq!(report["verdict"]["certainty"], "high");
        assert_eq!(
            report["steps"][2],
            serde_json::json!({
                "step": "port",
                "state": "failed",
                "text": ["node (pid 42) listens on 127.0.0.1:3002, accept queue 0 of 128, nothing dropped"],
            })
        );
    }

    #[test]
    fn without_evidence_nothing_is_said() {
        let findings = Findings {
            reports: vec![Report::of(Evidence::default(), Vec::new())],
            ..Findings::default()
        };
        assert!(findings.is_unknown() && !findings.is_fault());
        let none = Findings { is_well: true, ..Findings::default() };
        assert!(!none.is_unknown() && !none.is_fault(), "every edge is well");
        let reports = vec![Report::of(evidence(), Vec::new())];
        let list = Findings { is_list: true, reports, ..Findings::default() };
        let text = list.text();
        assert!(text.starts_with("✗ gateway → catalog.js:3002: node (pid 42) listens"), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
