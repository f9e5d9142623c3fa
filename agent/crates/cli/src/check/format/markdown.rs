//! A report as Markdown, for tickets.

use std::fmt::Write as _;

use api_types::Finding;

use super::escape::markdown;
use super::text::{details, head, mark, numbers};
use crate::check::report::Report;
use crate::check::section::Section;

pub(super) fn text(report: &Report) -> String {
    let mut text = format!("# Portolan check of {}\n\n", markdown(&report.host));
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{}.\n\n**{}.**", markdown(&head(report)), numbers(&report.summary));
    if let Some(reason) = &report.incomplete {
        let _ = writeln!(text, "\nThe agent could not be asked: {}", markdown(reason));
    }
    for section in Section::ALL {
        let passed = report.passed.iter().filter(|one| one.section == section);
        let skipped = report.skipped.iter().filter(|one| one.section == section);
        let mut lines = String::new();
        for finding in report.of(section) {
            let Finding { severity, code, title, docs, .. } = finding;
            let code = match docs {
                Some(docs) => format!("[{code}]({docs})"),
                None => code.clone(),
            };
            let (mark, _) = mark(*severity);
            let _ =
                writeln!(lines, "* {mark} **{code}** ({}) {}", severity.as_str(), markdown(title));
            for line in details(finding, report.timestamp) {
                let _ = writeln!(lines, "  * {}", markdown(&line));
            }
        }
        for one in passed {
            let _ = writeln!(lines, "* ✓ {}", markdown(&one.text));
        }
        for one in skipped {
            let _ =
                writeln!(lines, "* – skipped: {}: {}", markdown(&one.check), markdown(&one.reason));
        }
        if !lines.is_empty() {
            let _ = write!(text, "\n## {section}\n\n{lines}");
        }
    }
    text
}
