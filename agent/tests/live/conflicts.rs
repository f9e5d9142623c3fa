//! Failed binds and listens: the process that failed, the holder, and the reason.

pub mod claim;
mod ephemeral;
mod holders;
mod matrix;
mod programs;
mod table;

use std::net::{IpAddr, SocketAddr};

use self::claim::{Claim, conflict_of};
use crate::agent::Agent;
use crate::namespace::Pair;

const STORM: u64 = 10_000;

/// `expire_attempts` ends pending binds that no other event ends: the program tries only once.
#[test]
fn expire_attempts_finds_a_bind_that_was_tried_once() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let place = SocketAddr::new(pair.server.v4.into(), 5432);
    let _holder = pair.server.act_as("the-holder", || Claim::tcp(place).bind().unwrap());
    let errno = pair.server.act_as("the-claimant", || Claim::tcp(place).bind().unwrap_err());
    assert_eq!(errno, libc::EADDRINUSE);
    let found = conflict_of(&agent, "the-claimant", 5432);
    assert_eq!(found["reason"], "same_address");
    assert_eq!(found["holder"]["service"]["name"], "the-holder");
    assert_eq!(found["holder"]["state"], "bound");
    assert_eq!(found["holder"]["pid"], std::process::id());
    assert_eq!(found["claimant"]["pid"], std::process::id());
    assert_eq!(found["count"], 1);
    agent.ledger_adds_up();
    agent.stop();
}

/// `bind4` and `post_bind4` agree on every one of ten thousand binds that fail within a second or
/// so; none that succeeds beside them is taken for failed.
#[test]
fn bind4_counts_a_storm_exactly() {
    needs_kernel!();
    storm("0.0.0.0".parse().unwrap());
}

/// The same for `bind6` and `post_bind6`.
#[test]
fn bind6_counts_a_storm_exactly() {
    needs_kernel!();
    storm("::".parse().unwrap());
}

fn storm(address: IpAddr) {
    let pair = Pair::new();
    let agent = Agent::start();
    let place = SocketAddr::new(address, 8080);
    let held = pair.server.act_as("the-holder", || Claim::tcp(place).listen().unwrap());
    let any = SocketAddr::new(address, 0);
    let (storm, calm) = ("the-storm", "the-calm");
    pair.server.act_as(storm, || {
        for _ in 0..STORM {
            assert_eq!(Claim::tcp(place).bind().unwrap_err(), libc::EADDRINUSE);
        }
    });
    pair.server.act_as(calm, || {
        for _ in 0..1000 {
            Claim::tcp(any).bind().unwrap();
            Claim::udp(any).bind().unwrap();
        }
    });
    let labels = [("claimant", storm), ("holder", "the-holder"), ("port", "8080")];
    let now = agent.eventually(STORM, |now| now.sum("portolan_port_conflicts_total", &labels));
    assert_eq!(now.sum("portolan_port_conflicts_total", &[("claimant", storm)]), STORM);
    let now = agent.ledger_adds_up();
    assert!(!now.has("portolan_port_conflicts_total", &[("claimant", calm)]));
    let lost = now.sum("portolan_events_lost_total", &[("class", "bind")]);
    assert_eq!(lost, 0, "{:?}", now.losses());
    let found = conflict_of(&agent, storm, 8080);
    assert_eq!(found["count"], STORM, "one entry with a count: {found}");
    assert_eq!(found["holder"]["state"], "listening");
    assert!(
        now.sum("portolan_map_entries", &[("map", "bind_failures")]) < 100,
        "one kind, one row"
    );
    drop(held);
    agent.stop();
}

/// Many threads at once, each of which tries a few times and ends.
#[test]
fn expire_attempts_counts_the_last_try_of_each_of_many_threads() {
    needs_kernel!();
    const THREADS: u64 = 200;
    let pair = Pair::new();
    let agent = Agent::start();
    let place = SocketAddr::new(pair.server.v4.into(), 8080);
    let _held = pair.server.act_as("the-holder", || Claim::udp(place).bind().unwrap());
    pair.server.act_as("the-crowd", || {
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..3 {
                        Claim::udp(place).bind().unwrap_err();
                    }
                    Claim::udp(SocketAddr::new(place.ip(), 0)).bind().unwrap();
                    Claim::udp(place).bind().unwrap_err();
                });
            }
        });
    });
    let labels = [("claimant", "the-crowd"), ("protocol", "udp"), ("errno", "EADDRINUSE")];
    agent.eventually(4 * THREADS, |now| now.sum("portolan_port_conflicts_total", &labels));
    agent.ledger_adds_up();
    agent.stop();
}

/// Without `post_bind4` every bind would appear failed: then `bind4` is off too, and the agent
/// reports it.
#[test]
fn post_bind4_is_needed_to_detect_a_failure() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::with(&[("disable_hooks", "post_bind4")]);
    let hooks = agent.json("/api/v1/status")["hooks"].clone();
    let attached = |name: &str| {
        let hook = hooks.as_array().unwrap().iter().find(|hook| hook["name"] == name).unwrap();
        hook["attached"].as_bool().unwrap()
    };
    assert!(!attached("bind4") && !attached("post_bind4"));
    assert!(attached("bind6") && attached("post_bind6"));
    let place = SocketAddr::new(pair.server.v4.into(), 8080);
    let six = SocketAddr::new(pair.server.v6.into(), 8080);
    pair.server.act_as("the-claimant", || {
        let _held = Claim::tcp(place).bind().unwrap();
        Claim::tcp(place).bind().unwrap_err();
        let _held = Claim::tcp(six).bind().unwrap();
        Claim::tcp(six).bind().unwrap_err();
    });
    let labels = [("claimant", "the-claimant")];
    let count = |now: &crate::scrape::Scrape| now.sum("portolan_port_conflicts_total", &labels);
    agent.eventually(1, count);
    agent.stop();
}

/// The same for IPv6.
#[test]
fn post_bind6_is_needed_to_detect_a_failure() {
    needs_kernel!();
    let agent = Agent::with(&[("disable_hooks", "post_bind6")]);
    let disabled = agent.json("/api/v1/status")["findings"].to_string();
    assert!(disabled.contains("bind6: its counts would be wrong without post_bind6"), "{disabled}");
    agent.stop();
}

/// Where `inet_bind_sk` can be attached the errno is exact and immediate; elsewhere it is inferred
/// and marked so.
#[test]
fn inet_bind_sk_gives_the_errno_or_it_is_marked_inferred() {
    needs_kernel!();
    let pair = Pair::new();
    exact_or_inferred("inet_bind_sk", &pair, pair.server.v4.into());
}

/// The same for `inet6_bind_sk`.
#[test]
fn inet6_bind_sk_gives_the_errno_or_it_is_marked_inferred() {
    needs_kernel!();
    let pair = Pair::new();
    exact_or_inferred("inet6_bind_sk", &pair, pair.server.v6.into());
}

fn exact_or_inferred(hook: &str, pair: &Pair, address: IpAddr) {
    let agent = Agent::start();
    let hooks = agent.json("/api/v1/status")["hooks"].clone();
    let place = SocketAddr::new(address, 8080);
    pair.server.act_as("the-claimant", || {
        let _held = Claim::tcp(place).bind().unwrap();
        Claim::tcp(place).bind().unwrap_err();
    });
    let row = hooks.as_array().unwrap().iter().find(|row| row["name"] == hook).unwrap();
    let found = conflict_of(&agent, "the-claimant", 8080);
    assert_eq!(found["inferred"], !row["attached"].as_bool().unwrap(), "{hook}: {found}");
    assert_eq!(found["errno"], "EADDRINUSE");
    agent.stop();
}

/// The holder is known for a while after its socket closed, because failures are reported late.
#[test]
fn bound_sockets_that_have_just_closed_are_still_named() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let place = SocketAddr::new(pair.server.v4.into(), 5432);
    let holder = pair.server.act_as("the-short-one", || Claim::udp(place).bind().unwrap());
    agent.scrape();
    pair.server.act_as("the-claimant", || Claim::udp(place).bind().unwrap_err());
    drop(holder);
    let found = conflict_of(&agent, "the-claimant", 5432);
    assert_eq!(found["holder"]["service"]["name"], "the-short-one", "{found:#}");
    assert_eq!(found["reason"], "same_address", "{found:#}");
    agent.stop();
}
