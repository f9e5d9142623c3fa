//! Every metric named in text exists, and every metric is documented.

use std::collections::BTreeSet;

use super::{Finding, Sources, code, is_test};

const PREFIX: &str = "portolan_";
/// The only place that names metrics in code, in full and in quotes.
const CODE: &str = "agent/crates/telemetry/src/";
/// The reference: a heading for each metric.
const LIST: &str = "docs/metrics.md";
const HEADING: &str = "### ";
/// What writes the reference.
const GENERATE: &str = "`PORTOLAN_BLESS=1 cargo test -p telemetry`";
/// Where metrics are named, besides the list.
const NAMED_IN: [&str; 4] = ["README.md", "dashboards/", "deploy/", "docs/"];

/// Suffixes of a histogram's samples.
const ENDINGS: [&str; 3] = ["_bucket", "_sum", "_count"];
/// Words of the same form that are not metrics.
const NO_METRICS: [&str; 4] =
    ["portolan_bpf", "portolan_dashboards", "portolan_ebpf", "portolan_kit"];

/// Text and code name the same metrics.
pub fn named_and_listed(sources: &Sources) -> Vec<Finding> {
    let code = sources.rust(CODE).filter(|(path, _)| !is_test(path));
    let code: BTreeSet<&str> = code.flat_map(|(_, text)| quoted(text)).collect();
    let Some(list) = sources.text(LIST) else { return Vec::new() };
    let listed: BTreeSet<&str> =
        list.lines().filter_map(|line| line.strip_prefix(HEADING)).collect();

    let unlisted = code.difference(&listed);
    let mut findings: Vec<Finding> = unlisted
        .map(|name| Finding::new(LIST, 0, format!("no heading for {name}: run {GENERATE}")))
        .collect();
    for (path, text) in sources.all() {
        if !NAMED_IN.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            for name in metrics(line) {
                if !code.contains(name) && !code.contains(without_ending(name)) {
                    let what = format!("{name} is not a metric: see {LIST}");
                    findings.push(Finding::new(path, index + 1, what));
                }
            }
        }
    }
    findings
}

/// The metrics that a file names in quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let literals = code(text).flat_map(|(_, line)| line.split('"').skip(1).step_by(2));
    literals.filter(|literal| metrics(literal).next() == Some(literal))
}

/// The words of a line that look like metrics; one that ends in `_` stands for several, and one
/// with a colon is a recording rule's, which the dashboards' own tests compare.
fn metrics(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let words = words.map(|word| word.trim_end_matches(':'));
    words.filter(|word| {
        let rest = word.strip_prefix(PREFIX).unwrap_or_default();
        !rest.contains(':')
            && rest.starts_with(|c: char| c.is_ascii_lowercase())
            && !rest.ends_with('_')
            && !NO_METRICS.contains(word)
    })
}

fn without_ending(name: &str) -> &str {
    ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expected: &[(&str, usize)]) {
        let findings = named_and_listed(&Sources::of(files));
        let places: Vec<(&str, usize)> =
            findings.iter().map(|finding| (finding.path.as_str(), finding.line)).collect();
        assert_eq!(places, expected, "{findings:?}");
    }

    #[test]
    fn text_names_only_what_exists() {
        let code = (
            "agent/crates/telemetry/src/a.rs",
            "name: \"portolan_a_seconds\",\n// \"portolan_b\"\n",
        );
        let list = (LIST, "### portolan_a_seconds\nportolan_bpf and portolan_a_* are no metrics\n");
        let good = (
            "dashboards/a.json",
            "rate(portolan_a_seconds_bucket{}[5m]) > edge:portolan_b:rate5m\n",
        );
        let bad = ("README.md", "\nportolan_b\n");
        check(&[code, list, good], &[]);
        check(&[code, list, good, bad], &[("README.md", 2)]);
    }

    #[test]
    fn the_list_is_complete() {
        let code = ("agent/crates/telemetry/src/a.rs", "\"portolan_a\" => \"portolan_b\"\n");
        check(&[code, (LIST, "### portolan_a\n")], &[(LIST, 0)]);
        check(&[code, (LIST, "### portolan_a\n### portolan_b\n### portolan_c\n")], &[(LIST, 3)]);
    }
}
