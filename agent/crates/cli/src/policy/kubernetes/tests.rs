//! Policies select what was observed, and nothing by guess.

use proptest::prelude::*;

use super::*;
use crate::policy::fixture::{answer, edge, flow, observed, shop};
use crate::policy::selectors;
use crate::policy::verdict::{Judge as _, Verdict};

fn judged(text: &str, observed: &Observed, client: &str, server: &str, port: u16) -> Verdict {
    let policies = selectors::read(text, observed.labels.clone()).expect("NetworkPolicies");
    policies.judge(&edge(client, server, port))
}

#[test]
fn policies_deny_by_default_and_allow_what_was_observed() {
    let observed = observed();
    let (text, missing) = text(&observed, &[]);
    // The internet, DNS, a refused one, a Service, and two programs.
    assert_eq!(missing, 5, "{text}");
    let check = |client, server, port| judged(&text, &observed, client, server, port);
    assert_eq!(check("shop/web@10.0.0.1", "shop/api@10.0.0.2", 8080), Verdict::Allowed);
    assert_eq!(check("shop/api@10.0.0.2", "data/db@fd00::5", 5432), Verdict::Allowed);
    for (client, server, port) in [
        ("shop/web@10.0.0.1", "shop/api@10.0.0.2", 9090),
        ("shop/web@10.0.0.1", "data/db@fd00::5", 5432),
        ("shop/api@10.0.0.2", "shop/web@10.0.0.1", 443),
        ("internet", "shop/web@10.0.0.1", 443),
        ("shop/web@10.0.0.1", "pay.example@203.0.113.7", 443),
    ] {
        let verdict = check(client, server, port);
        assert!(matches!(verdict, Verdict::Cut(_)), "{client} {server} {port}: {verdict:?}");
    }
    assert!(text.contains("# NOT ALLOWED internet -> shop/web:443: 1200 connections"), "{text}");
}

/// `cargo xtask deploy` validates the file by the schema of Kubernetes. `PORTOLAN_BLESS=1` writes it.
#[test]
fn the_golden_file_is_what_is_written() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/network-policies.yaml");
    let (text, _) = text(&observed(), &[]);
    if std::env::var_os("PORTOLAN_BLESS").is_some() {
        std::fs::write(path, &text).expect("written");
    }
    assert_eq!(text, std::fs::read_to_string(path).expect("the golden file"));
}

#[test]
fn a_workload_without_a_known_label_is_not_guessed() {
    let mut flows = shop();
    flows.labels.retain(|labels| labels.service != "db");
    let observed = Observed::of(&[flows], None);
    let (text, _) = text(&observed, &[]);
    let line = text.lines().find(|line| line.contains("api -> data/db")).expect("it is listed");
    assert!(line.starts_with("# NOT ALLOWED ") && line.contains("names.labels"), "{line}");
    assert!(!text.contains("app: \"db\""), "{text}");
}

#[test]
fn who_shares_a_label_is_named() {
    let mut flows = shop();
    for labels in flows.labels.iter_mut().filter(|one| one.service_namespace == "shop") {
        labels.labels.insert("app".to_owned(), "all".to_owned());
    }
    let (text, _) = text(&Observed::of(&[flows], None), &[]);
    assert!(
        text.contains("# This label selects shop/web too: what one may do, both may."),
        "{text}"
    );
}

proptest! {
    #[test]
    fn no_name_or_label_adds_a_policy_or_a_peer(
        name in "\\PC{0,20}|[\n\r\u{85}\u{2028}\"': #{}-]{0,20}", label in "[\\x00-\u{ffff}]{0,20}",
    ) {
        let mut flows = answer(vec![flow("shop/web@10.0.0.1", "shop/api@10.0.0.2", 8080, 3)]);
        for flow in &mut flows.flows {
            flow.client.clone_from(&name);
        }
        for one in &mut flows.labels {
            if one.service == "web" {
                one.service.clone_from(&name);
                one.labels.insert("app".to_owned(), label.clone());
            }
        }
        let observed = Observed::of(&[flows], None);
        let (text, missing) = text(&observed, &[]);
        let documents = text.lines().filter(|line| *line == "---").count();
        prop_assert_eq!(documents, if missing == 0 { 3 } else { 1 }, "{}", text);
        let verdict = judged(&text, &observed, "other/thing@10.0.0.7", "shop/api@10.0.0.2", 8080);
        prop_assert!(matches!(verdict, Verdict::Cut(_)), "{:?}\n{}", verdict, text);
    }
}
