//! Known findings that are to be left out: `PO301`, or `PO301=legacy.js`.

use std::fmt;
use std::str::FromStr;

use super::{CODES, Finding};

/// A code, and a pattern of subjects: what `portolan check --skip` and `check.skip` of the agent's
/// configuration are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    code: String,
    /// `*` stands for any text; `None`: whatever the subject.
    subject: Option<String>,
}

impl Skip {
    /// The code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Whether it is about this finding.
    pub fn applies_to(&self, finding: &Finding) -> bool {
        let Self { code, subject } = self;
        let fits = |pattern: &String| matches(pattern, &finding.subject);
        *code == finding.code && subject.as_ref().is_none_or(fits)
    }
}

impl FromStr for Skip {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (code, subject) = match text.split_once('=') {
            Some((code, subject)) => (code, Some(subject.trim().to_owned())),
            None => (text, None),
        };
        let (given, code) = (code.trim(), code.trim().to_ascii_uppercase());
        if !CODES.iter().any(|known| known.code == code) {
            return Err(format!("\"{given}\" is not a code; `portolan check --list` lists them"));
        }
        if subject.as_ref().is_some_and(String::is_empty) {
            return Err(format!("no subject after \"=\"; write {code}, or {code}=SUBJECT"));
        }
        Ok(Self { code, subject })
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Some(subject) => write!(f, "{}={subject}", self.code),
            None => f.write_str(&self.code),
        }
    }
}

/// Whether `*` in the pattern can stand for something so that it is the text.
///
/// What is between two stars is found at its first place, which leaves most for the rest; so nothing
/// is tried twice, whatever the pattern.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(first) = parts.next() else { return text.is_empty() };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    // Without a star the whole text has been compared.
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::super::{Severity, code};
    use super::*;

    #[test]
    fn a_pattern_has_stars() {
        let check = |pattern, text, expected| {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        };
        check("legacy.js", "legacy.js", true);
        check("legacy", "legacy.js", false);
        check("legacy*", "legacy.js", true);
        check("* → db:5432", "shop → db:5432", true);
        check("*→*:5432", "shop → db:5432", true);
        check("*:543", "shop → db:5432", false);
        check("a*a", "a", false);
        check("a*b*b", "ab", false);
        check("*ab*ab", "abab", true);
        check("**", "", true);
        check("", "", true);
        check("", "a", false);
        check("ä*ö", "ärö", true);
        // Once exponential.
        let stars = "*a".repeat(40);
        check(&stars, &"a".repeat(39), false);
    }

    #[test]
    fn a_skip_is_a_code_with_or_without_a_subject() {
        let finding =
            Finding::new(code::CONNECTS_REFUSED, Severity::Error, "a → b:1", "refused".to_owned());
        let check = |text: &str, expected: bool| {
            let skip: Skip = text.parse().expect(text);
            assert_eq!(skip.applies_to(&finding), expected, "{text}");
        };
        check("PC101", true);
        check("pc101 = a*", true);
        check("PC101=x", false);
        check("PP201", false);
    }

    #[test]
    fn what_is_no_skip_is_refused_with_the_fix() {
        let check = |text: &str, expected: &str| {
            let error = text.parse::<Skip>().expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("PX999", "portolan check --list");
        check("", "portolan check --list");
        check("legacy.js", "portolan check --list");
        check("PC101=", "write PC101, or PC101=SUBJECT");
        let text = |text: &str| text.parse::<Skip>().expect(text).to_string();
        assert_eq!(text("po301"), "PO301");
        assert_eq!(text("PO301 = legacy.js "), "PO301=legacy.js");
    }
}
