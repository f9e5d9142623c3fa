//! The same rules and dashboards as Kubernetes objects: a PrometheusRule for the operator, and
//! ConfigMaps that Grafana's sidecar takes up by their label.

use std::fmt::Write as _;

use super::rules::RuleFile;
use super::{File, Look};

/// A PrometheusRule for each rule file.
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::Dashboards;
    use crate::promql::parse;
    use crate::tests::root;

    #[test]
    fn a_prometheus_rule_has_the_rules_of_its_file() {
        let read = Dashboards::read(&root()).unwrap();
        let yaml = rules(&read.rules, &Look::default());
        let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
        assert_eq!(objects.len(), read.rules.len());
        for (object, file) in objects.iter().zip(&read.rules) {
            assert_eq!(object["kind"], "PrometheusRule");
            assert_eq!(object["metadata"]["name"], *file.name);
            let groups = object["spec"]["groups"].as_array().unwrap().iter();
            let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
            let rules: Vec<&Value> = rules.collect();
            assert_eq!(rules.len(), file.rules().count());
            for (rule, source) in rules.into_iter().zip(file.rules()) {
                let name = source.name();
                assert!(rule["alert"] == name || rule["record"] == name, "{rule}");
                let expr = rule["expr"].as_str().map_or(rule["expr"].to_string(), str::to_owned);
                let [expr, expected] = [&expr, &source.expr].map(|expr| parse(expr).unwrap());
                assert_eq!(expr.to_string(), expected.to_string(), "{name}");
                for (key, text) in &source.annotations {
                    assert_eq!(rule["annotations"][key], *text, "{name}");
                }
            }
        }
    }

    #[test]
    fn a_config_map_has_its_dashboard() {
        let read = Dashboards::read(&root()).unwrap();
        let files = read.generated(&Look::default());
        let boards: Vec<File> =
            files.into_iter().filter(|(path, _)| path.starts_with("dashboards/grafana/")).collect();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&config_maps(&boards)).unwrap();
        assert_eq!(objects.len(), boards.len());
        for (object, (path, text)) in objects.iter().zip(&boards) {
            let file = path.rsplit('/').next().unwrap();
            assert_eq!(object["data"][file], **text, "{path}");
        }
    }
}
