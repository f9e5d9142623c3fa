//! `cargo xtask tidy`: rules of this repository that the compiler does not check.
//!
//! Every rule is a function from the sources to findings, in one file with its data on top; a
//! finding has the place and the fix.

mod documents;
mod hooks;
mod links;
mod metrics;
mod proof;
mod sources;
mod structure;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use portolan_kit::tree;

/// The files of the checkout that are text, by path.
#[derive(Default)]
struct Sources(BTreeMap<String, String>);

/// A violation of a rule, and its fix.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// From 1; 0 for the file as a whole.
    line: usize,
    what: String,
}

const RULES: [fn(&Sources) -> Vec<Finding>; 16] = [
    sources::headers,
    sources::lengths,
    sources::modules,
    sources::names,
    sources::leftovers,
    sources::machine_paths,
    structure::safety,
    structure::runner,
    documents::paths_exist,
    documents::commands_exist,
    links::links_lead_somewhere,
    hooks::touch_list,
    metrics::named_and_listed,
    proof::tests_exist,
    proof::threats_have_tests,
    proof::full_runs_are_recorded,
];

/// Applies every rule to the checkout.
pub fn tidy() -> Result<()> {
    let sources = Sources::read()?;
    let findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&sources)).collect();
    for Finding { path, line, what } in &findings {
        if *line == 0 {
            println!("{path}: {what}");
        } else {
            println!("{path}:{line}: {what}");
        }
    }
    if !findings.is_empty() {
        bail!("{} places are not tidy", findings.len());
    }
    Ok(())
}

impl Sources {
    /// Everything that is, or could be, committed.
    fn read() -> Result<Self> {
        let listed = tree::files().context("tidy checks the files that git lists")?;
        let mut files = BTreeMap::new();
        for path in listed {
            // Deleted, but not yet committed; or no text: neither is for us.
            if let Ok(text) = fs::read_to_string(tree::root().join(&path)) {
                files.insert(path, text);
            }
        }
        Ok(Self(files))
    }

    fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The Rust files below `folder`; an empty folder means all.
    fn rust(&self, folder: &str) -> impl Iterator<Item = (&str, &str)> {
        let is_rust = |path: &str| Path::new(path).extension().is_some_and(|kind| kind == "rs");
        self.all().filter(move |(path, _)| path.starts_with(folder) && is_rust(path))
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    #[cfg(test)]
    fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

/// Whether a whole file is there for tests.
fn is_test(path: &str) -> bool {
    ["/tests.rs", "/simulation.rs"].iter().any(|end| path.ends_with(end))
        || ["/tests/", "/simulation/", "/benches/"].iter().any(|part| path.contains(part))
}

/// The lines before a file's tests, numbered from 1.
fn lines_before_tests(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.enumerate().map(|(index, line)| (index + 1, line))
}

/// As [`lines_before_tests`], without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    lines_before_tests(text).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The position of `word` in `line` as a whole word.
fn word_at(line: &str, word: &str) -> Option<usize> {
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(word).map(|(at, _)| at).find(|&at| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stands_alone() {
        assert_eq!(word_at("use aya::Ebpf;", "aya"), Some(4));
        assert_eq!(word_at("papaya::fruit aya_log", "aya"), None);
        assert_eq!(word_at("himalaya aya", "aya"), Some(9));
    }

    #[test]
    fn the_checkout_is_listed() {
        let sources = Sources::read().unwrap();
        assert!(sources.rust("xtask/src/tidy/").count() >= 5);
    }
}
