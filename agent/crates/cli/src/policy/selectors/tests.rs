//! NetworkPolicies as Kubernetes reads them; what is not known decides nothing.

use super::*;
use crate::policy::fixture::{edge, observed};
use crate::policy::verdict::{Judge as _, Verdict};

/// A policy of the namespace shop.
fn policy(spec: &str) -> String {
    let lines: Vec<String> = spec.lines().map(|line| format!("  {}\n", line.trim_end())).collect();
    let spec = lines.concat();
    format!("kind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n{spec}")
}

/// The verdict on an edge, in one word.
fn verdict(text: &str, client: &str, server: &str, port: u16) -> &'static str {
    let policies = read(text, observed().labels).expect("policies");
    match policies.judge(&edge(client, server, port)) {
        Verdict::Allowed => "allowed",
        Verdict::Cut(_) => "cut",
        Verdict::Undecided(_) => "undecided",
    }
}

#[test]
fn policies_mean_what_kubernetes_takes_them_for() {
    const WEB: &str = "shop/web@10.0.0.1";
    const API: &str = "shop/api@10.0.0.2";
    const DB: &str = "data/db@10.1.0.5";
    let check = |spec: &str, client: &str, server: &str, expected: &str| {
        assert_eq!(
            verdict(&policy(spec), client, server, 8080),
            expected,
            "{spec}\n{client} {server}"
        );
    };
    // Nothing selected: everything is allowed.
    check("podSelector: {matchLabels: {app: other}}", WEB, API, "allowed");
    // Selected without rules: nothing is; without policyTypes only what comes in is asked.
    check("podSelector: {}", WEB, API, "cut");
    check("podSelector: {}", WEB, DB, "allowed");
    check("podSelector: {}\npolicyTypes: [Egress]", WEB, DB, "cut");
    check("podSelector: {}\negress: []", WEB, DB, "cut");
    // An empty rule allows everyone; no peer is everyone too.
    check("podSelector: {}\ningress: [{}]", WEB, API, "allowed");
    check("podSelector: {}\ningress: [{from: []}]", "internet", API, "allowed");
    // A pod selector alone is of the policy's own namespace.
    check("podSelector: {}\ningress: [{from: [{podSelector: {}}]}]", WEB, API, "allowed");
    check("podSelector: {}\ningress: [{from: [{podSelector: {}}]}]", DB, API, "cut");
    check("podSelector: {}\ningress: [{from: [{namespaceSelector: {}}]}]", DB, API, "allowed");
    let named = "podSelector: {}\ningress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: data}}, podSelector: {matchLabels: {app: db}}}]}]";
    check(named, DB, API, "allowed");
    check(named, WEB, API, "cut");
    // Labels that the agent does not export decide nothing.
    check("podSelector: {matchLabels: {tier: x}}", WEB, API, "undecided");
    check(
        "podSelector: {}\ningress: [{from: [{podSelector: {matchLabels: {tier: x}}}]}]",
        WEB,
        API,
        "undecided",
    );
    check(
        "podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [api]}]}",
        WEB,
        API,
        "allowed",
    );
    check("podSelector: {matchExpressions: [{key: app, operator: Exists}]}", WEB, API, "cut");
    // Networks.
    let block = "podSelector: {}\ningress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.1/32]}}]}]";
    check(block, DB, API, "allowed");
    check(block, WEB, API, "cut");
    check(block, "internet", API, "undecided");
    // Ports.
    for (ports, expected) in [
        ("{port: 8080}", "allowed"),
        ("{protocol: UDP, port: 8080}", "cut"),
        ("{port: 8081}", "cut"),
        ("{port: 8000, endPort: 8100}", "allowed"),
        ("{port: http}", "undecided"),
        ("{protocol: TCP}", "allowed"),
    ] {
        check(&format!("podSelector: {{}}\ningress: [{{ports: [{ports}]}}]"), WEB, API, expected);
    }
    // Programs outside of Kubernetes are not selected.
    check(
        "podSelector: {}\npolicyTypes: [Ingress, Egress]",
        "cron@10.0.0.8",
        "mail@10.0.0.9",
        "allowed",
    );
}

#[test]
fn errors_name_the_line_of_the_file() {
    let error = |text: &str| read(text, BTreeMap::new()).expect_err("refused");
    let fine = policy("podSelector: {}");
    assert!(error("").contains("no NetworkPolicy"));
    let other = format!("{fine}---\nkind: Service\n");
    assert!(error(&other).starts_with("line 5: \"Service\" cannot be tested"), "{}", error(&other));
    let wrong =
        format!("{fine}---\nkind: NetworkPolicy\nmetadata: {{name: x}}\nspec: {{ingres: []}}\n");
    assert!(error(&wrong).starts_with("line 8: unknown key `ingres`"), "{}", error(&wrong));
    let list = "kind: List\nitems:\n- kind: Pod\n  metadata: {name: x}\n  spec: {}\n";
    assert!(error(list).contains("x in the list is not a NetworkPolicy"), "{}", error(list));
}
