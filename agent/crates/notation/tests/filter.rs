//! The list of filters that the page is held to, too: what is admitted there is admitted here.

use notation::filter::{Filter, Filterable, NumberField, TextField};
use serde_json::Value;

/// The row of the list.
struct Row(Value);

impl Filterable for Row {
    fn texts(&self, field: TextField) -> Vec<String> {
        let texts = self.0["texts"][field.as_str()].as_array().into_iter().flatten();
        texts.map(|text| string(text).to_owned()).collect()
    }

    fn numbers(&self, field: NumberField) -> Vec<f64> {
        let numbers = self.0["numbers"][field.as_str()].as_array().into_iter().flatten();
        numbers.map(|number| number.as_f64().expect("a number")).collect()
    }
}

fn string(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn list() -> Value {
    serde_json::from_str(include_str!("filter.json")).expect("JSON")
}

/// The entries of one part of the list, of which there are some.
fn entries<'a>(list: &'a Value, part: &str) -> &'a [Value] {
    let entries = list[part].as_array().expect(part);
    assert!(!entries.is_empty(), "{part}");
    entries
}

#[test]
fn the_words_of_the_row_are_fields() {
    let list = list();
    let texts = list["row"]["texts"].as_object().expect("texts");
    assert!(texts.keys().all(|word| TextField::named(word).is_some()), "{texts:?}");
    let numbers = list["row"]["numbers"].as_object().expect("numbers");
    assert!(numbers.keys().all(|word| NumberField::named(word).is_some()), "{numbers:?}");
}

#[test]
fn a_row_is_admitted_if_it_meets_every_term() {
    let list = list();
    let row = Row(list["row"].clone());
    for (part, expected) in [("admitted", true), ("rejected", false)] {
        for text in entries(&list, part).iter().map(string) {
            let filter: Filter = text.parse().expect(text);
            assert_eq!(filter.admits(&row), expected, "{text}");
        }
    }
}

#[test]
fn what_is_wrong_names_the_place_and_the_fix() {
    let list = list();
    for entry in entries(&list, "invalid") {
        let (text, expected) = (string(&entry[0]), string(&entry[1]));
        let error = text.parse::<Filter>().expect_err(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}
