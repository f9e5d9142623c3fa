//! Which part of the daemon may import what: data flows one way.

use super::{Finding, Sources, code, lines_before_tests, word_at};

/// A crate, and the only folder that knows it.
const OWNERS: [(&str, &str); 4] = [
    ("aya", "agent/src/kernel/"),
    ("aya_log", "agent/src/kernel/"),
    ("aya_obj", "agent/src/kernel/"),
    ("prometheus_client", "agent/src/export/"),
];

/// A folder, and the parts of ours that it does not know.
const LAYERS: [(&str, &[&str]); 1] = [(
    "agent/src/model/",
    &["kernel", "decode", "identity", "sockets", "export", "api", "cli", "config", "pipeline"],
)];

/// A folder, and the crates that would make it more than plain values.
const PURE: [(&str, &[&str]); 1] = [("agent/src/model/", &["tokio", "axum", "clap", "tracing"])];

/// Imports point one way.
pub fn layers(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in sources.rust("agent/src/") {
        for (line, content) in code(text) {
            let strangers = OWNERS
                .iter()
                .filter(|(name, owner)| !belongs(path, owner) && names_crate(content, name));
            for (name, owner) in strangers {
                findings.push(Finding::new(path, line, format!("only {owner} imports {name}")));
            }
            let impure = PURE.iter().filter(|(folder, _)| belongs(path, folder));
            for name in
                impure.flat_map(|(_, names)| *names).filter(|name| names_crate(content, name))
            {
                findings.push(Finding::new(
                    path,
                    line,
                    format!("plain values only: no {name} here"),
                ));
            }
        }
        for (folder, forbidden) in LAYERS.iter().filter(|(folder, _)| belongs(path, folder)) {
            for (line, part) in parts_of_ours(text) {
                if forbidden.contains(&part.as_str()) {
                    let what = format!("{folder} knows nothing of `{part}`: data flows one way");
                    findings.push(Finding::new(path, line, what));
                }
            }
        }
    }
    findings
}

/// Whether a file is in `folder`, or is the file beside it that has the same name.
fn belongs(path: &str, folder: &str) -> bool {
    path.starts_with(folder) || path.strip_suffix(".rs") == Some(folder.trim_end_matches('/'))
}

/// Whether code names a crate: `use it`, `it::…`.
fn names_crate(line: &str, name: &str) -> bool {
    let Some(at) = word_at(line, name) else { return false };
    let after = &line[at + name.len()..];
    let used = line.trim_start().trim_start_matches("pub ").starts_with("use ");
    // `crate::aya` would be a part of ours, and `x.aya` a field.
    let inside = line[..at].ends_with("::") || line[..at].ends_with('.');
    !inside && (after.starts_with("::") || used && after.starts_with([';', ' ', '}', ',']))
}

/// The parts of our own crate that code names after `crate::`, in groups too.
fn parts_of_ours(text: &str) -> Vec<(usize, String)> {
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    let lines = lines_before_tests(text).map(|(_, line)| if is_comment(line) { "" } else { line });
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut parts = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + start.len()..];
        match rest.strip_prefix('{') {
            Some(group) => parts.extend(heads(group).into_iter().map(|part| (line, part))),
            None => parts.push((line, identifier(rest))),
        }
    }
    parts
}

/// The first names of a group's members, up to the brace that closes it.
fn heads(group: &str) -> Vec<String> {
    let mut outside = String::new();
    let mut depth = 0_usize;
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            c if depth == 0 => outside.push(c),
            _ => {}
        }
    }
    outside
        .split(',')
        .map(|member| identifier(member.trim()))
        .filter(|name| !name.is_empty())
        .collect()
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expected: &[usize]) {
        let findings = layers(&Sources::of(&[(path, text)]));
        let lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, expected, "{path}: {text}: {findings:?}");
    }

    #[test]
    fn only_the_kernel_side_knows_aya() {
        check("agent/src/kernel/load.rs", "use aya::Ebpf;\n", &[]);
        check("agent/src/kernel.rs", "use aya::Ebpf;\n", &[]);
        check("agent/src/pipeline.rs", "//! aya::Ebpf\nuse aya::Ebpf;\n", &[2]);
        check("agent/src/pipeline.rs", "let x = aya_log::EbpfLogger::init();\n", &[1]);
        check("agent/src/api/mod.rs", "use prometheus_client as p;\n", &[1]);
        check("agent/src/api/mod.rs", "let a = papaya::x(b.aya);\n", &[]);
    }

    #[test]
    fn the_model_knows_no_other_part() {
        check("agent/src/model/a.rs", "use crate::model::b;\nuse crate::kernel::Ring;\n", &[2]);
        check(
            "agent/src/model/a.rs",
            "use crate::{\n    model::b,\n    export::{x, y},\n};\n",
            &[1],
        );
        check(
            "agent/src/model/a.rs",
            "use std::{fmt, net};\nuse crate::model::{export, api};\n",
            &[],
        );
        check("agent/src/model/a.rs", "use tokio::sync::mpsc;\n", &[1]);
        check("agent/src/model/a.rs", "#[cfg(test)]\nuse crate::decode::x;\n", &[]);
    }
}
