//! Who is in which segment, what is allowed, which declarations contradict.

use super::*;
use crate::fixture::declarations;
use crate::service::Source;
use proptest::prelude::*;

fn network(segment: &str, text: &str) -> Declared {
    Declared::Network(segment.into(), text.parse().expect("a network"))
}

fn allow(rule: &str) -> Declared {
    Declared::Allow(rule.parse().expect("a rule"))
}

fn deny(rule: &str) -> Declared {
    Declared::Deny(rule.parse().expect("a rule"))
}

fn verdict(policy: &Policy, client: &str, server: &str) -> Verdict {
    let segment = |text: &str| {
        let address = text.parse().expect("an address");
        policy.segment(&Service::new(text, Source::Address), Some(address))
    };
    policy.verdict(segment(client), segment(server))
}

#[test]
fn what_is_not_allowed_between_segments_is_a_violation() {
    let policy = Policy::new(declarations()).expect("no contradiction");
    let check = |client, server, expected| {
        assert_eq!(verdict(&policy, client, server), expected, "{client} {server}");
    };
    check("172.20.0.1", "172.21.0.1", Verdict::Allowed);
    check("172.21.0.1", "172.22.0.1", Verdict::Allowed);
    check("172.20.0.1", "172.20.9.9", Verdict::Allowed);
    check("172.20.0.1", "172.22.0.1", Verdict::Violation);
    check("172.21.0.1", "172.20.0.1", Verdict::Violation);
    check("172.23.0.1", "172.22.0.1", Verdict::Allowed);
    check("172.22.0.1", "172.23.0.1", Verdict::Violation);
    check("8.8.8.8", "172.22.0.1", Verdict::NotJudged);
    check("172.22.0.1", "8.8.8.8", Verdict::NotJudged);
}

#[test]
fn a_rule_that_names_more_decides() {
    let mut declared = declarations();
    declared.extend([
        deny("monitoring -> database"),
        deny("outside -> *"),
        allow("outside -> frontend"),
        deny("database -> database"),
    ]);
    let policy = Policy::new(declared).expect("no contradiction");
    let check = |client, server, expected| {
        assert_eq!(verdict(&policy, client, server), expected, "{client} {server}");
    };
    check("172.23.0.1", "172.22.0.1", Verdict::Violation);
    check("172.23.0.1", "172.21.0.1", Verdict::Allowed);
    check("8.8.8.8", "172.20.0.1", Verdict::Allowed);
    check("8.8.8.8", "172.22.0.1", Verdict::Violation);
    check("172.20.0.1", "8.8.8.8", Verdict::NotJudged);
    check("172.22.0.1", "172.22.0.2", Verdict::Violation);
}

#[test]
fn a_service_beats_its_namespace_beats_its_address() {
    let mut declared = declarations();
    declared.extend([
        Declared::Namespace("backend".into(), "shop".into()),
        Declared::Service("database".into(), "postgres".into()),
        Declared::Service("monitoring".into(), "shop/postgres".into()),
    ]);
    let policy = Policy::new(declared).expect("no contradiction");
    let check = |namespace: &str, name: &str, address: &str, expected: &str| {
        let service =
            Service { namespace: namespace.into(), ..Service::new(name, Source::Process) };
        let segment = policy.segment(&service, address.parse().ok());
        assert_eq!(&*policy.name(segment), expected, "{namespace}/{name} {address}");
    };
    check("", "nginx", "172.20.0.1", "frontend");
    check("shop", "nginx", "172.20.0.1", "backend");
    check("shop", "postgres", "172.20.0.1", "monitoring");
    check("prod", "postgres", "172.20.0.1", "database");
    check("", "nginx", "10.0.0.1", "outside");
    check("", "nginx", "unknown", "outside");
}

#[test]
fn contradictions_name_both_declarations() {
    let check = |more: &[Declared], first: Option<usize>, problem: &str| {
        let mut declared = declarations();
        declared.extend_from_slice(more);
        let second = declared.len() - 1;
        let error = Policy::new(declared).expect_err("a contradiction");
        assert_eq!((error.first, error.second), (first, second), "{error:?}");
        assert!(error.problem.contains(problem), "{}", error.problem);
    };
    check(
        &[network("other", "172.20.0.0/16")],
        Some(0),
        "puts network 172.20.0.0/16 into the segment `other`, but it is in `frontend` already",
    );
    check(
        &[
            Declared::Service("frontend".into(), "web".into()),
            Declared::Service("backend".into(), "web".into()),
        ],
        Some(7),
        "service \"web\"",
    );
    check(&[deny("frontend -> backend")], Some(4), "denies `frontend -> backend`");
    check(&[deny("* -> database")], Some(6), "denies `monitoring -> database`");
    check(&[allow("frontend -> databse")], None, "the segment `databse`, which is not declared");
    // The same thing twice is no contradiction, nor is a network within another.
    for more in [network("frontend", "172.20.0.0/16"), network("database", "172.20.5.0/24")] {
        let mut declared = declarations();
        declared.push(more);
        assert!(Policy::new(declared).is_ok());
    }
}

#[test]
fn each_rule_that_requires_tls_holds_whatever_others_say() {
    let tls = |rule: &str| Declared::RequireTls(rule.parse().expect("a rule"));
    let mut declared = declarations();
    declared.extend([tls("* -> database"), tls("outside -> frontend"), tls("backend -> database")]);
    let policy = Policy::new(declared).expect("no contradiction");
    let segment = |name: &str| policy.segments().find(|one| *policy.name(*one) == *name);
    let check = |client, server, expected| {
        let (client, server) = (segment(client).flatten(), segment(server).flatten());
        assert_eq!(policy.requires_tls(client, server), expected, "{client:?} {server:?}");
    };
    check("frontend", "database", true);
    check("database", "database", true);
    check("frontend", "backend", false);
    check("elsewhere", "database", false);
    check("elsewhere", "frontend", true);
    let unknown = Policy::new(vec![network("a", "10.0.0.0/8"), tls("a -> b")]).expect_err("no b");
    assert_eq!(unknown.second, 1);
}

#[test]
fn a_rule_reads_as_it_is_written() {
    for text in ["a -> b", "* -> b", "outside -> *"] {
        assert_eq!(text.parse::<Rule>().expect("a rule").to_string(), text);
    }
    for text in ["a", "a ->", "-> b", "a => b"] {
        assert!(text.parse::<Rule>().is_err(), "{text}");
    }
}

proptest! {
    /// The order of rules does not matter: it is accepted or refused, and means the same.
    #[test]
    fn the_order_of_rules_means_nothing(
        rules in prop::collection::vec((any::<bool>(), 0usize..6, 0usize..6), 0..10)
    ) {
        const ENDS: [&str; 6] = ["frontend", "backend", "database", "monitoring", "*", "outside"];
        let rule = |(allowed, client, server): &(bool, usize, usize)| {
            let text = format!("{} -> {}", ENDS[*client], ENDS[*server]);
            if *allowed { allow(&text) } else { deny(&text) }
        };
        let mut forward = declarations()[..4].to_vec();
        let mut backward = forward.clone();
        forward.extend(rules.iter().map(rule));
        backward.extend(rules.iter().rev().map(rule));
        let (forward, backward) = (Policy::new(forward), Policy::new(backward));
        prop_assert_eq!(forward.is_ok(), backward.is_ok());
        if let (Ok(forward), Ok(backward)) = (forward, backward) {
            for client in forward.with_outside() {
                for server in forward.with_outside() {
                    let verdicts =
                        (forward.verdict(client, server), backward.verdict(client, server));
                    prop_assert_eq!(verdicts.0, verdicts.1);
                }
            }
        }
    }
}
