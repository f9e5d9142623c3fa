//! Tables far too small, a ring of one page, a collection that is stopped: only details are lost,
//! and they are counted; totals stay exact. And many more peers than any table holds.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::namespace::Pair;
use crate::net;
use crate::scrape::Scrape;

/// How long a drain stands still: longer than any interval of ours.
const STALL: Duration = Duration::from_secs(5);

/// Pseudo-random numbers with a fixed seed, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    /// xorshift64 (Marsaglia 2003), below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Refused attempts of all clients of this host, `other` included: only tests cause them.
fn refused(now: &Scrape) -> u64 {
    now.sum("portolan_tcp_connects_total", &[("role", "client"), ("result", "refused")])
}

#[test]
fn with_tables_of_any_size_what_was_seen_is_exported_or_lost() {
    needs_kernel!();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..6 {
        let pair = Pair::new();
        let (edges, owners) = (8 + dice.below(40), 8 + dice.below(40));
        let settings = [
            ("limits.edges", edges.to_string()),
            ("limits.owners", owners.to_string()),
            ("limits.ring_bytes", "4096".to_owned()),
        ];
        println!("round {round}: {edges} edges, {owners} owners");
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let agent = Agent::with(&settings);
        let before = refused(&agent.scrape());
        let listener = pair.server.listen("0.0.0.0:0");
        let open = net::port(&listener);
        let (mut refusals, mut made) = (0, 0);
        for _ in 0..120 {
            let name = format!("tiny-{}", dice.below(60));
            let port = 2000 + dice.below(200) as u16;
            if dice.below(3) == 0 {
                let address = (pair.server.v4, open);
                let client = pair.client.act_as(&name, || TcpStream::connect(address)).unwrap();
                let server = net::accept(&listener);
                if dice.below(2) == 0 {
                    net::close_with_reset(client);
                }
                drop(server);
                made += 1;
            } else {
                let address = (pair.server.v4, port);
                pair.client.act_as(&name, || TcpStream::connect(address)).unwrap_err();
                refusals += 1;
            }
        }
        agent.eventually(refusals, |now| refused(now) - before);
        let now = agent.ledger_adds_up();
        assert!(
            now.sum("portolan_events_lost_total", &[("class", "edge")]) > 0,
            "it was too small"
        );
        assert!(
            now.sum("portolan_events_seen_total", &[("class", "connection")]) >= refusals + made
        );
        for map in ["edges", "owners"] {
            let of = |name| now.sum(name, &[("map", map)]);
            assert!(of("portolan_map_entries") <= of("portolan_map_capacity"), "{map}");
        }
        agent.stop();
    }
}

#[test]
fn a_drain_that_stands_still_loses_details_and_no_count() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::with(&[("limits.ring_bytes", "4096")]);
    let before = refused(&agent.scrape());
    agent.signal(libc::SIGSTOP);
    let began = Instant::now();
    let mut attempts = 0;
    pair.client.act(|| {
        while began.elapsed() < STALL {
            for _ in 0..20 {
                TcpStream::connect((pair.server.v4, 9)).unwrap_err();
                attempts += 1;
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    agent.signal(libc::SIGCONT);
    agent.eventually(attempts, |now| refused(now) - before);
    let now = agent.ledger_adds_up();
    let full = [("class", "event"), ("reason", "ring_full")];
    assert!(now.sum("portolan_events_lost_total", &full) > 0, "one page was too little");
    let edge = now.edges(&[("client", &pair.client.service), ("port", "9")]);
    assert_eq!(edge.connects("refused"), attempts);
    assert_eq!(edge.resets("received", "no_listener"), attempts);
    agent.stop();
}

#[test]
fn more_peers_than_rows_cost_no_memory_and_no_count() {
    needs_kernel!();
    /// A million takes a minute: `PORTOLAN_TEST_LONG=1`.
    const PEERS: u32 = 100_000;
    /// Memory of the rows and of the addresses that may have names of their own, and some room.
    const MOST_MEMORY_KIB: u64 = 128 * 1024;
    let peers = if std::env::var_os("PORTOLAN_TEST_LONG").is_some() { 1_000_000 } else { PEERS };
    let peers = if crate::facts::is_emulated() { 20_000 } else { peers };
    let pair = Pair::new();
    let agent = Agent::start();
    let before = refused(&agent.scrape());
    // All of 127.0.0.0/8 is the loopback: every address a peer of its own, and none listens.
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 0));
    pair.client.act(|| {
        for number in 0..peers {
            let address = Ipv4Addr::from(first + number);
            TcpStream::connect((address, 1000 + (number % 7) as u16)).unwrap_err();
        }
    });
    let now = agent.eventually(u64::from(peers), |now| refused(now) - before);
    let edges = |name| now.sum(name, &[("map", "edges")]);
    assert!(edges("portolan_map_entries") <= edges("portolan_map_capacity"));
    let series = now.samples.len();
    assert!(series < 400_000, "{series} series");
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory: u64 = memory.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{peers} peers: {memory} KiB, {series} series");
    assert!(memory < MOST_MEMORY_KIB, "{memory} KiB");
    agent.ledger_adds_up();
    agent.stop();
}

#[test]
fn dice_are_fair_enough() {
    let mut dice = Dice(1);
    let mut hits = [0; 8];
    for _ in 0..8000 {
        hits[dice.below(8) as usize] += 1;
    }
    assert!(hits.iter().all(|count| (800..1200).contains(count)), "{hits:?}");
}
