//! Reads NetworkPolicies of Kubernetes, from any source, and judges an edge by them.
//!
//! The agent knows some labels of some pods. Where an answer depends on a label that it does not know,
//! or on what was not observed, there is none: an edge is then neither allowed nor cut.

mod judgement;

use std::collections::BTreeMap;

use serde::Deserialize;

use super::observed::Name;

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

#[cfg(test)]
mod tests;
