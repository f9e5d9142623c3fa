//! NetworkPolicies of Kubernetes: each namespace of an observed workload denies by default, and
//! allows what was observed.

use std::fmt::Write as _;

use super::observed::Observed;
use super::workloads::{DEFAULT, Other, Plan, Policy, Reach, Rule, Workload};
use crate::quote::string;

/// The label that every namespace has of itself.
pub(super) const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

const NOTES: &str = "\
# Check it: kubectl apply --dry-run=server -f FILE      What it would cut: portolan policy test FILE
# Always allowed by Kubernetes: a node's own traffic to its pods, so probes of the kubelet (health checks)
# need no rule. DNS is allowed to the pods of kube-system. Only TCP was observed: other UDP is denied.
";

/// The file, and how many edges it does not allow.
pub(crate) fn text(observed: &Observed, wanted: &[String]) -> (String, usize) {
    let plan = Plan::of(observed, wanted, Reach::default());
    plan.file("kubernetes", observed, NOTES, defaults, policy)
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

fn policy(policy: &Policy<'_>) -> String {
    let Policy { workload: Workload { namespace, key, value, .. }, name, ingress, egress, .. } =
        policy;
    let mut text = policy.head();
    // Writing into a String cannot fail.
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
  policyTypes: [{}]
",
        string(&format!("portolan-{name}")),
        string(namespace),
        string(key),
        string(value),
        policy.types()
    );
    for (direction, peer, rules) in [("ingress", "from", ingress), ("egress", "to", egress)] {
        if !rules.is_empty() {
            let _ = writeln!(text, "  {direction}:");
            text.extend(rules.iter().map(|one| rule(peer, one)));
        }
    }
    text
}

/// One rule: this workload, at this port.
fn rule(peer: &str, Rule { evidence, other, port }: &Rule) -> String {
    // A NetworkPolicy knows pods only, and so does its plan.
    let Other::Pods(Workload { namespace, key, value, .. }) = other else { return String::new() };
    format!(
        "    # {evidence}
    - {peer}:
        - namespaceSelector:
            matchLabels:
              {NAMESPACE_LABEL}: {}
          podSelector:
            matchLabels:
              {}: {}
      ports:
        - {{protocol: TCP, port: {port}}}
",
        string(namespace),
        string(key),
        string(value)
    )
}

#[cfg(test)]
mod tests;
