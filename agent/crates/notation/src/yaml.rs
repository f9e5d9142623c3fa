//! YAML files of the operator: read with plain errors that quote nothing of the file, which may
//! hold secrets.

use serde::de::DeserializeOwned;
pub use serde_saphyr::Spanned;
use serde_saphyr::{Error, MessageFormatter as _, UserMessageFormatter};

/// Reads a document; the error is its line, from 1, and the problem.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, (usize, String)> {
    serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line() as usize);
        (line.max(1), problem(&error))
    })
}

/// What is wrong, in one line without the words of the library.
fn problem(error: &Error) -> String {
    let error = error.without_snippet();
    let said = match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key `{key}` is there twice; keep one")
        }
        Error::DuplicateMappingKey { key: None, .. } => "a key is there twice; keep one".to_owned(),
        Error::MultipleDocuments { .. } => {
            "the file has more than one YAML document (`---`); keep one".to_owned()
        }
        Error::UnknownAnchor { .. } => "an alias (`*`) refers to nothing".to_owned(),
        Error::Budget { .. } => "too many values for a file of settings".to_owned(),
        error => UserMessageFormatter.format_message(error).into_owned(),
    };
    let line = said.lines().next().unwrap_or_default();
    match line {
        "expected string scalar" => "a single value is expected here".to_owned(),
        "expected sequence start" => "a list is expected here".to_owned(),
        "expected mapping start" => "a mapping (`key: value`) is expected here".to_owned(),
        line if line.ends_with("did not find expected key") => {
            "this is no `key: value`; see the indentation and the quotes here and above".to_owned()
        }
        line if line.contains("found a tab") || line.contains("tabs disallowed") => {
            "found a tab; indent with spaces".to_owned()
        }
        // "while scanning a plain scalar, found a tab": only the end is of use.
        line if line.starts_with("unknown ") => line
            .replacen("unknown variant", "unknown value", 1)
            .replacen("unknown field", "unknown key", 1)
            // An empty value that is accepted as well.
            .replacen("expected one of , ", "expected one of ", 1),
        line => match line.strip_prefix("while ").and_then(|rest| rest.split_once(", ")) {
            Some((_, found)) => found.to_owned(),
            None => line.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn errors_have_a_line_and_no_words_of_the_library() {
        let check = |text: &str, expected: (usize, &str)| {
            let (line, problem) = read::<BTreeMap<String, u32>>(text).expect_err("refused");
            assert_eq!((line, problem.as_str()), expected, "{text:?}");
        };
        check("a: 1\nb: 2\na: 3\n", (3, "the key `a` is there twice; keep one"));
        check(
            "a: 1\n---\nb: 1\n",
            (3, "the file has more than one YAML document (`---`); keep one"),
        );
        check("a: *b\n", (1, "an alias (`*`) refers to nothing"));
        check("a: 1\n\tb: 2\n", (1, "found a tab; indent with spaces"));
        check("a:\n\tb: 2\n", (2, "found a tab; indent with spaces"));
        check(
            "a: 1\n- b\n",
            (2, "this is no `key: value`; see the indentation and the quotes here and above"),
        );
        let many = format!("[{}1]\n", "1, ".repeat(300_000));
        let (_, problem) = read::<Vec<u32>>(&many).expect_err("refused");
        assert_eq!(problem, "too many values for a file of settings");
        check("a: [1]\n", (1, "a single value is expected here"));
        check("hello\n", (1, "a mapping (`key: value`) is expected here"));
        check("{a: 1", (1, "unclosed bracket '{'"));
    }
}
