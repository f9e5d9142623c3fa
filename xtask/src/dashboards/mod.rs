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

use anyhow::{Context as _, Result, bail};

use crate::tree;

/// The first line of what is written here.
const GENERATED: &str = "Made by `cargo xtask dashboards` from xtask/src/dashboards/.";
/// The objectives: written by people, one recording rule per service that needs another than 50 ms.
pub const OBJECTIVES: &str = "dashboards/prometheus/portolan-objectives.yaml";

#[derive(clap::Args)]
pub struct Args {
    /// Where `docs/` can be read: alerts link to their runbooks there
    #[arg(long, value_name = "URL", default_value = Look::DOCS)]
    docs: String,
    /// Where Grafana is: alerts link to their dashboards there
    #[arg(long, value_name = "URL", default_value = Look::GRAFANA)]
    grafana: String,
    /// Divide every duration in the rules by this, to try them out without waiting for days
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    faster: u64,
    /// The folder to write to, laid out like this checkout
    #[arg(long, value_name = "DIR")]
    to: Option<std::path::PathBuf>,
    /// Write nothing; fail if what is there is not what would be written
    #[arg(long)]
    check: bool,
}

/// What differs between installations.
pub struct Look {
    pub docs: String,
    pub grafana: String,
    pub faster: u64,
}

impl Look {
    const DOCS: &str = "https://portolan.example/docs";
    const GRAFANA: &str = "https://grafana.example";
}

impl Default for Look {
    fn default() -> Self {
        Self { docs: Self::DOCS.to_owned(), grafana: Self::GRAFANA.to_owned(), faster: 1 }
    }
}

pub fn dashboards(args: &Args) -> Result<()> {
    let Args { docs, grafana, faster, to, check } = args;
    let look = Look { docs: docs.clone(), grafana: grafana.clone(), faster: *faster };
    let folder = to.as_deref().unwrap_or(tree::root());
    let files = files(&look)?;
    if *check {
        let stale = stale(folder, &files);
        if !stale.is_empty() {
            bail!("{} not up to date: run `cargo xtask dashboards`", stale.join(", "));
        }
        return Ok(());
    }
    write(folder, &files)?;
    println!("{} files written", files.len());
    Ok(())
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
            .with_context(|| format!("writing {}", tree::shown(&path)))?;
    }
    Ok(())
}

/// Every file that is made: its path in the checkout, and its text.
pub fn files(look: &Look) -> Result<Vec<(String, String)>> {
    let objectives = fs::read_to_string(tree::root().join(OBJECTIVES))
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
    pub expr: String,
    /// Whether the panel says in its own words that there is nothing to show.
    pub may_be_empty: bool,
}

/// Every question of every panel.
pub fn questions() -> Vec<Question> {
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
    questions
}

/// How long an alert has to be true before it is said.
pub fn hold(alert: &str) -> Option<Duration> {
    let rules = alerts::groups().into_iter().flat_map(|group| group.rules);
    let mut alerts = rules.filter_map(|rule| match rule {
        rules::Rule::Alert(alert) => Some(alert),
        rules::Rule::Record(_) => None,
    });
    let found = alerts.find(|known| known.name == alert)?;
    promql::milliseconds(found.hold).map(Duration::from_millis)
}

/// Those files whose text on disk is another.
fn stale(folder: &Path, files: &[(String, String)]) -> Vec<String> {
    let differs = |(path, text): &&(String, String)| {
        fs::read_to_string(folder.join(path)).ok().as_ref() != Some(text)
    };
    files.iter().filter(differs).map(|(path, _)| path.clone()).collect()
}
