//! The same rules and dashboards as Kubernetes objects: a PrometheusRule for the operator, and
//! ConfigMaps that Grafana's sidecar takes up by their label.

use std::fmt::Write as _;

/// A PrometheusRule around each rule file, given by name and text.
pub fn rules(files: &[(&str, String)]) -> String {
    let mut yaml = header();
    for (name, text) in files {
        let _ = write!(
            yaml,
            "---\napiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: {name}\n  \
             labels:\n    app.kubernetes.io/name: portolan\nspec:\n{}",
            indented(text, 2)
        );
    }
    yaml
}

/// A ConfigMap for each dashboard, given by file name and text.
pub fn config_maps(files: &[(String, String)]) -> String {
    let mut yaml = header();
    for (file, text) in files {
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

/// The lines of `text`, without comments, further to the right.
fn indented(text: &str, by: usize) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.fold(String::new(), |mut all, line| {
        let _ = writeln!(all, "{:by$}{line}", "");
        all
    })
}
