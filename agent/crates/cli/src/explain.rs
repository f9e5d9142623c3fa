//! `portolan explain`: the page of a finding, an alert or a metric, from the documentation that this
//! binary was built with. Needs no agent.

mod pages;

use clap::Args;
use serde::Serialize;

use self::pages::{Page, pages};
use crate::{Output, print};

/// Longer titles are cut in the list.
const TITLE_CHARS: usize = 100;
/// Maximum number of topics that are suggested for an unknown one.
const SUGGESTIONS: usize = 8;

/// Arguments of `portolan explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The code of a finding (PO301), the name of an alert (PortolanPortConflict) or of a metric
    /// (portolan_tcp_connects_total). Without it: a list.
    topic: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// A page as JSON.
#[derive(Serialize)]
struct Explanation<'a> {
    topic: &'a str,
    kind: &'a str,
    title: &'a str,
    text: &'a str,
    docs: String,
}

/// Runs the command.
pub fn run(arguments: &ExplainArgs) -> anyhow::Result<()> {
    let pages = pages();
    let text = match (&arguments.topic, arguments.output) {
        (None, Output::Text) => list(&pages),
        (None, Output::Json) => json(&pages.iter().map(explanation).collect::<Vec<_>>())?,
        (Some(topic), output) => {
            let page = find(&pages, topic).ok_or_else(|| unknown(&pages, topic))?;
            match output {
                Output::Text => format!("{}\n\nThe same page: {}\n", page.text, page.docs()),
                Output::Json => json(&explanation(page))?,
            }
        }
    };
    print(&text)
}

fn explanation(page: &Page) -> Explanation<'_> {
    let Page { topic, kind, title, text, .. } = page;
    Explanation { topic, kind: kind.as_str(), title, text, docs: page.docs() }
}

fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// The page of a topic, whatever its case. An alert's prefix may be missing, and a series of a
/// histogram is part of it.
fn find<'a>(pages: &'a [Page], topic: &str) -> Option<&'a Page> {
    let wanted = topic.trim().to_ascii_lowercase();
    let ends = ["_bucket", "_sum", "_count"];
    let histogram = ends.iter().find_map(|end| wanted.strip_suffix(end));
    std::iter::once(wanted.as_str()).chain(histogram).find_map(|name| {
        pages.iter().find(|page| {
            let topic = page.topic.to_ascii_lowercase();
            let prefix = topic.strip_suffix(name);
            matches!(prefix, Some("" | "portolan" | "portolan_"))
        })
    })
}

fn unknown(pages: &[Page], topic: &str) -> anyhow::Error {
    let wanted = topic.to_ascii_lowercase();
    let alike = pages.iter().filter(|page| {
        let has = |text: &str| text.to_ascii_lowercase().contains(&wanted);
        has(&page.topic) || has(&page.title)
    });
    let alike: Vec<_> = alike.take(SUGGESTIONS).map(|page| page.topic.as_str()).collect();
    if alike.is_empty() {
        anyhow::anyhow!("no page is called {topic:?}; `portolan explain` lists them")
    } else {
        anyhow::anyhow!("no page is called {topic:?}; did you mean {}?", alike.join(", "))
    }
}

fn list(pages: &[Page]) -> String {
    let mut lines = Vec::new();
    let mut kind = None;
    for page in pages {
        if kind != Some(page.kind) {
            if kind.is_some() {
                lines.push(String::new());
            }
            lines.push(page.kind.heading().to_owned());
            kind = Some(page.kind);
        }
        let mut title: String = page.title.chars().take(TITLE_CHARS).collect();
        if title.len() < page.title.len() {
            title.push('…');
        }
        lines.push(format!("  {:<46} {title}", page.topic));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_alert_and_metric_has_its_page() {
        let pages = pages();
        for code in api_types::CODES {
            let page = find(&pages, code.code).unwrap_or_else(|| panic!("{}", code.code));
            assert!(page.text.len() > 100 && page.text.contains(code.code), "{}", page.text);
        }
        for topic in ["PortolanPortConflict", "portconflict", "portolan_tcp_connects_total"] {
            assert!(find(&pages, topic).is_some(), "{topic}");
        }
        let histogram = find(&pages, "request_duration_seconds_bucket").expect("its metric");
        assert_eq!(histogram.topic, "portolan_request_duration_seconds");
    }

    #[test]
    fn pages_are_text_for_a_terminal() {
        for page in pages() {
            assert!(!page.text.contains("]("), "{}: {}", page.topic, page.text);
            assert!(!page.title.is_empty() && !page.title.contains('\n'), "{page:?}");
        }
    }

    #[test]
    fn an_unknown_topic_is_an_error_with_suggestions() {
        let pages = pages();
        assert!(find(&pages, "conflict").is_none());
        let text = unknown(&pages, "conflict").to_string();
        assert!(text.contains("PortolanPortConflict"), "{text}");
        let text = unknown(&pages, "zzz").to_string();
        assert_eq!(text, "no page is called \"zzz\"; `portolan explain` lists them");
    }

    #[test]
    fn the_list_has_each_topic_on_a_line() {
        let pages = pages();
        let list = list(&pages);
        assert!(list.lines().count() > pages.len(), "{list}");
        assert!(list.contains("\nAlerts\n  PortolanAgentDown "), "{list}");
    }
}
