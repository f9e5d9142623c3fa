//! Reports in every format: complete, well-formed, and without markup of foreign names.

use api_types::{Conflict, Finding};

use super::Format;
use crate::check::report::{Baseline, Report};
use crate::check::tests::{answers, arguments, edge, judged};
use crate::check::{Answers, Gathered};
use crate::target::Connection;

#[test]
fn a_report_as_text_has_sections_causes_and_fixes() {
    let done = judged(answers(), "--all");
    let text = Format::Text.text(&done, true).expect("text");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/check/golden/report.txt");
    if std::env::var_os("PORTOLAN_BLESS").is_some() {
        std::fs::write(path, &text).expect("written");
    }
    assert_eq!(text, std::fs::read_to_string(path).expect("the golden"), "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn junit_is_xml_with_a_failure_for_each_warning_and_error() {
    let done = judged(hostile(), "");
    let text = Format::Junit.text(&done, false).expect("text");
    let document = roxmltree::Document::parse(&text).expect("XML");
    let count = |name: &str| document.descendants().filter(|node| node.has_tag_name(name)).count();
    let summary = done.report.summary;
    assert_eq!(count("failure") as u64, summary.error + summary.warning);
    assert_eq!(count("skipped") as u64, summary.skipped);
    let all = summary.error + summary.warning + summary.info + summary.passed + summary.skipped;
    assert_eq!(count("testcase") as u64, all);
    let root = document.root_element();
    assert_eq!(root.attribute("tests"), Some(all.to_string().as_str()));
}

#[test]
fn html_is_one_file_that_names_cannot_change() {
    let done = judged(hostile(), "");
    let text = Format::Html.text(&done, false).expect("text");
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(&text, options).expect("well-formed");
    let elements = || document.descendants().filter(roxmltree::Node::is_element);
    let foreign = ["script", "link", "img", "iframe", "object", "b1"];
    assert!(elements().all(|node| !foreign.contains(&node.tag_name().name())), "{text}");
    assert!(elements().all(|node| node.attribute("src").is_none()));
    let cards = elements()
        .filter(|node| node.attribute("class").is_some_and(|class| class.starts_with("card")));
    assert_eq!(cards.count(), done.report.findings.len());
    assert!(elements().any(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "svg"))));
    assert!(!text.contains("url(") && !text.contains("@import"));
}

#[test]
fn markdown_has_no_markup_of_names() {
    let done = judged(hostile(), "");
    let text = Format::Markdown.text(&done, false).expect("text");
    assert!(!text.contains("<b1>") && text.contains("\\<b1\\>"), "{text}");
    let all = text.lines().filter(|line| line.starts_with("* ✗") || line.starts_with("* !"));
    let summary = done.report.summary;
    assert_eq!(all.count() as u64, summary.error + summary.warning);
}

#[test]
fn json_is_read_back_and_is_a_baseline() {
    let done = judged(answers(), "");
    let text = Format::Json.text(&done, false).expect("text");
    let report: Report = serde_json::from_str(&text).expect("a report");
    assert_eq!(report, done.report);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("before.json");
    std::fs::write(&path, text).expect("written");
    let baseline = Baseline::read(&path).expect("read");
    let judge = |answers| {
        let gathered = Gathered { answers: Ok(answers), seen: None, resolver: None, probed: None };
        arguments("").judge(&Connection::default(), gathered, &baseline).expect("a report").report
    };
    let again = judge(answers());
    assert_eq!((again.findings.len(), again.summary.known), (0, report.findings.len() as u64));
    let mut worse = answers();
    edge(&mut worse).connects.insert("ports_exhausted".to_owned(), 100);
    let new: Vec<String> = judge(worse).findings.into_iter().map(|one: Finding| one.code).collect();
    assert_eq!(new, ["PC105"]);
}

/// Answers with names that would be markup.
fn hostile() -> Answers {
    let mut answers = answers();
    let name = "<b1>&\"'|`x`</b1>\u{1b}[2J\u{0}";
    edge(&mut answers).server = name.to_owned();
    let conflict: &mut Conflict = &mut answers.conflicts.conflicts[0];
    conflict.finding.title = name.to_owned();
    conflict.claimant.service.name = name.to_owned();
    answers
}
