//! NetworkPolicies of Kubernetes: each namespace of an observed workload denies by default, and
//! allows what was observed.
//!
//! Pods are selected by one of their labels, which the agent knows if `names.labels` exports it: a
//! name of a workload selects nothing, and its label is not guessed. What has no such label, and ends
//! that are no pods, are listed in the file as not allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::observed::{Edge, End, Name, Observed};
use crate::quote::{comment, is_dns_label, label, string};

/// Labels that name a workload in common use, the first that a service has is taken.
pub(crate) const USUAL_LABELS: [&str; 3] = ["app.kubernetes.io/name", "app", "k8s-app"];

/// The label that every namespace has of itself.
pub(super) const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// The name of the policy that denies, after `portolan-`.
const DEFAULT: &str = "default";

/// A workload that a policy can select.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Selected {
    namespace: String,
    key: String,
    value: String,
    /// For the name of its policies.
    name: String,
}

/// What a workload may accept or open: lines of YAML.
#[derive(Default)]
struct Rules {
    ingress: String,
    egress: String,
}

/// The file, and how many edges it does not allow.
pub(crate) fn text(observed: &Observed, wanted: &[String]) -> (String, usize) {
    let labels = Labels::new(observed, wanted);
    let mut all: BTreeMap<Selected, Rules> = BTreeMap::new();
    let mut namespaces: BTreeSet<&str> = BTreeSet::new();
    let mut left_out = String::new();
    let mut missing = 0;
    // Writing into a String cannot fail.
    for edge in &observed.edges {
        namespaces.extend(edge_namespaces(edge));
        let reason = match ends(edge, &labels) {
            Ok((client, server)) => {
                let evidence = comment(&edge.evidence());
                let from = peer(&evidence, "from", &client, edge.port);
                let to = peer(&evidence, "to", &server, edge.port);
                all.entry(server).or_default().ingress.push_str(&from);
                all.entry(client).or_default().egress.push_str(&to);
                continue;
            }
            Err(reason) => reason,
        };
        missing += 1;
        let _ =
            writeln!(left_out, "# NOT ALLOWED {}: {}", comment(&edge.evidence()), comment(&reason));
    }
    let mut text = header(observed, missing);
    text.push_str(&left_out);
    for namespace in namespaces.iter().filter(|namespace| is_dns_label(namespace)) {
        text.push_str(&defaults(namespace));
    }
    let mut names = BTreeSet::new();
    for (selected, rules) in &all {
        let name = free_name(&mut names, selected);
        let also = labels.others(selected);
        text.push_str(&policy(selected, &name, &also, rules));
    }
    (text, missing)
}

/// The name of a policy that no other one of the namespace has: one that is applied later would replace
/// it, the default deny first of all.
fn free_name(taken: &mut BTreeSet<(String, String)>, selected: &Selected) -> String {
    let base = label(&selected.name, 50);
    let numbered = (2_u32..).map(|number| format!("{base}-{number}"));
    let mut names = std::iter::once(base.clone()).chain(numbered);
    let is_free =
        |name: &String| name != DEFAULT && taken.insert((selected.namespace.clone(), name.clone()));
    names.find(is_free).unwrap_or(base)
}

fn header(observed: &Observed, missing: usize) -> String {
    let mut text = format!(
        "# Made by `portolan policy generate --for kubernetes`.
# Observed: {}; {} edges by {} agent(s).
# An agent sees the pods of its node: with --flows the answers of all nodes' agents are merged.
# Check it: kubectl apply --dry-run=server -f FILE      What it would cut: portolan policy test FILE
# Always allowed by Kubernetes: a node's own traffic to its pods, so probes of the kubelet (health checks)
# need no rule. DNS is allowed to the pods of kube-system. Only TCP was observed: other UDP is denied.
",
        comment(&observed.window()),
        observed.edges.len(),
        observed.agents,
    );
    let _ = writeln!(text, "# {missing} edges are not allowed by these policies:");
    for gap in observed.gaps() {
        let _ = writeln!(text, "# {}", comment(&gap));
    }
    text
}

/// Everything denied, but DNS.
fn defaults(namespace: &str) -> String {
    let quoted = string(namespace);
    format!(
        "---
# Namespace {namespace}: what no policy below allows is denied.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: portolan-{DEFAULT}
  namespace: {quoted}
spec:
  podSelector: {{}}
  policyTypes: [Ingress, Egress]
  egress:
    # DNS, by every pod: questions are not observed as edges.
    - to:
        - namespaceSelector:
            matchLabels:
              {NAMESPACE_LABEL}: kube-system
      ports:
        - {{protocol: UDP, port: 53}}
        - {{protocol: TCP, port: 53}}
"
    )
}

fn policy(selected: &Selected, name: &str, also: &[&Name], rules: &Rules) -> String {
    let Selected { namespace, key, value, name: service } = selected;
    let Rules { ingress, egress } = rules;
    let mut text = format!("---\n# {}\n", comment(&format!("{namespace}/{service}")));
    for other in also {
        let _ = writeln!(
            text,
            "# This label selects {} too: what one may do, both may.",
            comment(&other.to_string())
        );
    }
    let _ = write!(
        text,
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {}
  namespace: {}
spec:
  podSelector:
    matchLabels:
      {}: {}
",
        string(&format!("portolan-{name}")),
        string(namespace),
        string(key),
        string(value)
    );
    let types: Vec<&str> = [("Ingress", ingress), ("Egress", egress)]
        .into_iter()
        .filter(|(_, rules)| !rules.is_empty())
        .map(|(kind, _)| kind)
        .collect();
    let _ = writeln!(text, "  policyTypes: [{}]", types.join(", "));
    for (direction, rules) in [("ingress", ingress), ("egress", egress)] {
        if !rules.is_empty() {
            let _ = write!(text, "  {direction}:\n{rules}");
        }
    }
    text
}

/// One rule: this workload, at this port.
fn peer(evidence: &str, direction: &str, other: &Selected, port: u16) -> String {
    format!(
        "    # {evidence}
    - {direction}:
        - namespaceSelector:
            matchLabels:
              {NAMESPACE_LABEL}: {}
          podSelector:
            matchLabels:
              {}: {}
      ports:
        - {{protocol: TCP, port: {port}}}
",
        string(&other.namespace),
        string(&other.key),
        string(&other.value)
    )
}

/// Both ends as workloads that policies select; or why not.
fn ends(edge: &Edge, labels: &Labels<'_>) -> Result<(Selected, Selected), String> {
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
    Ok((labels.select(&edge.client)?, labels.select(&edge.server)?))
}

/// The namespaces of the workloads of an edge.
fn edge_namespaces(edge: &Edge) -> impl Iterator<Item = &str> {
    let pods = [&edge.client, &edge.server].into_iter().filter(|end| end.is_pod());
    pods.map(|end| end.name.namespace.as_str())
}

/// The labels by which workloads are selected.
struct Labels<'a> {
    observed: &'a Observed,
    keys: Vec<&'a str>,
    /// Which services a label of a namespace selects.
    selects: BTreeMap<(&'a str, &'a str, &'a str), Vec<&'a Name>>,
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

    fn select(&self, end: &End) -> Result<Selected, String> {
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
        Ok(Selected { namespace, key: key.to_owned(), value: value.clone(), name })
    }

    /// Other services that a selector selects.
    fn others(&self, selected: &Selected) -> Vec<&'a Name> {
        let Selected { namespace, key, value, name } = selected;
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

#[cfg(test)]
mod tests;
