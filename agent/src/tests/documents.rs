//! Claims of the documents that the code decides: numbers, lists, defaults and settings; and what a
//! new hook, metric or setting has to be named in.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api_types::{Access, OPERATIONS};
use loader::hooks::{HOOKS, Hook, Kind};
use loader::later::LATER;

use super::LAYERS;
use crate::commands::{DONE, FAILED, INVALID, UNREACHED};
use crate::config::settings::{Flag, SETTINGS};
use crate::config::{Config, Keep, Seccomp};

/// What feeds metrics besides hooks, where it is written as one word.
const NOT_HOOKS: [&str; 3] = ["bpf_prog_info", "identity", "reservations"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn document(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every document for users and contributors: path and text.
fn documents() -> Vec<(String, String)> {
    let mut paths = vec!["README.md".to_owned(), "dashboards/README.md".to_owned()];
    for folder in ["docs", "docs/runbooks"] {
        let entries = fs::read_dir(root().join(folder)).expect("documents");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let names = names.map(|name| name.into_string().expect("UTF-8"));
        let markdown =
            names.filter(|name| Path::new(name).extension().is_some_and(|kind| kind == "md"));
        paths.extend(markdown.map(|name| format!("{folder}/{name}")));
    }
    paths.into_iter().map(|path| (path.clone(), document(&path))).collect()
}

/// The part of a document below a heading, up to the next heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).expect(heading);
    rest.split("\n#").next().expect("a section")
}

/// Everything between backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The cells of a table's rows, without its head.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    lines.skip(1).map(|line| line.split(" | ").collect())
}

fn hooks(is_wanted: impl Fn(&Hook) -> bool) -> BTreeSet<&'static str> {
    HOOKS.iter().filter(|hook| is_wanted(hook)).map(|hook| hook.name).collect()
}

#[test]
fn every_hook_feeds_a_metric_and_every_hook_that_a_metric_names_exists() {
    let fed: Vec<&str> =
        telemetry::catalogue().flat_map(|metric| metric.fed_by.split(", ")).collect();
    for hook in HOOKS {
        assert!(
            fed.contains(&hook.name),
            "{} feeds no metric: name it in `fed_by` of a metric in agent/crates/telemetry/src/",
            hook.name
        );
    }
    let is_word = |name: &str| {
        name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
    };
    for name in fed.iter().filter(|name| is_word(name) && !NOT_HOOKS.contains(name)) {
        assert!(
            HOOKS.iter().any(|hook| hook.name == *name)
                || LATER.iter().any(|later| later.program == *name),
            "`fed_by` names {name}, which agent/crates/loader/src/hooks.rs and later.rs lack"
        );
    }
}

#[test]
fn the_readme_counts_the_hooks() {
    const WORDS: [&str; 16] = [
        "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
        "eleven", "twelve", "thirteen", "fourteen", "fifteen",
    ];
    let count = |kinds: &[Kind]| {
        let is_of = |hook: &Hook| hook.ways.first().is_some_and(|way| kinds.contains(&way.kind));
        let count = hooks(is_of).len();
        WORDS.get(count).map_or_else(|| count.to_string(), |word| (*word).to_owned())
    };
    let tracepoints = count(&[Kind::Tracepoint]);
    let cgroup = count(&[Kind::CgroupAddress, Kind::CgroupSocket]);
    let claim = format!(
        "{tracepoints} tracepoints of TCP and of sockets in general, and {cgroup} cgroup hooks"
    );
    assert!(document("README.md").contains(&claim), "the README must say: {claim}");
}

#[test]
fn architecture_lists_every_hook_its_fallback_and_what_no_requests_disables() {
    let text = document("docs/architecture.md");
    let section = section(&text, "### Hooks");
    let listed: BTreeSet<&str> = rows(section).flat_map(|cells| spans_of(cells[0])).collect();
    same("the table of hooks", &listed, &hooks(|_| true));
    let named = |start: &str, end: &str| -> BTreeSet<&str> {
        let line = section.lines().find(|line| line.starts_with(start)).expect(start);
        let (claim, _) = line[start.len()..].split_once(end).expect(end);
        spans_of(claim).collect()
    };
    let start = "* From Linux 7.0 on, tracepoint programs can be preempted.";
    same(start, &named(start, "have a fallback"), &hooks(|hook| hook.fallback.is_some()));
    let start = "* `--no-requests` disables";
    same(start, &named(start, ", and with"), &hooks(|hook| hook.requests));
}

/// docs/architecture.md lists the hooks that the loader's table has.
fn same(place: &str, listed: &BTreeSet<&str>, hooks: &BTreeSet<&str>) {
    let missing: Vec<_> = hooks.difference(listed).collect();
    let extra: Vec<_> = listed.difference(hooks).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "docs/architecture.md, section Hooks, {place:?}: add {missing:?}, remove {extra:?}, or correct agent/crates/loader/src/hooks.rs"
    );
}

fn spans_of(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn architecture_lists_what_each_crate_may_depend_on() {
    let text = document("docs/architecture.md");
    let table: Vec<Vec<&str>> = rows(section(&text, "## Crates")).collect();
    for (package, allowed) in LAYERS {
        let folder = |cell: &str| {
            let folder = cell.trim_matches('`').trim_end_matches('/');
            folder == *package || folder.strip_prefix("agent/crates/") == Some(package)
        };
        let row = table.iter().find(|cells| folder(cells[0])).expect(package);
        let listed: BTreeSet<&str> = match row[1] {
            "nothing" | "no crate of the workspace" => BTreeSet::new(),
            list => list.split(", ").collect(),
        };
        assert_eq!(listed, allowed.iter().copied().collect(), "{package}");
    }
}

#[test]
fn the_readme_lists_every_path_that_the_agent_serves() {
    let text = document("README.md");
    let listed: BTreeSet<&str> = rows(section(&text, "## Endpoints"))
        .flat_map(|cells| spans_of(cells[0]).collect::<Vec<_>>())
        .collect();
    let network = OPERATIONS.iter().filter(|one| one.access == Access::Network);
    let assets = ["/page.css", "/page.js"];
    let served = network.map(|one| one.path).chain(server::paths());
    assert_eq!(listed, served.filter(|path| !assets.contains(path)).collect());
}

#[test]
fn documents_name_only_settings_that_exist() {
    let keys: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    let sections: BTreeSet<&str> =
        keys.iter().filter_map(|key| Some(key.split_once('.')?.0)).collect();
    let flags: BTreeSet<&str> = SETTINGS
        .iter()
        .map(|setting| match setting.flag {
            Flag::Value(name, _) | Flag::On(name) | Flag::Off(name, _) => name,
        })
        .collect();
    let mut seen = 0;
    for (path, text) in documents() {
        for span in spans(&text) {
            let word = span.split([' ', '=', '[']).next().unwrap_or_default();
            if let Some((section, rest)) = word.split_once('.')
                && sections.contains(section)
                && rest != "rs"
                && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            {
                seen += 1;
                assert!(keys.contains(word), "{path}: there is no setting {word}");
            }
            if let Some(flag) = word.strip_prefix("--")
                && flag.contains('.')
            {
                seen += 1;
                assert!(flags.contains(flag), "{path}: there is no flag --{flag}");
            }
        }
    }
    assert!(seen > 30, "only {seen} settings are named: does this test still find them?");
}

#[test]
fn documents_state_the_defaults() {
    let config = Config::default();
    let check = |path: &str, claim: &str, is_true: bool| {
        assert!(document(path).contains(claim), "{path} no longer says: {claim}");
        assert!(is_true, "{path} says: {claim}");
    };
    let address = config.web.listen_address.to_string();
    check("README.md", &format!("on {address}"), true);
    check("README.md", "every second", config.collection_interval == Duration::from_secs(1));
    check("README.md", "`/run/portolan/control.sock`", {
        config.run_directory == Path::new("/run/portolan")
    });
    check("README.md", "`/var/lib/portolan/state.json`", {
        config.state_directory == Path::new("/var/lib/portolan")
    });
    check("README.md", "unless `--pin` is set", !config.pin);
    check("README.md", "unless `otlp.endpoint` is set", config.otlp.endpoint.is_none());
    check(
        "docs/deploy.md",
        "`seccomp = \"enforce\"` (default)",
        config.seccomp == Seccomp::Enforce,
    );
    check("docs/deploy.md", "drops every capability it no longer needs", {
        config.privileges == Keep::Needed
    });
    check("docs/deploy.md", "once a minute (`--otlp.interval`)", {
        config.otlp.interval == Duration::from_mins(1)
    });
    check("docs/decisions.md", "## 40. Names from DNS answers, on by default", config.names.dns);
}

#[test]
fn the_exit_codes_are_those_of_the_code() {
    let text = document("docs/commands.md");
    let codes = rows(section(&text, "## Exit codes")).map(|row| row[0].parse::<u8>().ok());
    // The first row is the line below the head.
    assert_eq!(codes.flatten().collect::<Vec<_>>(), [DONE, FAILED, INVALID, UNREACHED]);
}

#[test]
fn findings_and_alerts_link_to_the_same_place() {
    let alerts = document("dashboards/prometheus/portolan-alerts.yaml");
    let links = alerts.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: "));
    let elsewhere: Vec<&str> = links
        .clone()
        .filter(|link| !link.starts_with(&format!("{}/", Config::default().docs_url)))
        .collect();
    assert!(links.count() > 10 && elsewhere.is_empty(), "{elsewhere:?}");
}

#[test]
fn every_goal_that_was_missed_is_admitted() {
    let benchmarks = document("docs/benchmarks.md");
    let goals = rows(&benchmarks).filter(|row| row.len() > 6);
    let missed: Vec<(&str, &str)> =
        goals.filter(|row| row[6] == "**missed**").map(|row| (row[0], row[4])).collect();
    let proof = document("docs/proof.md");
    let admitted: Vec<Vec<&str>> = rows(section(&proof, "## Missed goals")).collect();
    assert_eq!(missed.len(), admitted.len(), "{missed:?}");
    for ((goal, result), row) in missed.iter().zip(&admitted) {
        // What is about ports has no number.
        let begins = if *goal == "ports" { "a bind" } else { goal };
        assert!(row[0].starts_with(begins) && row[1] == *result, "{goal} {result}: {row:?}");
    }
}
