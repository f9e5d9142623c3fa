//! A configuration file as a flat list of keys with their lines, whatever its format.

use std::fmt;
use std::path::Path;

use notation::yaml::Spanned;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::de::{DeTable, DeValue};

use super::{ConfigError, Given, Location};

/// One value of a file.
#[derive(Debug)]
pub(super) struct Entry {
    /// Dotted key.
    pub key: String,
    /// Line, from 1.
    pub line: usize,
    /// The value.
    pub value: Given,
    /// Lines of a list's parts; empty for a scalar.
    pub lines: Vec<usize>,
}

// === impl Entry ===

impl Entry {
    /// The line of part `index` of the value.
    pub(super) fn line_of(&self, index: usize) -> usize {
        self.lines.get(index).copied().unwrap_or(self.line)
    }
}

/// Reads a TOML or YAML file; the extension decides.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, ConfigError> {
    let parse = match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => read_toml,
        Some("yaml" | "yml") => read_yaml,
        _ => return Err(ConfigError::UnknownFormat(path.to_owned())),
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
    let mut entries = Vec::new();
    parse(&text, &mut entries).map_err(|(line, message)| ConfigError::Syntax {
        location: Location::File(path.to_owned(), line),
        message: message.lines().next().unwrap_or_default().to_owned(),
    })?;
    Ok(entries)
}

/// A line and the error there.
type SyntaxError = (usize, String);

fn read_toml(text: &str, entries: &mut Vec<Entry>) -> Result<(), SyntaxError> {
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (line_of(text, at), error.message().to_owned())
    })?;
    flatten_toml(text, "", document.get_ref(), entries)
}

fn flatten_toml(
    text: &str,
    prefix: &str,
    table: &DeTable<'_>,
    entries: &mut Vec<Entry>,
) -> Result<(), SyntaxError> {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        let line = line_of(text, name.span().start);
        let mut lines = Vec::new();
        let value = match value.get_ref() {
            DeValue::Table(table) => {
                flatten_toml(text, &format!("{key}."), table, entries)?;
                continue;
            }
            DeValue::Array(array) => {
                lines = array.iter().map(|part| line_of(text, part.span().start)).collect();
                let parts: Option<Vec<String>> =
                    array.iter().map(|part| toml_scalar(part.get_ref())).collect();
                parts.map(Given::List)
            }
            scalar => toml_scalar(scalar).map(Given::Text),
        };
        let value = value.ok_or_else(|| (line, format!("`{key}` is nested too deeply")))?;
        entries.push(Entry { key, line, value, lines });
    }
    Ok(())
}

fn toml_scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Datetime(value) => Some(value.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn read_yaml(text: &str, entries: &mut Vec<Entry>) -> Result<(), SyntaxError> {
    let tree: Yaml = notation::yaml::read(text)?;
    match tree {
        Yaml::Null => Ok(()),
        Yaml::Map(map) => flatten_yaml("", &map, entries),
        _ => Err((1, "the file must be a mapping of keys to values".to_owned())),
    }
}

fn flatten_yaml(
    prefix: &str,
    map: &[(Spanned<String>, Yaml)],
    entries: &mut Vec<Entry>,
) -> Result<(), SyntaxError> {
    for (name, value) in map {
        let key = format!("{prefix}{}", name.value);
        let line = name.referenced.line() as usize;
        let mut lines = Vec::new();
        let value = match value {
            Yaml::Map(map) => {
                flatten_yaml(&format!("{key}."), map, entries)?;
                continue;
            }
            // `web:` with nothing below it: a section whose lines are all commented out.
            Yaml::Null => continue,
            Yaml::Scalar(text) => Some(Given::Text(text.clone())),
            Yaml::List(parts) => {
                lines = parts.iter().map(|part| part.referenced.line() as usize).collect();
                let scalar = |part: &Spanned<Yaml>| match &part.value {
                    Yaml::Scalar(text) => Some(text.clone()),
                    _ => None,
                };
                parts.iter().map(scalar).collect::<Option<_>>().map(Given::List)
            }
        };
        let value = value.ok_or_else(|| (line, format!("`{key}` is nested too deeply")))?;
        entries.push(Entry { key, line, value, lines });
    }
    Ok(())
}

/// Any YAML document, with the position of each key.
#[derive(Debug)]
enum Yaml {
    Null,
    Scalar(String),
    List(Vec<Spanned<Yaml>>),
    Map(Vec<(Spanned<String>, Yaml)>),
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a list or a mapping")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Yaml, D::Error> {
        Yaml::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Yaml, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = access.next_element()? {
            parts.push(part);
        }
        Ok(Yaml::List(parts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Yaml, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Yaml::Map(entries))
    }
}
