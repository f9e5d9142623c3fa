//! A report as text: sections, findings with their causes and fixes, what passed, what was skipped.

use std::fmt::Write as _;

use api_types::{Evidence, Finding, Severity, Timestamp};
use notation::duration::ago;

use super::escape::plain;
use crate::check::causes;
use crate::check::report::{Report, Summary};
use crate::check::section::Section;
use crate::human;

/// Marks, and their colours: state is never shown by colour alone.
const RED: &str = "31";
const YELLOW: &str = "33";
const GREEN: &str = "32";
const GREY: &str = "2";

/// Before the lines below a title.
const INDENT: &str = "          ";
/// Codes named at the end.
const WORST: usize = 3;

/// The mark of a severity and its colour.
pub(super) const fn mark(severity: Severity) -> (&'static str, &'static str) {
    match severity {
        Severity::Error => ("✗", RED),
        Severity::Warning => ("!", YELLOW),
        Severity::Info => ("·", GREY),
    }
}

/// The report for a terminal or a file.
pub(super) fn text(report: &Report, all: bool, in_colour: bool) -> String {
    let Report { incomplete, summary, .. } = report;
    let is_well = summary.error + summary.warning == 0 && incomplete.is_none();
    if is_well && !all {
        return well(report);
    }
    let mut text = format!("{}\n", head(report));
    if let Some(reason) = incomplete {
        // Writing into a String cannot fail.
        let what = if report.hosts.is_empty() { "The agent could not be asked" } else { "Missing" };
        let _ = writeln!(text, "{what}: {}", plain(reason));
    }
    let painted = |(mark, colour): (&str, &str)| {
        if in_colour { format!("\x1b[{colour}m{mark}\x1b[0m") } else { mark.to_owned() }
    };
    for section in Section::ALL {
        let mut lines = String::new();
        let shown = |finding: &&Finding| all || finding.severity > Severity::Info;
        for finding in report.of(section).filter(shown) {
            let Finding { severity, code, title, .. } = finding;
            let _ = writeln!(lines, "  {} {code} {}", painted(mark(*severity)), plain(title));
            for line in details(finding, report.timestamp) {
                let _ = writeln!(lines, "{INDENT}{}", plain(&line));
            }
        }
        for one in report.passed.iter().filter(|one| one.section == section) {
            let _ = writeln!(lines, "  {} {}", painted(("✓", GREEN)), plain(&one.text));
        }
        for one in report.skipped.iter().filter(|one| one.section == section) {
            let mark = painted(("–", GREY));
            let _ =
                writeln!(lines, "  {mark} skipped: {}: {}", plain(&one.check), plain(&one.reason));
        }
        if !lines.is_empty() {
            let _ = write!(text, "\n{section}\n{lines}");
        }
    }
    let _ = writeln!(text, "\n{}.{}", numbers(summary), worst(report));
    text
}

/// All is well: a line.
fn well(report: &Report) -> String {
    let Summary { passed, skipped, known, info, .. } = report.summary;
    let window = report.window_seconds.map(human::span).unwrap_or_default();
    let mut more = Vec::new();
    if skipped > 0 {
        more.push(format!("{} skipped", human::count(skipped)));
    }
    if info > 0 {
        more.push(format!("{} for information", human::count(info)));
    }
    if known > 0 {
        more.push(format!("{} known from the baseline", human::count(known)));
    }
    let more = if more.is_empty() {
        String::new()
    } else {
        format!(" {}; --all shows more.", more.join(", "))
    };
    format!(
        "{}: {} passed, nothing to fix (last {window}).{more}\n",
        plain(&report.host),
        human::counted(passed, "check")
    )
}

/// What the report is of.
pub(super) fn head(report: &Report) -> String {
    let Report { host, version, kernel, window_seconds, .. } = report;
    let mut head = plain(host);
    if let Some(kernel) = kernel {
        let _ = write!(head, ", kernel {}", plain(kernel));
    }
    if let Some(version) = version {
        let _ = write!(head, ", agent {}", plain(version));
    }
    if let Some(seconds) = window_seconds {
        let _ = write!(head, "; the last {} of real traffic", human::span(*seconds));
    }
    head
}

/// Numbers of findings and checks.
pub(super) fn numbers(summary: &Summary) -> String {
    let Summary { error, warning, info, passed, skipped, known } = *summary;
    let mut words = vec![
        human::counted(error, "error"),
        human::counted(warning, "warning"),
        format!("{} passed", human::counted(passed, "check")),
    ];
    let rest =
        [(skipped, "skipped"), (info, "for information"), (known, "known from the baseline")];
    words.extend(
        rest.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", human::count(*n))),
    );
    words.join(", ")
}

/// The codes to look at first: causes, errors before warnings.
fn worst(report: &Report) -> String {
    let mut roots: Vec<&Finding> = report
        .findings
        .iter()
        .filter(|one| one.caused_by.is_none() && one.severity > Severity::Info)
        .collect();
    roots.sort_by_key(|one| std::cmp::Reverse(one.severity));
    let mut codes: Vec<&str> = Vec::new();
    for finding in roots {
        if !codes.contains(&&*finding.code) {
            codes.push(&finding.code);
        }
    }
    codes.truncate(WORST);
    match codes.first() {
        None => String::new(),
        Some(first) => {
            format!(" First: {}. `portolan explain {first}` explains it.", codes.join(", "))
        }
    }
}

/// The lines below a title: cause, begin, changes, fix.
pub(super) fn details(finding: &Finding, now: Option<Timestamp>) -> Vec<String> {
    let fact = |name: &str| match finding.evidence.get(name) {
        Some(Evidence::Text(text)) => Some(text.clone()),
        Some(Evidence::Number(number)) => Some(number.to_string()),
        None => None,
    };
    let cause = finding.caused_by.as_ref().map(|code| {
        let subject = fact(causes::SUBJECT).map(|of| format!(" ({of})")).unwrap_or_default();
        format!("follows from {code}{subject}")
    });
    let since = finding.since.map(|since| {
        let second = Timestamp::from_seconds(since.seconds().floor());
        match now {
            Some(now) => format!("since {second} ({} ago)", ago(now.seconds_since(since).max(0.0))),
            None => format!("since {second}"),
        }
    });
    let lines = [
        cause,
        since,
        fact("changes_before").map(|changes| format!("before: {changes}")),
        fact("reason").map(|reason| format!("reason: {reason}")),
        finding.remediation.as_ref().map(|fix| format!("fix: {fix}")),
    ];
    lines.into_iter().flatten().collect()
}
