//! The same rules and dashboards as Kubernetes objects: a PrometheusRule for the operator, and
//! ConfigMaps that Grafana's sidecar takes up by their label.

use std::fmt::Write as _;

use super::rules::RuleFile;
use super::{File, Look};

/// A PrometheusRule around each rule file.
pub fn rules(files: &[RuleFile], look: &Look) -> String {
    let mut yaml = header();
    for file in files {
        let (name, text) = (&file.name, file.adapted(look));
        let _ = write!(
            yaml,
            "---\napiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: {name}\n  \
             labels:\n    app.kubernetes.io/name: portolan\nspec:\n{}",
            indented(&text, 2)
        );
    }
    yaml
}

/// A ConfigMap for each dashboard.
pub fn config_maps(files: &[File]) -> String {
    let mut yaml = header();
    for (path, text) in files {
        let file = path.rsplit('/').next().unwrap_or(path);
        let name = file.trim_end_matches(".json");
        let _ = write!(
            yaml,
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  labels:\n    \
             app.kubernetes.io/name: portolan\n    grafana_dashboard: \"1\"\n  annotations:\n    \
             grafana_folder: Portolan\ndata:\n  {file}: |\n{}",
            indented(text, 4)
        );
    }
    yaml
}

fn header() -> String {
    format!("# {}\n", super::GENERATED)
}

/// The lines of `text`, without comments and empty ones, further to the right.
fn indented(text: &str, by: usize) -> String {
    let is_content = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let lines = text.lines().filter(is_content);
    lines.fold(String::new(), |mut all, line| {
        let _ = writeln!(all, "{:by$}{line}", "");
        all
    })
}
