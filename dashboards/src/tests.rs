//! What is committed is what would be made; rules, panels and metrics know each other; promtool
//! agrees.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::*;
use rules::Rule;

/// The checkout.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn made() -> Vec<(String, String)> {
    files(&root(), &Look::default()).unwrap()
}

fn boards() -> Vec<(String, Value)> {
    let boards = made().into_iter().filter(|(path, _)| path.starts_with("dashboards/grafana/"));
    boards.map(|(path, text)| (path, serde_json::from_str(&text).unwrap())).collect()
}

fn all_rules() -> Vec<Rule> {
    let groups = recordings::groups().into_iter().chain(alerts::groups());
    groups.flat_map(|group| group.rules).collect()
}

/// The panels of a dashboard, without the headings of rows.
fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    board["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row")
}

/// Every expression of a dashboard, with the title of its panel.
fn expressions(board: &Value) -> Vec<(String, String)> {
    let of = |panel: &Value| {
        let targets = panel["targets"].as_array().unwrap().clone();
        let title = panel["title"].as_str().unwrap().to_owned();
        targets.into_iter().map(move |target| (title.clone(), word(&target["expr"]).to_owned()))
    };
    panels(board).flat_map(of).collect()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The names of series in an expression: what is recorded has colons.
fn series(expr: &str) -> BTreeSet<&str> {
    let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.filter(|word| word.contains("portolan") || word.starts_with("process_")).collect()
}

fn prometheus_tests() -> Vec<PathBuf> {
    let folder = root().join("dashboards/prometheus/tests");
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn what_is_committed_is_what_would_be_made() {
    for (path, text) in made() {
        let committed = fs::read_to_string(root().join(&path)).unwrap_or_default();
        assert!(committed == text, "{path} is stale: run `cargo xtask dashboards`");
    }
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    if Command::new("promtool").arg("--version").output().is_err() {
        println!("SKIPPED: promtool is not installed");
        return;
    }
    let folder = root().join("dashboards/prometheus");
    let rules = ["recordings", "alerts", "objectives"];
    let mut check = Command::new("promtool");
    check.args(["check", "rules"]);
    check.args(rules.map(|name| folder.join(format!("portolan-{name}.yaml"))));
    succeeds(&mut check);
    succeeds(Command::new("promtool").args(["test", "rules"]).args(prometheus_tests()));
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}

#[test]
fn every_rule_has_a_test() {
    let tests: String =
        prometheus_tests().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    for rule in all_rules() {
        match rule {
            Rule::Record(rule) => {
                assert!(tests.contains(rule.record), "no test names {}", rule.record);
            }
            Rule::Alert(alert) => {
                let expected = format!("alertname=\"{}\"", alert.name);
                assert!(tests.contains(&expected), "no test expects {}", alert.name);
            }
        }
    }
}

#[test]
fn every_recorded_series_is_read_and_every_one_that_is_read_is_recorded() {
    let mut recorded = BTreeSet::from(["portolan:latency_objective:seconds".to_owned()]);
    let mut read = BTreeSet::new();
    let mut take = |expr: &str| {
        let names = series(expr).into_iter().filter(|name| name.contains(':'));
        read.extend(names.map(str::to_owned));
    };
    for rule in all_rules() {
        match rule {
            Rule::Record(rule) => {
                take(&rule.expr);
                recorded.insert(rule.record.to_owned());
            }
            Rule::Alert(alert) => take(&alert.expr),
        }
    }
    for (_, board) in boards() {
        for (_, expr) in expressions(&board) {
            take(&expr);
        }
    }
    assert_eq!(recorded, read);
}

#[test]
fn every_metric_is_shown_or_alerted_on() {
    let list = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let listed = list.lines().filter_map(|line| line.strip_prefix("### "));
    let mut used = String::new();
    for rule in all_rules() {
        used += match &rule {
            Rule::Record(rule) => &rule.expr,
            Rule::Alert(alert) => &alert.expr,
        };
    }
    for (_, board) in boards() {
        used += &board.to_string();
    }
    let unused: Vec<&str> = listed.filter(|metric| !used.contains(metric)).collect();
    // What every exporter has, and Prometheus' own dashboards show.
    let elsewhere = ["process_open_fds", "process_max_fds", "process_start_time_seconds"];
    let unused: Vec<&str> =
        unused.into_iter().filter(|metric| !elsewhere.contains(metric)).collect();
    assert!(unused.is_empty(), "nobody looks at {unused:?}");
}

#[test]
fn dashboards_keep_to_what_operators_expect() {
    for (path, board) in boards() {
        assert_eq!(board["refresh"], "30s", "{path}");
        assert!(!word(&board["description"]).is_empty(), "{path}");
        let variables = board["templating"]["list"].as_array().unwrap();
        let names: Vec<&str> = variables.iter().map(|variable| word(&variable["name"])).collect();
        assert_eq!(names[..2], ["datasource", "cluster"], "{path}");
        let mut ids = BTreeSet::new();
        for panel in board["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{path}: {}", panel["title"]);
        }
        for panel in panels(&board) {
            let title = word(&panel["title"]);
            let place = format!("{path}: {title}");
            assert!(!title.is_empty(), "{path}: a panel without a title");
            let description = word(&panel["description"]);
            assert!(description.ends_with('.') && description.len() > 20, "{place}: {description}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{place}");
            assert!(!word(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "{place}");
            let steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array();
            assert!(steps.is_some_and(|steps| !steps.is_empty()), "{place}");
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{place}");
        }
        for (title, expr) in expressions(&board) {
            let place = format!("{path}: {title}: {expr}");
            let of_prometheus = expr.replace("_up{", "").contains("up{");
            assert!(!expr.contains("job=") && !of_prometheus, "{place}");
            assert!(expr.contains("cluster=~\"$cluster\"") || expr.contains("ALERTS"), "{place}");
            // A rate over raw counters asks for the interval that fits the zoom.
            for range in expr.split('[').skip(1) {
                assert!(
                    range.starts_with("$__rate_interval]") || range.starts_with("$__range]"),
                    "{place}"
                );
            }
        }
    }
}

#[test]
fn panels_lie_side_by_side() {
    for (path, board) in boards() {
        let mut taken = BTreeSet::new();
        for panel in board["panels"].as_array().unwrap() {
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(x < 24 && taken.insert((x, y)), "{path}: {}", panel["title"]);
                }
            }
        }
    }
}

#[test]
fn alerts_say_who_what_and_what_next() {
    for rule in all_rules() {
        let Rule::Alert(alert) = rule else { continue };
        let name = alert.name;
        assert!(name.starts_with("Portolan"), "{name}");
        assert!(alert.summary.ends_with('.') && !alert.summary.contains("{{"), "{name}");
        let figures = ["{{ $labels.", "{{ $value "];
        assert!(figures.iter().any(|figure| alert.description.contains(figure)), "{name}");
        let board = alert.board.split('?').next().unwrap();
        assert!(boards::all().iter().any(|known| known.uid == board), "{name}: {board}");
        let runbook = root().join("docs").join(alert.runbook());
        let runbook = fs::read_to_string(runbook).unwrap_or_else(|error| panic!("{name}: {error}"));
        for part in ["means", "sure", "First three commands", "causes", "Mend", "Silence"] {
            assert!(runbook.contains(part), "the runbook of {name} lacks: {part}");
        }
    }
}

#[test]
fn a_faster_look_scales_every_duration() {
    let look = Look { faster: 10, ..Look::default() };
    let files = files(&root(), &look).unwrap();
    let text = |name: &str| {
        let found = files.iter().find(|(path, _)| path.ends_with(name));
        found.map(|(_, text)| text.as_str()).unwrap()
    };
    for name in ["portolan-recordings.yaml", "portolan-alerts.yaml"] {
        assert!(!text(name).contains("[5m]") && text(name).contains("[30000ms]"), "{name}");
    }
    assert!(text("portolan-alerts.yaml").contains("for: 12000ms"));
}
