//! Reads NetworkPolicies of Kubernetes, from any source, and judges an edge by them.
//!
//! The agent knows some labels of some pods. Where an answer hangs on a label that it does not know,
//! or on what was not observed, there is none: an edge is then neither allowed nor cut.
//!
//! Long because it has all fields of a NetworkPolicy.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::answer::Answer;
use super::kubernetes::NAMESPACE_LABEL;
use super::observed::{Edge, End, Name};
use super::verdict::{Judge, Verdict};

/// Policies of a file at most.
const MOST: usize = 10_000;

/// The policies of a file, and what is known of pods.
#[derive(Debug)]
pub(crate) struct Policies {
    policies: Vec<Policy>,
    labels: BTreeMap<Name, BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    #[serde(default)]
    kind: String,
}

#[derive(Debug, Deserialize)]
struct List {
    items: Vec<Policy>,
}

#[derive(Debug, Deserialize)]
struct Policy {
    kind: Option<String>,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    #[serde(default)]
    pod_selector: Selector,
    #[serde(default)]
    policy_types: Vec<String>,
    #[serde(default)]
    ingress: Option<Vec<Ingress>>,
    #[serde(default)]
    egress: Option<Vec<Egress>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ingress {
    #[serde(default)]
    from: Option<Vec<Peer>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Egress {
    #[serde(default)]
    to: Option<Vec<Peer>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Peer {
    pod_selector: Option<Selector>,
    namespace_selector: Option<Selector>,
    ip_block: Option<IpBlock>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IpBlock {
    cidr: Network,
    #[serde(default)]
    except: Vec<Network>,
}

/// A network as endpoints of services are written.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Network(notation::Endpoint);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
    #[serde(default)]
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "as in the API of Kubernetes")]
struct Port {
    #[serde(default)]
    protocol: Option<String>,
    port: Option<PortName>,
    end_port: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PortName {
    Number(u16),
    Name(#[expect(dead_code, reason = "no port is known by its name")] String),
}

/// Reads the documents of a file; `labels` are those that the agent knows.
pub(crate) fn read(
    text: &str,
    labels: BTreeMap<Name, BTreeMap<String, String>>,
) -> Result<Policies, String> {
    let mut policies = Vec::new();
    for (first_line, document) in documents(text) {
        let wrong =
            |(line, problem): (usize, String)| format!("line {}: {problem}", first_line + line - 1);
        let Kind { kind } = notation::yaml::read(&document).map_err(wrong)?;
        match kind.as_str() {
            "NetworkPolicy" => policies.push(notation::yaml::read(&document).map_err(wrong)?),
            "List" | "NetworkPolicyList" => {
                let List { items } = notation::yaml::read(&document).map_err(wrong)?;
                policies.extend(items);
            }
            other => {
                return Err(format!(
                    "line {first_line}: \"{other}\" cannot be tested; only NetworkPolicies of networking.k8s.io/v1 can"
                ));
            }
        }
        if policies.len() > MOST {
            return Err(format!("more than {MOST} policies; split the file"));
        }
    }
    let other = policies
        .iter()
        .find(|policy| policy.kind.as_deref().is_some_and(|kind| kind != "NetworkPolicy"));
    if let Some(Policy { metadata, .. }) = other {
        return Err(format!("{} in the list is not a NetworkPolicy", metadata.name));
    }
    if policies.is_empty() {
        return Err("there is no NetworkPolicy in it".to_owned());
    }
    Ok(Policies { policies, labels })
}

/// The documents of a YAML file that are not empty, each with the number of its first line.
fn documents(text: &str) -> Vec<(usize, String)> {
    let mut documents = vec![(1, String::new())];
    for (number, line) in text.lines().enumerate() {
        if let Some(rest) =
            line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with(' '))
        {
            // A document may begin on the line of its marker.
            documents.push((number + 1, format!("{rest}\n")));
        } else if let Some((_, document)) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    let says = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    documents.retain(|(_, document)| document.lines().any(says));
    documents
}

impl Judge for Policies {
    fn judge(&self, edge: &Edge) -> Verdict {
        let directions = [(&edge.server, &edge.client, true), (&edge.client, &edge.server, false)];
        let mut doubt = None;
        for (subject, peer, is_ingress) in directions {
            match self.direction(edge, subject, peer, is_ingress) {
                Verdict::Cut(why) => return Verdict::Cut(why),
                Verdict::Undecided(why) => doubt = doubt.or(Some(why)),
                Verdict::Allowed => {}
            }
        }
        doubt.map_or(Verdict::Allowed, Verdict::Undecided)
    }
}

// === impl Policies ===

impl Policies {
    /// What the policies of one end say of the other.
    fn direction(&self, edge: &Edge, subject: &End, peer: &End, is_ingress: bool) -> Verdict {
        if !subject.is_pod() {
            return Verdict::Allowed;
        }
        let mut isolated = Answer::No;
        let mut admitted = Answer::No;
        let mut by = Vec::new();
        for policy in &self.policies {
            if !policy.is_about(is_ingress) {
                continue;
            }
            let selects = policy.selects(subject, self.labels.get(&subject.name));
            if selects == Answer::No {
                continue;
            }
            isolated = isolated.or(selects);
            by.push(policy.metadata.name.as_str());
            let admits = policy.admits(edge, peer, self.labels.get(&peer.name), is_ingress);
            admitted = admitted.or(admits.and(selects));
        }
        let side = if is_ingress { "ingress of" } else { "egress of" };
        match (isolated, admitted) {
            (Answer::No, _) | (_, Answer::Yes) => Verdict::Allowed,
            (Answer::Yes, Answer::No) => Verdict::Cut(format!(
                "{side} {}: no rule of {} allows it",
                subject.name,
                by.join(", ")
            )),
            (Answer::Yes | Answer::Unknown, _) => Verdict::Undecided(format!(
                "{side} {}: {} select by what the agent does not know (names.labels, ports by name, ports behind a Service)",
                subject.name,
                by.join(", ")
            )),
        }
    }
}

// === impl Policy ===

impl Policy {
    /// Whether it is about this direction: `policyTypes`, or what Kubernetes infers without.
    fn is_about(&self, is_ingress: bool) -> bool {
        let Spec { policy_types, egress, .. } = &self.spec;
        match (policy_types.as_slice(), is_ingress) {
            ([], true) => true,
            ([], false) => egress.is_some(),
            (types, true) => types.iter().any(|one| one == "Ingress"),
            (types, false) => types.iter().any(|one| one == "Egress"),
        }
    }

    /// Whether it selects the pods of a workload. A policy without a namespace goes into the one that
    /// is current when it is applied.
    fn selects(&self, end: &End, labels: Option<&BTreeMap<String, String>>) -> Answer {
        let namespace = match &self.metadata.namespace {
            Some(namespace) if *namespace == end.name.namespace => Answer::Yes,
            Some(_) => Answer::No,
            None => Answer::Unknown,
        };
        namespace.and(self.spec.pod_selector.fits(labels))
    }

    fn admits(
        &self,
        edge: &Edge,
        peer: &End,
        labels: Option<&BTreeMap<String, String>>,
        is_ingress: bool,
    ) -> Answer {
        let own = self.metadata.namespace.as_deref();
        let one = |peers: Option<&[Peer]>, ports: Option<&[Port]>| {
            let peers = peers.filter(|peers| !peers.is_empty()).map_or(Answer::Yes, |peers| {
                let admits = |one: &Peer| one.fits(peer, labels, own);
                peers.iter().map(admits).fold(Answer::No, Answer::or)
            });
            let ports = ports.filter(|ports| !ports.is_empty()).map_or(Answer::Yes, |ports| {
                ports.iter().map(|port| port.fits(edge)).fold(Answer::No, Answer::or)
            });
            peers.and(ports)
        };
        let Spec { ingress, egress, .. } = &self.spec;
        if is_ingress {
            let rules = ingress.iter().flatten();
            rules
                .map(|rule| one(rule.from.as_deref(), rule.ports.as_deref()))
                .fold(Answer::No, Answer::or)
        } else {
            let rules = egress.iter().flatten();
            rules
                .map(|rule| one(rule.to.as_deref(), rule.ports.as_deref()))
                .fold(Answer::No, Answer::or)
        }
    }
}

// === impl Peer ===

impl Peer {
    fn fits(
        &self,
        end: &End,
        labels: Option<&BTreeMap<String, String>>,
        own_namespace: Option<&str>,
    ) -> Answer {
        if let Some(block) = &self.ip_block {
            return block.fits(end);
        }
        if !end.is_pod() {
            return Answer::No;
        }
        let namespace = match &self.namespace_selector {
            Some(selector) => {
                let known = [(NAMESPACE_LABEL.to_owned(), end.name.namespace.clone())];
                selector.fits(Some(&BTreeMap::from(known)))
            }
            None => match own_namespace {
                Some(own) if own == end.name.namespace => Answer::Yes,
                Some(_) => Answer::No,
                None => Answer::Unknown,
            },
        };
        let pods = self.pod_selector.as_ref().map_or(Answer::Yes, |selector| selector.fits(labels));
        namespace.and(pods)
    }
}

// === impl IpBlock ===

impl IpBlock {
    fn fits(&self, end: &End) -> Answer {
        let Some(address) = end.addresses.first() else { return Answer::Unknown };
        let holds = |network: &Network| network.contains(*address);
        if holds(&self.cidr) && !self.except.iter().any(holds) { Answer::Yes } else { Answer::No }
    }
}

// === impl Network ===

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        self.0.network.is_some_and(|network| network.contains(&address))
    }
}

// === impl Selector ===

impl Selector {
    /// Whether pods with these labels fit; labels that are not there may be unknown.
    fn fits(&self, labels: Option<&BTreeMap<String, String>>) -> Answer {
        let value = |key: &str| labels.and_then(|labels| labels.get(key));
        let is = |known: bool| if known { Answer::Yes } else { Answer::No };
        let wanted = self
            .match_labels
            .iter()
            .map(|(key, wanted)| value(key).map_or(Answer::Unknown, |value| is(value == wanted)));
        let expressions =
            self.match_expressions.iter().map(|Expression { key, operator, values }| {
                match (operator, value(key)) {
                    (_, None) => Answer::Unknown,
                    (Operator::In, Some(value)) => is(values.contains(value)),
                    (Operator::NotIn, Some(value)) => is(!values.contains(value)),
                    (Operator::Exists, Some(_)) => Answer::Yes,
                    (Operator::DoesNotExist, Some(_)) => Answer::No,
                }
            });
        wanted.chain(expressions).fold(Answer::Yes, Answer::and)
    }
}

// === impl Port ===

impl Port {
    fn fits(&self, edge: &Edge) -> Answer {
        let is_tcp = self.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        match (&self.port, self.end_port) {
            _ if !is_tcp => Answer::No,
            (None, _) => Answer::Yes,
            // The pods' port is another one than the Service's that was asked for.
            _ if edge.asked.is_some() => Answer::Unknown,
            (Some(PortName::Name(_)), _) => Answer::Unknown,
            (Some(PortName::Number(first)), last) => {
                let last = last.unwrap_or(*first);
                if (*first..=last).contains(&edge.port) { Answer::Yes } else { Answer::No }
            }
        }
    }
}

#[cfg(test)]
mod tests;
