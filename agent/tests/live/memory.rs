//! Little memory: overflow mode, exact totals, and no process is killed.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpStream};

use crate::agent::{Agent, Start};
use crate::confined::Memory;
use crate::facts;
use crate::namespace::{Namespace, Pair};
use crate::net;
use crate::scrape::Scrape;

const MIB: u64 = 1 << 20;

/// Refused attempts of all clients of this host, `other` included: only tests cause them.
fn refused(now: &Scrape) -> u64 {
    now.sum("portolan_tcp_connects_total", &[("role", "client"), ("result", "refused")])
}

/// As many peers: all of 127.0.0.0/8 is the loopback, every address is one, and none listens.
fn bomb(client: &Namespace, first: [u8; 4], peers: u32) {
    let first = u32::from(Ipv4Addr::from(first));
    client.act(|| {
        for number in 0..peers {
            let address = Ipv4Addr::from(first + number);
            let refused = TcpStream::connect((address, 1000 + (number % 7) as u16)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
        }
    });
}

fn group(bytes: u64) -> Option<Memory> {
    match Memory::new("portolan-memory", bytes) {
        Ok(group) => Some(group),
        Err(why) => {
            println!("SKIPPED: memory cannot be limited here: {why}");
            None
        }
    }
}

fn start(group: &Memory, settings: Vec<(&str, &str)>) -> Agent {
    Agent::launch(&Start { settings, cgroup: Some(group.processes()), ..Start::default() })
}

/// Of all pages of the agent's own file that cannot be written to, how many are resident, kB.
fn own_pages(agent: &Agent) -> (u64, u64) {
    let path = fs::read_link(format!("/proc/{}/exe", agent.pid())).expect("its program");
    let path = path.display().to_string();
    let maps = fs::read_to_string(format!("/proc/{}/smaps", agent.pid())).expect("its pages");
    let (mut ours, mut resident, mut all) = (false, 0, 0);
    for line in maps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [_, rights, _, _, _, file] => ours = file == path && rights.starts_with("r-"),
            ["Rss:", kilobytes, _] if ours => resident += kilobytes.parse::<u64>().expect("kB"),
            ["Size:", kilobytes, _] if ours => all += kilobytes.parse::<u64>().expect("kB"),
            _ => {}
        }
    }
    (resident, all)
}

#[test]
fn pages_that_only_the_start_has_used_are_given_back() {
    needs_kernel!();
    let agent = Agent::start();
    let (resident, all) = own_pages(&agent);
    println!("{resident} of {all} kB");
    // A start touches six in ten.
    assert!(all > 0 && resident * 2 < all, "{resident} of {all} kB are resident");
    agent.stop();
}

#[test]
fn a_bomb_of_peers_in_little_memory_kills_no_process_and_loses_no_count() {
    needs_kernel!();
    let peers: u32 = if facts::is_emulated() { 5_000 } else { 20_000 };
    // More rows than fit into memory: by default it would not make so many.
    for (limit, settings) in [
        (64 * MIB, vec![]),
        (112 * MIB, vec![("limits.edges", "8192"), ("limits.addresses", "8192")]),
    ] {
        let Some(group) = group(limit) else { return };
        let pair = Pair::new();
        let agent = start(&group, settings);
        let before = refused(&agent.scrape());
        bomb(&pair.client, [127, 1, 0, 0], peers);
        agent.eventually(u64::from(peers), |now| refused(now) - before);
        let now = agent.ledger_adds_up();
        let of = |name| now.sum(name, &[]);
        let edges = |name| now.sum(name, &[("map", "edges")]);
        println!(
            "{} MiB: {} used, {} resident, {} of {} rows in use, {} kept back, killed {}",
            limit / MIB,
            of("portolan_memory_used_bytes"),
            of("process_resident_memory_bytes"),
            edges("portolan_map_entries"),
            edges("portolan_map_capacity"),
            of("portolan_held_rows"),
            group.kills(),
        );
        assert_eq!(group.kills(), 0);
        assert_eq!(of("portolan_memory_limit_bytes"), limit);
        assert!(of("portolan_memory_used_bytes") < limit);
        let lost = |reason| {
            now.sum("portolan_events_lost_total", &[("class", "edge"), ("reason", reason)])
        };
        assert!(lost("no_slot") + lost("over_share") > 0, "everything fitted");
        if edges("portolan_map_capacity") > 8_000 {
            assert!(of("portolan_held_rows") > 0);
        }
        agent.stop();
    }
}

/// Rows are offered lowest first, so that used rows lie close together. Rows that were withheld
/// come on top of the others: they are taken first, far above.
#[test]
fn rows_that_are_taken_far_above_the_others_are_seen() {
    needs_kernel!();
    const EDGES: u64 = 40;
    const ROOM: u64 = 1000;
    /// The agent's estimate for a row of edges.
    const ROW: u64 = 32 * 1024;
    let Some(group) = group(256 * MIB) else { return };
    let pair = Pair::new();
    let agent = start(&group, vec![("limits.edges", "16384")]);
    let offered = |now: &Scrape| {
        let edges = |name| now.sum(name, &[("map", "edges")]);
        edges("portolan_map_capacity")
            - edges("portolan_map_entries")
            - now.sum("portolan_held_rows", &[])
    };
    let used = agent.scrape().sum("portolan_memory_used_bytes", &[]);
    group.limit((used + ROOM * ROW) / 9 * 10);
    let now = agent.eventually(true, |now| offered(now) < 2 * ROOM);
    println!("{} rows on offer", offered(&now));
    assert!(offered(&now) > 2 * EDGES, "{} rows on offer", offered(&now));
    group.limit(256 * MIB);
    agent.eventually(true, |now| offered(now) > 4 * ROOM);

    let listeners: Vec<_> = (0..EDGES).map(|_| pair.server.listen("0.0.0.0:0")).collect();
    for listener in &listeners {
        let client = pair.client.connect((pair.server.v4, net::port(listener))).unwrap();
        drop((client, net::accept(listener)));
    }
    let service = pair.client.service.as_str();
    agent.eventually(EDGES, |now| {
        now.sum("portolan_tcp_connects_total", &[("client", service), ("role", "client")])
    });
    agent.ledger_adds_up();
    agent.stop();
}

#[test]
fn when_memory_is_short_new_edges_are_other_and_later_get_rows() {
    needs_kernel!();
    const PEERS: u32 = 3_000;
    let Some(group) = group(256 * MIB) else { return };
    let pair = Pair::new();
    let agent = start(&group, vec![]);
    let listener = pair.server.listen("0.0.0.0:0");
    let known = net::port(&listener);
    let connects = |port: u16| {
        let client = pair.client.connect((pair.server.v4, port)).unwrap();
        drop((client, net::accept(&listener)));
    };
    let own_row = |now: &Scrape, port: u16| {
        now.edge(&pair.client.service, &pair.server.service, port, "client").connects("ok")
    };
    connects(known);
    let now = agent.eventually(1, |now| own_row(now, known)).clone();
    assert_eq!(now.sum("portolan_memory_overflow_mode", &[]), 0);
    let used = now.sum("portolan_memory_used_bytes", &[]);

    let short = |now: &Scrape| now.sum("portolan_memory_overflow_mode", &[]);
    // File pages are reclaimed first.
    let mut limit = used / 100 * 120;
    let now = loop {
        let now = agent.scrape();
        if short(&now) == 1 {
            break now;
        }
        limit = limit / 100 * 98;
        group.limit(limit);
    };
    let rows = |now: &Scrape| now.sum("portolan_map_entries", &[("map", "edges")]);
    let (rows_before, refused_before) = (rows(&now), refused(&now));
    bomb(&pair.client, [127, 2, 0, 0], PEERS);
    // A row that exists is kept.
    connects(known);
    agent.eventually((u64::from(PEERS), 2), |now| {
        (refused(now) - refused_before, own_row(now, known))
    });
    let now = agent.ledger_adds_up();
    assert!(rows(&now) <= rows_before, "{} rows, {rows_before} before", rows(&now));
    let folded = [("client", "other"), ("role", "client"), ("result", "refused")];
    assert!(now.sum("portolan_tcp_connects_total", &folded) >= u64::from(PEERS));
    let status = agent.json("/api/v1/status");
    assert_eq!(status["memory"]["overflow_mode"], true, "{status}");
    assert!(agent.log().contains("new edges are counted in the rows `other`"), "{}", agent.log());

    group.limit(256 * MIB);
    let now = agent.eventually((0, 0), |now| (short(now), now.sum("portolan_held_rows", &[])));
    assert_eq!(now.sum("portolan_memory_overflows_total", &[]), 1);
    let listener = pair.server.listen("0.0.0.0:0");
    let new = net::port(&listener);
    drop((pair.client.connect((pair.server.v4, new)).unwrap(), net::accept(&listener)));
    agent.eventually(1, |now| own_row(now, new));
    assert!(agent.log().contains("end of overflow mode"), "{}", agent.log());
    assert_eq!(group.kills(), 0);
    agent.stop();
}
