//! A report as one HTML file: nothing from elsewhere, no script, fit for paper. It is well-formed XML,
//! which a test relies on.

mod map;
mod style;
mod tables;

use std::fmt::Write as _;

use api_types::{Evidence, Finding, Severity};

use super::escape::xml;
use super::text::{details, head, mark};
use crate::check::Done;
use crate::check::pairs::pairs;
use crate::check::report::Report;
use crate::check::section::Section;
use crate::human;

pub(super) fn text(done: &Done) -> String {
    let Done { report, answers, seen } = done;
    let mut body = String::new();
    push_head(&mut body, report);
    push_tiles(&mut body, report);
    push_findings(&mut body, report);
    if let Some(answers) = answers {
        let pairs = pairs(&answers.edges.edges);
        push_section(&mut body, "Map", &map::draw(&pairs, report));
        push_section(&mut body, "Connections", &tables::edges(&pairs, report));
        push_section(&mut body, "Ports", &tables::ports(answers));
        push_section(&mut body, "Segments", &tables::segments(answers));
    }
    if let Some(seen) = seen {
        push_section(&mut body, "Network namespaces", &tables::namespaces(seen));
    }
    push_checks(&mut body, report);
    if let Some(answers) = answers {
        push_section(&mut body, "What the agent observes", &tables::coverage(answers));
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>Portolan check of {}</title>\n<style>{}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        xml(&report.host),
        style::CSS
    )
}

fn push_head(body: &mut String, report: &Report) {
    // Writing into a String cannot fail.
    let _ = write!(body, "<header><h1>Portolan check</h1><p>{}", xml(&head(report)));
    if let Some(time) = report.timestamp {
        let _ = write!(body, "; {}", xml(&time.to_string()));
    }
    body.push_str("</p></header>\n");
    if let Some(reason) = &report.incomplete {
        let _ = writeln!(
            body,
            "<p class=\"error note\">✗ The agent could not be asked: {}</p>",
            xml(reason)
        );
    }
}

/// The numbers, large.
fn push_tiles(body: &mut String, report: &Report) {
    let summary = &report.summary;
    let tiles = [
        ("error", "✗", summary.error, "errors"),
        ("warning", "!", summary.warning, "warnings"),
        ("info", "·", summary.info, "for information"),
        ("ok", "✓", summary.passed, "checks passed"),
        ("info", "–", summary.skipped, "skipped"),
    ];
    body.push_str("<div class=\"tiles\">");
    for (class, mark, n, what) in tiles {
        let class = if n == 0 { "none" } else { class };
        let _ = write!(
            body,
            "<div class=\"tile {class}\"><b>{mark} {}</b><span>{what}</span></div>",
            human::count(n)
        );
    }
    body.push_str("</div>\n");
}

/// A card for each finding, those that follow from none first.
fn push_findings(body: &mut String, report: &Report) {
    let mut findings: Vec<&Finding> = report.findings.iter().collect();
    findings.sort_by_key(|one| (std::cmp::Reverse(one.severity), one.caused_by.is_some()));
    body.push_str("<section><h2>Findings</h2>\n");
    if findings.iter().all(|one| one.severity == Severity::Info) {
        body.push_str("<p>Nothing to fix.</p>\n");
    }
    for finding in findings {
        let Finding { code, severity, title, docs, evidence, .. } = finding;
        let code = match docs {
            Some(docs) => format!("<a href=\"{}\">{}</a>", xml(docs), xml(code)),
            None => xml(code),
        };
        let (mark, _) = mark(*severity);
        let _ = writeln!(
            body,
            "<article class=\"card {}\"><h3>{mark} {code} <small>{} · {}</small></h3><p>{}</p>",
            severity.as_str(),
            severity.as_str(),
            Section::of(&finding.code),
            xml(title)
        );
        let lines = details(finding, report.timestamp);
        if !lines.is_empty() {
            body.push_str("<ul>");
            for line in lines {
                let _ = write!(body, "<li>{}</li>", xml(&line));
            }
            body.push_str("</ul>");
        }
        if !evidence.is_empty() {
            body.push_str("<p class=\"evidence\">");
            for (name, fact) in evidence {
                let fact = match fact {
                    Evidence::Number(number) => number.to_string(),
                    Evidence::Text(text) => text.clone(),
                };
                let _ = write!(body, "<span><i>{}</i> {}</span> ", xml(name), xml(&fact));
            }
            body.push_str("</p>");
        }
        body.push_str("</article>\n");
    }
    body.push_str("</section>\n");
}

/// What passed and what was skipped.
fn push_checks(body: &mut String, report: &Report) {
    let mut rows = String::new();
    for section in Section::ALL {
        for one in report.passed.iter().filter(|one| one.section == section) {
            let _ = writeln!(
                rows,
                "<tr><td>{section}</td><td class=\"ok\">✓ passed</td><td>{}</td></tr>",
                xml(&one.text)
            );
        }
        for one in report.skipped.iter().filter(|one| one.section == section) {
            let _ = writeln!(
                rows,
                "<tr><td>{section}</td><td>– skipped</td><td>{}: {}</td></tr>",
                xml(&one.check),
                xml(&one.reason)
            );
        }
    }
    if !rows.is_empty() {
        push_section(body, "Checks", &format!("<table>\n{rows}</table>\n"));
    }
}

/// A part with a heading, if there is anything in it.
fn push_section(body: &mut String, heading: &str, content: &str) {
    if !content.is_empty() {
        let _ = write!(body, "<section><h2>{heading}</h2>\n{content}</section>\n");
    }
}
