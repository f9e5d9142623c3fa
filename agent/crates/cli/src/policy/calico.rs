//! NetworkPolicies of Calico (`projectcalico.org/v3`): as [`kubernetes`](super::kubernetes), in the
//! tier `default`. What no policy of the tier allows is denied for each pod that one of them selects.

use std::fmt::Write as _;

use super::observed::Observed;
use super::workloads::{DEFAULT, Other, Plan, Policy, Reach, Rule, Workload};
use crate::quote::string;

/// The label that Calico gives every namespace, with its name.
const NAMESPACE_LABEL: &str = "projectcalico.org/name";

const NOTES: &str = "\
# Check it: calicoctl validate --filename FILE          Apply it: calicoctl apply --filename FILE
# Always allowed by Calico: a node's own traffic to its pods, so probes of the kubelet (health checks) need
# no rule. DNS is allowed to the pods of kube-system. Only TCP was observed: other UDP is denied. Policies
# of other tiers, and those of this one that deny, are looked at in their own order.
";

/// The file, and how many edges it does not allow.
pub(crate) fn text(observed: &Observed, wanted: &[String]) -> (String, usize) {
    let plan = Plan::of(observed, wanted, Reach::default());
    plan.file("calico", observed, NOTES, defaults, policy)
}

/// Everything denied, but DNS.
fn defaults(namespace: &str) -> String {
    let quoted = string(namespace);
    let mut text = format!(
        "---
# Namespace {namespace}: what no policy below allows is denied.
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: portolan-{DEFAULT}
  namespace: {quoted}
spec:
  selector: all()
  types: [Ingress, Egress]
  egress:
    # DNS, by every pod: questions are not observed as edges.
"
    );
    for protocol in ["UDP", "TCP"] {
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "    - action: Allow
      protocol: {protocol}
      destination:
        namespaceSelector: \"{NAMESPACE_LABEL} == 'kube-system'\"
        ports: [53]
"
        );
    }
    text
}

fn policy(policy: &Policy<'_>) -> String {
    let Policy { workload, name, ingress, egress, .. } = policy;
    let mut text = policy.head();
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: {}
  namespace: {}
spec:
  selector: {}
  types: [{}]
",
        string(&format!("portolan-{name}")),
        string(&workload.namespace),
        selector(workload),
        policy.types()
    );
    for (direction, rules) in [("ingress", ingress), ("egress", egress)] {
        if !rules.is_empty() {
            let _ = writeln!(text, "  {direction}:");
            text.extend(rules.iter().map(|one| rule(direction, one)));
        }
    }
    text
}

/// `app == 'web'`. Keys and values of labels have no quotes.
fn selector(Workload { key, value, .. }: &Workload) -> String {
    string(&format!("{key} == '{value}'"))
}

/// One rule: this workload, at this port. The port is the destination's in both directions.
fn rule(direction: &str, Rule { evidence, other, port }: &Rule) -> String {
    // The plan has pods only.
    let Other::Pods(workload) = other else { return String::new() };
    let pods = format!(
        "        namespaceSelector: {}
        selector: {}
",
        string(&format!("{NAMESPACE_LABEL} == '{}'", workload.namespace)),
        selector(workload)
    );
    let ends = if direction == "ingress" {
        format!("      source:\n{pods}      destination:\n")
    } else {
        format!("      destination:\n{pods}")
    };
    format!(
        "    # {evidence}
    - action: Allow
      protocol: TCP
{ends}        ports: [{port}]
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fixture::observed;

    /// `PORTOLAN_BLESS=1` writes it.
    #[test]
    fn the_golden_file_is_what_is_written() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/calico-policies.yaml");
        let (text, missing) = text(&observed(), &[]);
        if std::env::var_os("PORTOLAN_BLESS").is_some() {
            std::fs::write(path, &text).expect("written");
        }
        assert_eq!(text, std::fs::read_to_string(path).expect("the golden file"));
        assert_eq!(missing, 5);
    }

    #[test]
    fn a_port_is_the_servers_in_both_directions() {
        let (text, _) = text(&observed(), &[]);
        let rule = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let text = rule(&text);
        for expected in [
            "source: namespaceSelector: \"projectcalico.org/name == 'shop'\" selector: \"app == 'web'\" destination: ports: [8080]",
            "destination: namespaceSelector: \"projectcalico.org/name == 'data'\" selector: \"app == 'db'\" ports: [5432]",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}
