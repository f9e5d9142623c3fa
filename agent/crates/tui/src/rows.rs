//! Rows of a table: what they show, how they are filtered and sorted, and what they are made of.

use std::cmp::Ordering;

use api_types::{
    Backend, BalanceGroup, Conflict, Edge, EdgeTimeouts, Event, Finding, Port, SegmentPair,
    ServiceStatus, Severity, Violation,
};
use cli::fit::Column;
use notation::filter::{Filterable, NumberField, TextField};
use serde::Serialize;

/// How a row is, for people who see no colours, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mark {
    /// Nothing happens.
    Idle,
    /// Nothing is wrong.
    Ok,
    /// Something is conspicuous.
    Warning,
    /// Something fails.
    Error,
}

/// What a row is about.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Item<'a> {
    Edge(&'a Edge),
    Service(&'a ServiceStatus),
    Port(&'a Port),
    Conflict(&'a Conflict),
    Backend {
        group: &'a BalanceGroup,
        backend: &'a Backend,
    },
    Violation(&'a Violation),
    Pair(&'a SegmentPair),
    Event(&'a Event),
    Timeouts(&'a EdgeTimeouts),
    Finding(&'a Finding),
    /// A part of the agent: its kind and its name.
    Part {
        part: &'static str,
        name: &'a str,
    },
}

/// A row.
#[derive(Clone, Debug)]
pub(crate) struct Row<'a> {
    pub mark: Mark,
    /// One for each column.
    pub cells: Vec<String>,
    pub item: Item<'a>,
    /// Which host it is of.
    pub host: usize,
    /// What stays the same from tick to tick.
    pub key: String,
    /// Of rows with one mark, those with more of this come first.
    pub weight: (u64, u64),
    /// For filters and sorting.
    pub fields: Fields,
}

/// Texts and numbers of a row, by field.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    texts: Vec<(TextField, String)>,
    numbers: Vec<(NumberField, f64)>,
}

/// The order of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    /// What fails first, then the busiest.
    #[default]
    Worst,
    /// Numbers descend.
    Number(NumberField),
    /// Texts ascend.
    Text(TextField),
}

/// A table.
#[derive(Clone, Debug)]
pub(crate) struct Table<'a> {
    pub columns: Vec<Column>,
    pub rows: Vec<Row<'a>>,
    /// Rows that are left out: how many, what they are.
    pub hidden: Option<String>,
    /// In place of rows, if there are none.
    pub empty: &'static str,
}

/// A column of texts.
pub(crate) const fn text(title: &'static str, rank: u8) -> Column {
    Column { title, left: true, rank }
}

/// A column of numbers.
pub(crate) const fn number(title: &'static str, rank: u8) -> Column {
    Column { title, left: false, rank }
}

// === impl Mark ===

impl Mark {
    /// The character in front of a row.
    pub const fn as_char(self) -> char {
        match self {
            Self::Idle => '·',
            Self::Ok => '✓',
            Self::Warning => '!',
            Self::Error => '✗',
        }
    }

    /// The word of a filter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl From<Severity> for Mark {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Error => Self::Error,
            Severity::Warning => Self::Warning,
            Severity::Info => Self::Idle,
        }
    }
}

// === impl Fields ===

impl Fields {
    pub fn text(mut self, field: TextField, text: impl Into<String>) -> Self {
        self.texts.push((field, text.into()));
        self
    }

    pub fn number(mut self, field: NumberField, number: f64) -> Self {
        self.numbers.push((field, number));
        self
    }

    pub fn measured(self, field: NumberField, number: Option<f64>) -> Self {
        match number {
            Some(number) => self.number(field, number),
            None => self,
        }
    }

    /// A service at one end.
    pub fn service(mut self, end: TextField, namespace: &str, name: &str) -> Self {
        let full = cli::words::full_name(namespace, name);
        if !namespace.is_empty() {
            self = self.text(end, &full).text(TextField::Service, full);
            self = self.text(TextField::Namespace, namespace);
        }
        self.text(end, name).text(TextField::Service, name)
    }
}

impl Filterable for Row<'_> {
    fn texts(&self, field: TextField) -> Vec<String> {
        if field == TextField::State {
            return vec![self.mark.as_str().to_owned()];
        }
        let texts = self.fields.texts.iter().filter(|(of, _)| *of == field);
        texts.map(|(_, text)| text.clone()).collect()
    }

    fn numbers(&self, field: NumberField) -> Vec<f64> {
        let numbers = self.fields.numbers.iter().filter(|(of, _)| *of == field);
        numbers.map(|(_, number)| *number).collect()
    }
}

// === impl Row ===

impl Row<'_> {
    /// The first of the numbers of a field.
    fn number(&self, field: NumberField) -> Option<f64> {
        let mut numbers = self.fields.numbers.iter();
        numbers.find(|(of, _)| *of == field).map(|(_, number)| *number)
    }

    /// The two ends of a row with a client, a server and a port, as `portolan diagnose` takes them.
    pub fn ends(&self) -> Option<(String, String)> {
        let ends = |client_namespace: &str, client: &str, namespace: &str, server: &str, port| {
            let server = cli::words::endpoint(namespace, server, port);
            Some((cli::words::full_name(client_namespace, client), server))
        };
        match &self.item {
            Item::Edge(one) if !cli::words::is_without_client(one) => ends(
                &one.client_namespace,
                &one.client,
                &one.server_namespace,
                &one.server,
                one.port,
            ),
            Item::Backend { group: one, .. } => ends(
                &one.client_namespace,
                &one.client,
                &one.server_namespace,
                &one.server,
                one.port,
            ),
            Item::Violation(one) => ends(
                &one.client_namespace,
                &one.client,
                &one.server_namespace,
                &one.server,
                one.port,
            ),
            Item::Timeouts(one) => ends(
                &one.client_namespace,
                &one.client,
                &one.server_namespace,
                &one.server,
                one.port,
            ),
            Item::Event(Event { client: Some(client), server: Some(server), port, .. }) => {
                ends(&client.namespace, &client.name, &server.namespace, &server.name, (*port)?)
            }
            _ => None,
        }
    }
}

// === impl Sort ===

impl Sort {
    /// The field of a word; `why` is the default order.
    pub fn named(word: &str) -> Result<Self, String> {
        let number = || NumberField::named(word).map(Self::Number);
        let text = || TextField::named(word).map(Self::Text);
        match word {
            "why" => Ok(Self::Worst),
            _ => number().or_else(text).ok_or_else(|| {
                let texts = TextField::ALL.iter().map(|field| field.as_str());
                let all = texts.chain(NumberField::ALL.iter().map(|field| field.as_str()));
                format!("write one of {}", all.collect::<Vec<_>>().join(", "))
            }),
        }
    }

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Worst => "why",
            Self::Number(field) => field.as_str(),
            Self::Text(field) => field.as_str(),
        }
    }

    /// Sorts rows; equal ones are in the order of their keys, so that nothing jumps.
    pub fn apply(self, rows: &mut [Row<'_>]) {
        rows.sort_by(|a, b| {
            let by_mark = || (b.mark, b.weight).cmp(&(a.mark, a.weight));
            let order = match self {
                Self::Worst => by_mark(),
                Self::Number(field) => match (a.number(field), b.number(field)) {
                    (Some(a), Some(b)) => b.total_cmp(&a),
                    (a, b) => b.is_some().cmp(&a.is_some()),
                },
                Self::Text(field) => compare(a, b, field),
            };
            order.then_with(|| a.key.cmp(&b.key))
        });
    }

    /// The next order that rows have a field for.
    pub fn next(self, rows: &[Row<'_>]) -> Self {
        let texts = TextField::ALL.iter().copied().filter(|field| {
            !matches!(field, TextField::Service | TextField::Why | TextField::State)
        });
        let has_text = |field: &TextField| rows.iter().any(|row| !row.texts(*field).is_empty());
        let numbers = NumberField::ALL.iter().copied();
        let has_number = |field: &NumberField| rows.iter().any(|row| row.number(*field).is_some());
        let mut all = vec![Self::Worst];
        all.extend(texts.filter(has_text).map(Self::Text));
        all.extend(numbers.filter(has_number).map(Self::Number));
        let at = all.iter().position(|sort| *sort == self).unwrap_or_default();
        all.get(at + 1).copied().unwrap_or_default()
    }
}

fn compare(a: &Row<'_>, b: &Row<'_>, field: TextField) -> Ordering {
    let (a, b) = (a.texts(field), b.texts(field));
    // Rows without such a text are last.
    a.is_empty().cmp(&b.is_empty()).then_with(|| a.cmp(&b))
}
