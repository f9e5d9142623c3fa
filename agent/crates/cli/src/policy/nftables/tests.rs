//! What a ruleset allows is what was observed, whatever the services are called.

use proptest::prelude::*;

use super::*;
use crate::policy::fixture::{answer, edge, flow, observed};

fn verdict(rules: &Ruleset, client: &str, server: &str, port: u16) -> Verdict {
    rules.judge(&edge(client, server, port))
}

#[test]
fn rules_allow_what_was_observed_and_say_what_they_cannot() {
    let (text, missing) = text(&observed(), &BTreeSet::new());
    assert_eq!(missing, 4, "{text}");
    let rule = |line: &str| assert!(text.lines().any(|one| one.trim() == line), "{line}\n{text}");
    rule("ip saddr { 10.0.0.1 } ip daddr { 10.0.0.2, 10.0.0.3 } tcp dport 8080 counter accept");
    // One family at a time: the client's IPv4 address has no rule with the server's IPv6 one.
    rule("ip6 saddr { fd00::2 } ip6 daddr { fd00::5 } tcp dport 5432 counter accept");
    rule(
        "# shop/web -> shop/api:8080: 42 connections, 2027-01-15T07:10:00Z to 2027-01-15T07:59:00Z",
    );
    rule("# to allow it from everywhere: ip daddr { 10.0.0.1 } tcp dport 443 counter accept");
    for (reason, edge) in [
        ("clients from the internet have no addresses here", "internet -> shop/web:443"),
        ("the server is a name from DNS, whose addresses change", "pay.example:443"),
        (
            "attempts that failed are no reason to allow it",
            "shop/old:81: 0 connections and 3 failed",
        ),
        ("were translated on the way", "shop/web -> shop/api:80: 7 connections"),
    ] {
        let line = text.lines().find(|line| line.contains("NOT ALLOWED ") && line.contains(edge));
        assert!(line.is_some_and(|line| line.contains(reason)), "{edge}\n{text}");
    }
    assert!(text.contains("1 edges need no rule"), "on the loopback: {text}");
}

#[test]
fn what_is_written_is_read_and_decides_as_it_says() {
    let (text, _) = text(&observed(), &BTreeSet::from(["10.0.0.53".parse().expect("an address")]));
    assert!(
        text.contains("    ip daddr { 10.0.0.53 } meta l4proto { tcp, udp } th dport 53 accept\n")
    );
    let rules = read(&text).expect("ours");
    assert_eq!(verdict(&rules, "shop/web@10.0.0.1", "shop/api@10.0.0.3", 8080), Verdict::Allowed);
    assert_eq!(verdict(&rules, "cron@127.0.0.1", "mail@127.0.0.1", 25), Verdict::Allowed);
    for (client, server, port) in [
        ("shop/web@10.0.0.1", "shop/api@10.0.0.3", 8081),
        ("shop/web@10.0.0.3", "shop/api@10.0.0.1", 8080),
        ("shop/web@10.0.0.1", "data/db@fd00::5", 5432),
        ("internet", "shop/web@10.0.0.1", 443),
    ] {
        let verdict = verdict(&rules, client, server, port);
        assert!(matches!(verdict, Verdict::Cut(_)), "{client} {server} {port}: {verdict:?}");
    }
}

#[test]
fn a_file_of_somebody_else_is_refused_with_the_line() {
    let (text, _) = text(&observed(), &BTreeSet::new());
    let check = |text: String, expected: &str| {
        let error = read(&text).expect_err("refused");
        assert!(error.contains(expected), "{error}");
    };
    let observed = "  chain observed {\n";
    check(text.replace(observed, &format!("{observed}    tcp dport 1-65535 accept\n")), "line 2");
    check(text.replace("policy drop;", "policy accept;"), "line ");
    check(text.replace("    jump observed\n", ""), "line ");
    check(text.lines().take(20).collect::<Vec<_>>().join("\n"), "is missing");
    check("table inet filter {\n}\n".to_owned(), "line 1: ");
}

proptest! {
    #[test]
    fn no_name_adds_a_rule_or_ends_a_comment(
        client in "\\PC{0,20}|[\n\r\u{85}\u{2028}\\\\}{;#a]{0,20}", server in "[\\x00-\u{ffff}]{0,20}",
    ) {
        let mut flow = flow("web@10.0.0.1", "db@10.0.0.2", 5432, 3);
        (flow.client, flow.server) = (client, server);
        let observed = Observed::of(&[answer(vec![flow])], None);
        let (text, _) = text(&observed, &BTreeSet::new());
        let expected = Rule {
            clients: BTreeSet::from(["10.0.0.1".parse().expect("an address")]),
            servers: BTreeSet::from(["10.0.0.2".parse().expect("an address")]),
            port: 5432,
        };
        prop_assert_eq!(read(&text).expect("ours"), Ruleset(vec![expected]));
    }
}
