//! `cargo xtask dashboards`: writes everything below `dashboards/` that is made, from one source.
//!
//! The source is this module: [`recordings`], [`alerts`] and [`boards`] are values of Rust, so a
//! label set or an expression exists once and rules and panels cannot disagree about it. What it
//! writes is plain YAML and JSON, committed, for people who have none of our tools. What people
//! are meant to edit, the latency objectives, is a rule file that nobody generates.

mod alerts;
mod board;
mod boards;
pub mod draw;
mod kubernetes;
mod panel;
mod promql;
mod recordings;
mod rules;
#[cfg(test)]
mod tests;
mod unit;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The first line of what is written here.
const GENERATED: &str = "Made by `cargo xtask dashboards` from xtask/src/dashboards/.";
/// The objectives: written by people, one recording rule per service that needs another than 50 ms.
pub const OBJECTIVES: &str = "dashboards/prometheus/portolan-objectives.yaml";

/// What differs between installations.
pub struct Look {
    /// Base URL of `docs/`.
    pub docs: String,
    /// Base URL of Grafana.
    pub grafana: String,
    /// Divides every duration in the rules.
    pub faster: u64,
}

impl Look {
    /// A placeholder for the base URL of `docs/`.
    pub const DOCS: &str = "https://portolan.example/docs";
    /// A placeholder for the base URL of Grafana.
    pub const GRAFANA: &str = "https://grafana.example";
}

impl Default for Look {
    fn default() -> Self {
        Self { docs: Self::DOCS.to_owned(), grafana: Self::GRAFANA.to_owned(), faster: 1 }
    }
}

/// A duration, as much shorter.
pub fn faster(duration: &str, times: u64) -> String {
    promql::scaled(duration, times)
}

/// Writes files below `folder`.
pub fn write(folder: &Path, files: &[(String, String)]) -> Result<()> {
    for (path, text) in files {
        let path = folder.join(path);
        let parent = path.parent().context("every file has a folder")?;
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Every generated file: its path in the checkout, and its text. `root` is the checkout.
pub fn files(root: &Path, look: &Look) -> Result<Vec<(String, String)>> {
    let objectives = fs::read_to_string(root.join(OBJECTIVES))
        .with_context(|| format!("reading {OBJECTIVES}"))?;
    let recordings = rules::yaml(&recordings::groups(), look);
    let alerts = rules::yaml(&alerts::groups(), look);
    let boards = boards::all();
    let boards: Vec<(String, String)> =
        boards.iter().map(|board| (format!("{}.json", board.uid), board.text(look))).collect();
    let rules = [
        ("portolan-recordings", recordings.clone()),
        ("portolan-alerts", alerts.clone()),
        ("portolan-objectives", objectives),
    ];
    let mut files = vec![
        ("dashboards/prometheus/portolan-recordings.yaml".to_owned(), recordings),
        ("dashboards/prometheus/portolan-alerts.yaml".to_owned(), alerts),
        ("dashboards/kubernetes/portolan-rules.yaml".to_owned(), kubernetes::rules(&rules)),
        (
            "dashboards/kubernetes/portolan-dashboards.yaml".to_owned(),
            kubernetes::config_maps(&boards),
        ),
    ];
    files.extend(
        boards.into_iter().map(|(file, text)| (format!("dashboards/grafana/{file}"), text)),
    );
    Ok(files)
}

/// What a panel asks Prometheus, with all choices open.
pub struct Question {
    /// Dashboard and panel.
    pub panel: String,
    /// PromQL.
    pub expr: String,
    /// Whether the panel says in its own words that there is nothing to show.
    pub may_be_empty: bool,
}

/// Every question of every panel.
pub fn questions(_root: &Path) -> Result<Vec<Question>> {
    let mut questions = Vec::new();
    for board in boards::all() {
        for panel in board.rows.iter().flat_map(|row| &row.panels) {
            questions.extend(panel.questions().map(|expr| {
                let expr = ["$cluster", "$namespace", "$service", "$instance"]
                    .iter()
                    .fold(expr.to_owned(), |expr, variable| expr.replace(variable, ".*"))
                    .replace("$__rate_interval", "10s")
                    .replace("$__range", "1m");
                let panel_name = format!("{}: {}", board.title, panel.title());
                Question { panel: panel_name, expr, may_be_empty: panel.may_be_empty() }
            }));
        }
    }
    Ok(questions)
}

/// How long an alert has to be true before it is said.
pub fn hold(_root: &Path, alert: &str) -> Result<Option<Duration>> {
    let rules = alerts::groups().into_iter().flat_map(|group| group.rules);
    let mut alerts = rules.filter_map(|rule| match rule {
        rules::Rule::Alert(alert) => Some(alert),
        rules::Rule::Record(_) => None,
    });
    let found = alerts.find(|known| known.name == alert);
    let hold = found.and_then(|known| promql::milliseconds(known.hold));
    Ok(hold.map(Duration::from_millis))
}
