//! The filter language of rows: `client=gateway port=3002 err>1 p99>50ms why=timeout !cache`. One
//! grammar for every list that people filter.
//!
//! All terms must hold. A bare word is a part of any text of the row; `!` before a term, or `!=`,
//! negates it; `*` in a name stands for anything; double quotes keep spaces.

mod fields;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use self::fields::Unit;
pub use self::fields::{NumberField, TextField};
use crate::nearest;

/// How a filter is written, for messages and help.
pub const FORM: &str = "terms like client=gateway port=3002 err>1 p99>50ms why=timeout !cache";

/// Terms that a row has to meet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    terms: Vec<Term>,
}

/// What a filter asks a row for.
pub trait Filterable {
    /// The texts of the row that are of this field, none if it has no such field. A name with a
    /// namespace is there in both forms.
    fn texts(&self, field: TextField) -> Vec<String>;
    /// The numbers of the row that are of this field: shares in percent, durations in seconds; none if
    /// it has no such field, or nothing was measured.
    fn numbers(&self, field: NumberField) -> Vec<f64>;
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    is_negated: bool,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Word(String),
    Text(TextField, String),
    Number(NumberField, Comparison, f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Above,
    Below,
    AtLeast,
    AtMost,
}

// === impl Filter ===

impl Filter {
    /// Whether it lets everything through.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether a row meets all terms.
    pub fn admits(&self, row: &impl Filterable) -> bool {
        self.terms.iter().all(|term| term.test.holds(row) != term.is_negated)
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let terms = tokens(text)?.into_iter().map(|token| Term::parse(&token));
        Ok(Self { terms: terms.collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for Filter {
    /// In a form that reads back as the same filter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Term { is_negated, test }) in self.terms.iter().enumerate() {
            f.write_str(if at > 0 { " " } else { "" })?;
            f.write_str(if *is_negated { "!" } else { "" })?;
            match test {
                Test::Word(word) => write!(f, "{}", Quoted(word))?,
                Test::Text(field, value) => write!(f, "{}={}", field.as_str(), Quoted(value))?,
                Test::Number(field, comparison, value) => {
                    let unit = match field.unit() {
                        Unit::Plain => "",
                        Unit::Percent => "%",
                        Unit::Seconds => "s",
                    };
                    write!(f, "{}{}{value}{unit}", field.as_str(), comparison.as_str())?;
                }
            }
        }
        Ok(())
    }
}

/// A text in quotes if it needs them.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_special = |c: char| c.is_whitespace() || "\"\\=<>!".contains(c);
        if !self.0.is_empty() && !self.0.contains(is_special) {
            return f.write_str(self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            if matches!(c, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

// === impl Term ===

impl Term {
    fn parse(token: &[Letter]) -> Result<Self, String> {
        let is = |letter: &Letter, wanted: char| *letter == Letter { c: wanted, is_quoted: false };
        let (is_negated, token) = match token.split_first() {
            Some((first, rest)) if is(first, '!') => (true, rest),
            _ => (false, token),
        };
        let is_operator =
            |letter: &Letter| !letter.is_quoted && matches!(letter.c, '=' | '<' | '>' | '!');
        let Some(at) = token.iter().position(is_operator) else {
            if token.is_empty() {
                return Err("write a word or a term after !, like !cache".to_owned());
            }
            return Ok(Self { is_negated, test: Test::Word(string(token)) });
        };
        let (field, rest) = token.split_at_checked(at).unwrap_or((token, &[]));
        let (first, second) = (rest.first(), rest.get(1));
        let has_equal = second.is_some_and(|letter| is(letter, '='));
        let (comparison, is_unequal, length) = match (first.map(|letter| letter.c), has_equal) {
            (Some('!'), true) => (Comparison::Equal, true, 2),
            (Some('>'), true) => (Comparison::AtLeast, false, 2),
            (Some('<'), true) => (Comparison::AtMost, false, 2),
            (Some('>'), false) => (Comparison::Above, false, 1),
            (Some('<'), false) => (Comparison::Below, false, 1),
            (Some('='), _) => (Comparison::Equal, false, 1),
            _ => return Err(format!("\"{}\" is not a term; write {FORM}", string(token))),
        };
        let field = string(field);
        let value = string(rest.get(length..).unwrap_or_default());
        let test = Test::parse(&field, comparison, value)?;
        Ok(Self { is_negated: is_negated != is_unequal, test })
    }
}

// === impl Test ===

impl Test {
    fn parse(word: &str, comparison: Comparison, value: String) -> Result<Self, String> {
        let operator = comparison.as_str();
        if let Some(field) = NumberField::named(word) {
            let form = field.form();
            if value.is_empty() {
                return Err(format!(
                    "{word}{operator} needs a number, like {word}{operator}{form}"
                ));
            }
            let number = field.unit().number(&value);
            let number = number.ok_or_else(|| {
                format!(
                    "\"{value}\" is not a value of {word}; write it like {word}{operator}{form}"
                )
            })?;
            return Ok(Self::Number(field, comparison, number));
        }
        let Some(field) = TextField::named(word) else {
            let names = || {
                let texts = TextField::ALL.iter().map(|field| field.as_str());
                texts.chain(NumberField::ALL.iter().map(|field| field.as_str()))
            };
            let near = nearest(word, names()).map(|near| format!("did you mean {near}? "));
            let all: Vec<&str> = names().collect();
            return Err(format!(
                "\"{word}\" is not a field; {}fields are {}",
                near.unwrap_or_default(),
                all.join(", ")
            ));
        };
        match comparison {
            _ if value.is_empty() => {
                Err(format!("{word}= needs a value, like {word}={}", field.example()))
            }
            Comparison::Equal => Ok(Self::Text(field, value)),
            _ => Err(format!("{word} is a text; write {word}={value} or {word}!={value}")),
        }
    }

    fn holds(&self, row: &impl Filterable) -> bool {
        match self {
            Self::Word(word) => {
                let word = word.to_lowercase();
                let has = |field: &TextField| {
                    row.texts(*field).iter().any(|text| text.to_lowercase().contains(&word))
                };
                let ports = || row.numbers(NumberField::Port);
                let is_port = || ports().iter().any(|port| port.to_string() == word);
                TextField::ALL.iter().any(has) || is_port()
            }
            Self::Text(field, value) => {
                let value = value.to_lowercase();
                let fits = |text: &String| match field {
                    TextField::Why => text.to_lowercase().contains(&value),
                    _ => is_like(&value, &text.to_lowercase()),
                };
                row.texts(*field).iter().any(fits)
            }
            Self::Number(field, comparison, value) => {
                row.numbers(*field).iter().any(|number| comparison.holds(*number, *value))
            }
        }
    }
}

/// Whether `*` in the pattern can stand for something so that it is the text.
fn is_like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    let mut rest = rest;
    for part in parts {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

// === impl Comparison ===

impl Comparison {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Above => ">",
            Self::Below => "<",
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
        }
    }

    fn holds(self, number: f64, value: f64) -> bool {
        match self {
            // Numbers that are shown alike are alike.
            Self::Equal => (number - value).abs() <= f64::EPSILON * number.abs().max(1.0),
            Self::Above => number > value,
            Self::Below => number < value,
            Self::AtLeast => number >= value,
            Self::AtMost => number <= value,
        }
    }
}

/// A character, and whether quotes make it an ordinary one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Letter {
    c: char,
    is_quoted: bool,
}

fn string(letters: &[Letter]) -> String {
    letters.iter().map(|letter| letter.c).collect()
}

/// Splits at spaces outside of quotes.
fn tokens(text: &str) -> Result<Vec<Vec<Letter>>, String> {
    let mut tokens = Vec::new();
    // A pair of quotes with nothing between is a token, too.
    let (mut token, mut is_begun, mut is_quoted) = (Vec::new(), false, false);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => (is_quoted, is_begun) = (!is_quoted, true),
            '\\' if is_quoted => {
                let c = rest.next().ok_or("the text ends behind \\")?;
                token.push(Letter { c, is_quoted });
            }
            c if c.is_whitespace() && !is_quoted => {
                if is_begun {
                    tokens.push(std::mem::take(&mut token));
                }
                is_begun = false;
            }
            c => {
                is_begun = true;
                token.push(Letter { c, is_quoted });
            }
        }
    }
    if is_quoted {
        return Err("the closing \" is missing".to_owned());
    }
    if is_begun {
        tokens.push(token);
    }
    // An empty word is a part of everything.
    tokens.retain(|token| !token.is_empty());
    Ok(tokens)
}
