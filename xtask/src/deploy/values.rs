//! The table of values in the chart's README, made from the comments of `values.yaml`.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, bail};
use portolan_kit::tree;
use serde_json::Value;

const VALUES: &str = "deploy/helm/portolan/values.yaml";
const README: &str = "deploy/helm/portolan/README.md";
/// The table stands between these.
const BEGIN: &str =
    "<!-- values: made by `cargo xtask deploy --write` from the comments in values.yaml -->\n";
const END: &str = "<!-- end of values -->\n";

/// A value, or a group of values with a comment of its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Described {
    /// Dotted: `web.port`.
    pub path: String,
    /// As JSON; none for a group.
    pub default: Option<String>,
    comment: String,
}

/// The values in the order of the file.
pub fn read() -> Result<Vec<Described>> {
    let text = fs::read_to_string(tree::root().join(VALUES)).context(VALUES)?;
    described(&text).context(VALUES)
}

/// Whether the README has today's table.
pub fn check() -> Result<()> {
    let readme = fs::read_to_string(tree::root().join(README)).context(README)?;
    if readme != with_table(&readme, &read()?)? {
        bail!("{README} is out of date: run `cargo xtask deploy --write`");
    }
    Ok(())
}

pub fn write() -> Result<()> {
    let path = tree::root().join(README);
    let readme = fs::read_to_string(&path).context(README)?;
    fs::write(path, with_table(&readme, &read()?)?).context(README)
}

fn with_table(readme: &str, values: &[Described]) -> Result<String> {
    let around = readme.split_once(BEGIN).and_then(|(head, rest)| {
        let (_, tail) = rest.split_once(END)?;
        Some((head, tail))
    });
    let (head, tail) = around.with_context(|| format!("{README} has no place for the values"))?;
    let mut text = format!("{head}{BEGIN}| value | default | meaning |\n|---|---|---|\n");
    for Described { path, default, comment } in values {
        let default = default.as_deref().map(|json| format!("`{json}`")).unwrap_or_default();
        let comment = comment.replace('|', "\\|");
        writeln!(text, "| `{path}` | {default} | {comment} |")?;
    }
    Ok(text + END + tail)
}

/// Every key with a comment above it, and what it is by default. A key without one must have commented
/// keys below, or be below a commented one.
fn described(text: &str) -> Result<Vec<Described>> {
    let whole: Value = serde_saphyr::from_str(text)?;
    let mut found: Vec<Described> = Vec::new();
    let mut comment = String::new();
    // Keys that the line is below, with their indentation.
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut bare: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if let Some(more) = content.strip_prefix('#') {
            if !comment.is_empty() {
                comment.push(' ');
            }
            comment.push_str(more.trim());
            continue;
        }
        let key = content.split_once(':').map(|(key, _)| key).filter(|key| !key.starts_with('-'));
        let Some(key) = key else {
            comment.clear();
            continue;
        };
        above.retain(|(other, _)| *other < indent);
        above.push((indent, key));
        let path = above.iter().map(|(_, key)| *key).collect::<Vec<_>>().join(".");
        if comment.is_empty() {
            bare.push((number + 1, path));
            continue;
        }
        let pointer = format!("/{}", path.replace('.', "/"));
        let default = whole.pointer(&pointer).with_context(|| format!("no value at {path}"))?;
        let comment = std::mem::take(&mut comment);
        found.push(Described { path, default: Some(default.to_string()), comment });
    }
    let paths: Vec<String> = found.iter().map(|value| value.path.clone()).collect();
    let is_above = |path: &str, other: &String| other.starts_with(&format!("{path}."));
    for value in &mut found {
        if paths.iter().any(|other| is_above(&value.path, other)) {
            value.default = None;
        }
    }
    for (line, path) in bare {
        let has_comment = |other: &String| is_above(&path, other) || is_above(other, &path);
        if !paths.iter().any(has_comment) {
            bail!("line {line}: describe {path} in a comment above it");
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_describe_the_keys_below_them() {
        let text = "# The file.\n\n# Two\n# lines\na: 1\nweb:\n  # Port\n  port: 2\n# Group\ng:\n  # In it\n  x: {}\n# List\nl:\n  - k: v\n";
        let found = described(text).unwrap();
        let found: Vec<(&str, Option<&str>, &str)> = found
            .iter()
            .map(|value| (&*value.path, value.default.as_deref(), &*value.comment))
            .collect();
        assert_eq!(
            found,
            [
                ("a", Some("1"), "Two lines"),
                ("web.port", Some("2"), "Port"),
                ("g", None, "Group"),
                ("g.x", Some("{}"), "In it"),
                ("l", Some(r#"[{"k":"v"}]"#), "List"),
            ]
        );
    }

    #[test]
    fn a_value_without_a_comment_is_an_error() {
        let error = described("# A\na: 1\nb: 2\n").unwrap_err();
        assert_eq!(error.to_string(), "line 3: describe b in a comment above it");
    }

    #[test]
    fn the_table_is_between_its_marks() {
        let values = described("# A or B | C\na: x\n").unwrap();
        let old = format!("head\n{BEGIN}old\n{END}tail\n");
        let new = with_table(&old, &values).unwrap();
        let row = "| `a` | `\"x\"` | A or B \\| C |\n";
        assert_eq!(
            new,
            format!("head\n{BEGIN}| value | default | meaning |\n|---|---|---|\n{row}{END}tail\n")
        );
        assert!(with_table("no marks", &values).is_err());
    }
}
