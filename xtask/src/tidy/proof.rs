//! docs/proof.md and docs/threat-model.md say which test proves what: every test that they name must
//! exist, and every promise of the threat model must name one.

use super::{Finding, Sources};
use crate::test::full;

const PAGE: &str = full::PAGE;
const THREATS: &str = "docs/threat-model.md";

/// Head of the tables of the threat model.
const PROMISES: &str = "| must hold | shown by |";

/// How many attackers the threat model has.
const ATTACKERS: usize = 8;

/// Names with `::` in backquotes are tests, or modules of tests.
pub fn tests_exist(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in [PAGE, THREATS] {
        let Some(page) = sources.text(path) else {
            let what = "write it: a table of which test proves what";
            findings.push(Finding::new(path, 0, what.to_owned()));
            continue;
        };
        for (at, line) in page.lines().enumerate() {
            for name in tests_in(line).filter(|name| !exists(sources, name)) {
                let what = format!("there is no test {name}: name the one that proves this");
                findings.push(Finding::new(path, at + 1, what));
            }
        }
    }
    findings
}

/// Every attacker of the threat model has promises, and every promise a test.
pub fn threats_have_tests(sources: &Sources) -> Vec<Finding> {
    let Some(page) = sources.text(THREATS) else { return Vec::new() };
    let mut findings = Vec::new();
    let mut tables = 0;
    let mut is_table = false;
    for (at, line) in page.lines().enumerate() {
        if line == PROMISES {
            tables += 1;
            is_table = true;
        } else if !line.starts_with('|') {
            is_table = false;
        } else if is_table && !line.starts_with("|---") && tests_in(line).next().is_none() {
            let what = "name the test that shows this, as `module::test`".to_owned();
            findings.push(Finding::new(THREATS, at + 1, what));
        }
    }
    let attackers = page.lines().filter(|line| line.starts_with("### ")).count();
    if attackers != ATTACKERS || tables != attackers {
        let what = format!(
            "it has {attackers} attackers and {tables} tables `{PROMISES}`; write one for each of {ATTACKERS}"
        );
        findings.push(Finding::new(THREATS, 0, what));
    }
    findings
}

/// Names with `::` in backquotes.
fn tests_in(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.filter(|word| word.contains("::") && !word.contains(' '))
}

/// Every part of a full run has a record of its last run.
pub fn full_runs_are_recorded(sources: &Sources) -> Vec<Finding> {
    let Some(page) = sources.text(PAGE) else { return Vec::new() };
    let missing = full::without_record(page).map(|part| {
        let what = format!("no record of {part}: run `cargo xtask test --full {part}`");
        Finding::new(PAGE, 0, what)
    });
    missing.collect()
}

/// Whether a file of the test's module has a function of its name; for a module, whether it exists.
fn exists(sources: &Sources, name: &str) -> bool {
    let parts: Vec<&str> = name.split("::").collect();
    let [.., module, last] = parts[..] else { return false };
    let inside = parts.iter().rev().skip(1).find(|part| **part != "tests").copied();
    let inside = inside.unwrap_or(module);
    let is_module = |path: &str, module: &str| {
        let folder = path.replace("agent/fuzz/", "agent_fuzz/");
        path.ends_with(&format!("/{module}.rs")) || folder.contains(&format!("{module}/"))
    };
    let function = format!("fn {last}(");
    sources.rust("").any(|(path, text)| {
        is_module(path, inside)
            && (text.contains(&function) || (last == "tests" && text.contains("#[test]")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_run_without_a_record_is_found() {
        let rows = full::PARTS.iter().skip(1).map(|part| format!("| {} | now |", part.name));
        let page = format!("## Full runs\n\n{}\n", rows.collect::<Vec<_>>().join("\n"));
        let found = full_runs_are_recorded(&Sources::of(&[(PAGE, &page)]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].what.contains(full::PARTS[0].name), "{found:?}");
    }

    #[test]
    fn a_promise_without_a_test_is_found() {
        let attacker = |row: &str| format!("### 1. X\n\n{PROMISES}\n|---|---|\n{row}\n\nText.\n");
        let good = attacker("| a | `x::y` |");
        let page = |last: &str| [good.repeat(ATTACKERS - 1), last.to_owned()].concat();
        let found = |page: &str| threats_have_tests(&Sources::of(&[(THREATS, page)]));
        assert_eq!(found(&page(&good)), []);
        let found_in_row = found(&page(&attacker("| a | by hand |")));
        assert_eq!(found_in_row.len(), 1, "{found_in_row:?}");
        assert!(found_in_row[0].what.starts_with("name the test"));
        let found_missing = found(&page("### 8. Y\n"));
        assert!(found_missing[0].what.contains("8 attackers and 7 tables"), "{found_missing:?}");
    }

    #[test]
    fn a_test_that_is_not_there_is_found() {
        let page = "| a | `iterate_sockets::it_is`, `iterate_sockets::it_is_not`, `x::y::tests` | `bpftool` |\n";
        let mut sources = Sources::default();
        sources.0.insert(PAGE.into(), page.into());
        sources.0.insert(THREATS.into(), "| a | `x::y::z` |\n".into());
        sources.0.insert("agent/tests/live/iterate_sockets.rs".into(), "fn it_is() {}".into());
        sources.0.insert("agent/src/x/y.rs".into(), "#[test] fn z() {}".into());
        let found = tests_exist(&sources);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("iterate_sockets::it_is_not"), "{found:?}");
    }
}
