//! A report as JUnit XML: a suite for each section, a failure for each warning and error.

use std::fmt::Write as _;

use api_types::{Finding, Severity};

use super::escape::xml;
use super::text::details;
use crate::check::report::Report;
use crate::check::section::Section;

pub(super) fn text(report: &Report) -> String {
    let mut suites = String::new();
    let (mut tests, mut failures, mut skipped) = (0, 0, 0);
    for section in Section::ALL {
        let mut cases = String::new();
        let (mut own_tests, mut own_failures, mut own_skipped) = (0u64, 0u64, 0u64);
        let class = format!("portolan.{}", section.heading().to_lowercase());
        let mut case = |name: &str, content: &str| {
            own_tests += 1;
            // Writing into a String cannot fail.
            let _ = writeln!(
                cases,
                "    <testcase classname=\"{class}\" name=\"{}\">{content}</testcase>",
                xml(name)
            );
        };
        for finding in report.of(section) {
            let Finding { code, severity, subject, title, .. } = finding;
            let lines = details(finding, report.timestamp).join("; ");
            let name = format!("{code} {subject}");
            if *severity == Severity::Info {
                case(&name, &format!("<system-out>{}</system-out>", xml(title)));
                continue;
            }
            own_failures += 1;
            case(
                &name,
                &format!(
                    "<failure type=\"{}\" message=\"{}\">{}</failure>",
                    severity.as_str(),
                    xml(title),
                    xml(&lines)
                ),
            );
        }
        for one in report.passed.iter().filter(|one| one.section == section) {
            case(&one.text, "");
        }
        for one in report.skipped.iter().filter(|one| one.section == section) {
            own_skipped += 1;
            case(&one.check, &format!("<skipped message=\"{}\"/>", xml(&one.reason)));
        }
        if own_tests == 0 {
            continue;
        }
        let _ = writeln!(
            suites,
            "  <testsuite name=\"{section}\" tests=\"{own_tests}\" failures=\"{own_failures}\" errors=\"0\" skipped=\"{own_skipped}\" hostname=\"{}\">\n{cases}  </testsuite>",
            xml(&report.host)
        );
        tests += own_tests;
        failures += own_failures;
        skipped += own_skipped;
    }
    let mut errors = 0;
    if let Some(reason) = &report.incomplete {
        (tests, errors) = (tests + 1, 1);
        let _ = writeln!(
            suites,
            "  <testsuite name=\"Agent\" tests=\"1\" failures=\"0\" errors=\"1\" skipped=\"0\">\n    <testcase classname=\"portolan.agent\" name=\"the agent answers\"><error message=\"{}\"/></testcase>\n  </testsuite>",
            xml(reason)
        );
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"portolan check\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\">\n{suites}</testsuites>\n"
    )
}
