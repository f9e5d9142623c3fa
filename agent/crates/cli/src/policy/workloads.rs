//! Workloads of Kubernetes as policies need them: a label that selects the pods of each, and what was
//! observed between them.
//!
//! Pods are selected by one of their labels, which the agent knows if `names.labels` exports it: a
//! name of a workload selects nothing, and its label is not guessed. What has no such label, and ends
//! that are no pods, are left out, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use api_types::Kind;

use super::observed::{Edge, End, Name, Observed};
use crate::quote::{comment, is_dns_label, label};

/// Labels that name a workload in common use, the first that a service has is taken.
pub(crate) const USUAL_LABELS: [&str; 3] = ["app.kubernetes.io/name", "app", "k8s-app"];

/// The name of the policy that denies, after `portolan-`.
pub(super) const DEFAULT: &str = "default";

/// A workload that a policy can select.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Workload {
    pub namespace: String,
    pub key: String,
    pub value: String,
    /// For the name of its policies.
    pub name: String,
}

/// The other end of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Other {
    Pods(Workload),
    /// Clients from outside the cluster.
    World,
    /// A server by its name of DNS.
    Host(String),
}

/// Which ends a system can express besides pods.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reach {
    pub world: bool,
    pub hosts: bool,
}

/// One rule: this end, at this port.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// The edge and what speaks for it, as a comment.
    pub evidence: String,
    pub other: Other,
    pub port: u16,
}

/// What a workload may accept and open.
#[derive(Debug)]
pub(super) struct Policy<'a> {
    pub workload: Workload,
    /// Its name, which no other policy of the namespace has.
    pub name: String,
    /// Other services that the label selects.
    pub also: Vec<&'a Name>,
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
}

/// The policies of what was observed.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// The namespaces of workloads.
    pub namespaces: BTreeSet<&'a str>,
    pub policies: Vec<Policy<'a>>,
    /// Edges in no policy, and why.
    pub left_out: Vec<(String, String)>,
}

/// The labels by which workloads are selected.
struct Labels<'a> {
    observed: &'a Observed,
    keys: Vec<&'a str>,
    /// Which services a label of a namespace selects.
    selects: BTreeMap<(&'a str, &'a str, &'a str), Vec<&'a Name>>,
}

// === impl Plan ===

impl<'a> Plan<'a> {
    /// The policies, with pods selected by the first of the labels `wanted` that they have.
    pub(super) fn of(observed: &'a Observed, wanted: &'a [String], reach: Reach) -> Self {
        let labels = Labels::new(observed, wanted);
        let mut all: BTreeMap<Workload, (Vec<Rule>, Vec<Rule>)> = BTreeMap::new();
        let mut namespaces = BTreeSet::new();
        let mut left_out = Vec::new();
        for edge in &observed.edges {
            namespaces.extend(namespaces_of(edge).filter(|namespace| is_dns_label(namespace)));
            let evidence = comment(&edge.evidence());
            let (client, server) = match ends(edge, &labels, reach) {
                Ok(ends) => ends,
                Err(reason) => {
                    left_out.push((evidence, comment(&reason)));
                    continue;
                }
            };
            let rule = |other: &Other| Rule {
                evidence: evidence.clone(),
                other: other.clone(),
                port: edge.port,
            };
            if let Other::Pods(workload) = &server {
                all.entry(workload.clone()).or_default().0.push(rule(&client));
            }
            if let Other::Pods(workload) = &client {
                all.entry(workload.clone()).or_default().1.push(rule(&server));
            }
        }
        let mut names = BTreeSet::new();
        let policy = |(workload, (ingress, egress))| {
            let name = free_name(&mut names, &workload);
            let also = labels.others(&workload);
            Policy { workload, name, also, ingress, egress }
        };
        let policies = all.into_iter().map(policy).collect();
        Self { namespaces, policies, left_out }
    }

    /// The file of a system, and how many edges it does not allow: in each namespace `defaults`
    /// denies everything, then every policy.
    pub(super) fn file(
        &self,
        system: &str,
        observed: &Observed,
        notes: &str,
        defaults: fn(&str) -> String,
        policy: fn(&Policy<'_>) -> String,
    ) -> (String, usize) {
        let mut text = self.head(system, observed, notes);
        text.extend(self.namespaces.iter().map(|namespace| defaults(namespace)));
        text.extend(self.policies.iter().map(policy));
        (text, self.left_out.len())
    }

    /// The head of the file: what was observed, `notes` of the system, and what is left out.
    fn head(&self, system: &str, observed: &Observed, notes: &str) -> String {
        let mut text = format!(
            "# Made by `portolan policy generate --for {system}`.
# Observed: {}; {} edges by {} agent(s).
# An agent sees the pods of its node: with --flows the answers of all nodes' agents are merged.
{notes}",
            comment(&observed.window()),
            observed.edges.len(),
            observed.agents,
        );
        // Writing into a String cannot fail.
        let _ =
            writeln!(text, "# {} edges are not allowed by these policies:", self.left_out.len());
        for gap in observed.gaps() {
            let _ = writeln!(text, "# {}", comment(&gap));
        }
        for (evidence, reason) in &self.left_out {
            let _ = writeln!(text, "# NOT ALLOWED {evidence}: {reason}");
        }
        text
    }
}

// === impl Policy ===

impl Policy<'_> {
    /// The comment above a policy: the workload that it is for, and others that it also selects.
    pub(super) fn head(&self) -> String {
        let Workload { namespace, name, .. } = &self.workload;
        let mut text = format!("---\n# {}\n", comment(&format!("{namespace}/{name}")));
        for other in &self.also {
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "# This label selects {} too: what one may do, both may.",
                comment(&other.to_string())
            );
        }
        text
    }

    /// `Ingress` and `Egress`, as far as there are rules.
    pub(super) fn types(&self) -> String {
        let both = [("Ingress", &self.ingress), ("Egress", &self.egress)];
        let types = both.into_iter().filter(|(_, rules)| !rules.is_empty()).map(|(kind, _)| kind);
        types.collect::<Vec<_>>().join(", ")
    }
}

/// Both ends as what policies select; or why not.
fn ends(edge: &Edge, labels: &Labels<'_>, reach: Reach) -> Result<(Other, Other), String> {
    if edge.connections == 0 {
        return Err(
            "no connection was established: attempts that failed are no reason to allow it"
                .to_owned(),
        );
    }
    if let Some(asked) = &edge.asked {
        return Err(format!(
            "the client asked for {asked}, and a policy needs the port of the pods: the agent of the server's node has it (--flows)"
        ));
    }
    let client = if reach.world && edge.client.kind == Kind::Internet {
        Other::World
    } else {
        Other::Pods(labels.select(&edge.client)?)
    };
    let name = &edge.server.name.name;
    let server = if reach.hosts && edge.server.kind == Kind::DnsName && is_host(name) {
        Other::Host(name.to_ascii_lowercase())
    } else {
        Other::Pods(labels.select(&edge.server)?)
    };
    Ok((client, server))
}

/// The namespaces of the workloads of an edge.
fn namespaces_of(edge: &Edge) -> impl Iterator<Item = &str> {
    let pods = [&edge.client, &edge.server].into_iter().filter(|end| end.is_pod());
    pods.map(|end| end.name.namespace.as_str())
}

/// The name of a policy that no other one of the namespace has: one that is applied later would replace
/// it, the default deny first of all.
fn free_name(taken: &mut BTreeSet<(String, String)>, workload: &Workload) -> String {
    let base = label(&workload.name, 50);
    let numbered = (2_u32..).map(|number| format!("{base}-{number}"));
    let mut names = std::iter::once(base.clone()).chain(numbered);
    let is_free =
        |name: &String| name != DEFAULT && taken.insert((workload.namespace.clone(), name.clone()));
    names.find(is_free).unwrap_or(base)
}

// === impl Labels ===

impl<'a> Labels<'a> {
    fn new(observed: &'a Observed, wanted: &'a [String]) -> Self {
        let keys: Vec<&str> = if wanted.is_empty() {
            USUAL_LABELS.to_vec()
        } else {
            wanted.iter().map(String::as_str).collect()
        };
        let mut selects: BTreeMap<_, Vec<&Name>> = BTreeMap::new();
        for (name, labels) in &observed.labels {
            for (key, value) in labels {
                let selector = (name.namespace.as_str(), key.as_str(), value.as_str());
                selects.entry(selector).or_default().push(name);
            }
        }
        Self { observed, keys, selects }
    }

    fn select(&self, end: &End) -> Result<Workload, String> {
        let Name { namespace, name } = &end.name;
        if !end.is_pod() {
            return Err(format!("{} is not a workload of Kubernetes", end.name));
        }
        if !is_dns_label(namespace) {
            return Err(format!("\"{namespace}\" is not the name of a namespace"));
        }
        let labels = self.observed.labels.get(&end.name);
        let found = self.keys.iter().find_map(|key| {
            let value = labels?.get(*key)?;
            (is_label_value(value) && is_label_key(key)).then_some((*key, value))
        });
        let (key, value) = found.ok_or_else(|| {
            format!(
                "no label is known that selects the pods of {}: set names.labels = [\"{}\"] in the agent's configuration, or name another one with --label",
                end.name,
                self.keys.join("\", \"")
            )
        })?;
        let (namespace, name) = (namespace.clone(), name.clone());
        Ok(Workload { namespace, key: key.to_owned(), value: value.clone(), name })
    }

    /// Other services that a selector selects.
    fn others(&self, workload: &Workload) -> Vec<&'a Name> {
        let Workload { namespace, key, value, name } = workload;
        let all = self.selects.get(&(namespace.as_str(), key.as_str(), value.as_str()));
        all.into_iter().flatten().copied().filter(|other| other.name != *name).collect()
    }
}

/// Whether this is the value of a label.
fn is_label_value(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty()
        && text.len() <= 63
        && text.chars().all(inner)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// Whether this is the key of a label: a name, with a DNS name before it or without.
fn is_label_key(text: &str) -> bool {
    let is_domain = |text: &str| text.len() <= 253 && text.split('.').all(is_dns_label);
    match text.split_once('/') {
        Some((domain, name)) => is_domain(domain) && is_label_value(name),
        None => is_label_value(text),
    }
}

/// Whether this is the name of a host.
fn is_host(text: &str) -> bool {
    text.len() <= 253 && text.to_ascii_lowercase().split('.').all(is_dns_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_policy_has_the_name_of_another_one() {
        let workload = |name: &str, value: &str| Workload {
            namespace: "shop".to_owned(),
            key: "app".to_owned(),
            value: value.to_owned(),
            name: name.to_owned(),
        };
        let mut taken = BTreeSet::new();
        let mut name = |name: &str, value| free_name(&mut taken, &workload(name, value));
        assert_eq!(name("web", "a"), "web");
        assert_eq!(name("web-2", "b"), "web-2");
        assert_eq!(name("web", "c"), "web-3");
        assert_eq!(name("default", "d"), "default-2");
    }
}
