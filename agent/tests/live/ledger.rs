//! Nothing is lost silently: full tables keep totals exact, and a flood costs only its own
//! namespace.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::facts::{self, patience};
use crate::namespace::Pair;
use crate::net;
use crate::scrape::{Edge, Scrape};

/// When idle rows are taken from a table that fills, at the latest.
const RECLAIMED: Duration = Duration::from_mins(1);

#[test]
fn a_full_table_of_edges_keeps_totals_exact_in_other() {
    needs_kernel!();
    const EDGES: u16 = 300;
    let pair = Pair::new();
    let agent = Agent::with(&[("limits.edges", "64")]);
    let refused = |now: &Scrape| {
        now.sum("portolan_tcp_connects_total", &[("role", "client"), ("result", "refused")])
    };
    let before = refused(&agent.scrape());
    pair.client.act(|| {
        for port in 1000..1000 + EDGES {
            TcpStream::connect((pair.server.v4, port)).unwrap_err();
        }
    });
    // Other programs of this host may be refused too; ours are the rows with our name and those in
    // `other`.
    agent.eventually(u64::from(EDGES), |now| refused(now) - before);
    let now = agent.ledger_adds_up();
    let ours = now.edges(&[("client", &pair.client.service)]).connects("refused");
    let other = now.edge("other", "other", 0, "client").connects("refused");
    assert!(ours > 0 && ours < 64 && other > 200, "{ours} of our own, {other} in other");
    let resets = now.edge("other", "other", 0, "client").resets("received", "no_listener");
    assert_eq!(resets, other, "resets follow their connections");
    let lost = now.sum("portolan_events_lost_total", &[("class", "edge"), ("reason", "no_slot")]);
    assert!(lost >= other, "{lost}");
    let full = |name| now.sum(name, &[("map", "edges")]);
    assert!(full("portolan_map_entries") <= full("portolan_map_capacity"));
    agent.stop();
}

#[test]
fn a_full_table_of_owners_keeps_totals_exact() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::with(&[("limits.owners", "64")]);
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for number in 0..100 {
        let address = SocketAddr::from((pair.server.v4, port));
        let name = format!("many-{number}");
        clients.push(pair.client.act_as(&name, || TcpStream::connect(address)).unwrap());
        servers.push(net::accept(&listener));
    }
    let number = port.to_string();
    let ok = |now: &Scrape, role| {
        let edge = now.edges(&[("port", &number), ("role", role)]);
        (edge.connects("ok"), edge.active())
    };
    agent.eventually(((100, 100), (100, 100)), |now| (ok(now, "client"), ok(now, "server")));
    let now = agent.ledger_adds_up();
    let lost = [("class", "owner"), ("reason", "no_owner")];
    assert!(now.sum("portolan_events_lost_total", &lost) > 30);
    assert!(now.edges(&[("client", "other"), ("port", &number)]).connects("ok") > 30);
    drop((clients, servers));
    agent.eventually(((100, 0), (100, 0)), |now| (ok(now, "client"), ok(now, "server")));
    agent.stop();
}

/// Lets the running thread run on one processor only.
fn run_on(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}

/// A connection with one request and response, made on this processor.
fn exchange(pair: &Pair, cpu: usize, listener: &TcpListener) -> (TcpStream, TcpStream) {
    pair.client.act(|| {
        run_on(cpu);
        let mut client = TcpStream::connect((pair.server.v4, net::port(listener))).unwrap();
        let mut server = net::accept(listener);
        client.write_all(b"hello").unwrap();
        net::read_exactly(&mut server, 5).unwrap();
        server.write_all(b"hello").unwrap();
        net::read_exactly(&mut client, 5).unwrap();
        (client, server)
    })
}

#[test]
fn a_full_table_of_histograms_keeps_sums_exact_in_other() {
    needs_kernel!();
    if thread::available_parallelism().unwrap().get() < 2 {
        println!("one shard: there is a histogram for whatever an edge times");
        return;
    }
    const EDGES: usize = 200;
    // Each has two edges, for which there are six rows. With a connection from either of two
    // processors they use eight: a client's two for connects and for requests, a server's two for
    // requests, and one for round trips each.
    const SERVERS: u64 = 90;
    let pair = Pair::new();
    let edges = EDGES.to_string();
    let agent = Agent::with(&[("limits.edges", &edges)]);
    let other = |now: &Scrape, role| now.edge("other", "other", 0, role).requests().count;
    let before = agent.scrape();
    let mut open = Vec::new();
    for _ in 0..SERVERS {
        let listener = pair.server.listen("0.0.0.0:0");
        for cpu in [0, 1] {
            open.push(exchange(&pair, cpu, &listener));
        }
    }
    for role in ["client", "server"] {
        let end = if role == "client" { &pair.client } else { &pair.server };
        let ours = [("role", role), (role, end.service.as_str())];
        // Others on this host may find no histogram either.
        let all = agent.eventually((true, true), |now| {
            let more = other(now, role) - other(&before, role);
            (now.edges(&ours).requests().count + more >= 2 * SERVERS, more > 0)
        });
        println!("{role}: {} in other", other(&all, role));
    }
    let now = agent.ledger_adds_up();
    let full = |name| now.sum(name, &[("map", "histograms")]);
    let reserved = u64::from(agent_common::durations::FIRST_FREE_HISTOGRAM);
    assert_eq!(full("portolan_map_entries") + reserved, full("portolan_map_capacity"));
    drop(open);
    agent.stop();
}

#[test]
fn who_times_more_than_its_share_leaves_others_histograms() {
    needs_kernel!();
    if thread::available_parallelism().unwrap().get() < 2 {
        println!("one shard: there is a histogram for whatever an edge times");
        return;
    }
    // With a connection from either of two processors they want more rows than there are.
    const SERVERS: usize = 320;
    let (greedy, other) = (Pair::new(), Pair::new());
    let agent = Agent::with(&[("limits.edges", "1000")]);
    let mut open = Vec::new();
    for _ in 0..SERVERS {
        let listener = greedy.server.listen("0.0.0.0:0");
        for cpu in [0, 1] {
            open.push(exchange(&greedy, cpu, &listener));
        }
    }
    // Three quarters of the table are for everybody, and what others have.
    let part = |now: &Scrape| {
        let of = |metric| now.sum(metric, &[("map", "histograms")]);
        of("portolan_map_entries") * 100 / of("portolan_map_capacity")
    };
    let now = agent.eventually(true, |now| part(now) > 70);
    assert!(part(&now) < 85, "{} %", part(&now));
    let requests = |now: &Scrape, role| {
        let end = if role == "client" { &greedy.client } else { &greedy.server };
        let own = now.edges(&[("role", role), (role, &end.service)]).requests().count;
        own + now.edge("other", "other", 0, role).requests().count
    };
    // Counts of an edge are withheld while its names are looked up.
    agent.eventually(true, |now| requests(now, "client") >= 2 * SERVERS as u64);
    let listener = other.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    open.push(exchange(&other, 0, &listener));
    let (client, server) = (&other.client.service, &other.server.service);
    agent.eventually([1; 5], |now| {
        let of = |role| now.edge(client, server, port, role);
        let (from, to) = (of("client"), of("server"));
        let timed = |edge: &Edge<'_>| (edge.requests().count, u64::from(edge.rtt().count > 0));
        let ((asked, seen), (answered, met)) = (timed(&from), timed(&to));
        [from.connect_duration().count, asked, seen, answered, met]
    });
    drop(open);
    agent.stop();
}

#[test]
fn histograms_come_back_with_the_rows_that_had_them() {
    needs_kernel!();
    // Each has two edges, which have the greater part of the table: idle rows go soon.
    const SERVERS: usize = 340;
    let pair = Pair::new();
    let agent = Agent::with(&[("limits.edges", "1000")]);
    let taken = |now: &Scrape| now.sum("portolan_map_entries", &[("map", "histograms")]);
    // Those of other programs of this host.
    let others = taken(&agent.scrape());
    let mut open = Vec::new();
    for _ in 0..SERVERS {
        let listener = pair.server.listen("0.0.0.0:0");
        open.push(exchange(&pair, 0, &listener));
    }
    agent.eventually(true, |now| taken(now) > others + 3 * SERVERS as u64);
    drop(open);
    let began = Instant::now();
    while taken(&agent.scrape()) > others + SERVERS as u64 / 2 {
        assert!(began.elapsed() < patience(RECLAIMED), "{} taken", taken(&agent.scrape()));
        thread::sleep(Duration::from_secs(1));
    }
    // A row that takes one up again starts at zero. What is exported goes on if the port is that of one
    // of the servers above: it outlives their rows for some seconds.
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener).to_string();
    let requests = |now: &Scrape| {
        let of = |role| now.edges(&[("role", role), ("port", &port)]).requests().count;
        ["client", "server"].map(of)
    };
    let before = requests(&agent.scrape());
    drop(exchange(&pair, 0, &listener));
    agent.eventually(before.map(|count| count + 1), requests);
    agent.ledger_adds_up();
    agent.stop();
}

#[test]
fn a_flood_of_failures_loses_details_and_no_count() {
    needs_kernel!();
    const ATTEMPTS: u64 = 2000;
    let pair = Pair::new();
    let agent = Agent::start();
    pair.client.act(|| {
        for _ in 0..ATTEMPTS {
            TcpStream::connect((pair.server.v4, 9)).unwrap_err();
        }
    });
    agent.eventually((ATTEMPTS, ATTEMPTS), |now| {
        let edge = now.edges(&[("client", &pair.client.service), ("port", "9")]);
        (edge.connects("refused"), edge.resets("received", "no_listener"))
    });
    let now = agent.ledger_adds_up();
    let limited = [("class", "event"), ("reason", "rate_limited")];
    assert!(now.sum("portolan_events_lost_total", &limited) > 0, "the ring was spared");
    agent.stop();
}

#[test]
fn one_namespace_storms_and_the_hundred_connections_of_another_stay_exact() {
    needs_kernel!();
    const CALM: u64 = 100;
    let (storm, calm) = (Pair::new(), Pair::new());
    let agent = Agent::start();
    let stop = AtomicBool::new(false);
    let stormed = AtomicU64::new(0);
    let loud = storm.server.listen("0.0.0.0:0");
    let loud_port = net::port(&loud);
    let quiet = calm.server.listen("0.0.0.0:0");
    let quiet_port = net::port(&quiet);
    // The name is lent for the whole storm; the calm ones go by another below.
    let storm_address = SocketAddr::from((storm.server.v4, loud_port));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                storm.client.within(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let client = TcpStream::connect(storm_address).expect("the storm");
                        net::close_with_reset(client);
                        stormed.fetch_add(1, Ordering::Relaxed);
                    }
                });
            });
        }
        scope.spawn(|| accept_until(&loud, &stop));
        let mut open = Vec::new();
        for _ in 0..CALM {
            let mut client = calm.client.connect((calm.server.v4, quiet_port)).unwrap();
            let mut server = net::accept(&quiet);
            std::io::Write::write_all(&mut client, &[b'q'; 77]).unwrap();
            net::read_exactly(&mut server, 77).unwrap();
            std::io::Write::write_all(&mut server, &[b'x'; 99]).unwrap();
            net::read_exactly(&mut client, 99).unwrap();
            open.push((client, server));
        }
        while stormed.load(Ordering::Relaxed) < 5000 {
            thread::yield_now();
        }
        drop(open);
        stop.store(true, Ordering::Relaxed);
        // Wakes the accepting thread.
        drop(storm.client.connect(storm_address));
    });
    let (c, s) = (&calm.client.service, &calm.server.service);
    let exact = [CALM, 0, CALM, CALM * 77, CALM * 99];
    agent.eventually([exact; 2], |now| {
        let side = |role, up_is_sent: bool| {
            let edge = now.edge(c, s, quiet_port, role);
            let (sent, received) = (edge.sent_bytes(), edge.received_bytes());
            let (up, down) = if up_is_sent { (sent, received) } else { (received, sent) };
            [edge.connects("ok"), edge.active(), edge.requests().count, up, down]
        };
        [side("client", true), side("server", false)]
    });
    // And the storm itself is complete too: every attempt and the one that ended it, and every cut.
    // The kernel sends other resets besides, so only kernels that say why can be asked.
    let cuts = stormed.load(Ordering::Relaxed);
    let port = loud_port.to_string();
    agent.eventually((cuts + 1, cuts), |now| {
        let storm = [("role", "client"), ("port", port.as_str())];
        let by_cut = [storm.as_slice(), &[("direction", "sent"), ("cause", "unused")]].concat();
        let resets = now.sum("portolan_tcp_resets_total", &by_cut);
        (now.edges(&storm).connects("ok"), if facts::names_reset_reasons() { resets } else { cuts })
    });
    agent.ledger_adds_up();
    agent.stop();
}

fn accept_until(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        drop(listener.accept());
    }
}
