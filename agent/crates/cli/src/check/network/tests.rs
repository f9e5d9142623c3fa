//! Findings of the section Network from what two readings showed: each on both sides of its limit.

use api_types::{Evidence, Finding};
use linux::links::{Counters, Link, LinkAddress};
use linux::network::{Fill, Network};

use super::*;
use crate::check::tests::{edge, healthy, judged_with};

/// The namespace of the client in the answers, and of their listeners.
const OF_CLIENT: u32 = 1;
const OF_SERVER: u32 = 4_026_531_840;

/// The finding with this code, if there is one, and whether a line says that the check passed.
fn found(seen: &Seen, code: &str, passed: &str) -> (Option<Finding>, bool) {
    let mut checks = Checks::default();
    check(seen, None, &mut checks);
    let mut all = checks.found.into_iter().map(|one| one.finding);
    let is_passed = checks.passed.iter().any(|one| one.text.contains(passed));
    (all.find(|one| one.code == code), is_passed)
}

/// An interface that is up.
fn up(index: u32, name: &str) -> Link {
    Link { index, name: name.to_owned(), is_up: true, ..Link::default() }
}

#[test]
fn an_interface_that_drops_more_than_one_in_a_thousand_is_pn602() {
    let seen = |link: Link, counters: Counters| {
        let mut seen = Seen::default();
        seen.grown.insert((OF_SERVER, link.index), counters);
        seen.networks.push(Network { inode: OF_SERVER, links: vec![link], ..Network::default() });
        seen.names.insert(OF_SERVER, "host".to_owned());
        seen
    };
    let counters = |packets, errors, drops| Counters { packets, errors, drops };
    let down = Link { is_up: false, ..up(2, "eth0") };
    for (link, grown, title) in [
        (up(2, "eth0"), counters(100_000, 0, 0), None),
        // Few are chance, however few packets there are.
        (up(2, "eth0"), counters(10, 1, 1), None),
        // One in a thousand, and more.
        (up(2, "eth0"), counters(9_990, 0, 10), None),
        (up(2, "eth0"), counters(9_989, 0, 11), Some("11 packets and counted 0 errors")),
        (up(2, "eth0"), counters(0, 3, 0), Some("0 packets and counted 3 errors")),
        (down, counters(0, 0, 500), None),
    ] {
        let case = format!("{link:?} {grown:?}");
        let is_looked_at = link.is_up;
        let (finding, passed) = found(&seen(link, grown), "PN602", "interface: no or few drops");
        assert_eq!(passed, is_looked_at && title.is_none(), "{case}");
        let Some(title) = title else {
            assert_eq!(finding, None, "{case}");
            continue;
        };
        let finding = finding.expect(&case);
        assert!(finding.title.starts_with("eth0 of host dropped "), "{}", finding.title);
        assert!(finding.title.contains(title), "{}", finding.title);
        assert_eq!(finding.evidence.get("drops"), Some(&Evidence::Number(grown.drops)));
        assert!(finding.remediation.is_some_and(|fix| fix.contains("ip -s -s link show eth0")));
    }
}

#[test]
fn an_interface_that_was_not_there_before_has_not_dropped_anything_now() {
    let mut seen = Seen::default();
    let counters = Counters { packets: 0, errors: 500, drops: 500 };
    let links = vec![Link { counters, ..up(2, "eth0") }];
    seen.networks.push(Network { inode: OF_SERVER, links, ..Network::default() });
    assert_eq!(found(&seen, "PN602", "interface").0, None);
}

#[test]
fn a_table_of_neighbours_that_is_nearly_full_is_pn603() {
    use api_types::Severity::{Error, Warning};
    for (used, expected) in [
        (0, None),
        (818, None),
        (820, Some(Warning)),
        (972, Some(Warning)),
        (973, Some(Error)),
        (1024, Some(Error)),
    ] {
        let fill = Some(Fill { used, limit: 1024 });
        for is_v4 in [true, false] {
            let mut seen = Seen::default();
            seen.networks.push(Network::default());
            let table = if is_v4 { &mut seen.neighbours.v4 } else { &mut seen.neighbours.v6 };
            *table = fill;
            let (finding, passed) = found(&seen, "PN603", "neighbours: fullest");
            assert_eq!(finding.as_ref().map(|one| one.severity), expected, "{used}");
            assert_eq!(passed, expected.is_none(), "{used}");
            let Some(finding) = finding else { continue };
            let (family, setting) = if is_v4 { ("IPv4", "ipv4") } else { ("IPv6", "ipv6") };
            assert_eq!(finding.subject, format!("neighbours over {family}"));
            let fix = finding.remediation.unwrap_or_default();
            assert!(fix.contains(&format!("net.{setting}.neigh.default.gc_thresh1")), "{fix}");
        }
    }
}

#[test]
fn tcp_without_memory_between_the_readings_is_pn604() {
    for (grown, words) in [
        (None, None),
        (Some(0), None),
        (Some(1), Some("1 time within a second in shop")),
        (Some(700), Some("700 times within a second in shop")),
    ] {
        let mut seen = Seen::default();
        // What was counted before the first reading is not a finding.
        let memory_pressure = Some(1_000_000);
        seen.networks.push(Network { inode: 7, memory_pressure, ..Network::default() });
        seen.names.insert(7, "shop".to_owned());
        seen.pressure.extend(grown.map(|grown| (7, grown)));
        let (finding, passed) = found(&seen, "PN604", "TCP memory: no pressure");
        assert_eq!((finding.is_some(), passed), (words.is_some(), words.is_none()), "{grown:?}");
        let Some((finding, words)) = finding.zip(words) else { continue };
        assert!(finding.title.ends_with(words), "{}", finding.title);
        assert_eq!(finding.subject, "TCP memory of shop");
    }
}

#[test]
fn unreachable_connects_without_a_default_route_are_pn607_and_follow_from_it() {
    for (has_route, unreachable, expected) in [
        (Some(false), 100, &["PN607"][..]),
        // It has a route: the server's network has none, or a rule rejects.
        (Some(true), 100, &["PC102"][..]),
        // It could not be read.
        (None, 100, &["PC102"][..]),
        // Nobody misses the route.
        (Some(false), 0, &[][..]),
    ] {
        let mut answers = healthy();
        edge(&mut answers).connects.insert("unreachable".to_owned(), unreachable);
        let mut seen = Seen::default();
        let network = Network { inode: OF_CLIENT, has_default_route: has_route, ..healthy_one() };
        seen.networks.push(network);
        let report = judged_with(answers, Some(seen), "").report;
        let all = report.findings.iter();
        let grave = all.filter(|one| one.severity > api_types::Severity::Info);
        let (effects, roots): (Vec<_>, Vec<_>) = grave.partition(|one| one.caused_by.is_some());
        let codes: Vec<&str> = roots.iter().map(|one| one.code.as_str()).collect();
        assert_eq!(codes, expected, "{has_route:?}: {:#?}", report.findings);
        if expected == ["PN607"] {
            let effects: Vec<_> = effects.iter().map(|one| one.code.as_str()).collect();
            assert_eq!(effects, ["PC102"]);
            assert!(roots.iter().all(|one| one.subject == "prod/shop"), "{roots:?}");
        }
        let is_passed = report.passed.iter().any(|one| one.text.starts_with("routes: "));
        assert_eq!(is_passed, expected != ["PN607"]);
    }
}

#[test]
fn a_server_whose_link_is_down_is_not_said_to_be_behind_a_firewall() {
    let check = |is_up, has_carrier, words: Option<&str>| {
        let mut answers = healthy();
        edge(&mut answers).connects.insert("timeout".to_owned(), 100);
        let link =
            Link { index: 2, name: "eth0".to_owned(), is_up, has_carrier, ..Link::default() };
        let loopback = Link { index: 1, is_loopback: true, ..Link::default() };
        let address = "10.77.0.4".parse().expect("an address");
        let addresses = vec![LinkAddress { index: 2, address, prefix: 24 }];
        let links = vec![loopback, link];
        let mut seen = Seen::default();
        seen.networks.push(Network { inode: OF_SERVER, links, addresses, ..healthy_one() });
        let report = judged_with(answers, Some(seen), "").report;
        let finding = report.findings.iter().find(|one| one.code == "PC103").expect("timeouts");
        let fix = finding.remediation.as_deref().unwrap_or_default();
        assert_eq!(fix.contains("nft"), words.is_none(), "{fix}");
        let is_said = words.is_some_and(|words| finding.title.ends_with(words));
        assert_eq!(is_said, words.is_some(), "{}", finding.title);
    };
    check(true, true, None);
    check(true, false, Some("has no carrier: the other end of its link is down"));
    check(false, false, Some("is down"));
}

#[test]
fn a_server_on_the_link_needs_no_default_route() {
    // The addresses of the client and of the server, with a prefix each.
    let check = |client: &str, server: &str, expected: &str| {
        let mut answers = healthy();
        edge(&mut answers).connects.insert("unreachable".to_owned(), 100);
        let mut seen = Seen::default();
        for (inode, address) in [(OF_CLIENT, client), (OF_SERVER, server)] {
            let (address, prefix) = address.split_once('/').expect("a prefix");
            let address = address.parse().expect("an address");
            let prefix = prefix.parse().expect("a prefix");
            let addresses = vec![LinkAddress { index: 2, address, prefix }];
            let has_default_route = Some(inode == OF_SERVER);
            seen.networks.push(Network { inode, addresses, has_default_route, ..healthy_one() });
        }
        let report = judged_with(answers, Some(seen), "").report;
        let codes: Vec<&str> = report.findings.iter().map(|one| one.code.as_str()).collect();
        assert_eq!(codes.contains(&"PN607"), expected == "PN607", "{client} {server}: {codes:?}");
        let effect = report.findings.iter().find(|one| one.code == "PC102").expect("the effect");
        assert_eq!(effect.caused_by.as_deref(), (expected == "PN607").then_some("PN607"));
    };
    check("10.77.0.3/24", "10.77.0.4/24", "PC102");
    check("fd77::3/64", "fd77::4/64", "PC102");
    check("10.77.0.3/24", "10.99.0.4/24", "PN607");
    check("10.77.0.3/24", "fd77::4/64", "PN607");
    // What every namespace has says nothing.
    check("127.0.0.1/8", "127.0.0.1/8", "PN607");
}

#[test]
fn a_full_accept_queue_as_long_as_the_kernel_allows_is_pn609() {
    // The queue of the listeners is 128 long.
    for (backlog, somaxconn, expected) in [
        (129, Some(128), Some(128)),
        (129, Some(64), Some(64)),
        // A longer one would be allowed: it is the program's own choice.
        (129, Some(4096), None),
        (129, None, None),
        // It is not full.
        (0, Some(128), None),
    ] {
        let mut answers = healthy();
        for listener in &mut answers.listeners.listeners {
            listener.backlog = backlog;
        }
        let mut seen = Seen::default();
        seen.networks.push(Network { inode: OF_SERVER, somaxconn, ..healthy_one() });
        let report = judged_with(answers, Some(seen), "--service postgres").report;
        let mut found = report.findings.iter().filter(|one| one.code == "PN609");
        let finding = found.next();
        let limit = finding.and_then(|one| one.evidence.get("somaxconn"));
        assert_eq!(limit, expected.map(Evidence::Number).as_ref(), "{backlog} {somaxconn:?}");
        assert_eq!(found.next(), None, "one for both listeners of the port");
        if let Some(finding) = finding {
            assert_eq!(finding.subject, "postgres:5432");
            let fix = finding.remediation.as_deref().unwrap_or_default();
            assert!(fix.contains("net.core.somaxconn"), "{fix}");
        }
    }
}

/// A namespace in which nothing is wrong.
fn healthy_one() -> Network {
    Network { has_default_route: Some(true), somaxconn: Some(4096), ..Network::default() }
}
