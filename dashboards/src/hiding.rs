//! No alert hides a more severe one: neither by an inhibit rule of Alertmanager, nor by `unless
//! ALERTS` in an expression.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use promql_parser::parser::{BinaryExpr, Expr, token};
use serde::Deserialize;

use super::promql::{selectors, visit};
use super::rules::Rule;

/// Severities, the most severe first.
pub const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];

/// The part of Alertmanager's configuration that hides alerts.
#[derive(Deserialize)]
struct Alertmanager {
    inhibit_rules: Vec<InhibitRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InhibitRule {
    source_matchers: Vec<String>,
    target_matchers: Vec<String>,
    #[expect(dead_code, reason = "named so that a misspelt key is an error")]
    equal: Vec<String>,
}

/// The severity of each alert.
pub struct Severities<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Severities<'a> {
    /// Of these rules.
    pub fn of(rules: impl Iterator<Item = &'a Rule>) -> Self {
        let severity = |rule: &'a Rule| {
            Some((rule.alert.as_deref()?, rule.labels.get("severity").map_or("", String::as_str)))
        };
        Self(rules.filter_map(severity).collect())
    }

    /// Reports inhibit rules whose source is less severe than a target.
    pub fn check_inhibit_rules(&self, config: &str, report: &mut impl FnMut(String)) -> Result<()> {
        let config: Alertmanager =
            serde_saphyr::from_str(config).context("reading inhibit_rules of Alertmanager")?;
        for InhibitRule { source_matchers, target_matchers, .. } in &config.inhibit_rules {
            let names = |matchers: &'_ [String]| -> Vec<String> {
                let patterns =
                    matchers.iter().flat_map(|matcher| super::check::alert_patterns(matcher));
                patterns.map(str::to_owned).collect()
            };
            for source in names(source_matchers) {
                for target in names(target_matchers) {
                    self.check(&source, &target, "inhibits", report);
                }
            }
        }
        Ok(())
    }

    /// Reports an alert whose expression ends while a less severe one fires.
    pub fn check_expression(&self, alert: &str, expr: &Expr, report: &mut impl FnMut(String)) {
        visit(expr, &mut |expr| {
            let Expr::Binary(BinaryExpr { op, rhs, .. }) = expr else { return };
            if op.id() != token::T_LUNLESS {
                return;
            }
            for pattern in selectors(rhs).into_iter().flat_map(super::check::alerts_of) {
                self.check(&pattern, alert, "hides", report);
            }
        });
    }

    /// Both are names of alerts, or patterns of such.
    fn check(&self, sources: &str, targets: &str, verb: &str, report: &mut impl FnMut(String)) {
        for (source, severity) in self.matching(sources) {
            for (target, hidden) in self.matching(targets) {
                if rank(severity) > rank(hidden) {
                    report(format!("{source} ({severity}) {verb} {target} ({hidden})"));
                }
            }
        }
    }

    /// The alerts that a pattern of alternatives names.
    fn matching(&self, pattern: &str) -> Vec<(&'a str, &'a str)> {
        let is_named = |alert: &str| {
            pattern.split('|').any(|name| match name.strip_suffix(".*") {
                Some(start) => alert.starts_with(start),
                None => alert == name,
            })
        };
        self.0
            .iter()
            .map(|(alert, severity)| (*alert, *severity))
            .filter(|(alert, _)| is_named(alert))
            .collect()
    }
}

/// The lower, the more severe.
fn rank(severity: &str) -> usize {
    SEVERITIES.iter().position(|known| *known == severity).unwrap_or(SEVERITIES.len())
}
