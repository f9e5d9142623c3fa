//! Segments and rules from what was observed, as the sections of the agent's configuration file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::bail;
use clap::ValueEnum;

use super::observed::{Edge, End, Name, Observed, connections};
use crate::quote::{comment, label, string};

/// Segments that a configuration may have (`model::segments`).
const MOST: usize = 64;
/// Edges that a rule's comment names; the rest is a number.
const NAMED: usize = 5;
/// The end in no segment.
const OUTSIDE: &str = "outside";

/// What becomes a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// Each namespace, and each service that has none.
    #[default]
    Namespace,
    /// Each service.
    Service,
}

/// Segments and what was seen between them.
struct Suggestion<'a> {
    /// Segments by name, with what belongs to them.
    segments: BTreeMap<String, Members>,
    /// Edges by the segments of their ends.
    between: BTreeMap<(String, String), Vec<&'a Edge>>,
}

#[derive(Default)]
struct Members {
    namespaces: BTreeSet<String>,
    services: BTreeSet<String>,
}

/// The sections, or why there are none.
pub(crate) fn text(observed: &Observed, by: By) -> anyhow::Result<String> {
    let Suggestion { segments, between } = Suggestion::of(observed, by);
    if segments.is_empty() {
        bail!("no service with a name was observed; let the agent see some traffic first");
    }
    if segments.len() > MOST {
        let fix = match by {
            By::Service => "use --by namespace, or fewer services with --service",
            By::Namespace => "choose the services that matter with --service",
        };
        bail!("these would be {} segments, and {MOST} are possible; {fix}", segments.len());
    }
    let mut text = format!(
        "# Made by `portolan segments suggest` from what was observed: {}; {} edges by {} agent(s).
# Portolan blocks nothing: it counts and reports what these rules do not allow.
# Read it, add it to the agent's configuration file, and check that: portolan config check --config FILE
# What it would report of the past: portolan policy test FILE
",
        comment(&observed.window()),
        observed.edges.len(),
        observed.agents
    );
    // Writing into a String cannot fail.
    for gap in observed.gaps() {
        let _ = writeln!(text, "# {}", comment(&gap));
    }
    text.push_str("\n[segments]\nallow = [\n");
    let inner = between
        .iter()
        .filter(|((client, server), _)| client != server && client != OUTSIDE && server != OUTSIDE);
    for ((client, server), edges) in inner {
        evidence(&mut text, edges);
        let _ = writeln!(text, "  {},", string(&format!("{client} -> {server}")));
    }
    text.push_str("]\n");
    outside(&mut text, &segments, &between);
    for (name, Members { namespaces, services }) in &segments {
        let _ = writeln!(text, "\n[segments.{name}]");
        for (key, members) in [("namespaces", namespaces), ("services", services)] {
            if !members.is_empty() {
                let members: Vec<String> = members.iter().map(|one| string(one)).collect();
                let _ = writeln!(text, "{key} = [{}]", members.join(", "));
            }
        }
    }
    Ok(text)
}

/// Rules about ends in no segment: what was never seen is denied, the rest has no rule.
fn outside(
    text: &mut String,
    segments: &BTreeMap<String, Members>,
    between: &BTreeMap<(String, String), Vec<&Edge>>,
) {
    text.push_str(
        "# `outside` is what has no name here: addresses, names from DNS, the internet. What connected is not
# judged; what never did would be reported.
",
    );
    let mut denied = String::new();
    for name in segments.keys() {
        for (client, server) in [(OUTSIDE, name.as_str()), (name.as_str(), OUTSIDE)] {
            match between.get(&(client.to_owned(), server.to_owned())) {
                Some(edges) => {
                    let _ = writeln!(text, "# not judged: {client} -> {server}");
                    let mut said = String::new();
                    evidence(&mut said, edges);
                    text.push_str(&said.replace("  #", "#"));
                }
                None => {
                    let _ = writeln!(denied, "  {},", string(&format!("{client} -> {server}")));
                }
            }
        }
    }
    if !denied.is_empty() {
        let _ = writeln!(text, "deny = [\n{denied}]");
    }
}

/// What speaks for a rule, as comments: the edges with the most connections, and all of them summed up.
fn evidence(text: &mut String, edges: &[&Edge]) {
    let mut edges = edges.to_vec();
    edges.sort_by(|a, b| b.connections.cmp(&a.connections).then_with(|| a.ends().cmp(&b.ends())));
    for edge in edges.iter().take(NAMED) {
        let _ = writeln!(text, "  # {}", comment(&edge.evidence()));
    }
    let rest: u64 = edges.iter().skip(NAMED).map(|edge| edge.connections).sum();
    if edges.len() > NAMED {
        let more = edges.len() - NAMED;
        let _ = writeln!(text, "  # and {more} more with {}", connections(rest));
    }
}

// === impl Suggestion ===

impl<'a> Suggestion<'a> {
    fn of(observed: &'a Observed, by: By) -> Self {
        let connected = || observed.edges.iter().filter(|edge| edge.connections > 0);
        let ends = connected().flat_map(|edge| [&edge.client, &edge.server]);
        let named: BTreeSet<&Name> = ends
            .filter(|end| end.is_service() && is_member(&end.name))
            .map(|end| &end.name)
            .collect();
        let mut segments: BTreeMap<String, Members> = BTreeMap::new();
        let mut names: BTreeMap<&Name, String> = BTreeMap::new();
        let mut taken = BTreeMap::new();
        for name in named {
            let of_namespace = by == By::Namespace && !name.namespace.is_empty();
            let whole = if of_namespace { name.namespace.clone() } else { name.to_string() };
            let segment = free(&mut taken, &whole, of_namespace);
            let members = segments.entry(segment.clone()).or_default();
            if of_namespace {
                members.namespaces.insert(name.namespace.clone());
            } else {
                members.services.insert(whole);
            }
            names.insert(name, segment);
        }
        own_names(&mut segments, &names);
        let mut between: BTreeMap<_, Vec<&Edge>> = BTreeMap::new();
        for edge in connected() {
            let of =
                |end: &End| names.get(&end.name).cloned().unwrap_or_else(|| OUTSIDE.to_owned());
            between.entry((of(&edge.client), of(&edge.server))).or_default().push(edge);
        }
        Self { segments, between }
    }
}

/// A member without a namespace is of any namespace: services of that name that are in the segment of
/// their namespace are named there too, because the full name wins.
fn own_names(segments: &mut BTreeMap<String, Members>, names: &BTreeMap<&Name, String>) {
    for (name, segment) in names.iter().filter(|(name, _)| !name.namespace.is_empty()) {
        if names.contains_key(&Name::new("", &name.name))
            && let Some(members) = segments.get_mut(segment)
        {
            members.services.insert(name.to_string());
        }
    }
}

/// Whether a service can be written as a member: the list separates by commas.
fn is_member(Name { namespace, name }: &Name) -> bool {
    let plain = |text: &str| {
        text.trim() == text && !text.contains([',', '"', '\\']) && comment(text) == text
    };
    plain(name) && plain(namespace)
}

/// A name for the segment of a namespace or a service, which no other one has.
fn free(taken: &mut BTreeMap<String, (bool, String)>, whole: &str, is_namespace: bool) -> String {
    let base = label(whole, 48);
    let is_reserved = |name: &str| matches!(name, OUTSIDE | "allow" | "deny");
    for number in 1.. {
        let name = if number == 1 { base.clone() } else { format!("{base}-{number}") };
        match taken.get(&name) {
            _ if is_reserved(&name) => {}
            None => {
                taken.insert(name.clone(), (is_namespace, whole.to_owned()));
                return name;
            }
            Some((kind, other)) if *kind == is_namespace && other == whole => return name,
            Some(_) => {}
        }
    }
    base
}

#[cfg(test)]
mod tests;
