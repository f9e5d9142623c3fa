//! CiliumNetworkPolicies: as [`kubernetes`](super::kubernetes), and besides pods clients from outside
//! the cluster (`world`) and servers by their name of DNS (`toFQDNs`).

use std::fmt::Write as _;

use super::observed::Observed;
use super::workloads::{DEFAULT, Other, Plan, Policy, Reach, Rule, Workload};
use crate::quote::string;

/// Under which Cilium has the namespace of a pod as a label of it.
const NAMESPACE_LABEL: &str = "k8s:io.kubernetes.pod.namespace";

const NOTES: &str = "\
# Check it: kubectl apply --dry-run=server -f FILE
# Always allowed by Cilium: a node's own traffic to its pods, so probes of the kubelet (health checks) need
# no rule. DNS is allowed to the pods of kube-system, through Cilium's proxy: toFQDNs takes the addresses
# from its answers. Only TCP was observed: other UDP is denied. From outside the cluster a port is allowed
# to everybody (world): the addresses of such clients are not kept.
";

/// The file, and how many edges it does not allow.
pub(crate) fn text(observed: &Observed, wanted: &[String]) -> (String, usize) {
    let plan = Plan::of(observed, wanted, Reach { world: true, hosts: true });
    plan.file("cilium", observed, NOTES, defaults, policy)
}

/// Everything denied, but DNS. A rule without an end allows nothing, and selects all pods.
fn defaults(namespace: &str) -> String {
    let quoted = string(namespace);
    format!(
        "---
# Namespace {namespace}: what no policy below allows is denied.
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: portolan-{DEFAULT}
  namespace: {quoted}
spec:
  endpointSelector: {{}}
  ingress:
    - {{}}
  egress:
    # DNS, by every pod: questions are not observed as edges.
    - toEndpoints:
        - matchLabels:
            \"{NAMESPACE_LABEL}\": kube-system
      toPorts:
        - ports:
            - {{port: \"53\", protocol: ANY}}
          rules:
            dns:
              - matchPattern: \"*\"
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
        "apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: {}
  namespace: {}
spec:
  endpointSelector:
    matchLabels:
      {}: {}
",
        string(&format!("portolan-{name}")),
        string(namespace),
        string(&format!("k8s:{key}")),
        string(value),
    );
    for (direction, peer, rules) in [("ingress", "from", ingress), ("egress", "to", egress)] {
        if !rules.is_empty() {
            let _ = writeln!(text, "  {direction}:");
            text.extend(rules.iter().map(|one| rule(peer, one)));
        }
    }
    text
}

/// One rule: this end, at this port.
fn rule(peer: &str, Rule { evidence, other, port }: &Rule) -> String {
    let end = match other {
        Other::Pods(Workload { namespace, key, value, .. }) => format!(
            "    - {peer}Endpoints:
        - matchLabels:
            \"{NAMESPACE_LABEL}\": {}
            {}: {}
",
            string(namespace),
            string(&format!("k8s:{key}")),
            string(value)
        ),
        Other::World => format!("    - {peer}Entities: [world]\n"),
        Other::Host(name) => {
            format!("    - {peer}FQDNs:\n        - matchName: {}\n", string(name))
        }
    };
    format!(
        "    # {evidence}
{end}      toPorts:
        - ports:
            - {{port: \"{port}\", protocol: TCP}}
"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::fixture::{answer, flow, observed};

    /// `PORTOLAN_BLESS=1` writes it.
    #[test]
    fn the_golden_file_is_what_is_written() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/cilium-policies.yaml");
        let (text, missing) = text(&observed(), &[]);
        if std::env::var_os("PORTOLAN_BLESS").is_some() {
            std::fs::write(path, &text).expect("written");
        }
        assert_eq!(text, std::fs::read_to_string(path).expect("the golden file"));
        // A program, a Service, and a connect that was refused.
        assert_eq!(missing, 3);
    }

    #[test]
    fn the_internet_and_names_are_ends_that_cilium_knows() {
        let (text, _) = text(&observed(), &[]);
        assert!(text.contains("    - fromEntities: [world]\n      toPorts:\n        - ports:\n            - {port: \"443\", protocol: TCP}\n"), "{text}");
        assert!(text.contains("    - toFQDNs:\n        - matchName: \"pay.example\"\n"), "{text}");
        for line in text.lines().filter(|line| line.starts_with("# NOT ALLOWED ")) {
            assert!(!line.contains("internet") && !line.contains("pay.example"), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_name_adds_a_policy_or_a_rule(
            name in "\\PC{0,20}|[\n\r\u{85}\u{2028}\"': #{}.*-]{0,20}",
        ) {
            let mut flows = answer(vec![
                flow("shop/web@10.0.0.1", "pay.example@203.0.113.7", 443, 3),
                flow("shop/web@10.0.0.1", "shop/api@10.0.0.2", 8080, 3),
            ]);
            for flow in flows.flows.iter_mut().filter(|flow| flow.server == "pay.example") {
                flow.server.clone_from(&name);
            }
            let (text, missing) = text(&Observed::of(&[flows], None), &[]);
            prop_assert_eq!(text.lines().filter(|line| *line == "---").count(), 3, "{}", text);
            let rules = text.lines().filter(|line| line.starts_with("    - ")).count();
            // The default of the namespace has two.
            prop_assert_eq!(rules, 2 + 2 + (1 - missing), "{}", text);
        }
    }
}
