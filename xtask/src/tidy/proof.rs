//! docs/proof.md says which test proves what: every test that it names must exist.

use super::{Finding, Sources};
use crate::test::full;

const PAGE: &str = full::PAGE;

/// Names with `::` in backquotes are tests, or modules of tests.
pub fn tests_exist(sources: &Sources) -> Vec<Finding> {
    let Some(page) = sources.0.get(PAGE) else {
        let what = "write it: a table of which test proves what".to_owned();
        return vec![Finding { path: PAGE.to_owned(), line: 0, what }];
    };
    let mut findings = Vec::new();
    for (at, line) in page.lines().enumerate() {
        let quoted = line.split('`').skip(1).step_by(2);
        for name in quoted.filter(|word| word.contains("::") && !word.contains(' ')) {
            if !exists(sources, name) {
                let what = format!("there is no test {name}: name the one that proves this");
                findings.push(Finding { path: PAGE.to_owned(), line: at + 1, what });
            }
        }
    }
    findings
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
    fn a_test_that_is_not_there_is_found() {
        let page = "| a | `iterate_sockets::it_is`, `iterate_sockets::it_is_not`, `x::y::tests` | `bpftool` |\n";
        let mut sources = Sources::default();
        sources.0.insert(PAGE.into(), page.into());
        sources.0.insert("agent/tests/live/iterate_sockets.rs".into(), "fn it_is() {}".into());
        sources.0.insert("agent/src/x/y.rs".into(), "#[test] fn z() {}".into());
        let found = tests_exist(&sources);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("iterate_sockets::it_is_not"), "{found:?}");
    }
}
