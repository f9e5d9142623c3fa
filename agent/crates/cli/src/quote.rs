//! Foreign text in files that other programs load: names come from processes, images and DNS, and
//! none of them may end a comment or a string and begin a rule.

use notation::character::is_printable;
use std::fmt::Write as _;

/// Characters of a comment at most.
const LONGEST: usize = 600;

/// Text in a comment that ends with its line (YAML, nft, TOML, hosts): one line, printable, no
/// backslash that would join it to the next line.
pub(crate) fn comment(text: &str) -> String {
    let plain = |c: char| {
        let is_space = c.is_whitespace() && c != ' ';
        if is_printable(c) && !is_space && c != '\\' { c } else { '?' }
    };
    text.chars().take(LONGEST).map(plain).collect()
}

/// A string of YAML, TOML and JSON. The escapes of JSON are those of the others too; what JSON
/// leaves as it is and may not be seen, or ends a line for some readers, is escaped.
pub(crate) fn string(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if is_printable(c) && (c == ' ' || !c.is_whitespace()) => quoted.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // TOML has no surrogates: what does not fit is left out.
                    let is_whole = u32::from(*unit) == u32::from(c);
                    // Writing into a String cannot fail.
                    let _ = if is_whole {
                        write!(quoted, "\\u{unit:04x}")
                    } else {
                        quoted.write_char('?')
                    };
                }
            }
        }
    }
    quoted.push('"');
    quoted
}

/// A name of an object of Kubernetes, a segment or a set: lower-case letters, digits and dashes, at
/// most `longest`; not empty.
pub(crate) fn label(text: &str, longest: usize) -> String {
    let plain = |c: char| {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }
    };
    let all: String = text.chars().map(plain).collect();
    let mut label = String::new();
    for part in all.split('-').filter(|part| !part.is_empty()) {
        if !label.is_empty() {
            label.push('-');
        }
        label.push_str(part);
    }
    label.truncate(longest);
    let label = label.trim_end_matches('-');
    if label.is_empty() { "unnamed".to_owned() } else { label.to_owned() }
}

/// Whether this is a label of DNS (RFC 1123), such as the name of a namespace or a part of a host name.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !text.is_empty()
        && text.len() <= 63
        && text.chars().all(|c| plain(c) || c == '-')
        && text.starts_with(plain)
        && text.ends_with(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What some reader takes for the end of a line.
    const LINE_ENDS: [char; 5] = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];

    proptest! {
        #[test]
        fn a_comment_is_one_line(text in "\\PC*|[\\x00-\\x20\\\\#\u{85}\u{2028}\u{2029}a]*") {
            let comment = comment(&text);
            prop_assert!(comment.chars().all(|c| !c.is_control() && c != '\\'));
            let ends_line = comment.contains(LINE_ENDS);
            prop_assert!(!ends_line, "{:?}", comment);
        }

        #[test]
        fn a_string_is_read_as_the_text_by_yaml_and_json(text in "[\\x00-\u{ffff}]*") {
            let quoted = string(&text);
            let ends_line = quoted.contains(LINE_ENDS);
            prop_assert!(!ends_line, "{:?}", quoted);
            let json: String = serde_json::from_str(&quoted).expect("JSON");
            prop_assert_eq!(&json, &text);
            let yaml: String = notation::yaml::read(&quoted).expect("YAML");
            prop_assert_eq!(&yaml, &text);
        }

        #[test]
        fn a_label_is_one_of_kubernetes(text in ".{0,100}") {
            let label = label(&text, 40);
            prop_assert!(!label.is_empty() && label.len() <= 40);
            prop_assert!(label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            prop_assert!(!label.starts_with('-') && !label.ends_with('-'));
        }
    }
}
