//! What documents refer to must exist: files of the checkout, and commands of `cargo xtask`.

use std::path::Path;

use clap::CommandFactory as _;

use super::{Finding, Sources};

/// Folders that a path in a document may be relative to. `model/delta.rs` is short for
/// `agent/crates/model/src/delta.rs`, `pipeline/core.rs` for `agent/src/pipeline/core.rs`.
const BASES: [&str; 6] =
    ["", "agent/crates/", "agent/src/", "docs/", "dashboards/", "xtask/tools/"];
/// The folder of the crates, whose `src` a shortened path leaves out.
const CRATES: &str = "agent/crates/";
/// Endings of files that are named with their path.
const KINDS: [&str; 6] = [".rs", ".md", ".yaml", ".yml", ".toml", ".json"];
/// Where users keep files of their own: these are not in the checkout.
const ELSEWHERE: [&str; 5] = ["/", "~", "$", "target/", "sources/docker/"];

/// Every file that a document names exists.
pub fn paths_exist(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, line, span) in spans(sources) {
        let is_path = span.contains('/') && KINDS.iter().any(|kind| span.ends_with(kind));
        let is_plain = !span.contains(|c: char| c.is_whitespace() || "*<>{}…:".contains(c));
        let is_ours = !ELSEWHERE.iter().any(|place| span.starts_with(place));
        if is_path && is_plain && is_ours && !exists(sources, span) {
            findings.push(Finding::new(path, line, format!("there is no file {span}")));
        }
    }
    findings
}

/// Every command of `cargo xtask` that a document names exists.
pub fn commands_exist(sources: &Sources) -> Vec<Finding> {
    let commands = crate::Args::command();
    let is_known = |name: &str| commands.get_subcommands().any(|one| one.get_name() == name);
    let mut findings = Vec::new();
    for (path, text) in documents(sources) {
        for (index, line) in text.lines().enumerate() {
            for rest in line.split("cargo xtask ").skip(1) {
                let end = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
                let name = &rest[..end];
                if !name.is_empty() && !is_known(name) {
                    let what = format!("there is no command cargo xtask {name}");
                    findings.push(Finding::new(path, index + 1, what));
                }
            }
        }
    }
    findings
}

fn exists(sources: &Sources, span: &str) -> bool {
    let is_there = |path: &str| sources.text(path).is_some();
    let in_crate = span.split_once('/').map(|(name, rest)| format!("{CRATES}{name}/src/{rest}"));
    BASES.iter().any(|base| is_there(&format!("{base}{span}")))
        || in_crate.is_some_and(|path| is_there(&path))
}

fn documents(sources: &Sources) -> impl Iterator<Item = (&str, &str)> {
    sources.all().filter(|(path, _)| Path::new(path).extension().is_some_and(|kind| kind == "md"))
}

/// Everything between backticks on one line: file, line, text.
fn spans(sources: &Sources) -> impl Iterator<Item = (&str, usize, &str)> {
    documents(sources).flat_map(|(path, text)| {
        text.lines().enumerate().flat_map(move |(index, line)| {
            line.split('`').skip(1).step_by(2).map(move |span| (path, index + 1, span))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_do_not_exist_are_found() {
        let text = "`model/delta.rs` and `agent/src/a.rs`\n`model/gone.rs` `/etc/x.toml` `x.rs`\n";
        let sources = Sources::of(&[
            ("docs/a.md", text),
            ("agent/crates/model/src/delta.rs", ""),
            ("agent/src/a.rs", ""),
        ]);
        let found = paths_exist(&sources);
        assert_eq!(found, [Finding::new("docs/a.md", 2, "there is no file model/gone.rs")]);
    }

    #[test]
    fn commands_that_do_not_exist_are_found() {
        let text =
            "cargo xtask run\n`cargo xtask bench p8`, `cargo xtask dance`\ncargo xtask [X]\n";
        let found = commands_exist(&Sources::of(&[("README.md", text)]));
        assert_eq!(found, [Finding::new("README.md", 2, "there is no command cargo xtask dance")]);
    }
}
