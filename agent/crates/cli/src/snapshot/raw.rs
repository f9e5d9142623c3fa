//! Lists in the JSON of an agent, filtered without a change to what is left: each entry, and every
//! field around the list, keeps the text that the agent sent. A filter therefore changes no digit of a
//! number, and drops no field of a newer agent that this version does not know.

use std::fmt;

use client::Error;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The fields of an object, in the order and with the text that they have.
struct Object<'a>(Vec<(String, &'a RawValue)>);

/// `body` with those entries of `list` that are `wanted`.
pub(super) fn keep<T: DeserializeOwned>(
    body: &str,
    list: &str,
    wanted: impl Fn(&T) -> bool,
) -> Result<String, Error> {
    edit(body, list, |entries| {
        let mut kept = Vec::new();
        for entry in entries {
            if wanted(&client::read(entry.get())?) {
                kept.push(entry);
            }
        }
        Ok(kept)
    })
}

/// `body` with the last `most` entries of `list`.
pub(super) fn keep_last(body: &str, list: &str, most: usize) -> Result<String, Error> {
    edit(body, list, |mut entries| {
        entries.drain(..entries.len().saturating_sub(most));
        Ok(entries)
    })
}

/// `body` with the first `most` entries of `list`; those that go are added to the number `counted`.
pub(super) fn keep_first(
    body: &str,
    list: &str,
    most: usize,
    counted: &str,
) -> Result<String, Error> {
    let mut gone = 0;
    let text = edit(body, list, |mut entries| {
        gone = entries.len().saturating_sub(most) as u64;
        entries.truncate(most);
        Ok(entries)
    })?;
    if gone == 0 {
        return Ok(text);
    }
    let unreadable = |error: serde_json::Error| Error::Version { why: error.to_string() };
    let Object(fields) = serde_json::from_str(&text).map_err(unreadable)?;
    let before = fields.iter().find(|(name, _)| name == counted);
    let before: u64 = before.map_or(Ok(0), |(_, value)| client::read(value.get()))?;
    with(&fields, counted, &before.saturating_add(gone).to_string()).map_err(unreadable)
}

fn edit<'a>(
    body: &'a str,
    list: &str,
    choose: impl FnOnce(Vec<&'a RawValue>) -> Result<Vec<&'a RawValue>, Error>,
) -> Result<String, Error> {
    let unreadable = |error: serde_json::Error| Error::Version { why: error.to_string() };
    let Object(fields) = serde_json::from_str(body).map_err(unreadable)?;
    let Some((_, entries)) = fields.iter().find(|(name, _)| name == list) else {
        return Err(Error::Version { why: format!("it has no {list}") });
    };
    let kept = choose(serde_json::from_str(entries.get()).map_err(unreadable)?)?;
    let kept: Vec<&str> = kept.into_iter().map(RawValue::get).collect();
    with(&fields, list, &format!("[{}]", kept.join(","))).map_err(unreadable)
}

/// The object with other text for one of its fields.
fn with(fields: &[(String, &RawValue)], field: &str, other: &str) -> serde_json::Result<String> {
    let mut text = String::new();
    for (name, value) in fields {
        text.push(if text.is_empty() { '{' } else { ',' });
        text.push_str(&serde_json::to_string(name)?);
        text.push(':');
        text.push_str(if name == field { other } else { value.get() });
    }
    text.push('}');
    Ok(text)
}

// === impl Object ===

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Numbered {
        port: u16,
    }

    const BODY: &str = r#"{"zeta":1.10,"list":[{"port":1,"new":[1, 2]},{"port":2,"x":1e-7},{"port":1}],"alpha":"é\n"}"#;

    #[test]
    fn what_is_kept_has_the_text_that_was_sent() {
        let kept = keep(BODY, "list", |one: &Numbered| one.port == 1).expect("readable");
        assert_eq!(
            kept,
            r#"{"zeta":1.10,"list":[{"port":1,"new":[1, 2]},{"port":1}],"alpha":"é\n"}"#
        );
        let last = keep_last(BODY, "list", 1).expect("readable");
        assert_eq!(last, r#"{"zeta":1.10,"list":[{"port":1}],"alpha":"é\n"}"#);
        assert_eq!(keep_last(BODY, "list", 3).expect("readable"), BODY);
        assert_eq!(keep(BODY, "list", |_: &Numbered| true).expect("readable"), BODY);
    }

    #[test]
    fn what_is_no_such_list_is_an_error() {
        for body in
            ["", "[]", "{}", r#"{"list":1}"#, r#"{"list":[{}]}"#, r#"{"list":[{"port":70000}]}"#]
        {
            let said = keep(body, "list", |_: &Numbered| true).expect_err(body).to_string();
            assert!(said.starts_with("cannot read the agent's answer ("), "{said}");
        }
    }
}
