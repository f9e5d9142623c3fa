//! A hook is a file, a row and a live test of one name: forgetting one is found here.

use super::{Finding, Sources, code, word_at};

/// One file per hook.
const HOOKS: &str = "agent-ebpf/src/hooks/";
/// The tables with a row per hook, and per program that is attached later.
const TABLES: [&str; 2] = ["agent/crates/loader/src/hooks.rs", "agent/crates/loader/src/later.rs"];
/// Where each has a test on the real kernel: a file or a function of its name.
const LIVE_TESTS: &str = "agent/tests/live/";

/// Files that attach nothing and are covered by the tests of other hooks.
const WITHOUT_LIVE_TEST: [&str; 1] = ["mod"];

/// Every hook is attached and tested.
pub fn touch_list(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, _) in sources.rust(HOOKS) {
        let hook = path.trim_start_matches(HOOKS).trim_end_matches(".rs").trim_end_matches("/mod");
        if WITHOUT_LIVE_TEST.contains(&hook) {
            continue;
        }
        let row = format!("\"{hook}\"");
        let mut tables = TABLES.iter().filter_map(|table| sources.text(table)).peekable();
        if tables.peek().is_some() && !tables.flat_map(code).any(|(_, line)| line.contains(&row)) {
            findings.push(Finding::new(path, 0, format!("no row {row}: add it to {}", TABLES[0])));
        }
        if sources.rust(LIVE_TESTS).next().is_some() && !has_live_test(sources, hook) {
            let what = format!(
                "no live test: write {LIVE_TESTS}{hook}.rs, or a test `fn {hook}_…` in another file there"
            );
            findings.push(Finding::new(path, 0, what));
        }
    }
    findings
}

fn has_live_test(sources: &Sources, hook: &str) -> bool {
    let file = format!("/{hook}.rs");
    let function = format!("fn {hook}");
    sources.rust(LIVE_TESTS).any(|(path, text)| {
        path.ends_with(&file)
            || text.lines().any(|line| {
                line.contains(&function) || line.contains("mod ") && word_at(line, hook).is_some()
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(files: &[(&str, &str)]) -> usize {
        touch_list(&Sources::of(files)).len()
    }

    #[test]
    fn a_hook_needs_its_row_and_its_test() {
        let hook = ("agent-ebpf/src/hooks/tcp_x.rs", "");
        let table = ("agent/crates/loader/src/hooks.rs", "    Hook { name: \"tcp_x\" },\n");
        let commented = ("agent/crates/loader/src/hooks.rs", "// \"tcp_x\"\n");
        let other = ("agent/tests/live/tcp_y.rs", "");
        let file = ("agent/tests/live/tcp_x.rs", "");
        let function = ("agent/tests/live/tcp_z.rs", "fn tcp_x_counts() {}\n");
        assert_eq!(findings(&[hook]), 0, "neither table nor tests yet");
        assert_eq!(findings(&[hook, table, file]), 0);
        assert_eq!(findings(&[hook, table, function]), 0);
        assert_eq!(findings(&[hook, commented, file]), 1);
        assert_eq!(findings(&[hook, table, other]), 1);
    }
}
