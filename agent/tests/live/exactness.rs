//! Exactness: under real load the agent's numbers *equal* those of the kernel, of the programs and
//! of the load generators.
//!
//! A test opens the [`Books`], runs a load between two namespaces, and closes them: the books
//! compare the edge with `/proc/net/snmp` and `netstat` of both namespaces, the two sides with each
//! other, and the ledger with itself. What only the programs know (bytes written, requests made)
//! the test compares itself. An allowed difference is computed, never guessed.
//!
//! While the load runs, [`Watcher`] scrapes continuously and requires what holds at all times: no
//! series decreases, and no event is exported before it was seen.
//!
//! The kernel skips a program that already runs on the same CPU. The agent counts that
//! (`portolan_hook_misses_total`); only as many events as were skipped on the whole host may be
//! missing, and the test prints it.

mod bytes;
mod faults;
mod http;
mod postgres;
mod programs;
mod redis;
mod responses;
mod watcher;

pub use programs::{Load, Nginx, Redis, Server, free_port_in, missing, tls_client, tls_server};
pub use watcher::Watcher;

use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::facts::{self, Counters, socket_statistics};
use crate::figure;
use crate::namespace::Pair;
use crate::scrape::{Edge, Sample, Scrape};

/// After this time without rest a failure is likely, and its message lists the sockets.
const LONG: Duration = Duration::from_secs(4);

/// The kernel's counters in both namespaces before the load.
pub struct Books {
    client: Counters,
    server: Counters,
    misses: u64,
    edgeless_resets: u64,
}

/// An edge by its names, on both sides.
#[derive(Clone, Copy)]
pub struct Between<'a> {
    /// The client's service.
    pub client: &'a str,
    /// The server's service.
    pub server: &'a str,
    /// The server's port.
    pub port: u16,
}

/// The totals of an edge at rest.
#[derive(Debug)]
pub struct Settled {
    /// Requests as the client saw them.
    pub client_requests: u64,
    /// Requests as the server saw them.
    pub server_requests: u64,
    /// Connections the client opened.
    pub connects: u64,
    /// Payload the client sent.
    pub client_sent: u64,
    /// Payload the client received.
    pub client_received: u64,
    /// Payload the server sent.
    pub server_sent: u64,
    /// Payload the server received.
    pub server_received: u64,
    /// The allowed difference of each: program runs that the kernel skipped.
    pub slack: u64,
}

/// Requires that `ours` is `truth`, apart from `slack` events that the agent counted as skipped.
#[track_caller]
pub fn equal(what: &str, ours: u64, truth: u64, slack: u64) {
    if ours != truth && ours.abs_diff(truth) <= slack {
        println!("{what}: {ours} of {truth}, and {slack} runs were skipped by the kernel");
    } else {
        assert_eq!(ours, truth, "{what}");
    }
}

/// As [`equal`] for bytes. A connection whose end was skipped has not reported its last bytes: only
/// then may some be missing.
#[track_caller]
pub fn equal_bytes(what: &str, ours: u64, truth: u64, slack: u64) {
    if ours < truth && slack > 0 {
        println!("{what}: {ours} of {truth}, and {slack} runs were skipped by the kernel");
    } else {
        assert_eq!(ours, truth, "{what}");
    }
}

// === impl Books ===

impl Books {
    /// Opens them.
    pub fn open(pair: &Pair, agent: &Agent) -> Self {
        let before = agent.scrape();
        Self {
            client: Counters::of(&pair.client),
            server: Counters::of(&pair.server),
            misses: misses(&before),
            edgeless_resets: edgeless_resets(&before),
        }
    }

    /// Waits until every connection of the edge has ended and compares. No other program may have
    /// used TCP in these two namespaces.
    #[track_caller]
    pub fn close(&self, pair: &Pair, agent: &Agent, between: Between<'_>) -> Settled {
        let now = self.at_rest(pair, agent, between);
        let slack = misses(&now) - self.misses;
        for skipped in now.matching("portolan_hook_misses_total", &[]) {
            if skipped.value > 0.0 {
                println!("skipped by the kernel: {skipped:?}");
            }
        }
        let (client, server) = (between.client_side(&now), between.server_side(&now));
        let (cli, srv) = (Counters::of(&pair.client), Counters::of(&pair.server));
        let cli = |name: &str| cli.since(&self.client, name);
        let srv = |name: &str| srv.since(&self.server, name);

        println!(
            "server: {} retransmits and {} of SYN-ACKs; RetransSegs {}, TCPSynRetrans {}; skipped {slack}",
            server.retransmits(),
            between.synack_retransmits(&now),
            srv("TcpRetransSegs"),
            srv("TcpExtTCPSynRetrans"),
        );
        // A connect that found no local port never became an attempt of TCP's.
        let attempts = client.all_connects() - client.connects("ports_exhausted");
        figure::count("connects", "ActiveOpens", attempts, cli("TcpActiveOpens"));
        equal("connects of the client are ActiveOpens", attempts, cli("TcpActiveOpens"), slack);
        equal("failed connects are AttemptFails", failed(&client), cli("TcpAttemptFails"), slack);
        // A child that the peer resets before the handshake ends is a PassiveOpen that failed.
        let is_short = server.all_connects() < srv("TcpPassiveOpens")
            || server.requests().count != client.requests().count;
        if is_short {
            println!("at the port: {:#?}", between.everything_at_the_port(&now));
        }
        figure::count("accepts", "PassiveOpens", server.all_connects(), srv("TcpPassiveOpens"));
        equal("accepts are PassiveOpens", server.all_connects(), srv("TcpPassiveOpens"), slack);
        equal("failed accepts are AttemptFails", failed(&server), srv("TcpAttemptFails"), slack);
        // A response that arrives after the client closed meets no connection: such resets have no
        // edge, and those of the whole host are one row.
        let resets: u64 = client.resets_by_cause("sent").values().sum();
        let edgeless = edgeless_resets(&now) - self.edgeless_resets;
        let truth = cli("TcpOutRsts");
        let by_server: u64 = server.resets_by_cause("sent").values().sum();
        let (all, both) = (resets + by_server + edgeless, truth + srv("TcpOutRsts"));
        figure::count("resets", "OutRsts", all, both);
        if resets < truth && !facts::names_reset_reasons() {
            println!(
                "{resets} of {truth} resets; this kernel does not report those without a socket"
            );
        } else if resets < truth && truth - resets <= edgeless {
            println!("{resets} of {truth} resets have an edge, {edgeless} of the host have none");
        } else {
            equal("resets the client sent are OutRsts", resets, truth, slack);
        }
        let again = client.retransmits();
        figure::count("retransmits", "RetransSegs", again, cli("TcpRetransSegs"));
        equal("retransmits of the client are RetransSegs", again, cli("TcpRetransSegs"), slack);
        let again = server.retransmits() + between.synack_retransmits(&now);
        figure::count("retransmits", "RetransSegs", again, srv("TcpRetransSegs"));
        equal("retransmits of the server are RetransSegs", again, srv("TcpRetransSegs"), slack);
        let settled = Settled {
            client_requests: client.requests().count,
            server_requests: server.requests().count,
            connects: client.connects("ok"),
            client_sent: client.sent_bytes(),
            client_received: client.received_bytes(),
            server_sent: server.sent_bytes(),
            server_received: server.received_bytes(),
            slack,
        };
        equal("every accept was a connect", server.connects("ok"), settled.connects, slack);
        println!("{settled:?}");
        settled
    }

    /// The scrape in which the edge has come to rest: nothing open, nothing in flight.
    #[track_caller]
    fn at_rest(&self, pair: &Pair, agent: &Agent, between: Between<'_>) -> Scrape {
        let asked = Instant::now();
        agent.eventually(Ok(()), |now| {
            let (client, server) = (between.client_side(now), between.server_side(now));
            // A skipped run may have been an end.
            let missed = misses(now) - self.misses;
            let ended = client.active() + server.active() <= missed;
            let began = client.all_connects() > 0;
            if began && ended {
                return Ok(());
            }
            let mut why = between.everything_at_the_port(now);
            if asked.elapsed() > LONG {
                why.push(socket_statistics(&pair.client, "state all"));
                why.push(socket_statistics(&pair.server, "state all"));
            }
            Err(why)
        });
        agent.ledger_adds_up()
    }
}

// === impl Between ===

impl Between<'_> {
    fn client_side<'a>(&self, now: &'a Scrape) -> Edge<'a> {
        now.edge(self.client, self.server, self.port, "client")
    }

    fn server_side<'a>(&self, now: &'a Scrape) -> Edge<'a> {
        now.edge(self.client, self.server, self.port, "server")
    }

    /// For the message of a failure: the names of the two ends, and open connections.
    fn everything_at_the_port(&self, now: &Scrape) -> Vec<String> {
        let port = self.port.to_string();
        let describe = |sample: &Sample| {
            let label = |name| sample.label(name).unwrap_or("");
            let [client, server, role] = ["client", "server", "role"].map(label);
            let edge = now.edge(client, server, self.port, label("role"));
            let (connects, requests) = (edge.all_connects(), edge.requests().count);
            let open = sample.value;
            format!(
                "{client} to {server} as {role}: {connects} connects, {open} open, {requests} requests"
            )
        };
        let labels = [("port", port.as_str())];
        now.matching("portolan_tcp_active_connections", &labels).map(describe).collect()
    }

    fn synack_retransmits(&self, now: &Scrape) -> u64 {
        let port = self.port.to_string();
        let labels = [("service", self.server), ("port", port.as_str())];
        now.sum("portolan_tcp_synack_retransmits_total", &labels)
    }
}

/// Attempts that the kernel, too, calls failed: a program that gave up by closing is none.
fn failed(edge: &Edge<'_>) -> u64 {
    edge.all_connects()
        - edge.connects("ok")
        - edge.connects("aborted")
        - edge.connects("ports_exhausted")
}

/// Resets sent for segments that met no connection or no listener, on the whole host.
fn edgeless_resets(now: &Scrape) -> u64 {
    let labels = [("role", "server"), ("port", "0"), ("direction", "sent")];
    now.sum("portolan_tcp_resets_total", &labels)
}

/// Runs of our programs that the kernel skipped, on all hooks and the whole host.
fn misses(now: &Scrape) -> u64 {
    now.sum("portolan_hook_misses_total", &[])
}
