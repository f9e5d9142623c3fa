//! Rows of edges with their labels rendered once, however many series they have.
//!
//! A row has up to a hundred series. With the encoder writing six labels into each of them a
//! scrape of a hundred thousand series took 46 ms; written once and then copied it takes 13 ms
//! (`benches/scrape.rs`).

use std::fmt::{self, Display, Write};
use std::sync::Arc;

use agent_common::answer::DNS_PORT;
use agent_common::counters::EdgeCounters;
use agent_common::queues::Queues;
use hashbrown::HashMap;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};

use super::labels::Labels;
use model::snapshot::{EdgeLabels, EdgeView, Role};

/// One row of edges, ready to be written.
#[derive(Debug)]
pub(super) struct Row {
    /// Its labels.
    pub labels: Rendered,
    /// Which side counted.
    pub role: Role,
    /// Its totals.
    pub counters: Arc<EdgeCounters>,
    /// What waits in its connections now, if that is known.
    pub queues: Option<Queues>,
}

/// The labels of an edge as text.
#[derive(Clone, Debug)]
pub(super) struct Rendered {
    /// Everything before the value of the last label, which is `role`.
    head: Arc<str>,
    /// The snapshot that it was rendered from.
    edge: Arc<EdgeLabels>,
}

/// The labels of an edge and more of them.
#[derive(Debug)]
pub(super) struct With<'a, const N: usize>(&'a Rendered, [(&'static str, &'static str); N]);

/// Renders the labels of all rows. Rows that differ only in fields without a label (how a name was
/// found) become one: two series with the same labels would make Prometheus drop one of them.
pub(super) fn rows<'a>(edges: impl Iterator<Item = &'a EdgeView>) -> Vec<Row> {
    let most = edges.size_hint().1.unwrap_or_default();
    let mut rows: Vec<Row> = Vec::with_capacity(most);
    let mut places: HashMap<(Arc<str>, Role), usize> = HashMap::with_capacity(most);
    for edge in edges {
        let labels = Rendered::new(&edge.labels);
        let name = (Arc::clone(&labels.head), edge.labels.role);
        if let Some(row) = places.get(&name).and_then(|place| rows.get_mut(*place)) {
            Arc::make_mut(&mut row.counters).merge(&edge.counters);
            if let (Some(sum), Some(queues)) = (&mut row.queues, &edge.queues) {
                sum.merge(queues);
            }
            continue;
        }
        places.insert(name, rows.len());
        let (role, counters) = (edge.labels.role, Arc::clone(&edge.counters));
        rows.push(Row { labels, role, counters, queues: edge.queues });
    }
    rows
}

// === impl Row ===

impl Row {
    /// Whether this row counts connections; a listener's row counts only what precedes them.
    pub(super) fn has_connections(&self) -> bool {
        match self.role {
            // A client of a DNS server may only have sent it datagrams.
            Role::Client if self.labels.edge.port == DNS_PORT => {
                self.counters.has_connections() || self.counters.looked_up() == 0
            }
            Role::Unknown | Role::Client | Role::Server => true,
            Role::Listener => false,
        }
    }
}

// === impl Rendered ===

impl Rendered {
    fn new(labels: &Arc<EdgeLabels>) -> Self {
        let EdgeLabels { client, server, port, .. } = labels.as_ref();
        let mut head = String::with_capacity(160);
        for (name, value) in [
            ("client", &client.name),
            ("client_namespace", &client.namespace),
            ("server", &server.name),
            ("server_namespace", &server.namespace),
        ] {
            head.push_str(name);
            head.push_str("=\"");
            push_escaped(&mut head, value);
            head.push_str("\",");
        }
        // Writing into a String cannot fail.
        let _ = write!(head, "port=\"{port}\",role");
        Self { head: head.into(), edge: Arc::clone(labels) }
    }

    /// These labels and `more`.
    pub(super) fn with<const N: usize>(
        &self,
        more: [(&'static str, &'static str); N],
    ) -> With<'_, N> {
        With(self, more)
    }
}

impl EncodeLabelSet for Rendered {
    /// The encoder takes a label's name as it is, and escapes its value. So everything up to the
    /// last value goes in as one long "name", escaped already.
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut label = encoder.encode_label();
        let mut name = label.encode_label_key()?;
        name.write_str(&self.head)?;
        let mut value = name.encode_label_value()?;
        value.write_str(self.edge.role.as_str())?;
        value.finish()
    }
}

impl<const N: usize> EncodeLabelSet for With<'_, N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let Self(labels, more) = self;
        labels.encode(encoder)?;
        more.encode(encoder)
    }
}

impl Labels for Rendered {
    fn each(&self, give: &mut dyn FnMut(&str, &dyn Display)) {
        let EdgeLabels { client, server, port, role, .. } = self.edge.as_ref();
        give("client", &client.name);
        give("client_namespace", &client.namespace);
        give("server", &server.name);
        give("server_namespace", &server.namespace);
        give("port", port);
        give("role", &role.as_str());
    }
}

impl<const N: usize> Labels for With<'_, N> {
    fn each(&self, give: &mut dyn FnMut(&str, &dyn Display)) {
        let Self(labels, more) = self;
        labels.each(give);
        more.each(give);
    }
}

/// The escapes of both text formats.
fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}
