//! Links in documents lead somewhere: to a file or folder of the checkout, and to a heading in it.
//! Addresses on the web are not tried.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use portolan_kit::tree;

use super::{Finding, Sources};

/// Every relative link of a document leads to what exists.
pub fn links_lead_somewhere(sources: &Sources) -> Vec<Finding> {
    check(sources, |path| tree::root().join(path).exists())
}

fn check(sources: &Sources, exists: impl Fn(&Path) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Among sources are templates, whose links count from where their text will be.
    let documents = sources.all().filter(|(path, _)| is_document(path) && !path.contains("/src/"));
    for (path, text) in documents {
        for (line, target) in links(text) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let to = resolved(path, file);
            let problem = if !exists(&to) {
                format!("the link leads to {}, which does not exist", to.display())
            } else if heading.is_empty() || has_heading(sources, &to, heading) {
                continue;
            } else {
                format!("{} has no heading #{heading}", to.display())
            };
            findings.push(Finding::new(path, line, problem));
        }
    }
    findings
}

fn is_document(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|kind| kind == "md")
}

/// A file of another kind has lines, not headings.
fn has_heading(sources: &Sources, to: &Path, heading: &str) -> bool {
    let Some(text) = to.to_str().filter(|to| is_document(to)).and_then(|to| sources.text(to))
    else {
        return true;
    };
    headings(text).contains(heading)
}

/// Relative links outside of code, with their lines.
fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(text).flat_map(|(number, line)| {
        // Every second part is code.
        let parts = line.split('`').step_by(2);
        let targets = parts.flat_map(|part| part.split("](").skip(1));
        let targets = targets.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
        targets.filter(|target| !target.contains("://")).map(move |target| (number, target))
    })
}

/// The lines outside of fences, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        (!fenced && !is_fence).then_some((index + 1, line))
    })
}

/// Where a link in `document` leads, from the root of the checkout.
fn resolved(document: &str, link: &str) -> PathBuf {
    if link.is_empty() {
        return PathBuf::from(document);
    }
    let mut path = Path::new(document).parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

/// The anchors of all headings, as GitHub makes them: lower case, words joined by hyphens, nothing but
/// letters, digits and underscores; repeated ones get a number.
fn headings(text: &str) -> HashSet<String> {
    let mut anchors = HashSet::new();
    let titles = prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len()).then(|| title.strip_prefix(' ')).flatten()
    });
    for title in titles {
        let letters = title.trim().chars().flat_map(char::to_lowercase);
        let anchor: String = letters
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let free = (0..).map(|n| if n == 0 { anchor.clone() } else { format!("{anchor}-{n}") });
        anchors.extend(free.into_iter().find(|anchor| !anchors.contains(anchor)));
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_nothing_are_found() {
        let text = "# A b\n[x](b.md) [y](../gone.md#z) `[c](code.md)` [w](https://x/y)\n\
                    ```\n[f](fenced.md)\n```\n[h](#a-b) [i](#b) [j](b.md#c-d-1) [k](b.md#c)\n";
        let sources = Sources::of(&[("docs/a.md", text), ("docs/b.md", "## C: d!\n## C d\n")]);
        let found = check(&sources, |path| path.starts_with("docs"));
        let expected = [
            Finding::new("docs/a.md", 2, "the link leads to gone.md, which does not exist"),
            Finding::new("docs/a.md", 6, "docs/a.md has no heading #b"),
            Finding::new("docs/a.md", 6, "docs/b.md has no heading #c"),
        ];
        assert_eq!(found, expected);
    }
}
