//! `portolan edges`: clients, servers and their traffic as a table.

mod numbers;

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::compare::{self, Compare};
use super::fleet::{self, Reply};
use super::outcome::Report;
use super::past::Sources;
use super::table::{self, Column};
use super::window::{self, Over};
use super::{Outcome, Output, Usage, human, print};
use api_types::{Edge, Edges, Latency, Role, WindowChoice};

pub use self::numbers::{
    aborts, client, connected, error_ratio, error_responses, failed, is_busy, is_error,
    is_without_client, resets, responses, urgency, why,
};

const EXAMPLES: &str = "\
Examples:
  portolan edges                                   the last minute, problems first
  portolan edges --window 10s --sort p99
  portolan edges --by address                      which address of a service refuses, which answers
  portolan edges --role both                       both sides of connections within this host
  portolan edges --url http://node1:10062 --url http://node2:10062
                                                   both hosts: an edge between them is there once
  portolan edges --prometheus http://prometheus:9090 --at -2h
                                                   what agents recorded, two hours ago
  portolan edges --prometheus http://prometheus:9090 --compare 24h
                                                   what fails, is slower, gone or new since yesterday
  portolan edges --exit-code > /dev/null || echo something fails
  portolan edges -o json | jq -r '.edges[] | [.client, .server, .request.p99_seconds] | @tsv'

An edge between two services of this host is counted on both sides; the client's is shown, --role
shows the other. WHY names what failed in the window, or is stuck now,
and marks what a user can have made up in a network namespace of their own. ERR% is the share of
failed connects, unanswered requests and error responses (HTTP 5xx, errors of databases). P50 and P99 are request
latencies, RTT is the median round-trip time. With --output json every edge is there; `other_side`
marks those that a table omits.

Of several hosts (--url repeated) an edge is one row: the client's side counts if its host was asked,
numbers are summed, P50, P99 and RTT are the highest of those hosts. Hosts that do not answer within
--deadline are named, and the exit code is 3.

With --prometheus numbers are differences of samples: the window begins with the last sample before
it, and needs two. With --compare and --exit-code it is 1 if anything is failing or slower.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct EdgesArgs {
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    over: Over,
    /// Sides to show: of an edge with both sides on this host, once shows the client's.
    #[arg(long, value_enum, default_value_t)]
    role: RoleChoice,
    /// Split edges by the address of the server (over 5m at most).
    #[arg(long, value_enum)]
    by: Option<Part>,
    /// Sort by this column; numbers descend.
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Also show edges without traffic in the window, all listeners, and resets without a
    /// connection.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    compare: Compare,
    #[command(flatten)]
    report: Report,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum RoleChoice {
    /// Each edge once.
    #[default]
    Once,
    /// The side that connects.
    Client,
    /// The side that accepts.
    Server,
    /// Both sides.
    #[value(alias = "all")]
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The server's address and port.
    Address,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Edges with problems first, then by requests.
    #[default]
    Why,
    /// Client, server and port.
    Name,
    /// Connections made.
    Connects,
    /// Connects that failed.
    Failed,
    /// Open connections.
    Active,
    /// Requests.
    Requests,
    /// Requests without a response.
    Unanswered,
    /// Share of failed connects, unanswered requests and errors.
    Errors,
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

/// 80 columns have room for both names, port, side, requests, P99, what fails and why.
const COLUMNS: &[Column] = &[
    name("CLIENT"),
    name("SERVER"),
    number("PORT", 0),
    name("ROLE"),
    number("CONNECTS", 4),
    number("FAILED", 1),
    number("ACTIVE", 6),
    number("REQUESTS", 0),
    number("UNANS", 1),
    number("ERR%", 2),
    number("P50", 7),
    number("P99", 0),
    number("RTT", 11),
    number("SENT", 9),
    number("RECEIVED", 10),
    number("RETRANS", 8),
    number("ABORTS", 5),
    number("RESETS", 3),
    name("WHY"),
];

/// In place of PORT: an address has it.
const ADDRESS: Column = name("ADDRESS");

/// What the mark of an edge means.
const UNVERIFIED: &str = "
unverified: the user made the network namespace and can make up what happens there; it is in no metric";

/// What a table shows.
#[derive(Clone, Copy, Debug)]
struct Shown {
    window: WindowChoice,
    role: RoleChoice,
    by_address: bool,
    sort: Sort,
    all: bool,
}

pub(super) fn run(arguments: &EdgesArgs) -> anyhow::Result<Outcome> {
    let EdgesArgs { sources, over: Over { window }, role, by, sort, all, compare, report } =
        arguments;
    let by_address = by.is_some();
    if by_address && *window == WindowChoice::Start {
        return Err(client::Error::Incomplete(
            "--by address is remembered for five minutes: use --window 5m or less",
        )
        .into());
    }
    let mut path = format!("/api/v1/edges{}", window::query(*window, &[]));
    if let Some(role) = role.only() {
        path.push_str("&role=");
        path.push_str(role.as_str());
    }
    path.push_str(if by_address { "&by=address" } else { "" });
    if let Some(before) = compare.compare {
        let now = sources.read_past::<Edges>(*window, &[], Duration::ZERO)?;
        let earlier = sources.read_past::<Edges>(*window, &[], before)?.answer;
        let (now, said) = now.split();
        let found = compare::show(
            "edge",
            (&now.edges, now.window, now.timestamp),
            (&earlier.edges, earlier.window),
            &said,
            sources.output,
        )?;
        return Ok(fleet::outcome(&said.hosts, report.of(found == Outcome::Found)));
    }
    if by_address && sources.is_past() {
        let why = "--by address: addresses are in no metric; leave out --prometheus, or --by";
        return Err(Usage(why.to_owned()).into());
    }
    let Reply { mut answer, mut json, hosts, footer } =
        sources.read::<Edges>(&path, *window, &[])?;
    // Agents leave out the other side by themselves.
    if let (Some(wanted), true) = (role.only(), sources.is_past()) {
        answer.edges.retain(|edge| edge.role == wanted);
        json = fleet::json(&answer, &hosts)?;
    }
    let found = answer.edges.iter().any(|edge| !edge.why.is_empty());
    let shown = Shown { window: *window, role: *role, by_address, sort: *sort, all: *all };
    match sources.output {
        Output::Json => print(&format!("{}\n", json.trim_end()))?,
        Output::Text => {
            let text = shown.text(answer, table::room());
            print(&format!("{text}{}{footer}", fleet::remarks(&hosts)))?;
        }
    }
    Ok(fleet::outcome(&hosts, report.of(found)))
}

// === impl RoleChoice ===

impl RoleChoice {
    /// The one side to show.
    const fn only(self) -> Option<Role> {
        match self {
            Self::Client => Some(Role::Client),
            Self::Server => Some(Role::Server),
            Self::Both | Self::Once => None,
        }
    }
}

// === impl Shown ===

impl Shown {
    fn text(self, answer: Edges, room: Option<usize>) -> String {
        let Self { window, by_address, sort, .. } = self;
        let covered = window::covered(&answer.window, window);
        let (mut edges, others): (Vec<_>, Vec<_>) =
            answer.edges.into_iter().partition(|edge| self.shows(edge));
        if edges.is_empty() {
            return format!("No connections ({covered}).\n");
        }
        sort.apply(&mut edges);
        let rows: Vec<Vec<String>> = edges.iter().map(row).collect();
        let columns: Vec<Column> = COLUMNS
            .iter()
            .map(|column| if by_address && column.title == "PORT" { ADDRESS } else { *column })
            .collect();
        let table = table::render(&columns, &rows, room);
        let (sides, idle): (Vec<_>, Vec<_>) = others.iter().partition(|edge| edge.other_side);
        let mut footer = covered;
        for (hidden, of, flag) in
            [(sides, "other side", "--role both"), (idle, "idle edge", "--all")]
        {
            if !hidden.is_empty() {
                let hidden = human::counted(hidden.len() as u64, of);
                // Writing into a String cannot fail.
                let _ = write!(footer, "; {hidden} hidden: {flag}");
            }
        }
        if edges.iter().any(|edge| edge.unverified_user.is_some()) {
            footer.push_str(UNVERIFIED);
        }
        format!("{table}{footer}\n")
    }

    fn shows(self, edge: &Edge) -> bool {
        if self.role == RoleChoice::Once && edge.other_side {
            return false;
        }
        let is_resets = is_without_client(edge) && edge.port == 0;
        self.all
            || (!is_resets && !edge.why.is_empty())
            || (!is_without_client(edge) && is_busy(edge))
    }
}

fn row(edge: &Edge) -> Vec<String> {
    vec![
        client(edge),
        human::full_name(&edge.server_namespace, &edge.server),
        edge.address.clone().unwrap_or_else(|| edge.port.to_string()),
        edge.role.as_str().to_owned(),
        human::count(connected(edge)),
        human::count(failed(edge)),
        human::count(edge.active),
        human::count(edge.request.count),
        human::count(edge.unanswered),
        error_ratio(edge).map_or_else(|| "-".to_owned(), share),
        human::quantile(edge.request.p50_seconds),
        human::quantile(edge.request.p99_seconds),
        human::quantile(edge.rtt.p50_seconds),
        human::bytes(edge.sent_bytes),
        human::bytes(edge.received_bytes),
        human::count(edge.retransmits),
        human::count(aborts(edge)),
        human::count(resets(edge)),
        why(edge),
    ]
}

/// A share as a column headed `%` has it.
fn share(share: f64) -> String {
    human::percent(share).trim_end_matches('%').to_owned()
}

// === impl Sort ===

impl Sort {
    /// Sorts; equal rows keep the agent's order, which is by name.
    fn apply(self, edges: &mut [Edge]) {
        let nanoseconds = |latency: &Latency, quantile: fn(&Latency) -> Option<f64>| {
            quantile(latency).map(|seconds| (seconds * 1e9) as u64)
        };
        let key = |edge: &Edge| match self {
            Self::Why => Some((urgency(edge) << 62) | (edge.request.count >> 2)),
            Self::Name => None,
            Self::Connects => Some(connected(edge)),
            Self::Failed => Some(failed(edge)),
            Self::Active => Some(edge.active),
            Self::Requests => Some(edge.request.count),
            Self::Unanswered => Some(edge.unanswered),
            Self::Errors => error_ratio(edge).map(|share| (share * 1e9) as u64),
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
    use api_types::Cause;
    use model::fixture::snapshot;
    use server::convert::{self, EdgeQuery};

    const SHOWN: Shown = Shown {
        window: WindowChoice::Last(60),
        role: RoleChoice::Once,
        by_address: false,
        sort: Sort::Why,
        all: false,
    };

    fn answer() -> Edges {
        convert::edges(&snapshot(), EdgeQuery::Rows(WindowChoice::Last(60)), |_| true)
    }

    #[test]
    fn a_pipe_gets_every_column_in_human_units_and_what_is_not_well_first() {
        assert_eq!(
            SHOWN.text(answer(), None),
            "\
CLIENT      SERVER     PORT  ROLE      CONNECTS  FAILED  ACTIVE  REQUESTS  UNANS  ERR%      P50      P99      RTT    SENT  RECEIVED  RETRANS  ABORTS  RESETS  WHY
prod/shop   postgres   5432  client          10       3       5         7      3  26.1  31.2 ms   > 10 s  45.8 µs  123 kB   7.65 MB        3       2       3  2 refused, 1 connect timed out, 3 unanswered, 1 unanswered while stopping, 2 died (user timeout), 2 reset (idle reuse), 1 reset (keep-alive)
internet    prod/shop  8080  server           5       0       0         1      0  16.7    75 µs  99.5 µs        -     0 B     500 B        0       0       0  1 HTTP 5xx
(listener)  postgres   5432  listener         0       0       0         0      0     -        -        -        -     0 B       0 B        0       0       1  4 dropped by the listener
last 100 s
"
        );
    }

    #[test]
    fn what_programs_do_on_purpose_comes_behind_what_fails() {
        let cause =
            |cause: &str| Cause { cause: cause.to_owned(), text: cause.to_owned(), count: 1 };
        let mut edges: Vec<Edge> = Vec::new();
        for (server, requests, causes) in [
            ("well", 9000, vec![]),
            ("closed-idle", 800, vec![cause("reset_linger")]),
            ("rolled-out", 700, vec![cause("connect_stopping"), cause("reset_linger")]),
            ("cut", 60, vec![cause("reset_linger"), cause("reset_unread_data")]),
            ("down", 0, vec![cause("connect_refused")]),
        ] {
            let mut edge = answer().edges.remove(0);
            (edge.server, edge.request.count, edge.why) = (server.to_owned(), requests, causes);
            edges.push(edge);
        }
        Sort::Why.apply(&mut edges);
        let order: Vec<_> = edges.iter().map(|edge| edge.server.as_str()).collect();
        assert_eq!(order, ["cut", "down", "closed-idle", "rolled-out", "well"]);
    }

    #[test]
    fn no_terminal_is_too_narrow_for_what_matters() {
        for room in [80, 100, 120, 200] {
            let text = SHOWN.text(answer(), Some(room));
            assert!(text.lines().all(|line| line.chars().count() <= room), "{room}:\n{text}");
            for title in ["CLIENT", "SERVER", "PORT", "ROLE", "REQUESTS", "P99", "WHY"] {
                assert!(text.contains(title), "{room}: {title}");
            }
        }
    }

    #[test]
    fn an_edge_is_shown_once_and_its_other_side_on_demand() {
        let mut both = answer();
        let mut other = both.edges[2].clone();
        (other.role, other.other_side) = (Role::Server, true);
        both.edges.push(other);
        let lines = |role| {
            let text = Shown { role, ..SHOWN }.text(both.clone(), None);
            text.lines().filter(|line| line.starts_with("prod/shop ")).count()
        };
        assert_eq!((lines(RoleChoice::Once), lines(RoleChoice::Both)), (1, 2));
        let text = SHOWN.text(both.clone(), None);
        assert!(text.contains("; 1 other side hidden: --role both"), "{text}");
    }

    #[test]
    fn an_idle_edge_is_hidden_and_that_is_said() {
        let mut idle = answer();
        let edge = &mut idle.edges[0];
        (edge.active, edge.opened, edge.closed, edge.request.count) = (0, 0, 0, 0);
        edge.connects.insert("ok".to_owned(), 0);
        edge.why.clear();
        let text = SHOWN.text(idle.clone(), None);
        assert!(!text.contains("internet"), "{text}");
        assert!(text.contains("; 1 idle edge hidden: --all"), "{text}");
        assert!(Shown { all: true, ..SHOWN }.text(idle, None).contains("internet"));
    }

    #[test]
    fn addresses_stand_in_place_of_ports() {
        let by = convert::edges(&snapshot(), EdgeQuery::ByAddress(60), |_| true);
        let text = Shown { by_address: true, ..SHOWN }.text(by, None);
        assert!(text.lines().next().is_some_and(|head| !head.contains("PORT")), "{text}");
        assert!(text.contains("  10.0.0.2:5432  client "), "{text}");
    }

    #[test]
    fn an_edge_that_a_user_can_have_made_up_is_marked_with_that_user() {
        let mut some = answer();
        let shop = some.edges.iter_mut().find(|edge| edge.client == "shop").expect("one of them");
        shop.unverified_user = Some(1500);
        let text = SHOWN.text(some, None);
        assert!(text.contains("  unverified (user 1500), 2 refused, "), "{text}");
        assert!(text.ends_with(&format!("last 100 s{UNVERIFIED}\n")), "{text}");
        assert!(!SHOWN.text(answer(), None).contains("unverified"));
    }

    #[test]
    fn the_chosen_number_descends() {
        let check = |sort, first: &str| {
            let text = Shown { sort, ..SHOWN }.text(answer(), None);
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
        assert_eq!(SHOWN.text(nothing, None), "No connections (last 100 s).\n");
    }
}
