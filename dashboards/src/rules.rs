//! Recording rules and alerts as values, and their YAML: for Prometheus as it is.

use std::fmt::Write as _;

use super::Look;
use super::promql::scaled;

/// Rules that Prometheus evaluates together, in order.
pub struct Group {
    pub name: &'static str,
    pub rules: Vec<Rule>,
}

/// One rule.
pub enum Rule {
    Record(Recording),
    Alert(Alert),
}

/// A series made of others; the name is `level:metric:operations`.
pub struct Recording {
    pub record: &'static str,
    pub expr: String,
}

/// Something a person should know, or get up for.
pub struct Alert {
    pub name: &'static str,
    pub severity: Severity,
    /// How long it has to be true before it is said.
    pub hold: &'static str,
    pub expr: String,
    /// One sentence, the same for all of its kind.
    pub summary: &'static str,
    /// What, who, how much, and what to look at first; a template.
    pub description: &'static str,
    /// The dashboard that shows it, with the variables it is opened with.
    pub board: &'static str,
}

/// Who is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Get up.
    Critical,
    /// Look at it today.
    Warning,
    /// Good to know; explains others, wakes nobody.
    Info,
}

impl Severity {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

impl Alert {
    /// Where its runbook lies, below docs/.
    pub fn runbook(&self) -> String {
        format!("runbooks/{}.md", self.name)
    }
}

/// A rule file.
pub fn yaml(groups: &[Group], look: &Look) -> String {
    let mut yaml = format!("# {}\ngroups:\n", super::GENERATED);
    for Group { name, rules } in groups {
        let _ = writeln!(yaml, "- name: {name}\n  rules:");
        for rule in rules {
            match rule {
                Rule::Record(rule) => record(&mut yaml, rule, look),
                Rule::Alert(rule) => alert(&mut yaml, rule, look),
            }
        }
    }
    yaml
}

fn record(yaml: &mut String, rule: &Recording, look: &Look) {
    let Recording { record, expr } = rule;
    let _ = writeln!(yaml, "  - record: {record}");
    block(yaml, "expr", &scaled(expr, look.faster));
}

fn alert(yaml: &mut String, alert: &Alert, look: &Look) {
    let Alert { name, severity, hold, expr, summary, description, board } = alert;
    let _ = writeln!(yaml, "  - alert: {name}");
    block(yaml, "expr", &scaled(expr, look.faster));
    let _ = writeln!(yaml, "    for: {}", scaled(hold, look.faster));
    let _ = writeln!(yaml, "    labels:\n      severity: {}", severity.as_str());
    let _ = writeln!(yaml, "    annotations:");
    let runbook = format!("{}/{}", look.docs, alert.runbook());
    let board = format!("{}/d/{board}", look.grafana);
    for (key, text) in [
        ("summary", *summary),
        ("description", description),
        ("runbook_url", &runbook),
        ("dashboard_url", &board),
    ] {
        // What JSON quotes, YAML takes.
        let _ = writeln!(yaml, "      {key}: {}", serde_json::Value::from(text));
    }
}

fn block(yaml: &mut String, key: &str, text: &str) {
    let _ = writeln!(yaml, "    {key}: |-");
    for line in text.lines() {
        let _ = writeln!(yaml, "      {}", line.trim_end());
    }
}
