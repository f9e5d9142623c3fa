//! The rule files in `dashboards/prometheus/`: read as Prometheus reads them, and passed on as text,
//! so that comments and layout stay as they were written.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Look;
use super::promql::scaled;

/// Where rule files lie.
const FOLDER: &str = "dashboards/prometheus";
/// Every file of the folder that is called so is one.
const PREFIX: &str = "portolan-";
const SUFFIX: &str = ".yaml";
/// Keys whose value is a duration.
const DURATIONS: [&str; 3] = ["for: ", "keep_firing_for: ", "interval: "];

/// A rule file.
pub struct RuleFile {
    /// Without folder and suffix.
    pub name: String,
    /// In the checkout.
    pub path: String,
    text: String,
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[expect(dead_code, reason = "named so that a misspelt key is an error")]
    name: String,
    #[expect(dead_code, reason = "named so that a misspelt key is an error")]
    interval: Option<String>,
    rules: Vec<Rule>,
}

/// A recording rule or an alert.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The name of the recorded series.
    pub record: Option<String>,
    /// The name of the alert.
    pub alert: Option<String>,
    /// PromQL.
    pub expr: String,
    /// How long the condition has to hold.
    #[serde(rename = "for")]
    pub hold: Option<String>,
    #[expect(dead_code, reason = "named so that a misspelt key is an error")]
    keep_firing_for: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Reads every rule file of the checkout, in the order of their names.
pub fn read(root: &Path) -> Result<Vec<RuleFile>> {
    let folder = root.join(FOLDER);
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {FOLDER}"))? {
        let name = entry.with_context(|| format!("reading {FOLDER}"))?.file_name();
        let name = name.to_string_lossy();
        if let Some(name) = name.strip_suffix(SUFFIX).filter(|name| name.starts_with(PREFIX)) {
            let path = format!("{FOLDER}/{name}{SUFFIX}");
            let text = fs::read_to_string(root.join(&path));
            files.push(RuleFile::parse(name, path.clone(), text.context(path)?)?);
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

// === impl RuleFile ===

impl RuleFile {
    fn parse(name: &str, path: String, text: String) -> Result<Self> {
        let Content { groups } =
            serde_saphyr::from_str(&text).with_context(|| format!("{path} is not a rule file"))?;
        Ok(Self { name: name.to_owned(), path, text, groups })
    }

    /// Its rules, group by group.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.groups.iter().flat_map(|group| &group.rules)
    }

    /// The text with the links and the pace of `look`.
    pub fn adapted(&self, look: &Look) -> String {
        let mut adapted = String::new();
        for line in self.text.lines() {
            let line = line.replace(Look::DOCS, &look.docs).replace(Look::GRAFANA, &look.grafana);
            let key =
                DURATIONS.iter().find_map(|key| line.split_once(key).map(|(a, b)| (a, key, b)));
            let _ = match key {
                Some((indent, key, value)) if indent.trim().is_empty() => {
                    writeln!(adapted, "{indent}{key}{}", scaled(value, look.faster))
                }
                _ => writeln!(adapted, "{}", scaled(&line, look.faster)),
            };
        }
        adapted
    }
}

// === impl Rule ===

impl Rule {
    /// The recorded series or the alert.
    pub fn name(&self) -> &str {
        self.alert.as_deref().or(self.record.as_deref()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# A comment.\ngroups:\n- name: a\n  rules:\n  - alert: A\n    expr: rate(a[5m]) > 1\n    for: 10m\n    annotations:\n      runbook_url: https://portolan.example/docs/runbooks/A.md\n";

    #[test]
    fn a_look_changes_links_and_durations_and_nothing_else() {
        let file = RuleFile::parse("a", "a.yaml".to_owned(), TEXT.to_owned()).unwrap();
        assert_eq!(file.adapted(&Look::default()), TEXT);
        let look = Look { docs: "http://docs".to_owned(), faster: 10, ..Look::default() };
        let adapted = file.adapted(&look);
        let expected = TEXT
            .replace("[5m]", "[30000ms]")
            .replace("10m", "60000ms")
            .replace("https://portolan.example/docs", "http://docs");
        assert_eq!(adapted, expected);
    }

    #[test]
    fn a_misspelt_key_is_an_error_that_names_the_file() {
        let text = TEXT.replace("for:", "four:");
        let error = RuleFile::parse("a", "a.yaml".to_owned(), text).err().unwrap();
        let error = format!("{error:#}");
        assert!(error.contains("a.yaml") && error.contains("four"), "{error}");
    }
}
