//! The agent on the real kernel: real sockets in network namespaces, faults made by nft, and the
//! kernel's own counters as the truth.
//!
//! Needs root and BPF; a test that cannot have them prints a line `SKIPPED: why` and returns.
//! Run with `--test-threads=1`: [`namespace`] borrows the name of this process for a moment at a time.
//! `cargo xtask test` runs some modules at once, each in a process; which, and why so few, is in
//! `xtask/src/test/lanes.rs`: every agent sees the whole host.
//!
//! How a test is written:
//!
//! ```ignore
//! #[test]
//! fn a_connection_counts_once_on_each_side() {
//!     needs_kernel!();
//!     let net = Pair::new();                          // two namespaces, joined
//!     let agent = Agent::start();                     // after the namespaces: it names them
//!     let listener = net.server.listen("0.0.0.0:0");  // belongs to the service net.server.service
//!     let port = net::port(&listener);
//!     let client = net.client.connect((net.server.v4, port)).unwrap();
//!     let server = listener.accept().unwrap();
//!     agent.eventually(1, |now| now.edge(&net.client.service, &net.server.service, port, "client").connects("ok"));
//!     agent.stop();                                   // exits with 0 and leaves nothing
//! }
//! ```
//!
//! The harness, one idea per file: [`namespace`] where traffic flows, [`agent`] the program under
//! test, [`scrape`] what it says, [`facts`] and [`tcp_info`] what is true, [`net`] sockets with their options,
//! [`holder`] another program that holds sockets, [`delegated`] a user's cgroups, [`figure`] comparisons for the benchmark.

#![expect(unsafe_code, reason = "system calls that programs under test would make")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "all of this crate is tests: a panic is how they fail, and what they print is shown then"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "expectations read better as values than as references to them"
)]

mod agent;
mod delegated;
mod facts;
mod figure;
mod holder;
mod namespace;
mod net;
mod scrape;
mod tcp_info;

/// Returns from a test that cannot run here, saying so.
macro_rules! needs_kernel {
    () => {
        if let Some(why) = $crate::facts::cannot_run() {
            println!("SKIPPED: {why}");
            return;
        }
    };
}

mod aborts;
mod applications;
mod attach;
mod balance;
mod balancers;
mod bootstrap_tcp;
mod bpftrace;
mod budget;
mod check;
mod cli;
mod conditions;
mod confined;
mod conflicts;
mod degrade;
mod diagnose;
mod dns;
mod dns_lookups;
mod enforcement;
mod events;
mod exactness;
mod floods;
mod foreign_memory;
mod foreign_paths;
mod idle;
mod impostors;
mod inet_sock_set_state;
mod io_uring;
mod iterate_sockets;
mod latency;
mod ledger;
mod map;
mod memory;
mod names;
mod notes;
mod open_connections;
mod operations;
mod otlp;
mod package;
mod page;
mod phases;
mod policy;
mod privileges;
mod prometheus;
mod queues;
mod recorded;
mod recovery;
mod refuse;
mod require_tls;
mod reservations;
mod restart;
mod segments;
mod sendmsg4;
mod sendmsg6;
mod services;
mod shares;
mod sides;
mod sk_data_ready;
mod snapshot;
mod sock_send_length;
mod socket_lives;
mod socket_table;
mod source_address;
mod state;
mod stopping;
mod tcp_receive_reset;
mod tcp_retransmit_skb;
mod tcp_retransmit_synack;
mod tcp_send_reset;
mod timeouts;
mod tiny;
mod titles;
mod top;
mod unanswered;
mod unseen;
mod unsent;
mod web;
mod windows;
