//! Rules for packages: where unsafe code may be, and how large the runner may grow.

use super::{Finding, Sources};

/// Folders whose programs may have unsafe code: the contract, the kernel half, what talks to the kernel,
/// and programs for tests and benchmarks.
const UNSAFE: [&str; 7] = [
    "agent-common/",
    "agent-ebpf/",
    "agent/crates/linux/",
    "agent/crates/loader/",
    "agent/tests/",
    "xtask/tools/bench/",
    "xtask/tools/demo/",
];
/// In the first file of each other package.
const FORBID: &str = "forbid(unsafe_code)";

/// The runner, which is compiled before anything else, and its lines at most.
const RUNNER: (&str, usize) = ("xtask/src/", 4000);

/// The compiler refuses unsafe code wherever it has no business.
pub fn safety(sources: &Sources) -> Vec<Finding> {
    let roots = sources.rust("").filter(|(path, text)| {
        let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
        is_root && !UNSAFE.iter().any(|folder| path.starts_with(folder)) && !text.contains(FORBID)
    });
    roots.map(|(path, _)| Finding::new(path, 1, format!("add #![{FORBID}]"))).collect()
}

/// Parts that can be tools of their own do not belong in the runner.
pub fn runner(sources: &Sources) -> Vec<Finding> {
    let (folder, most) = RUNNER;
    let lines: usize = sources.rust(folder).map(|(_, text)| text.lines().count()).sum();
    let what = format!("{lines} lines, {most} at most: make a part of it a tool in xtask/tools");
    if lines > most { vec![Finding::new(folder, 0, what)] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|finding| finding.path.as_str()).collect()
    }

    #[test]
    fn a_package_that_could_have_unsafe_code_is_found() {
        let sources = Sources::of(&[
            ("agent/crates/model/src/lib.rs", "//! Tables.\n"),
            ("agent/crates/model/src/rows.rs", "//! Rows.\n"),
            ("agent/crates/cli/src/lib.rs", "//! Commands.\n#![forbid(unsafe_code)]\n"),
            ("agent/crates/linux/src/lib.rs", "//! System calls.\n"),
        ]);
        assert_eq!(paths(&safety(&sources)), ["agent/crates/model/src/lib.rs"]);
    }

    #[test]
    fn a_runner_that_has_grown_is_found() {
        let half = "x\n".repeat(2000);
        let files = [("xtask/src/a.rs", half.as_str()), ("xtask/src/b.rs", half.as_str())];
        assert_eq!(runner(&Sources::of(&files)), []);
        let files = [files[0], files[1], ("xtask/src/c.rs", "x\n"), ("xtask/tools/d.rs", &half)];
        assert_eq!(paths(&runner(&Sources::of(&files))), ["xtask/src/"]);
    }
}
