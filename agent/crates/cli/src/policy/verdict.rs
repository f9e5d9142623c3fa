//! `portolan policy test`: which of the observed connections a policy would cut.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, bail};
use api_types::{Flows, SegmentVerdict};
use serde::Serialize;

use super::observed::{Edge, End, Observed, connections};
use super::{Scope, nftables, read_text, selectors};
use crate::table::{self, Column};
use crate::{Output, human, print};

/// One end of a connection, for segments.
#[derive(Clone, Copy, Debug)]
pub struct SegmentEnd<'a> {
    /// Its name.
    pub service: &'a str,
    /// Where the name is unique.
    pub namespace: &'a str,
    /// Its address, if it is known.
    pub address: Option<IpAddr>,
}

/// What segments say of a connection from the first end to the second: the verdict, and both segments.
pub type SegmentVerdicts =
    Box<dyn Fn(SegmentEnd<'_>, SegmentEnd<'_>) -> (SegmentVerdict, String, String)>;

/// Reads the segments of a configuration file, as the agent does.
pub type SegmentFile = fn(&Path) -> anyhow::Result<SegmentVerdicts>;

/// What a policy does with an edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// It would not get through, or would be reported; by what.
    Cut(String),
    /// It cannot be said; why.
    Undecided(String),
    /// It gets through.
    Allowed,
}

/// A policy that edges are held against.
pub(super) trait Judge {
    /// The verdict on the edge of a single flow: each end has one address at most.
    fn judge(&self, edge: &Edge) -> Verdict;
}

/// The result, in JSON.
#[derive(Debug, Serialize)]
struct Trial {
    /// The time that the numbers cover.
    window: api_types::Window,
    /// Edges that the policy would cut.
    cut: Vec<Judged>,
    /// Edges on which the policy's verdict hangs on what is not known.
    undecided: Vec<Judged>,
    /// How many connections it allows.
    allowed_connections: u64,
    /// How many it would cut.
    cut_connections: u64,
    /// Of how many nothing can be said.
    undecided_connections: u64,
}

/// An edge and the verdict on it.
#[derive(Debug, Serialize)]
struct Judged {
    client: String,
    client_namespace: String,
    server: String,
    server_namespace: String,
    port: u16,
    /// Connections in the window.
    connections: u64,
    /// Why, in words.
    reason: String,
}

const COLUMNS: &[Column] = &[
    Column::left("CLIENT"),
    Column::left("SERVER"),
    Column::right("CONNECTIONS"),
    Column::left("VERDICT"),
    Column::left("WHY").rank(1),
];

/// Prints what a policy would cut; whether it would cut anything.
pub(super) fn run(
    file: &Path,
    answers: &[Flows],
    scope: &Scope,
    output: Output,
    segments: SegmentFile,
) -> anyhow::Result<bool> {
    let mut observed = Observed::of(answers, scope.window.0);
    observed.only(&scope.names());
    let judge = judge(file, &observed, segments)?;
    let mut rows = Observed { edges: Observed::rows(answers, scope.window.0), ..observed };
    rows.only(&scope.names());
    let trial = Trial::of(&rows, &*judge);
    print(&match output {
        Output::Json => format!("{}\n", serde_json::to_string(&trial)?),
        Output::Text => text(&trial, &rows, table::room()),
    })?;
    Ok(!trial.cut.is_empty())
}

/// The policy of a file; its name says what it is.
fn judge(
    file: &Path,
    observed: &Observed,
    segments: SegmentFile,
) -> anyhow::Result<Box<dyn Judge>> {
    let wrong = |problem: String| anyhow::anyhow!("{}: {problem}", file.display());
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    Ok(match ending {
        "toml" => Box::new(Segments(segments(file)?)),
        "nft" => Box::new(nftables::read(&read_text(file)?).map_err(wrong)?),
        "yaml" | "yml" => {
            let text = read_text(file)?;
            if !text.lines().any(|line| line.trim_start().starts_with("kind:")) {
                // The agent's configuration may be YAML too.
                let verdicts =
                    segments(file).context("it is not a NetworkPolicy, so segments are expected");
                return Ok(Box::new(Segments(verdicts?)));
            }
            Box::new(selectors::read(&text, observed.labels.clone()).map_err(wrong)?)
        }
        _ => bail!(
            "{}: end its name with what it is: .toml (segments), .yaml (NetworkPolicies) or .nft (nftables)",
            file.display()
        ),
    })
}

/// Segments as the agent reads them.
struct Segments(SegmentVerdicts);

impl Judge for Segments {
    fn judge(&self, edge: &Edge) -> Verdict {
        match (self.0)(segment_end(&edge.client), segment_end(&edge.server)) {
            (SegmentVerdict::Violation, from, to) => {
                Verdict::Cut(format!("no rule allows {from} -> {to}"))
            }
            (SegmentVerdict::Allowed | SegmentVerdict::NotJudged, ..) => Verdict::Allowed,
        }
    }
}

fn segment_end(end: &End) -> SegmentEnd<'_> {
    SegmentEnd {
        service: &end.name.name,
        namespace: &end.name.namespace,
        address: end.addresses.first().copied(),
    }
}

fn text(trial: &Trial, observed: &Observed, room: Option<usize>) -> String {
    let row = |verdict: &str, judged: &Judged| {
        vec![
            human::full_name(&judged.client_namespace, &judged.client),
            human::endpoint(&judged.server_namespace, &judged.server, judged.port),
            judged.connections.to_string(),
            verdict.to_owned(),
            judged.reason.clone(),
        ]
    };
    let cut = trial.cut.iter().map(|judged| row("cut", judged));
    let rows: Vec<_> =
        cut.chain(trial.undecided.iter().map(|judged| row("undecided", judged))).collect();
    let table = if rows.is_empty() { String::new() } else { table::render(COLUMNS, &rows, room) };
    let Trial { allowed_connections, cut_connections, undecided_connections, .. } = *trial;
    let mut text = format!(
        "{table}{} would be cut, {} allowed, {} undecided; observed {}\n",
        connections(cut_connections),
        allowed_connections,
        undecided_connections,
        observed.window()
    );
    for gap in observed.gaps() {
        text.push_str(&gap);
        text.push('\n');
    }
    text
}

// === impl Trial ===

impl Trial {
    fn of(observed: &Observed, judge: &dyn Judge) -> Self {
        let mut by_verdict: BTreeMap<(Verdict, String), Judged> = BTreeMap::new();
        let mut sums = (0_u64, 0_u64, 0_u64);
        for edge in observed.edges.iter().filter(|edge| edge.connections > 0) {
            let verdict = judge.judge(edge);
            let (sum, reason) = match &verdict {
                Verdict::Cut(reason) => (&mut sums.0, reason.clone()),
                Verdict::Undecided(reason) => (&mut sums.1, reason.clone()),
                Verdict::Allowed => {
                    sums.2 = sums.2.saturating_add(edge.connections);
                    continue;
                }
            };
            *sum = sum.saturating_add(edge.connections);
            let judged = by_verdict.entry((verdict, edge.ends())).or_insert_with(|| Judged {
                client: edge.client.name.name.clone(),
                client_namespace: edge.client.name.namespace.clone(),
                server: edge.server.name.name.clone(),
                server_namespace: edge.server.name.namespace.clone(),
                port: edge.port,
                connections: 0,
                reason,
            });
            judged.connections = judged.connections.saturating_add(edge.connections);
        }
        let (mut cut, mut undecided) = (Vec::new(), Vec::new());
        for ((verdict, _), judged) in by_verdict {
            match verdict {
                Verdict::Cut(_) => cut.push(judged),
                Verdict::Undecided(_) | Verdict::Allowed => undecided.push(judged),
            }
        }
        // What is cut most comes first.
        cut.sort_by_key(|judged| std::cmp::Reverse(judged.connections));
        let seconds = observed.until.seconds_since(observed.since).max(0.0);
        Self {
            window: api_types::Window::before(observed.until, seconds),
            cut,
            undecided,
            cut_connections: sums.0,
            undecided_connections: sums.1,
            allowed_connections: sums.2,
        }
    }
}

#[cfg(test)]
mod tests;
