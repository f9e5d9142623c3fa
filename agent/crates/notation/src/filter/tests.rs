//! What a filter admits, what is wrong with one, and its laws.

use proptest::prelude::*;

use super::*;

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
