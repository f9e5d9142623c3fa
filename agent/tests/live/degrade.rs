//! Less kernel, less seen, and no more than that: each hook and field is taken away in turn.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use crate::agent::{self, Agent};
use crate::namespace::Pair;
use crate::net;
use crate::scrape::Scrape;

/// What the same traffic leaves behind, by what it needs.
#[derive(Clone, Debug, PartialEq, Default)]
struct Seen {
    connects: (u64, u64),
    failed_connects: u64,
    connect_latency: u64,
    client_requests: u64,
    open_server_requests: u64,
    server_requests: u64,
    final_bytes: (u64, u64),
    open_bytes: u64,
    round_trips: bool,
    resets: (u64, u64),
    listeners: u64,
    preexisting: u64,
}

/// The figures of an agent that lacks nothing.
const EVERYTHING: Seen = Seen {
    connects: (1, 1),
    failed_connects: 1,
    connect_latency: 1,
    client_requests: 3,
    open_server_requests: 3,
    server_requests: 3,
    final_bytes: (3 * 100, 3 * 200),
    open_bytes: 3 * 100,
    round_trips: true,
    resets: (1, 1),
    listeners: 1,
    preexisting: 1,
};

/// Runs the traffic under an agent without `masked`; returns what it saw and what it says of
/// itself.
fn observe(masked: &str) -> (Seen, Scrape, serde_json::Value) {
    let pair = Pair::new();
    let old = pair.server.listen("0.0.0.0:0");
    let old_client = pair.client.connect((pair.server.v4, net::port(&old))).unwrap();
    let agent = Agent::with(&[("masked", masked)]);
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let mut client = pair.client.connect((pair.server.v4, port)).unwrap();
    let mut server = net::accept(&listener);
    for _ in 0..3 {
        client.write_all(&[b'q'; 100]).unwrap();
        net::read_exactly(&mut server, 100).unwrap();
        server.write_all(&[b'x'; 200]).unwrap();
        net::read_exactly(&mut client, 200).unwrap();
        // Lets the send hook of this response run before the next request.
        thread::sleep(Duration::from_millis(2));
    }
    let (c, s, number) = (&pair.client.service, &pair.server.service, port.to_string());
    // Without a list of listeners the other end is an address: only the own name is sure.
    let of_client = [("client", c.as_str()), ("role", "client"), ("port", &number)];
    let of_server = [("server", s.as_str()), ("role", "server"), ("port", &number)];
    let open = agent.scrape();
    let probe = pair.server.within(|| std::net::TcpListener::bind("0.0.0.0:0").unwrap());
    let unused = net::port(&probe);
    drop(probe);
    pair.client.connect((pair.server.v4, unused)).unwrap_err();
    net::close_with_reset(server);
    let active = |now: &Scrape| now.edges(&of_client).active() + now.edges(&of_server).active();
    let now = agent.eventually(0, active);
    let unused = unused.to_string();
    let (a, b) = (now.edges(&of_client), now.edges(&of_server));
    let seen = Seen {
        connects: (a.connects("ok"), b.connects("ok")),
        failed_connects: now
            .edges(&[("client", c), ("role", "client"), ("port", &unused)])
            .connects("refused"),
        connect_latency: a.connect_duration().count,
        client_requests: a.requests().count,
        open_server_requests: open.edges(&of_server).requests().count,
        server_requests: b.requests().count,
        final_bytes: (a.sent_bytes(), b.sent_bytes()),
        open_bytes: open.edges(&of_client).sent_bytes(),
        round_trips: a.rtt().count > 0,
        resets: (
            b.resets_by_cause("sent").values().sum(),
            a.resets_by_cause("received").values().sum(),
        ),
        listeners: now.sum("portolan_port_listeners", &[("service", s), ("port", &number)]),
        preexisting: now
            .edges(&[("role", "client"), ("port", &net::port(&old).to_string())])
            .preexisting(),
    };
    drop((client, old_client));
    let status = agent.json("/api/v1/status");
    agent.stop();
    (seen, now, status)
}

/// What `/api/v1/status` says is off, as (what, why).
fn disabled(status: &serde_json::Value) -> Vec<(String, String)> {
    let entries = status["disabled"].as_array().expect("a list of what is off");
    let text = |value: &serde_json::Value| value.as_str().expect("a sentence").to_owned();
    entries.iter().map(|entry| (text(&entry["what"]), text(&entry["why"]))).collect()
}

#[track_caller]
fn without_hook(hook: &str, expected: Seen) {
    let (seen, now, status) = observe(hook);
    assert_eq!(seen, expected, "without {hook}");
    for sample in now.matching("portolan_hook_attached", &[]) {
        let expected = if sample.label("hook") == Some(hook) { 0.0 } else { 1.0 };
        assert_eq!(sample.value.to_bits(), f64::to_bits(expected), "{sample:?}");
    }
    let disabled = disabled(&status);
    assert_eq!(disabled.len(), 1, "{disabled:?}");
    assert!(!disabled[0].0.is_empty(), "it says what is lost");
    assert!(disabled[0].1.starts_with(&format!("{hook}: ")), "{disabled:?}");
}

#[track_caller]
fn without_field(field: &str, expected: Seen) {
    let (seen, now, status) = observe(field);
    assert_eq!(seen, expected, "without {field}");
    assert!(now.matching("portolan_hook_attached", &[]).all(|hook| hook.value > 0.5));
    let disabled = disabled(&status);
    assert_eq!(disabled.len(), 1, "without {field}: {disabled:?}");
    assert!(disabled[0].1.contains(field), "{disabled:?}");
}

#[test]
fn with_everything_everything_is_seen() {
    needs_kernel!();
    let (seen, now, status) = observe("");
    assert_eq!(seen, EVERYTHING);
    assert!(now.matching("portolan_hook_attached", &[]).all(|hook| hook.value > 0.5));
    assert_eq!(disabled(&status), []);
}

#[test]
fn without_the_first_hook_there_is_no_agent() {
    needs_kernel!();
    let run = tempfile::tempdir().unwrap();
    let run = run.path().display().to_string();
    let listen = format!("127.0.0.1:{}", agent::free_port());
    let ended = agent::run_to_end(&mut agent::command(&[
        ("masked", "inet_sock_set_state"),
        ("run_directory", &run),
        ("web.listen_address", &listen),
        ("log.level", "error"),
    ]));
    assert!(!ended.status.success());
    assert_eq!(ended.stderr.lines().count(), 1, "one sentence: {}", ended.stderr);
    assert!(ended.stderr.contains("inet_sock_set_state"), "{}", ended.stderr);
}

#[test]
fn without_sk_data_ready_requests_are_not_seen() {
    needs_kernel!();
    let none =
        Seen { client_requests: 0, open_server_requests: 0, server_requests: 0, ..EVERYTHING };
    without_hook("sk_data_ready", none);
}

#[test]
fn without_sock_send_length_a_response_shows_with_the_next_request_or_the_end() {
    needs_kernel!();
    without_hook("sock_send_length", Seen { open_server_requests: 2, ..EVERYTHING });
}

#[test]
fn without_the_retransmit_hooks_the_rest_is_seen() {
    needs_kernel!();
    without_hook("tcp_retransmit_skb", EVERYTHING);
    without_hook("tcp_retransmit_synack", EVERYTHING);
}

#[test]
fn without_a_reset_hook_its_resets_are_not_seen() {
    needs_kernel!();
    without_hook("tcp_send_reset", Seen { resets: (0, 1), ..EVERYTHING });
    without_hook("tcp_receive_reset", Seen { resets: (1, 0), ..EVERYTHING });
}

#[test]
fn without_the_sweep_bytes_show_when_a_connection_ends() {
    needs_kernel!();
    without_hook("sweep", Seen { open_bytes: 0, listeners: 0, ..EVERYTHING });
}

#[test]
fn without_the_seed_the_past_is_not_seen() {
    needs_kernel!();
    without_hook("seed", Seen { preexisting: 0, ..EVERYTHING });
}

#[test]
fn without_a_field_only_its_metric_is_gone() {
    needs_kernel!();
    without_field("drops", EVERYTHING);
    without_field("v6_only", EVERYTHING);
    without_field("srtt_us", Seen { round_trips: false, ..EVERYTHING });
    without_field("total_retrans", EVERYTHING);
    without_field("bytes_sent", Seen { final_bytes: (0, 0), open_bytes: 0, ..EVERYTHING });
}
