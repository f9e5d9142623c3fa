//! The committed files are what `cargo xtask dashboards` writes; rules, panels and metrics refer to
//! each other; promtool accepts the rules and runs their tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{AggregateExpr, Expr};
use serde_json::Value;

use super::alert_texts::Subject;
use super::*;

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn committed() -> Dashboards {
    Dashboards::read(&root()).unwrap()
}

fn boards() -> Vec<(String, Value)> {
    let files = committed().generated(&Look::default()).into_iter();
    let boards = files.filter(|(path, _)| path.starts_with("dashboards/grafana/"));
    boards.map(|(path, text)| (path, serde_json::from_str(&text).unwrap())).collect()
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

fn prometheus_tests() -> Vec<PathBuf> {
    let folder = root().join("dashboards/prometheus/tests");
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn the_committed_files_are_up_to_date() {
    for (path, text) in committed().generated(&Look::default()) {
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
    let mut check = Command::new("promtool");
    check.args(["check", "rules"]);
    check.args(committed().rules.iter().map(|file| root().join(&file.path)));
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
    for rule in committed().rules.iter().flat_map(RuleFile::rules) {
        if let Some(record) = &rule.record {
            assert!(tests.contains(record), "no test names {record}");
        }
        if let Some(alert) = &rule.alert {
            let expected = format!("alertname=\"{alert}\"");
            assert!(tests.contains(&expected), "no test expects {alert}");
        }
    }
}

/// Every expression of rules and panels.
fn all_expressions(read: &Dashboards) -> Vec<String> {
    let rules = read.rules.iter().flat_map(RuleFile::rules).map(|rule| rule.expr.clone());
    rules.chain(read.queries().into_iter().map(|query| query.expr)).collect()
}

#[test]
fn every_recorded_series_is_read() {
    let read = committed();
    let used = all_expressions(&read).join("\n");
    let records =
        read.rules.iter().flat_map(RuleFile::rules).filter_map(|rule| rule.record.as_ref());
    let unused: Vec<&String> = records.filter(|record| !used.contains(*record)).collect();
    assert!(unused.is_empty(), "no rule and no panel reads {unused:?}");
}

#[test]
fn every_metric_is_shown_or_alerted_on() {
    let unread = committed().unread_metrics(&root()).unwrap();
    assert!(
        unread.is_empty(),
        "no rule and no panel reads {unread:?}: add a panel in dashboards/src/boards/ or a rule in dashboards/prometheus/"
    );
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
            let empty = word(&panel["fieldConfig"]["defaults"]["noValue"]);
            assert!(!empty.is_empty(), "{place}: nothing explains an empty panel");
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
            // A rate over raw counters uses the interval that fits the zoom.
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

/// Pixels of a column of the grid on a screen 1920 px wide, beside Grafana's docked menu.
const GRID_COLUMN: u64 = 65;
/// Pixels around the content of a panel.
const PANEL_EDGE: u64 = 24;
/// A heading: of each letter, and what is around them (padding, the button of the filter).
const LETTER: u64 = 8;
const AROUND_HEADING: u64 = 36;
/// Grafana makes no column narrower, and scrolls instead, unless its width is set.
const LEAST_COLUMN: u64 = 150;

/// The widths of a table's columns, by heading: those that are set, and an equal share of what is
/// left for each of the others.
fn column_widths(panel: &Value) -> Vec<(String, u64)> {
    let room = panel["gridPos"]["w"].as_u64().unwrap() * GRID_COLUMN - PANEL_EDGE;
    let overrides = panel["fieldConfig"]["overrides"].as_array().unwrap();
    let set = |heading: &str| {
        let of_it = overrides.iter().filter(|one| one["matcher"]["options"] == heading);
        let mut properties = of_it.flat_map(|one| one["properties"].as_array().unwrap());
        properties.find(|one| one["id"] == "custom.width")?["value"].as_u64()
    };
    let headings = organized(panel)["renameByName"].as_object().unwrap().values().map(word);
    let columns: Vec<(&str, Option<u64>)> =
        headings.map(|heading| (heading, set(heading))).collect();
    let fixed: u64 = columns.iter().filter_map(|(_, width)| *width).sum();
    let others = columns.iter().filter(|(_, width)| width.is_none()).count() as u64;
    let share = room.saturating_sub(fixed).checked_div(others).unwrap_or_default();
    let widths =
        columns.iter().map(|(heading, width)| ((*heading).to_owned(), width.unwrap_or(share)));
    widths.collect()
}

/// How the columns of a table are named and ordered.
fn organized(table: &Value) -> &Value {
    let transformations = table["transformations"].as_array().unwrap();
    &transformations.iter().find(|one| one["id"] == "organize").unwrap()["options"]
}

fn tables(boards: &[(String, Value)]) -> Vec<(String, &Value)> {
    let all = boards.iter().flat_map(|(path, board)| panels(board).map(move |panel| (path, panel)));
    let tables = all.filter(|(_, panel)| panel["type"] == "table");
    tables.map(|(path, panel)| (format!("{path}: {}", word(&panel["title"])), panel)).collect()
}

#[test]
fn no_table_cuts_a_column_or_its_heading_off() {
    let boards = boards();
    let tables = tables(&boards);
    assert!(tables.len() > 5, "only {} tables", tables.len());
    for (place, table) in tables {
        let room = table["gridPos"]["w"].as_u64().unwrap() * GRID_COLUMN - PANEL_EDGE;
        let widths = column_widths(table);
        let all: u64 = widths.iter().map(|(_, width)| width).sum();
        assert!(all <= room, "{place}: columns of {all} px in a panel of {room} px");
        for (heading, width) in widths {
            let needed = heading.chars().count() as u64 * LETTER + AROUND_HEADING;
            assert!(width >= needed, "{place}: {heading} needs {needed} px and has {width}");
            let is_set = table["fieldConfig"]["overrides"].to_string();
            let is_set = is_set.contains(&format!("\"value\":{width}}}"));
            assert!(is_set || width >= LEAST_COLUMN, "{place}: {heading} has only {width} px");
        }
    }
}

#[test]
fn every_label_of_a_table_has_a_heading() {
    let boards = boards();
    for (place, table) in tables(&boards) {
        let known = |label: &str| {
            let organized = organized(table);
            !organized["renameByName"][label].is_null()
                || organized["excludeByName"][label] == true
                || label == "le"
        };
        for target in table["targets"].as_array().unwrap() {
            let expr = promql::without_variables(word(&target["expr"]));
            promql::visit(&promql::parse(&expr).unwrap(), &mut |expr| {
                let Expr::Aggregate(AggregateExpr { modifier: Some(by), .. }) = expr else {
                    return;
                };
                for label in &by.labels().labels {
                    assert!(known(label), "{place}: {label} is a column without a heading");
                }
            });
        }
    }
}

#[test]
fn no_panel_counts_failed_connects_and_health_checks_as_resets() {
    let mut read = 0;
    for (path, board) in boards() {
        for (title, expr) in expressions(&board) {
            let expr = promql::parse(&promql::without_variables(&expr)).unwrap();
            for selector in promql::selectors(&expr) {
                let name = selector.name.as_deref().unwrap_or_default();
                if !name.contains("tcp_resets") {
                    continue;
                }
                let text = selector.to_string();
                let leaves_out = text.contains(r#"cause!~"no_listener|unused""#);
                assert!(leaves_out, "{path}: {title}: {text}");
                read += 1;
            }
        }
    }
    assert!(read >= 4, "only {read} panels read resets");
}

#[test]
fn legends_tell_services_of_one_name_in_two_namespaces_apart() {
    let mut named = 0;
    for (path, board) in boards() {
        for panel in panels(&board) {
            for target in panel["targets"].as_array().unwrap() {
                let (legend, expr) = (word(&target["legendFormat"]), word(&target["expr"]));
                for name in namespaces::NAMES {
                    if !legend.contains(&format!("{{{{{name}}}}}")) {
                        continue;
                    }
                    let joined = format!("\"{name}\", \"/\", \"{}\"", namespaces::of(name));
                    assert!(expr.contains(&joined), "{path}: {}: {expr}", panel["title"]);
                    named += 1;
                }
            }
        }
    }
    assert!(named > 30, "only {named} legends name a service");
}

#[test]
fn the_map_has_a_node_per_namespace_and_none_for_loopback() {
    let boards = boards();
    let all = boards.iter().flat_map(|(_, board)| panels(board));
    let map = all.into_iter().find(|panel| panel["type"] == "nodeGraph").unwrap();
    for target in map["targets"].as_array().unwrap() {
        let expr = promql::parse(&promql::without_variables(word(&target["expr"]))).unwrap();
        let mut of_pairs = 0;
        for selector in promql::selectors(&expr) {
            if selector.name.as_deref().is_some_and(|name| name.starts_with("pair:")) {
                for end in ["client", "server"] {
                    let leaves_out = |matcher: &Matcher| match &matcher.op {
                        MatchOp::NotRe(re) => {
                            matcher.name == end && re.is_match("127.0.0.1") && re.is_match("::1")
                        }
                        _ => false,
                    };
                    assert!(selector.matchers.matchers.iter().any(leaves_out), "{selector}");
                }
                of_pairs += 1;
            }
        }
        assert!(of_pairs >= 2, "{expr}");
    }
}

#[test]
fn alerts_name_what_they_are_about_and_have_a_runbook() {
    let tests = prometheus_tests().into_iter().map(|path| fs::read_to_string(path).unwrap());
    let tests: String = tests.collect();
    for rule in committed().rules.iter().flat_map(RuleFile::rules) {
        let Some(name) = &rule.alert else { continue };
        assert!(name.starts_with("Portolan"), "{name}");
        for key in ["summary", "description"] {
            let text = &rule.annotations[key];
            let names = text.contains("$labels.") || text.contains("$value");
            assert!(names, "{name}: {key} names nothing: {text}");
        }
        let test = format!("alertname: {name}\n");
        assert!(tests.contains(&test), "no test compares what {name} says");
        let runbook = root().join(format!("docs/runbooks/{name}.md"));
        let runbook = fs::read_to_string(runbook).unwrap();
        for part in ["means", "Confidence", "First three commands", "causes", "Fix", "Silence"] {
            assert!(runbook.contains(part), "the runbook of {name} lacks: {part}");
        }
    }
}

#[test]
fn every_summary_as_it_is_sent_names_service_port_and_host() {
    let mut seen = BTreeSet::new();
    for path in prometheus_tests() {
        let file: Value = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let lists = file["tests"].as_array().unwrap().iter();
        let rules = lists.filter_map(|test| test["alert_rule_test"].as_array()).flatten();
        for rule in rules {
            let name = word(&rule["alertname"]);
            for alert in rule["exp_alerts"].as_array().into_iter().flatten() {
                let summary = word(&alert["exp_annotations"]["summary"]);
                let place = format!("{}: {name}: {summary}", path.display());
                // Looked up, or the label `instance` without its port.
                let instance = word(&alert["exp_labels"]["instance"]).split(':').next();
                let is_host = |text: &str| {
                    ["node-", "db-"].iter().any(|start| text.starts_with(start))
                        || (!text.is_empty() && Some(text) == instance)
                };
                let host = summary.split([' ', ',', ':']).any(is_host);
                let subject = Subject::of(name);
                assert!(host || subject == Subject::Cluster, "{place}: no host");
                assert!(!summary.contains("<no value>") && !summary.contains("  "), "{place}");
                if subject == Subject::Service {
                    let labels = &alert["exp_labels"];
                    assert!(summary.contains(word(&labels["server"])), "{place}: no service");
                    let port = summary.split(|c: char| !c.is_ascii_digit() && c != ':');
                    let is_port =
                        |text: &str| text.strip_prefix(':').is_some_and(|port| !port.is_empty());
                    assert!(
                        port.into_iter().any(is_port) || summary.contains(" port "),
                        "{place}: no port"
                    );
                }
                seen.insert(name.to_owned());
            }
        }
    }
    for rule in committed().rules.iter().flat_map(RuleFile::rules) {
        if let Some(name) = &rule.alert {
            assert!(seen.contains(name), "no test compares the summary of {name}");
        }
    }
}

#[test]
fn runbooks_are_linked_below_the_chosen_url_and_exist() {
    let look = Look { docs: "https://wiki.example/portolan".to_owned(), ..Look::default() };
    let read = committed();
    let files = read.rule_files(&look).into_iter().chain(read.generated(&look));
    let mut links = 0;
    for (path, text) in files {
        assert!(!text.contains(Look::DOCS), "{path}");
        for link in text.split("runbook_url: ").skip(1) {
            let link = link.lines().next().unwrap_or_default().trim_matches('"');
            let page = link.strip_prefix("https://wiki.example/portolan/");
            assert!(
                page.is_some_and(|page| root().join("docs").join(page).is_file()),
                "{path}: {link}"
            );
            links += 1;
        }
    }
    assert!(links > 40, "only {links} links: of the rules and of the Kubernetes objects");
}

#[test]
fn a_faster_look_scales_every_duration() {
    let look = Look { faster: 10, ..Look::default() };
    for (path, text) in committed().rule_files(&look) {
        assert!(!text.contains("[5m]") && !text.contains("offset 1h"), "{path}");
        if path.ends_with("alerts.yaml") {
            assert!(text.contains("for: 12000ms"), "{path}");
        }
        if path.ends_with("recordings.yaml") {
            assert!(text.contains("[30000ms]"), "{path}");
        }
    }
}

#[test]
fn documents_name_dashboards_and_panels_that_exist_and_count_them() {
    let boards = boards();
    let titles: BTreeSet<String> = boards
        .iter()
        .flat_map(|(_, board)| panels(board).chain([board]))
        .map(|titled| word(&titled["title"]).trim_start_matches("Portolan / ").to_owned())
        .collect();
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let mut named = 0;
    for path in ["README.md", "docs/network-monitoring.md", "docs/network-troubleshooting.md"] {
        for line in read(path).replace("**", "").lines().filter(|line| line.contains("dashboard *"))
        {
            for title in line.split('*').skip(1).step_by(2) {
                assert!(titles.contains(title), "{path}: there is no dashboard or panel {title}");
                named += 1;
            }
        }
    }
    assert!(named > 10, "only {named} dashboards and panels are named: does this test find them?");
    let count: usize = boards.iter().map(|(_, board)| panels(board).count()).sum();
    let claim = format!("Some of the {count} panels are empty");
    assert!(read("docs/network-monitoring.md").contains(&claim), "it must say: {claim}");
}
