//! The filter language of rows: `client=gateway port=3002 err>1 p99>50ms why=timeout !cache`. One
//! grammar for every list that people filter.
//!
//! All terms must hold. A bare word is a part of any text of the row; `!` before a term, or `!=`,
//! negates it; `*` in a name stands for anything; double quotes keep spaces.
//!
//! Long because grammar, errors and laws are read together.

use std::fmt;
use std::str::FromStr;

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

/// A variant and its word for each field.
macro_rules! fields {
    ($(#[$doc:meta])+ $name:ident { $($(#[$of:meta])+ $variant:ident $word:literal,)+ }) => {
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$of])+ $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word in a filter.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// The field with this word.
            pub fn named(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|field| field.as_str() == word)
            }
        }
    };
}

fields! {
    /// A field with texts.
    TextField {
        /// The service that connects.
        Client "client",
        /// The service that is connected to.
        Server "server",
        /// A service, at whichever end.
        Service "service",
        /// Namespaces of the services.
        Namespace "ns",
        /// Which side counted.
        Role "role",
        /// Causes, as words and as texts: a part is enough.
        Why "why",
        /// `error`, `warning`, `ok` or `idle`.
        State "state",
        /// What kind of event, service or socket.
        Kind "kind",
        /// The host.
        Host "host",
    }
}

fields! {
    /// A field with a number.
    NumberField {
        /// The port.
        Port "port",
        /// Requests per second.
        Requests "req",
        /// Median request latency.
        P50 "p50",
        /// 99th percentile of request latency.
        P99 "p99",
        /// Share of connects and requests that failed.
        Errors "err",
        /// Requests without a response.
        Unanswered "unans",
        /// Connections per second.
        Connects "conn",
        /// Failed connects per second.
        Failed "fail",
        /// Share of segments that were retransmitted.
        Retransmits "retr",
        /// Median round-trip time.
        RoundTrip "rtt",
        /// Open connections.
        Active "active",
        /// How often something happened.
        Count "count",
    }
}

/// What numbers of a field are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Plain,
    Percent,
    Seconds,
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

// === impl TextField ===

impl TextField {
    const fn example(self) -> &'static str {
        match self {
            Self::Client | Self::Server | Self::Service => "shop/cart",
            Self::Namespace => "shop",
            Self::Role => "client",
            Self::Why => "timeout",
            Self::State => "error",
            Self::Kind => "connect",
            Self::Host => "node7",
        }
    }
}

// === impl NumberField ===

impl NumberField {
    const fn unit(self) -> Unit {
        match self {
            Self::P50 | Self::P99 | Self::RoundTrip => Unit::Seconds,
            Self::Errors | Self::Retransmits => Unit::Percent,
            _ => Unit::Plain,
        }
    }

    /// A value, for messages.
    const fn form(self) -> &'static str {
        match (self, self.unit()) {
            (Self::Port, _) => "8080",
            (_, Unit::Plain) => "10",
            (_, Unit::Percent) => "1%",
            (_, Unit::Seconds) => "50ms",
        }
    }
}

// === impl Unit ===

impl Unit {
    fn number(self, text: &str) -> Option<f64> {
        const SECONDS: &[(&str, f64)] =
            &[("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
        const PERCENT: &[(&str, f64)] = &[("%", 1.0), ("", 1.0)];
        const PLAIN: &[(&str, f64)] = &[("k", 1e3), ("M", 1e6), ("", 1.0)];
        let units = match self {
            Self::Plain => PLAIN,
            Self::Percent => PERCENT,
            Self::Seconds => SECONDS,
        };
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits)?;
        let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
        let number = number.parse::<f64>().ok()? * factor;
        number.is_finite().then_some(number)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// gateway → shop/catalog.js:3002 with timeouts.
    struct Example;

    impl Filterable for Example {
        fn texts(&self, field: TextField) -> Vec<String> {
            let texts: &[&str] = match field {
                TextField::Client => &["gateway"],
                TextField::Server => &["shop/catalog.js", "catalog.js"],
                TextField::Service => &["gateway", "shop/catalog.js", "catalog.js"],
                TextField::Namespace => &["", "shop"],
                TextField::Role => &["client"],
                TextField::Why => &["connect_timeout", "connect timed out"],
                TextField::State => &["error"],
                TextField::Kind | TextField::Host => &[],
            };
            texts.iter().map(|text| (*text).to_owned()).collect()
        }

        fn numbers(&self, field: NumberField) -> Vec<f64> {
            match field {
                NumberField::Port => vec![3002.0, 3003.0],
                NumberField::P99 => vec![0.3],
                NumberField::Errors => vec![10.5],
                NumberField::Requests => vec![1200.0],
                _ => Vec::new(),
            }
        }
    }

    #[test]
    fn a_row_is_admitted_if_it_meets_every_term() {
        let check = |text: &str, expected| {
            let filter: Filter = text.parse().expect(text);
            assert_eq!(filter.admits(&Example), expected, "{text}");
        };
        for met in [
            "",
            "  ",
            "\"\"",
            "catalog",
            "CATALOG 3002 port=3003 port<3003",
            "client=gateway server=catalog.js port=3002",
            "server=shop/catalog.js ns=shop",
            "server=*.js client=g*y service=gateway service=shop/*",
            "why=timeout",
            "why=\"timed out\"",
            "\"timed out\"",
            "err>1 err>=10.5 err<=10.5% p99>50ms p99<1s p99>=300000us req>1k",
            "!cache !client=cache client!=cache state=error role=client",
            "!p50>1ms",
        ] {
            check(met, true);
        }
        for missed in [
            "!catalog",
            "client=gate",
            "server=cat*.ts",
            "client=gateway port=80",
            "p99>300ms",
            "p50>0ms",
            "p50<1s",
            "client!=gateway",
            "host=a",
            "server=*a*a*a*a*",
            "timed out of",
        ] {
            check(missed, false);
        }
    }

    #[test]
    fn what_is_wrong_names_the_place_and_the_fix() {
        let check = |text: &str, expected: &str| {
            let error = text.parse::<Filter>().expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("cleint=x", "\"cleint\" is not a field; did you mean client? fields are client, ");
        check("p99>50", "\"50\" is not a value of p99; write it like p99>50ms");
        check("p99>", "p99> needs a number, like p99>50ms");
        check("err>1x", "write it like err>1%");
        check("port=http", "write it like port=8080");
        check("client=", "client= needs a value, like client=shop/cart");
        check("client>a", "client is a text; write client=a or client!=a");
        check("why=\"timed out", "the closing \" is missing");
        check("why=\"a\\", "ends behind \\");
        check("!", "after !");
        check("a!b", "\"a!b\" is not a term");
        check("=x", "\"\" is not a field");
        check("err>1e400", "is not a value");
        check(&format!("err>{}", "9".repeat(400)), "is not a value");
    }

    #[test]
    fn words_are_those_of_one_field_only() {
        let all = TextField::ALL.iter().map(|field| field.as_str());
        let mut all: Vec<&str> =
            all.chain(NumberField::ALL.iter().map(|field| field.as_str())).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    /// A term, as people and their fingers write it.
    fn term() -> impl Strategy<Value = String> {
        let value = "[a-z*./:=<>! \\\\\"µ-]{0,6}";
        let texts = prop::sample::select(TextField::ALL);
        let numbers = prop::sample::select(NumberField::ALL);
        let operator = prop::sample::select(&["=", "!=", "<", ">", "<=", ">=", "!"][..]);
        let unit = prop::sample::select(&["", "ms", "s", "us", "%", "k"][..]);
        prop_oneof![
            value,
            (texts, value).prop_map(|(field, value)| format!("{}={value}", field.as_str())),
            (texts2(), value).prop_map(|(field, value)| format!("!{field}=\"{value}\"")),
            (numbers, operator, 0_u32..5000, unit).prop_map(|(field, operator, n, unit)| format!(
                "{}{operator}{n}{unit}",
                field.as_str()
            )),
        ]
    }

    fn texts2() -> impl Strategy<Value = &'static str> {
        prop::sample::select(TextField::ALL).prop_map(TextField::as_str)
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_a_filter_or_an_error(text in "\\PC*") {
            if let Ok(filter) = text.parse::<Filter>() {
                filter.admits(&Example);
            }
        }

        #[test]
        fn a_filter_reads_back_as_itself(terms in prop::collection::vec(term(), 0..5)) {
            if let Ok(filter) = terms.join(" ").parse::<Filter>() {
                let written = filter.to_string();
                prop_assert_eq!(written.parse::<Filter>(), Ok(filter), "{}", written);
            }
        }

        #[test]
        fn more_terms_admit_no_more_and_a_negation_admits_the_rest(one in term(), two in term()) {
            let parse = |text: &str| text.parse::<Filter>();
            let (Ok(a), Ok(b)) = (parse(&one), parse(&two)) else { return Ok(()) };
            let both = Filter { terms: a.terms.iter().chain(&b.terms).cloned().collect() };
            prop_assert_eq!(both.admits(&Example), a.admits(&Example) && b.admits(&Example));
            for term in &a.terms {
                let term = |is_negated| Filter {
                    terms: vec![Term { is_negated, test: term.test.clone() }],
                };
                prop_assert_ne!(term(true).admits(&Example), term(false).admits(&Example));
            }
        }
    }
}
