//! `--compare`: what is different from the same window some time before.

use std::collections::BTreeMap;
use std::time::Duration;

use api_types::{Edge, HealthState, ServiceStatus, Timestamp, Window};
use clap::Args;
use notation::duration;
use serde::Serialize;

use super::fleet::{self, Host, Reply};
use super::table::{self, Column};
use super::{Outcome, Output, edges, human, print};

/// A P99 that is so many times the former one is slower, if it is this much more, seconds, and if
/// both are of enough requests: below, it is chance, or the width of a bucket.
const SLOWER: f64 = 1.5;
const SLOWER_SECONDS: f64 = 0.001;
const FEW_REQUESTS: u64 = 20;
/// What failed before fails more if its share is so many times the former one.
const MORE_FAILS: f64 = 2.0;
/// And at least so much of all.
const MORE_FAILS_BY: f64 = 0.01;

/// The flag.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Compare {
    /// With --prometheus: show what is different from the same window so long before, like 1h or 24h.
    #[arg(long, value_name = "DURATION", requires = "prometheus", value_parser = parse)]
    pub compare: Option<Duration>,
}

/// What is different, what matters most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Change {
    /// It fails, and did not, or less.
    Failing,
    /// Its P99 is higher.
    Slower,
    /// It had traffic, and has none.
    Gone,
    /// It has traffic, and had none.
    New,
    /// It failed, and does not.
    Recovered,
}

/// Something that is different.
#[derive(Debug, Serialize)]
struct Difference<'a, T> {
    change: Change,
    now: Option<&'a T>,
    before: Option<&'a T>,
}

/// The differences as JSON.
#[derive(Serialize)]
struct Document<'a, T> {
    timestamp: Timestamp,
    window: Window,
    before: Window,
    hosts: &'a [Host],
    changes: Vec<Difference<'a, T>>,
}

/// What can be compared.
pub(super) trait Compared: Serialize {
    /// What makes two of them the same.
    fn key(&self) -> (String, String, u16);
    /// Whether it has traffic of its own.
    fn is_busy(&self) -> bool;
    /// Whether something fails.
    fn is_failing(&self) -> bool;
    /// The share of what fails.
    fn error_ratio(&self) -> Option<f64>;
    /// Requests that were answered.
    fn requests(&self) -> u64;
    /// The 99th percentile of their latency, seconds.
    fn p99(&self) -> Option<f64>;
    /// What is wrong, in words.
    fn why(&self) -> String;
}

fn parse(text: &str) -> Result<Duration, String> {
    let length = duration::parse(text).filter(|length| !length.is_zero());
    length.ok_or_else(|| format!("write {}", duration::FORM))
}

impl Compared for Edge {
    fn key(&self) -> (String, String, u16) {
        let server = human::full_name(&self.server_namespace, &self.server);
        (edges::client(self), server, self.port)
    }

    fn is_busy(&self) -> bool {
        !self.other_side && !edges::is_without_client(self) && edges::is_busy(self)
    }

    fn is_failing(&self) -> bool {
        edges::urgency(self) > 1
    }

    fn error_ratio(&self) -> Option<f64> {
        edges::error_ratio(self)
    }

    fn requests(&self) -> u64 {
        self.request.count
    }

    fn p99(&self) -> Option<f64> {
        self.request.p99_seconds
    }

    fn why(&self) -> String {
        edges::why(self)
    }
}

impl Compared for ServiceStatus {
    fn key(&self) -> (String, String, u16) {
        (human::full_name(&self.service_namespace, &self.service), String::new(), 0)
    }

    fn is_busy(&self) -> bool {
        self.health.state != HealthState::Idle
    }

    fn is_failing(&self) -> bool {
        self.health.state < HealthState::Ok
    }

    fn error_ratio(&self) -> Option<f64> {
        let health = &self.health;
        let bad = health.connects_failed + health.unanswered + health.errors;
        let all = health.connects_ok + health.connects_failed + health.unanswered + health.requests;
        (all > 0).then(|| (bad as f64 / all as f64).min(1.0))
    }

    fn requests(&self) -> u64 {
        self.health.requests
    }

    fn p99(&self) -> Option<f64> {
        self.health.p99_seconds
    }

    fn why(&self) -> String {
        self.health.state.as_str().to_owned()
    }
}

/// What is different now.
fn differences<'a, T: Compared>(now: &'a [T], before: &'a [T]) -> Vec<Difference<'a, T>> {
    let busy = |all: &'a [T]| -> BTreeMap<_, &'a T> {
        all.iter().filter(|one| one.is_busy()).map(|one| (one.key(), one)).collect()
    };
    let (now, mut before) = (busy(now), busy(before));
    let mut all = Vec::new();
    for (key, one) in now {
        let earlier = before.remove(&key);
        let change = match earlier {
            _ if one.is_failing() && earlier.is_none_or(|earlier| fails_more(one, earlier)) => {
                Change::Failing
            }
            None => Change::New,
            Some(earlier) if is_slower(one, earlier) => Change::Slower,
            Some(earlier) if earlier.is_failing() && !one.is_failing() => Change::Recovered,
            Some(_) => continue,
        };
        all.push(Difference { change, now: Some(one), before: earlier });
    }
    let gone = before.into_values();
    all.extend(gone.map(|one| Difference { change: Change::Gone, now: None, before: Some(one) }));
    all.sort_by_key(|one| one.change);
    all
}

fn fails_more(now: &impl Compared, before: &impl Compared) -> bool {
    let ratio = |one: Option<f64>| one.unwrap_or_default();
    let (after, before_ratio) = (ratio(now.error_ratio()), ratio(before.error_ratio()));
    !before.is_failing()
        || (after > before_ratio * MORE_FAILS && after - before_ratio >= MORE_FAILS_BY)
}

fn is_slower(now: &impl Compared, before: &impl Compared) -> bool {
    let (Some(after), Some(earlier)) = (now.p99(), before.p99()) else { return false };
    now.requests().min(before.requests()) >= FEW_REQUESTS
        && after >= earlier * SLOWER
        && after - earlier >= SLOWER_SECONDS
}

/// Prints what is different; `of` says what is compared, in the plural.
pub(super) fn show<T: Compared>(
    of: &str,
    (now, window, timestamp): (&[T], Window, Timestamp),
    (before, earlier): (&[T], Window),
    reply: &Reply<()>,
    output: Output,
) -> anyhow::Result<Outcome> {
    let changes = differences(now, before);
    let is_worse = changes.iter().any(|one| one.change <= Change::Slower);
    match output {
        Output::Json => {
            let hosts = &reply.hosts;
            let document = Document { timestamp, window, before: earlier, hosts, changes };
            print(&format!("{}\n", serde_json::to_string(&document)?))?;
        }
        Output::Text => {
            let table = text(of, &changes, table::room());
            let floor = |time: Timestamp| Timestamp::from_seconds(time.seconds().floor());
            let (since, until) = (floor(earlier.since), floor(earlier.until));
            print(&format!(
                "{table}{}{}compared with: {since} to {until}\n",
                fleet::remarks(&reply.hosts),
                reply.footer
            ))?;
        }
    }
    Ok(if is_worse { Outcome::Found } else { Outcome::Done })
}

const COLUMNS: &[Column] = &[
    Column::left("CHANGE"),
    Column::left("CLIENT"),
    Column::left("SERVER"),
    Column::right("PORT"),
    Column::right("REQUESTS").rank(2),
    Column::right("P99"),
    Column::right("ERR%").rank(1),
    Column::left("WHY"),
];

fn text<T: Compared>(of: &str, changes: &[Difference<'_, T>], room: Option<usize>) -> String {
    if changes.is_empty() {
        return format!("No {of} is new, gone, slower or failing.\n");
    }
    let rows: Vec<Vec<String>> = changes.iter().map(row).collect();
    // Services have one name and no port.
    let is_edge = rows.iter().any(|row| row.get(3).is_some_and(|port| port != "0"));
    if is_edge {
        return table::render(COLUMNS, &rows, room);
    }
    let kept = |at: &usize| !(2..=3).contains(at);
    let columns: Vec<Column> = (0..COLUMNS.len())
        .filter(kept)
        .filter_map(|at| COLUMNS.get(at).copied())
        .map(|one| if one.title == "CLIENT" { Column::left("SERVICE") } else { one })
        .collect();
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| {
            let cells = row.into_iter().enumerate().filter(|(at, _)| kept(at));
            cells.map(|(_, cell)| cell).collect()
        })
        .collect();
    table::render(&columns, &rows, room)
}

fn row<T: Compared>(one: &Difference<'_, T>) -> Vec<String> {
    let Difference { change, now, before } = one;
    let (client, server, port) = now.or(*before).map(Compared::key).unwrap_or_default();
    let change = match change {
        Change::Failing => "failing",
        Change::Slower => "slower",
        Change::Gone => "gone",
        Change::New => "new",
        Change::Recovered => "recovered",
    };
    let both = |show: &dyn Fn(&T) -> String| {
        let side = |one: Option<&T>| one.map_or_else(|| "-".to_owned(), show);
        format!("{} → {}", side(*before), side(*now))
    };
    vec![
        change.to_owned(),
        client,
        server,
        port.to_string(),
        both(&|one| human::count(one.requests())),
        both(&|one| human::quantile(one.p99())),
        both(&|one| {
            let ratio = one.error_ratio().map(human::percent);
            ratio.map_or_else(|| "-".to_owned(), |text| text.trim_end_matches('%').to_owned())
        }),
        now.map_or_else(|| "-".to_owned(), Compared::why),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An edge of the fixture with so many requests, a P99 and failed connects.
    fn edge(server: &str, requests: u64, p99: f64, failed: u64) -> Edge {
        let all: api_types::Edges =
            serde_json::from_str(include_str!("../../server/golden/edges.json")).expect("edges");
        let mut edge = all.edges.into_iter().find(|edge| edge.client == "shop").expect("an edge");
        edge.server = server.to_owned();
        edge.request.count = requests;
        edge.request.p99_seconds = Some(p99);
        edge.connects = [("ok".to_owned(), requests), ("refused".to_owned(), failed)].into();
        edge.unanswered = 0;
        edge.responses.clear();
        edge.why.retain(|cause| cause.cause == "connect_refused" && failed > 0);
        edge
    }

    fn check(now: &[Edge], before: &[Edge], expected: &[(Change, &str)]) {
        let found = differences(now, before);
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.change, &*one.now.or(one.before).expect("one of them").server))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_fails_is_first_then_what_is_slower_gone_new_and_well_again() {
        let before = [
            edge("same", 100, 0.010, 0),
            edge("slow", 100, 0.010, 0),
            edge("broken", 100, 0.010, 0),
            edge("gone", 100, 0.010, 0),
            edge("repaired", 100, 0.010, 40),
        ];
        let now = [
            edge("same", 110, 0.012, 0),
            edge("slow", 100, 0.300, 0),
            edge("broken", 100, 0.010, 40),
            edge("fresh", 5, 0.010, 0),
            edge("repaired", 100, 0.010, 0),
        ];
        let expected = [
            (Change::Failing, "broken"),
            (Change::Slower, "slow"),
            (Change::Gone, "gone"),
            (Change::New, "fresh"),
            (Change::Recovered, "repaired"),
        ];
        check(&now, &before, &expected);
        check(&now, &now, &[]);
        let shown = text("edge", &differences(&now, &before), None);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].starts_with("failing"), "{shown}");
        assert!(lines[1].contains("0 → 16.7") && lines[1].ends_with("refused"), "{shown}");
        assert!(lines[2].contains("10 ms → 300 ms"), "{shown}");
        assert!(lines[4].contains("- → 5"), "{shown}");
        assert_eq!(text::<Edge>("edge", &[], None), "No edge is new, gone, slower or failing.\n");
    }

    #[test]
    fn chance_is_no_difference() {
        // Few requests, or a difference below a bucket.
        check(&[edge("a", 19, 0.3, 0)], &[edge("a", 100, 0.01, 0)], &[]);
        check(&[edge("a", 100, 0.0009, 0)], &[edge("a", 100, 0.0001, 0)], &[]);
        check(&[edge("a", 100, 0.014, 0)], &[edge("a", 100, 0.01, 0)], &[]);
        // It failed as much before.
        check(&[edge("a", 100, 0.01, 12)], &[edge("a", 100, 0.01, 10)], &[]);
        let more = [(Change::Failing, "a")];
        check(&[edge("a", 100, 0.01, 60)], &[edge("a", 100, 0.01, 10)], &more);
    }

    #[test]
    fn how_long_before_has_a_unit() {
        assert_eq!(parse("24h"), Ok(Duration::from_hours(24)));
        for text in ["", "24", "0s", "yesterday"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
