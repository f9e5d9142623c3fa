//! TLS that the segments demand: a connection in plain text is a violation, one with TLS is not.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::agent::Agent;
use crate::exactness::{free_port_in, missing, tls_client, tls_server};
use crate::namespace::Pair;
use crate::net;
use crate::scrape::Scrape;
use crate::segments::agent_with;

const REQUEST: usize = 4;
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// Violations of connections to this port: reason, segments and how many.
fn violations(now: &Scrape, port: u16) -> Vec<(String, String, String, u64)> {
    let port = port.to_string();
    now.matching("portolan_segment_violations_total", &[("port", &port)])
        .map(|sample| {
            let label = |name| sample.label(name).unwrap_or_default().to_owned();
            let count = sample.value as u64;
            (label("reason"), label("client_segment"), label("server_segment"), count)
        })
        .collect()
}

/// So many connections in plain text to a server of the test.
fn in_plain_text(pair: &Pair, connections: usize) -> u16 {
    let listener = pair.server.listen((pair.server.v4, 0));
    let port = net::port(&listener);
    for _ in 0..connections {
        let mut client = pair.client.connect((pair.server.v4, port)).expect("connecting");
        let mut server = net::accept(&listener);
        client.write_all(&[b'q'; REQUEST]).expect("a request");
        net::read_exactly(&mut server, REQUEST).expect("a request");
        server.write_all(RESPONSE).expect("a response");
        net::read_exactly(&mut client, RESPONSE.len()).expect("a response");
    }
    port
}

/// An agent for which the two namespaces are segments that may connect, with TLS only if required.
fn agent_of(pair: &Pair, is_required: bool) -> (Agent, tempfile::TempDir) {
    let mut text = "responses = true\n[segments]\nallow = [\"api -> store\"]\n".to_owned();
    if is_required {
        text.push_str("require_tls = [\"* -> store\"]\n");
    }
    for (name, address) in [("api", pair.client.v4), ("store", pair.server.v4)] {
        let _ = writeln!(text, "[segments.{name}]\nnetworks = [\"{address}/32\"]");
    }
    agent_with(&text)
}

#[test]
fn a_connection_in_plain_text_violates_and_one_of_tls_does_not() {
    needs_kernel!();
    if let Some(why) = missing(&["openssl"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let (pair, directory) = (Pair::new(), tempfile::tempdir().expect("a temporary directory"));
    let (agent, _folder) = agent_of(&pair, true);
    let encrypted = free_port_in(&pair.server);
    let server = tls_server(&pair, directory.path(), encrypted);
    (0..2).for_each(|_| tls_client(&pair, encrypted, "-tls1_3"));
    let plain = in_plain_text(&pair, 3);
    let expected = vec![("plaintext".to_owned(), "api".to_owned(), "store".to_owned(), 3)];
    agent.eventually(expected.clone(), |now| violations(now, plain));
    // By now the connections of TLS, which were made before, have been evaluated, too.
    let security = [("port", encrypted.to_string()), ("security", "tls".to_owned())];
    let security = security.each_ref().map(|(name, value)| (*name, value.as_str()));
    let now = agent.eventually(2, |now| now.sum("portolan_connection_security_total", &security));
    assert_eq!(violations(&now, encrypted), []);
    assert_eq!(violations(&now, plain), expected);
    drop(server);
    agent.stop();
}

#[test]
fn without_a_rule_plain_text_is_no_violation() {
    needs_kernel!();
    let pair = Pair::new();
    let (agent, _folder) = agent_of(&pair, false);
    let port = in_plain_text(&pair, 3);
    let security = [("port", port.to_string()), ("security", "plaintext".to_owned())];
    let security = security.each_ref().map(|(name, value)| (*name, value.as_str()));
    let now = agent.eventually(3, |now| now.sum("portolan_connection_security_total", &security));
    assert_eq!(violations(&now, port), []);
    agent.stop();
}
