//! Rules for single files: header, length, name, forbidden content.

use super::{Finding, Sources, code, is_test, lines_before_tests, word_at};

/// Lines of a file before its tests.
const LONGEST: usize = 400;
/// A longer file has this in its header, followed by the reason.
const EXCUSE: &str = "Long because";

/// Names that do not describe the content.
const EMPTY_NAMES: [&str; 7] = ["common", "helper", "helpers", "manager", "misc", "util", "utils"];

/// Files that cargo finds by their names.
const ROOTS: [&str; 3] = ["lib", "main", "build"];
/// Folders in which it finds every file.
const TARGETS: [&str; 5] = ["tests", "benches", "bin", "examples", "fuzz_targets"];

/// Macros for unfinished work.
const LEFTOVERS: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// First folders of paths that exist on one machine only.
const MACHINE_FOLDERS: [&str; 2] = ["root", "work"];

/// Every Rust file starts with its purpose.
pub fn headers(sources: &Sources) -> Vec<Finding> {
    let without = sources.rust("").filter(|(_, text)| !text.starts_with("//! "));
    without
        .map(|(path, _)| Finding::new(path, 1, "start with `//! ` and why the file exists"))
        .collect()
}

/// A file longer than the limit says why.
pub fn lengths(sources: &Sources) -> Vec<Finding> {
    let long = sources.rust("").filter_map(|(path, text)| {
        let lines = lines_before_tests(text).count();
        let header = text.lines().take_while(|line| line.starts_with("//!"));
        let excused = header.into_iter().any(|line| line.contains(EXCUSE));
        (lines > LONGEST && !excused && !is_test(path)).then_some((path, lines))
    });
    long.map(|(path, lines)| {
        let what = format!("{lines} lines: split it, or say `{EXCUSE} …` in its header");
        Finding::new(path, 0, what)
    })
    .collect()
}

/// Every Rust file is compiled: its parent has a `mod` line for it.
pub fn modules(sources: &Sources) -> Vec<Finding> {
    let orphans = sources.rust("").filter_map(|(path, _)| {
        let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let (folder, name) = module.rsplit_once('/')?;
        let last = folder.rsplit('/').next().unwrap_or_default();
        if ROOTS.contains(&name) || TARGETS.contains(&last) || is_named_by_cargo(sources, path) {
            return None;
        }
        let parents = ["/mod.rs", ".rs", "/lib.rs", "/main.rs"].map(|end| format!("{folder}{end}"));
        let parent = parents.iter().find(|parent| sources.text(parent).is_some())?;
        let line = format!("mod {name};");
        let has = |text: &str| text.lines().any(|found| is_declaration(found, &line));
        let is_missing = !parents.iter().filter_map(|parent| sources.text(parent)).any(has);
        is_missing.then(|| {
            Finding::new(path, 0, format!("never compiled: add the line `{line}` to {parent}"))
        })
    });
    orphans.collect()
}

/// Whether the manifest of a package has the path of a file in it.
fn is_named_by_cargo(sources: &Sources, path: &str) -> bool {
    sources.all().any(|(manifest, text)| {
        let below =
            manifest.strip_suffix("Cargo.toml").and_then(|folder| path.strip_prefix(folder));
        below.is_some_and(|below| text.contains(&format!("path = \"{below}\"")))
    })
}

/// Whether a line of code is `line`, whatever its visibility.
fn is_declaration(found: &str, line: &str) -> bool {
    let before = found.trim().strip_suffix(line);
    before.is_some_and(|before| before.is_empty() || before.starts_with("pub"))
}

/// Files and folders are named after their content.
pub fn names(sources: &Sources) -> Vec<Finding> {
    let empty = sources.rust("").filter(|(path, _)| {
        let parts = path.trim_end_matches(".rs").split('/');
        parts.into_iter().any(|part| EMPTY_NAMES.contains(&part))
    });
    empty.map(|(path, _)| Finding::new(path, 0, "name it after its content")).collect()
}

/// Nothing unfinished is committed.
pub fn leftovers(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in sources.rust("") {
        for (line, content) in code(text) {
            let is_call = |name: &&&str| {
                word_at(content, name).is_some_and(|at| content[at + name.len()..].starts_with('!'))
            };
            if let Some(name) = LEFTOVERS.iter().find(is_call) {
                findings.push(Finding::new(
                    path,
                    line,
                    format!("finish it: no {name}! in the code"),
                ));
            }
        }
    }
    findings
}

/// No path of a developer's machine is committed.
pub fn machine_paths(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in sources.all() {
        for (index, line) in text.lines().enumerate() {
            for folder in MACHINE_FOLDERS {
                if has_absolute(line, &format!("/{folder}/")) {
                    let what = format!("/{folder}/… exists on one machine only");
                    findings.push(Finding::new(path, index + 1, what));
                }
            }
        }
    }
    findings
}

/// Whether `line` has a path that starts with `start`, not just one with it inside.
fn has_absolute(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.~$*/<>{}[]()".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(findings: &[Finding]) -> Vec<(&str, usize)> {
        findings.iter().map(|finding| (finding.path.as_str(), finding.line)).collect()
    }

    #[test]
    fn a_file_without_a_reason_is_found() {
        let sources =
            Sources::of(&[("a.rs", "//! Why.\n"), ("b.rs", "use x;\n"), ("c.md", "text")]);
        assert_eq!(places(&headers(&sources)), [("b.rs", 1)]);
    }

    #[test]
    fn tests_and_excused_files_may_be_long() {
        let lines = "x\n".repeat(401);
        let sources = Sources::of(&[
            ("long.rs", &lines),
            ("agent/tests/long.rs", &lines),
            ("tested.rs", &format!("#[cfg(test)]\n{lines}")),
            ("table.rs", &format!("//! A table.\n//! Long because it is one table.\n{lines}")),
        ]);
        assert_eq!(places(&lengths(&sources)), [("long.rs", 0)]);
    }

    #[test]
    fn files_that_nothing_compiles_are_found() {
        let sources = Sources::of(&[
            ("x/src/lib.rs", "pub mod a;\npub(crate) mod b;\n// mod c;\n"),
            ("x/src/a.rs", "#[cfg(test)]\nmod tests;\n"),
            ("x/src/a/tests.rs", ""),
            ("x/src/a/forgotten.rs", ""),
            ("x/src/b/mod.rs", ""),
            ("x/src/b/forgotten.rs", ""),
            ("x/src/c.rs", ""),
            ("x/tests/whole.rs", ""),
            ("x/tests/live/main.rs", "mod d;\n"),
            ("x/tests/live/d.rs", ""),
            ("x/tests/live/e.rs", ""),
            ("x/build.rs", ""),
            ("x/src/run.rs", ""),
            ("x/Cargo.toml", "[[bin]]\npath = \"src/run.rs\"\n"),
        ]);
        let expected =
            ["x/src/a/forgotten.rs", "x/src/b/forgotten.rs", "x/src/c.rs", "x/tests/live/e.rs"];
        assert_eq!(places(&modules(&sources)), expected.map(|path| (path, 0)));
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        let sources =
            Sources::of(&[("a/utils/x.rs", ""), ("a/common.rs", ""), ("agent-common/x.rs", "")]);
        assert_eq!(places(&names(&sources)), [("a/common.rs", 0), ("a/utils/x.rs", 0)]);
    }

    #[test]
    fn unfinished_work_is_found_outside_comments() {
        let name = LEFTOVERS[0];
        let text = format!("{name}!();\n// {name}!()\nmy_{name}!();\nlet {name} = 1;\n");
        assert_eq!(places(&leftovers(&Sources::of(&[("a.rs", &text)]))), [("a.rs", 1)]);
    }

    #[test]
    fn paths_of_one_machine_are_found_but_not_those_inside_others() {
        let folder = format!("/{}/", MACHINE_FOLDERS[0]);
        let check = |line: String, expected: bool| {
            let findings = machine_paths(&Sources::of(&[("a.md", &line)]));
            assert_eq!(!findings.is_empty(), expected, "{line}");
        };
        check(format!("cd {folder}x"), true);
        check(format!("\"{folder}\""), true);
        check(format!("/proc/1{folder}etc"), false);
        check(format!("/proc/{{pid}}{folder}etc"), false);
    }
}
