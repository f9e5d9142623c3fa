//! Edges, worst first.

use api_types::{Edge, Role};
use cli::fit::Column;
use cli::judgement::{Found, Name, segments};
use cli::words;
use notation::filter::{NumberField, TextField};

use super::{Of, Wanted};
use crate::agents::Look;
use crate::rows::{Fields, Item, Mark, Row, Table, number, text};
use crate::spark::{self, Merge, Step};
use crate::trend::EdgeName;

pub(super) const HELP: &[&str] = &[
    "✗ ! findings of portolan check; ! also what failed at all; ✓ ok; · nothing happens",
    "REQ/S CONN/S FAIL/S  requests, connections made, failed connects a second",
    "P50 P99              request latency, as the side that counted saw it",
    "ERR%                 failed connects, unanswered requests and errors, of all connects and requests",
    "UNANS                requests without a response; RETR% retransmitted segments",
    "WHY                  causes, most important first; ← what it follows from",
    "60 s                 requests (connects where there are none), the last minute",
    "c shows the other side of edges within this host; a also idle edges and listeners",
];

/// Cells of a sparkline.
const CELLS: usize = 10;

/// The sparkline is the first to go, then P50 and CONN/S.
const COLUMNS: &[Column] = &[
    text("", 0),
    text("CLIENT", 0),
    text("SERVER", 0),
    number("PORT", 0),
    text("ROLE", 2),
    number("REQ/S", 0),
    number("P50", 7),
    number("P99", 0),
    number("ERR%", 0),
    number("UNANS", 4),
    number("CONN/S", 6),
    number("FAIL/S", 5),
    number("RETR%", 3),
    text("WHY", 0),
    text("60 s", 8),
];

/// Which side of edges is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Side {
    /// Each edge once: the client's side if it is on this host.
    #[default]
    Once,
    Client,
    Server,
    Both,
}

// === impl Side ===

impl Side {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Client => "client",
            Self::Server => "server",
            Self::Both => "both",
        }
    }

    /// The next one.
    pub const fn next(self) -> Self {
        match self {
            Self::Once => Self::Client,
            Self::Client => Self::Server,
            Self::Server => Self::Both,
            Self::Both => Self::Once,
        }
    }

    fn shows(self, edge: &Edge) -> bool {
        match self {
            Self::Once => !edge.other_side,
            Self::Client => edge.role == Role::Client,
            Self::Server => matches!(edge.role, Role::Server | Role::Listener),
            Self::Both => true,
        }
    }
}

pub(super) fn table<'a>(looks: &[Of<'a>], wanted: &Wanted) -> Table<'a> {
    let mut rows = Vec::new();
    let mut hidden = 0_u64;
    for Of { host, look } in looks {
        for edge in &look.answers.edges.edges {
            if !wanted.side.shows(edge) {
                continue;
            }
            let row = row(*host, look, edge);
            if wanted.all || is_shown(edge, &row) {
                rows.push(row);
            } else {
                hidden += 1;
            }
        }
    }
    let is_once = wanted.side == Side::Once;
    let mut columns = COLUMNS.to_vec();
    if is_once && let Some(at) = columns.iter().position(|column| column.title == "ROLE") {
        columns.remove(at);
        for row in &mut rows {
            row.cells.remove(at);
        }
    }
    Table {
        columns,
        rows,
        hidden: (hidden > 0).then(|| {
            format!("{} (idle, listeners, portolan's own): a", words::counted(hidden, "more edge"))
        }),
        empty: "No connections.",
    }
}

/// Whether a row is more than idle, and about a client.
fn is_shown(edge: &Edge, row: &Row<'_>) -> bool {
    let is_resets = words::is_without_client(edge) && edge.port == 0;
    let is_unwell = row.mark > Mark::Ok;
    let is_well = !words::is_without_client(edge) && words::is_busy(edge) && !is_own(edge);
    (is_unwell && !is_resets) || is_well
}

/// Whether an edge is of the commands that ask the agent.
pub(crate) fn is_own(edge: &Edge) -> bool {
    edge.client == "portolan" && edge.server == "portolan"
}

/// The worst finding about an edge; none about what a user can have made up.
fn finding<'a>(look: &'a Look, edge: &Edge) -> Option<&'a Found> {
    let client = Name::new(&edge.client_namespace, &edge.client);
    let server = Name::new(&edge.server_namespace, &edge.server);
    let is_it = |found: &&Found| {
        found.server.as_ref() == Some(&server)
            && found.port == Some(edge.port)
            && (found.clients.contains(&client) || edge.role == Role::Listener)
    };
    if edge.unverified_user.is_some() {
        return None;
    }
    look.found.iter().find(is_it)
}

/// What a finding says about its subject.
fn says(found: &Found) -> &str {
    let title = found.finding.title.strip_prefix(found.finding.subject.as_str());
    title.and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&found.finding.title)
}

/// What a finding follows from: `PC101 auth.js → db:5432`.
pub(crate) fn follows(found: &Found) -> Option<String> {
    found.cause().map(|(code, subject)| format!("← {code} {subject}"))
}

/// The steps of an edge.
pub(crate) fn steps_of<'a>(look: &'a Look, edge: &Edge) -> &'a [Step] {
    look.trend.of(&EdgeName::from(edge))
}

/// The length of the window, at least a second.
pub(crate) fn busy_seconds(look: &Look) -> f64 {
    look.answers.edges.window.seconds.max(1.0)
}

fn row<'a>(host: usize, look: &'a Look, edge: &'a Edge) -> Row<'a> {
    let seconds = busy_seconds(look);
    let rate = |count: u64| count as f64 / seconds;
    let (failed, connected) = (words::failed(edge), words::connected(edge));
    let found = finding(look, edge);
    let mark = mark(edge, found);
    let errors = words::error_ratio(edge);
    let sent = segments(edge);
    let again = (sent > 0.0).then(|| edge.retransmits as f64 / sent);
    let mut why = words::why(edge);
    if let Some(found) = found {
        if edge.why.is_empty() {
            says(found).clone_into(&mut why);
        }
        if let Some(cause) = follows(found) {
            why = format!("{why} {cause}");
        }
    }
    let share = |share: Option<f64>| match share {
        None => "-".to_owned(),
        Some(share) => words::percent(share).trim_end_matches('%').to_owned(),
    };
    let client = words::client(edge);
    let server = words::full_name(&edge.server_namespace, &edge.server);
    let spark = spark::line(
        steps_of(look, edge).iter(),
        look.trend.until,
        look.trend.observed_seconds,
        CELLS,
        Merge::Sum,
        Step::load,
    );
    let cells = vec![
        mark.as_char().to_string(),
        client,
        server,
        edge.port.to_string(),
        edge.role.as_str().to_owned(),
        words::rate(rate(edge.request.count)),
        words::quantile(edge.request.p50_seconds),
        words::quantile(edge.request.p99_seconds),
        share(errors),
        words::count(edge.unanswered),
        words::rate(rate(connected)),
        words::rate(rate(failed)),
        share(again),
        why,
        spark,
    ];
    let mut fields = Fields::default()
        .service(TextField::Client, &edge.client_namespace, &edge.client)
        .service(TextField::Server, &edge.server_namespace, &edge.server)
        .text(TextField::Role, edge.role.as_str())
        .number(NumberField::Port, f64::from(edge.port))
        .number(NumberField::Requests, rate(edge.request.count))
        .measured(NumberField::P50, edge.request.p50_seconds)
        .measured(NumberField::P99, edge.request.p99_seconds)
        .measured(NumberField::RoundTrip, edge.rtt.p50_seconds)
        .measured(NumberField::Errors, errors.map(|share| share * 100.0))
        .measured(NumberField::Retransmits, again.map(|share| share * 100.0))
        .number(NumberField::Unanswered, edge.unanswered as f64)
        .number(NumberField::Connects, rate(connected))
        .number(NumberField::Failed, rate(failed))
        .number(NumberField::Active, edge.active as f64);
    for cause in &edge.why {
        fields = fields.text(TextField::Why, &cause.cause).text(TextField::Why, &cause.text);
    }
    if let Some(found) = found {
        fields = fields.text(TextField::Why, &found.finding.code);
        fields = fields.text(TextField::Why, says(found));
    }
    // What explains others comes first.
    let is_root = found.is_none_or(|found| found.cause().is_none());
    let urgency = words::urgency(edge) * 2 + u64::from(is_root);
    Row {
        mark,
        cells,
        item: Item::Edge(edge),
        host,
        key: format!("{} {}", key(edge), edge.address.as_deref().unwrap_or_default()),
        weight: (urgency, edge.request.count.saturating_add(connected)),
        fields,
    }
}

/// An edge by what stays the same.
fn key(edge: &Edge) -> String {
    let EdgeName { client, server, port, role } = EdgeName::from(edge);
    let through = edge.virtual_service.as_deref().unwrap_or_default();
    format!("{client} {server} {port} {} {through}", role.as_str())
}

/// As `portolan check` judges it; what it has no finding for, and failed all the same, is worth a look.
fn mark(edge: &Edge, found: Option<&Found>) -> Mark {
    let judged = found.map_or(Mark::Idle, |found| Mark::from(found.finding.severity));
    let own = match words::urgency(edge) {
        // Only what programs do on purpose.
        0 | 1 if words::is_busy(edge) => Mark::Ok,
        0 | 1 => Mark::Idle,
        _ => Mark::Warning,
    };
    judged.max(own)
}
