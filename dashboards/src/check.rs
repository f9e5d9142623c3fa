//! Checks of rules and panels: every name in them exists, and every alert has a summary, a
//! description, a severity, a runbook and a dashboard.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::VectorSelector;

use super::alert_texts;
use super::catalogue::Catalogue;
use super::hiding::{SEVERITIES, Severities};
use super::namespaces;
use super::promql::{milliseconds, parse, selectors};
use super::rules::{Rule, RuleFile};
use super::{Dashboards, Look};

/// Alertmanager's configuration, which names alerts too.
const ALERTMANAGER: &str = "dashboards/prometheus/alertmanager.yml";
/// The series of Prometheus' own that rules and panels read: alerts, and since when they are active.
const ALERTS: &str = "ALERTS";
const ALERTS_SINCE: &str = "ALERTS_FOR_STATE";
const ALERT_NAME: &str = "alertname";

/// Checks rules and panels; the error lists everything that is wrong, by file.
pub fn check(root: &Path, read: &Dashboards, catalogue: &Catalogue) -> Result<()> {
    let names = Names::of(read, catalogue);
    let mut problems = Vec::new();
    for file in &read.rules {
        for rule in file.rules() {
            let place = format!("{}: {}", file.path, rule.name());
            let mut report = |what: String| problems.push(format!("{place}: {what}"));
            names.check_expression(&rule.expr, &mut report);
            if rule.alert.is_some() {
                names.check_alert(root, rule, &mut report);
            } else {
                check_recording(rule, &mut report);
            }
        }
    }
    for query in read.queries() {
        let mut report = |what: String| problems.push(format!("{}: {what}", query.panel));
        names.check_expression(&query.expr, &mut report);
    }
    let alertmanager = fs::read_to_string(root.join(ALERTMANAGER))
        .with_context(|| format!("reading {ALERTMANAGER}"))?;
    let mut report = |what: String| problems.push(format!("{ALERTMANAGER}: {what}"));
    for pattern in alert_patterns(&alertmanager) {
        names.check_alert_names(pattern, &mut report);
    }
    names.severities.check_inhibit_rules(&alertmanager, &mut report)?;
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// The names that rules and panels may use.
struct Names<'a> {
    catalogue: &'a Catalogue,
    recorded: BTreeSet<&'a str>,
    /// The alerts, and how often each is defined.
    alerts: BTreeMap<&'a str, usize>,
    severities: Severities<'a>,
    boards: Vec<&'static str>,
}

impl<'a> Names<'a> {
    fn of(read: &'a Dashboards, catalogue: &'a Catalogue) -> Self {
        let rules = || read.rules.iter().flat_map(RuleFile::rules);
        let mut alerts = BTreeMap::new();
        for name in rules().filter_map(|rule| rule.alert.as_deref()) {
            *alerts.entry(name).or_default() += 1;
        }
        Self {
            catalogue,
            recorded: rules().filter_map(|rule| rule.record.as_deref()).collect(),
            alerts,
            severities: Severities::of(rules()),
            boards: read.boards.iter().map(|board| board.uid).collect(),
        }
    }

    fn check_expression(&self, expr: &str, report: &mut impl FnMut(String)) {
        let expr = match parse(expr) {
            Ok(expr) => expr,
            Err(error) => return report(format!("{error:#}")),
        };
        for selector in selectors(&expr) {
            self.check_selector(selector, report);
        }
        namespaces::check_expression(&expr, report);
    }

    fn check_selector(&self, selector: &VectorSelector, report: &mut impl FnMut(String)) {
        let Some(name) = &selector.name else {
            return report(format!("{selector} names no metric"));
        };
        if name == ALERTS || name == ALERTS_SINCE {
            alerts_of(selector).for_each(|names| self.check_alert_names(&names, report));
        } else if name.contains(':') {
            if !self.recorded.contains(name.as_str()) {
                report(format!("no rule records {name}"));
            }
        } else {
            let labels = matchers(selector).map(|matcher| matcher.name.as_str());
            if let Err(problem) = self.catalogue.check(name, labels) {
                report(problem);
            }
        }
    }

    /// Every alternative of a pattern names an alert, or begins like some.
    fn check_alert_names(&self, pattern: &str, report: &mut impl FnMut(String)) {
        for name in pattern.split('|') {
            let is_known = match name.strip_suffix(".*") {
                Some(start) => self.alerts.keys().any(|alert| alert.starts_with(start)),
                None => self.alerts.contains_key(name),
            };
            if !is_known {
                report(format!("no alert is called {name}"));
            }
        }
    }

    fn check_alert(&self, root: &Path, rule: &Rule, report: &mut impl FnMut(String)) {
        let name = rule.name();
        if rule.record.is_some() {
            report("a rule either records a series or alerts".to_owned());
        }
        if self.alerts.get(name).is_some_and(|times| *times > 1) {
            report("another alert has this name".to_owned());
        }
        if let Some(hold) = rule.hold.as_deref().filter(|hold| milliseconds(hold).is_none()) {
            report(format!("for: {hold} is not a duration of one unit, such as 5m"));
        }
        let severity = rule.labels.get("severity").map(String::as_str).unwrap_or_default();
        if !SEVERITIES.contains(&severity) {
            report(format!("labels.severity has to be one of {}", SEVERITIES.join(", ")));
        }
        let annotation = |key: &str| rule.annotations.get(key).map_or("", |text| text.trim());
        for key in ["summary", "description"] {
            if annotation(key).is_empty() {
                report(format!("annotations.{key} is missing"));
            }
        }
        alert_texts::check(rule, report);
        if let Ok(expr) = parse(&rule.expr) {
            self.severities.check_expression(name, &expr, report);
        }
        let runbook = format!("runbooks/{name}.md");
        if annotation("runbook_url") != format!("{}/{runbook}", Look::DOCS) {
            report(format!("annotations.runbook_url has to be {}/{runbook}", Look::DOCS));
        }
        if !root.join("docs").join(&runbook).is_file() {
            report(format!("docs/{runbook} does not exist: write the runbook"));
        }
        let url = annotation("dashboard_url").strip_prefix(Look::GRAFANA).unwrap_or_default();
        let board = url.strip_prefix("/d/").unwrap_or_default().split('?').next();
        if !board.is_some_and(|board| self.boards.contains(&board)) {
            report(format!(
                "annotations.dashboard_url has to be {}/d/ and one of {}",
                Look::GRAFANA,
                self.boards.join(", ")
            ));
        }
    }
}

fn check_recording(rule: &Rule, report: &mut impl FnMut(String)) {
    match &rule.record {
        None => report("a rule has to record a series or to alert".to_owned()),
        Some(name) if !name.contains(':') => {
            report("call a recorded series level:metric:operations".to_owned());
        }
        Some(_) if rule.hold.is_some() || !rule.annotations.is_empty() => {
            report("only alerts have for and annotations".to_owned());
        }
        Some(_) => {}
    }
}

/// All of them.
fn matchers(selector: &VectorSelector) -> impl Iterator<Item = &Matcher> {
    let alternatives = selector.matchers.or_matchers.iter().flatten();
    selector.matchers.matchers.iter().chain(alternatives)
}

/// The patterns of alerts that a selector of `ALERTS` reads.
pub fn alerts_of(selector: &VectorSelector) -> impl Iterator<Item = String> {
    let is_read =
        selector.name.as_deref().is_some_and(|name| [ALERTS, ALERTS_SINCE].contains(&name));
    let names = matchers(selector).filter(move |matcher| is_read && matcher.name == ALERT_NAME);
    names.map(pattern)
}

/// A matcher's value, without the anchors that the parser adds.
fn pattern(matcher: &Matcher) -> String {
    match &matcher.op {
        MatchOp::Equal | MatchOp::NotEqual => matcher.value.clone(),
        MatchOp::Re(regex) | MatchOp::NotRe(regex) => {
            let text = regex.as_str();
            let text = text.strip_prefix("^(?:").and_then(|text| text.strip_suffix(")$"));
            text.unwrap_or(regex.as_str()).to_owned()
        }
    }
}

/// The values that Alertmanager's matchers compare `alertname` with.
pub fn alert_patterns(config: &str) -> impl Iterator<Item = &str> {
    let matchers = config.match_indices(ALERT_NAME).filter_map(|(at, word)| {
        let rest = config[at + word.len()..].trim_start_matches(['!', '=', '~']);
        rest.strip_prefix('"')
    });
    matchers.filter_map(|rest| rest.split('"').next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::root;

    /// The problems of the committed rules once `from` is replaced by `to` in one of them.
    fn problems(file: &str, from: &str, to: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        for path in ["dashboards/prometheus", "docs/runbooks"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
            for entry in fs::read_dir(root().join(path)).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() {
                    let to = folder.path().join(path).join(entry.file_name());
                    fs::copy(entry.path(), to).unwrap();
                }
            }
        }
        fs::copy(root().join("docs/metrics.md"), folder.path().join("docs/metrics.md")).unwrap();
        let path = folder.path().join("dashboards/prometheus").join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        match Dashboards::read(folder.path()) {
            Ok(_) => String::new(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn a_rule_that_does_not_hold_together_is_reported_with_its_place() {
        let alerts = "portolan-alerts.yaml";
        let check = |from: &str, to: &str, expected: &str| {
            let problems = problems(alerts, from, to);
            assert!(problems.contains(expected), "{problems:?} lacks {expected}");
        };
        assert_eq!(problems(alerts, "groups:", "groups:"), "");
        check(
            "hook_attached == 0",
            "hook_gone == 0",
            "hook_gone is not a series of the agent: see docs/metrics.md",
        );
        check(
            "hook_attached == 0",
            "hook_gone == 0",
            "portolan-alerts.yaml: PortolanHookMissing: ",
        );
        check("{class!~", "{klass!~", "portolan_events_lost_total has no label klass");
        check(
            "edge:portolan_tcp_retransmits:ratio_rate5m > 0.02",
            "edge:a:b > 0.02",
            "edge:portolan_tcp_retransmits:ratio_rate5m",
        );
        check("portolan_hook_attached == 0", "portolan_hook_attached = = 0", "PromQL");
        check("severity: info", "severity: notice", "one of critical, warning, info");
        check(
            "{{ .Labels.port }} ",
            "",
            "PortolanLatencyHigh: annotations.summary does not name the port",
        );
        check(
            " {{ .Labels.instance | stripPort }}",
            "",
            "annotations.summary does not name the host",
        );
        check("{{ $value | humanizeDuration }}", "{{ $value | humanize }}", "uses humanize");
        check(
            "{{ (first .).Labels.label_team }}",
            "x",
            "PortolanLatencyHigh: labels.team has to be",
        );
        check(
            "PortolanLocalPortsExhausted|PortolanListenOverflow\", alertstate",
            "PortolanLocalPortsExhausted|PortolanRetransmitsHigh\", alertstate",
            "PortolanRetransmitsHigh (warning) hides PortolanConnectBudgetBurnFast (critical)",
        );
        check("runbooks/PortolanHookMissing.md", "runbooks/Hooks.md", "PortolanHookMissing.md");
        check("/d/portolan-agent", "/d/portolan-agents", "dashboard_url has to be");
        check("for: 5m", "for: soon", "for: soon is not a duration");
        check(
            "|PortolanListenOverflow\"",
            "|PortolanListenOverflows\"",
            "no alert is called PortolanListenOverflows",
        );
    }

    #[test]
    fn alertmanager_names_alerts_that_exist() {
        let problems =
            problems("alertmanager.yml", "PortolanKeepaliveMismatch", "PortolanKeepalive");
        assert!(
            problems.contains("alertmanager.yml: no alert is called PortolanKeepalive"),
            "{problems}"
        );
    }

    #[test]
    fn no_alert_inhibits_a_more_severe_one() {
        let problems = problems(
            "alertmanager.yml",
            "PortolanLatencyHigh|PortolanRequestsUnanswered|PortolanConnectBudgetBurnSlow",
            "PortolanConnectBudgetBurn.*",
        );
        let expected = "alertmanager.yml: PortolanRetransmitsHigh (warning) inhibits PortolanConnectBudgetBurnFast (critical)";
        assert!(problems.contains(expected), "{problems}");
    }
}
