//! `portolan edges`: clients, servers and their traffic as a table.

use std::cmp::Reverse;

use clap::{Args, ValueEnum};

use super::table::{self, Column};
use super::target::Target;
use super::{Output, human, print};
use api_types::{Edge, Edges, Latency, Role, Source, Timestamp};
use notation::duration;

const EXAMPLES: &str = "\
Examples:
  portolan edges
  portolan edges --role client --sort p99
  portolan edges --sort failed
  portolan edges --output json | jq -r '.edges[] | [.client, .server, .request.p99_seconds] | @tsv'

An edge between two services of this host is counted on both sides and has two rows; --role shows
one. P50 and P99 are request latencies, RTT is the median round-trip time. Numbers are totals since the
time in the last line; `portolan map --window 1m` shows the last minute.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct EdgesArgs {
    #[command(flatten)]
    target: Target,
    /// Show only edges counted by the client or by the server.
    #[arg(long, value_enum, default_value_t)]
    role: RoleChoice,
    /// Sort by this column; numbers descend.
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Also show rows without a client: resets without a connection, and listeners.
    #[arg(long)]
    all: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum RoleChoice {
    /// The side that connects.
    Client,
    /// The side that accepts.
    Server,
    /// Both sides.
    #[default]
    #[value(alias = "all")]
    Both,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Client, server and port.
    Name,
    /// Connections made.
    Connects,
    /// Connects that failed.
    Failed,
    /// Open connections.
    Active,
    /// Requests.
    #[default]
    Requests,
    /// Requests without a response.
    Unanswered,
    /// Median request latency.
    P50,
    /// Request latency that 99 % of requests stay below.
    P99,
    /// Median round-trip time.
    Rtt,
    /// Bytes sent by the side that counts the edge.
    Sent,
    /// Bytes received by that side.
    Received,
    /// Retransmitted segments.
    Retrans,
    /// Connections that the kernel gave up because the other end did not answer.
    Aborts,
    /// Resets sent and received.
    Resets,
}

const fn name(title: &'static str) -> Column {
    Column { title, left: true, rank: 0 }
}

const fn number(title: &'static str, rank: u8) -> Column {
    Column { title, left: false, rank }
}

/// 80 columns have room for names, connects, failures and latency.
const COLUMNS: &[Column] = &[
    name("CLIENT"),
    name("SERVER"),
    number("PORT", 0),
    Column { title: "ROLE", left: true, rank: 3 },
    number("CONNECTS", 1),
    number("FAILED", 0),
    number("ACTIVE", 4),
    number("REQUESTS", 0),
    number("UNANSWERED", 1),
    number("P50", 5),
    number("P99", 0),
    number("RTT", 9),
    number("SENT", 7),
    number("RECEIVED", 8),
    number("RETRANS", 6),
    number("ABORTS", 6),
    number("RESETS", 2),
];

pub(super) fn run(arguments: &EdgesArgs) -> anyhow::Result<()> {
    let EdgesArgs { target, role, sort, all } = arguments;
    let body = target.text(match role {
        RoleChoice::Client => "/api/v1/edges?role=client",
        RoleChoice::Server => "/api/v1/edges?role=server",
        RoleChoice::Both => "/api/v1/edges",
    })?;
    match target.output {
        Output::Json => print(&format!("{}\n", body.trim_end())),
        Output::Table => print(&text(client::read(&body)?, *sort, *all, table::room())),
    }
}

fn text(answer: Edges, sort: Sort, all: bool, room: Option<usize>) -> String {
    let mut edges = answer.edges;
    edges.retain(|edge| all || !is_without_client(edge));
    if edges.is_empty() {
        return "No connections yet.\n".to_owned();
    }
    sort.apply(&mut edges);
    let rows: Vec<Vec<String>> = edges.iter().map(row).collect();
    let since = Timestamp::from_seconds(answer.window.since.seconds().floor());
    let ago = duration::ago(answer.window.seconds);
    table::render(COLUMNS, &rows, room) + &format!("totals since {since} ({ago} ago)\n")
}

/// Whether a row has no connection of a client.
fn is_without_client(edge: &Edge) -> bool {
    edge.role == Role::Listener || (edge.client == "any" && edge.client_source == Source::Unknown)
}

fn client(edge: &Edge) -> String {
    match (is_without_client(edge), edge.port) {
        (true, 0) => "(resets without a connection)".to_owned(),
        (true, _) => "(listener)".to_owned(),
        (false, _) => human::full_name(&edge.client_namespace, &edge.client),
    }
}

fn row(edge: &Edge) -> Vec<String> {
    vec![
        client(edge),
        human::full_name(&edge.server_namespace, &edge.server),
        edge.port.to_string(),
        edge.role.as_str().to_owned(),
        human::count(connected(edge)),
        human::count(failed(edge)),
        human::count(edge.active),
        human::count(edge.request.count),
        human::count(edge.unanswered),
        latency(edge.request.p50_seconds),
        latency(edge.request.p99_seconds),
        latency(edge.rtt.p50_seconds),
        human::bytes(edge.sent_bytes),
        human::bytes(edge.received_bytes),
        human::count(edge.retransmits),
        human::count(aborts(edge)),
        human::count(resets(edge)),
    ]
}

fn connected(edge: &Edge) -> u64 {
    edge.connects.get("ok").copied().unwrap_or_default()
}

fn failed(edge: &Edge) -> u64 {
    edge.connects.values().sum::<u64>() - connected(edge)
}

fn aborts(edge: &Edge) -> u64 {
    edge.aborts.values().sum()
}

/// One that answered a connect is in the column of failed connects.
fn resets(edge: &Edge) -> u64 {
    let received = edge.resets_received.iter().filter(|(cause, _)| *cause != "no_listener");
    let both = received.chain(&edge.resets_sent);
    // Health checks cut connections that nobody used.
    both.filter(|(cause, _)| *cause != "unused").map(|(_, count)| count).sum()
}

fn latency(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), human::duration)
}

// === impl Sort ===

impl Sort {
    /// Sorts; equal rows keep the agent's order, which is by name.
    fn apply(self, edges: &mut [Edge]) {
        let nanoseconds = |latency: &Latency, quantile: fn(&Latency) -> Option<f64>| {
            quantile(latency).map(|seconds| (seconds * 1e9) as u64)
        };
        let key = |edge: &Edge| match self {
            Self::Name => None,
            Self::Connects => Some(connected(edge)),
            Self::Failed => Some(failed(edge)),
            Self::Active => Some(edge.active),
            Self::Requests => Some(edge.request.count),
            Self::Unanswered => Some(edge.unanswered),
            Self::P50 => nanoseconds(&edge.request, |latency| latency.p50_seconds),
            Self::P99 => nanoseconds(&edge.request, |latency| latency.p99_seconds),
            Self::Rtt => nanoseconds(&edge.rtt, |latency| latency.p50_seconds),
            Self::Sent => Some(edge.sent_bytes),
            Self::Received => Some(edge.received_bytes),
            Self::Retrans => Some(edge.retransmits),
            Self::Aborts => Some(aborts(edge)),
            Self::Resets => Some(resets(edge)),
        };
        edges.sort_by_key(|edge| Reverse(key(edge)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fixture::snapshot;
    use server::convert;

    fn answer() -> Edges {
        let snapshot = snapshot();
        convert::edges(&snapshot, snapshot.edges.iter())
    }

    #[test]
    fn a_pipe_gets_every_column_in_human_units() {
        assert_eq!(
            text(answer(), Sort::Requests, false, None),
            "\
CLIENT     SERVER     PORT  ROLE    CONNECTS  FAILED  ACTIVE  REQUESTS  UNANSWERED    P50    P99    RTT    SENT  RECEIVED  RETRANS  ABORTS  RESETS
prod/shop  postgres   5432  client        10       3       5         7           3  50 ms   12 s  50 µs  123 kB   7.65 MB        3       2       3
internet   prod/shop  8080  server         5       0       0         1           0  80 µs  80 µs      -     0 B     500 B        0       0       0
totals since 2023-11-14T22:13:20Z (1 minute ago)
"
        );
    }

    #[test]
    fn eighty_columns_are_never_exceeded() {
        for room in [80, 100, 120, 200] {
            let text = text(answer(), Sort::Requests, false, Some(room));
            assert!(text.lines().all(|line| line.chars().count() <= room), "{room}:\n{text}");
            for title in ["CLIENT", "SERVER", "PORT", "FAILED", "REQUESTS", "P99"] {
                assert!(text.contains(title), "{room}: {title}");
            }
        }
    }

    #[test]
    fn the_chosen_number_descends() {
        let check = |sort, first: &str| {
            let text = text(answer(), sort, false, None);
            assert!(text.lines().nth(1).is_some_and(|line| line.starts_with(first)), "{sort:?}");
        };
        check(Sort::Name, "internet");
        check(Sort::Failed, "prod/shop");
        check(Sort::Rtt, "prod/shop");
        check(Sort::Received, "prod/shop");
    }

    #[test]
    fn both_roles_were_once_called_all() {
        for name in ["both", "all"] {
            assert_eq!(RoleChoice::from_str(name, false), Ok(RoleChoice::Both));
        }
    }

    #[test]
    fn without_edges_the_text_says_so() {
        let nothing = Edges { edges: Vec::new(), ..answer() };
        assert_eq!(text(nothing, Sort::Name, false, None), "No connections yet.\n");
        let all = text(answer(), Sort::Name, true, None);
        assert!(all.contains("(listener)"), "{all}");
    }
}
