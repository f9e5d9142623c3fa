//! The pages: sections of docs/findings.md and docs/metrics.md, and docs/runbooks.

/// What a page is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Finding,
    Alert,
    Metric,
}

/// A page.
#[derive(Debug)]
pub(super) struct Page {
    /// Its code or name.
    pub topic: String,
    pub kind: Kind,
    /// One line.
    pub title: String,
    /// All of it.
    pub text: String,
    /// Below the folder of the documentation.
    path: String,
}

const FINDINGS: &str = include_str!("../../../../../docs/findings.md");
const METRICS: &str = include_str!("../../../../../docs/metrics.md");

macro_rules! runbooks {
    ($($name:literal),* $(,)?) => {
        /// Alerts and their runbooks.
        const RUNBOOKS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../../../docs/runbooks/", $name, ".md")))),*];
    };
}

runbooks![
    "PortolanAgentDown",
    "PortolanConnectBudgetBurnFast",
    "PortolanConnectBudgetBurnSlow",
    "PortolanConnectionsAborted",
    "PortolanConnectionsNotClosed",
    "PortolanConnectionsRefused",
    "PortolanConnectionsTimingOut",
    "PortolanConntrackNearlyFull",
    "PortolanCoverageLow",
    "PortolanDnsFailing",
    "PortolanDnsSlow",
    "PortolanErrorResponses",
    "PortolanEventsLost",
    "PortolanHookMissing",
    "PortolanInterfaceDrops",
    "PortolanKeepaliveMismatch",
    "PortolanKeepaliveMismatchAhead",
    "PortolanLatencyAgainstLastWeek",
    "PortolanLatencyHigh",
    "PortolanLatencyInherited",
    "PortolanListenOverflow",
    "PortolanLocalPortsExhausted",
    "PortolanLocalPortsLow",
    "PortolanPortConflict",
    "PortolanPortReservationBreach",
    "PortolanReceiverNotReading",
    "PortolanRequestsAboveLastWeek",
    "PortolanRequestsBelowLastWeek",
    "PortolanRequestsUnanswered",
    "PortolanResetStorm",
    "PortolanRetransmitsHigh",
    "PortolanSegmentViolation",
    "PortolanServiceSilent",
    "PortolanTcpMemoryPressure",
    "PortolanUnevenBalance",
];

// === impl Kind ===

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Finding => "finding",
            Self::Alert => "alert",
            Self::Metric => "metric",
        }
    }

    pub(super) fn heading(self) -> &'static str {
        match self {
            Self::Finding => "Findings",
            Self::Alert => "Alerts",
            Self::Metric => "Metrics",
        }
    }
}

// === impl Page ===

impl Page {
    /// Where it is published.
    pub(super) fn docs(&self) -> String {
        format!("{}/{}", api_types::DOCS_URL, self.path)
    }
}

/// All pages, by kind.
pub(super) fn pages() -> Vec<Page> {
    let runbook = |name: &str| RUNBOOKS.iter().find(|(other, _)| *other == name);
    let findings = rows(FINDINGS).map(|(code, meaning, more)| {
        // A section here, or a runbook.
        let linked = more.split_once("runbooks/").and_then(|(_, rest)| rest.split_once(".md"));
        let linked = linked.and_then(|(name, _)| runbook(name));
        let (text, path) = if let Some((name, text)) = linked {
            (*text, format!("runbooks/{name}.md"))
        } else {
            let path = format!("findings.md#{}", code.to_ascii_lowercase());
            (section(FINDINGS, "## ", code).unwrap_or_default(), path)
        };
        let text = format!("{code}: {meaning}\n\n{}", plain(text));
        Page { topic: code.to_owned(), kind: Kind::Finding, title: plain(meaning), text, path }
    });
    let alerts = RUNBOOKS.iter().map(|(name, text)| {
        let meaning = section(text, "## ", "What it means").unwrap_or_default();
        let title = plain(first_sentence(meaning));
        let path = format!("runbooks/{name}.md");
        Page { topic: (*name).to_owned(), kind: Kind::Alert, title, text: plain(text), path }
    });
    let metrics = METRICS.lines().filter_map(|line| line.strip_prefix("### ")).map(|name| {
        let text = section(METRICS, "### ", name).unwrap_or_default();
        let title = plain(first_sentence(text));
        let text = format!("{name}\n\n{}", plain(text));
        let path = format!("metrics.md#{name}");
        Page { topic: name.to_owned(), kind: Kind::Metric, title, text, path }
    });
    findings.chain(alerts).chain(metrics).collect()
}

/// Rows of the table: code, meaning, link.
fn rows(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| P")?.trim_end_matches('|').split(" | ");
        let code = line.get(2..)?.split(' ').next()?;
        cells.next()?;
        Some((code, cells.next()?.trim(), cells.next()?.trim()))
    })
}

/// What is below a heading, up to the next one of its level or higher.
fn section<'a>(text: &'a str, level: &str, heading: &str) -> Option<&'a str> {
    let line = format!("\n{level}{heading}\n");
    let (_, rest) = text.split_once(&line)?;
    let ends = |level: &str| rest.find(&format!("\n{level}"));
    let end = [level, "## ", "# "].iter().filter_map(|level| ends(level)).min();
    Some(rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest).trim())
}

fn first_sentence(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    line.split_once(". ").map_or(line, |(first, _)| first).trim_end_matches('.')
}

/// Markdown as text: of a link only its words.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        plain.push_str(before);
        let parts = link.split_once("](").and_then(|(words, tail)| {
            let (_, after) = tail.split_once(')')?;
            (!words.contains(['[', '\n'])).then_some((words, after))
        });
        if let Some((words, after)) = parts {
            plain.push_str(words);
            rest = after;
        } else {
            plain.push('[');
            rest = link;
        }
    }
    plain.push_str(rest);
    plain.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runbook_is_here() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/runbooks");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .expect("the folder")
            .map(|entry| entry.expect("a file").file_name().into_string().expect("a name"))
            .filter_map(|name| Some(name.strip_suffix(".md")?.to_owned()))
            .filter(|name| name != "README")
            .collect();
        files.sort();
        assert_eq!(files, RUNBOOKS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }

    #[test]
    fn links_become_their_words() {
        assert_eq!(
            plain("see [this page](a/b.md#c), [EADDRINUSE] and x[0]"),
            "see this page, [EADDRINUSE] and x[0]"
        );
    }

    #[test]
    fn a_section_ends_with_the_next_heading() {
        let text = "# A\n\n## B\none\n\n### C\ntwo\n\n## D\nthree\n";
        assert_eq!(section(text, "## ", "B"), Some("one\n\n### C\ntwo"));
        assert_eq!(section(text, "### ", "C"), Some("two"));
        assert_eq!(section(text, "## ", "D"), Some("three"));
        assert_eq!(section(text, "## ", "E"), None);
    }
}
