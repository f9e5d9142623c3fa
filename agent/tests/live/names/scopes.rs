//! What has the same name in several network namespaces: programs, and loopback addresses that
//! nothing listens on.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{PATIENCE, edges, end, until};
use crate::agent::Agent;
use crate::facts;
use crate::holder::Holder;
use crate::namespace::{Namespace, Pair};
use crate::net;

/// Edges of clients to a port, each as client, server, and what became of the connects.
fn rows(agent: &Agent, port: u16) -> Vec<(String, String, Option<u64>, Option<u64>)> {
    let all = edges(agent);
    let ours = all.iter().filter(|row| row["role"] == "client" && row["port"] == port);
    let mut rows: Vec<_> = ours
        .map(|row| {
            let connects = |result: &str| row["connects"][result].as_u64().filter(|n| *n > 0);
            (end(row, "client"), end(row, "server"), connects("ok"), connects("refused"))
        })
        .collect();
    rows.sort();
    rows
}

#[test]
fn a_service_in_a_namespace_that_was_found_before_it_had_addresses_is_named_within_seconds() {
    needs_kernel!();
    let agent = Agent::start();
    let mut before = HashSet::new();
    // Again with the numbers of namespaces that have ended, if others of this host leave us these.
    for _ in 0..3 {
        // The agent looks at a new namespace at once, and at all of them again after half a minute.
        let net = Pair::with_addresses_after(facts::patience(Duration::from_secs(2)));
        let listener = net.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        let client = net.client.connect((net.server.v4, port)).expect("a listener of ours");
        drop((net::accept(&listener), client));
        let (client, server) = (&net.client.service, &net.server.service);
        agent.eventually((1, 1), |now| {
            let edge = |role| now.edge(client, server, port, role).connects("ok");
            (edge("client"), edge("server"))
        });
        let numbers = [net.client.inode(), net.server.inode()];
        if numbers.into_iter().filter(|number| before.insert(*number)).count() == 0 {
            break;
        }
    }
    agent.stop();
}

#[test]
fn loopback_addresses_without_a_listener_are_no_service_and_of_one_namespace_each() {
    needs_kernel!();
    let net = Pair::new();
    let agent = Agent::start();
    let program = format!("lone{}", std::process::id());
    for (number, address) in ["127.0.0.1", "127.9.9.9", "::1"].into_iter().enumerate() {
        let port = 18_940 + number as u16;
        let place = SocketAddr::new(address.parse().expect("an address"), port);
        let refused = || {
            let error = TcpStream::connect(place).expect_err("nothing listens there");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        };
        net.client.act_as(&program, refused);
        net.server.act_as(&program, || (refused(), refused()));
        let row = |net: &Namespace, count| {
            (net.full_name(&program), net.full_name(address), None, Some(count))
        };
        let mut expected = vec![row(&net.client, 1), row(&net.server, 2)];
        expected.sort();
        until(&format!("{expected:?}, not {:?}", rows(&agent, port)), || {
            rows(&agent, port) == expected
        });
        let services = agent.json("/api/v1/services").to_string();
        assert!(!services.contains(&format!("\"service\":\"{address}\"")), "{services}");
        assert!(!agent.scrape().has("portolan_service_info", &[("service", address)]));
        // A listener there is a service, of its own namespace.
        let listener = net.server.act_as("served", || TcpListener::bind(place)).expect("a port");
        let client = net.server.act_as(&program, || TcpStream::connect(place));
        drop((net::accept(&listener), client.expect("a listener of ours")));
        let served = (net.server.full_name(&program), net.server.full_name("served"));
        until(&format!("{served:?}: {:?}", rows(&agent, port)), || {
            let found = rows(&agent, port);
            found.iter().any(|(client, server, ok, _)| {
                (client, server, *ok) == (&served.0, &served.1, Some(1))
            })
        });
    }
    agent.stop();
}

/// A program in a namespace without a name: killed in the end.
struct Unshared(Child);

impl Drop for Unshared {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn programs_of_one_name_in_several_namespaces_are_several_services() {
    needs_kernel!();
    let net = Pair::new();
    let program = format!("same{}", std::process::id());
    // One is there before the agent.
    let listen = |net: &Namespace, port: u16| {
        net.act_as(&program, || TcpListener::bind(("0.0.0.0", port))).expect("a free port")
    };
    let first = Holder::new(&program, vec![listen(&net.client, 18_950).into()]);
    let agent = Agent::start();
    let second = listen(&net.server, 18_951);
    // A namespace that has no name is called by its inode.
    let script = "exec 3<>/dev/tcp/127.0.0.1/18952 2>/dev/null; echo ready; exec sleep 600";
    let mut command = Command::new("unshare");
    let run = format!("ip link set lo up; exec -a bash bash -c '{script}'");
    command.args(["--net", "bash", "-c", &run]).stdin(Stdio::null()).stdout(Stdio::piped());
    let unshared = Unshared(command.spawn().expect("util-linux is installed"));
    let inode =
        || std::fs::metadata(format!("/proc/{}/ns/net", unshared.0.id())).expect("it runs").ino();
    let own = std::fs::metadata("/proc/self/ns/net").expect("a namespace").ino();
    until("it is in its namespace", || inode() != own);
    let has = |service: &str, namespace: &str, port: &str| {
        let labels = [("service", service), ("service_namespace", namespace), ("port", port)];
        agent.scrape().has("portolan_port_listeners", &labels)
    };
    until("both listeners are told apart", || {
        has(&program, &net.client.scope(), "18950") && has(&program, &net.server.scope(), "18951")
    });
    let nameless = format!("netns-{}", inode());
    until("the refused connect is of the namespace without a name", || {
        let found = rows(&agent, 18_952);
        let place = format!("{nameless}/127.0.0.1");
        found.iter().any(|(client, server, _, refused)| {
            client.starts_with(&nameless) && *server == place && *refused == Some(1)
        })
    });
    drop((first, second, unshared));
    agent.stop();
}

/// Has a program listen in a namespace until the agent knows that by its name.
fn is_seen(agent: &Agent, net: &Namespace, port: u16) -> TcpListener {
    let listener = net.act_as("beacon", || TcpListener::bind(("0.0.0.0", port))).expect("a port");
    let (scope, port) = (net.scope(), port.to_string());
    let labels = [("service", "beacon"), ("service_namespace", &*scope), ("port", &*port)];
    until("the namespace is known", || agent.scrape().has("portolan_port_listeners", &labels));
    listener
}

#[test]
fn a_namespace_keeps_its_name_when_it_ends_and_the_next_one_with_its_number_has_its_own() {
    needs_kernel!();
    // Another program of this host may get the number: then from the start, with another one.
    let is_done = (0..3).any(|_| a_number_is_given_again());
    assert!(is_done, "other programs of this host took the number of each namespace that ended");
}

/// False if the number of the namespace that ended was not given to one of ours.
fn a_number_is_given_again() -> bool {
    let program = format!("again{}", std::process::id());
    let agent = Agent::start();
    let connect = |net: &Namespace, count: usize| {
        let listener = net.act_as("served", || TcpListener::bind(("127.0.0.1", 18_960)));
        let listener = listener.expect("a free port");
        for _ in 0..count {
            let client = net.act_as(&program, || TcpStream::connect(("127.0.0.1", 18_960)));
            drop((net::accept(&listener), client.expect("a listener of ours")));
        }
        listener
    };
    let row = |net: &Namespace, count| {
        (net.full_name(&program), net.full_name("served"), Some(count), None)
    };
    let first = Pair::new();
    let seen = is_seen(&agent, &first.server, 18_961);
    let listener = connect(&first.server, 2);
    let mut expected = vec![row(&first.server, 2)];
    until(&format!("{expected:?}: {:?}", rows(&agent, 18_960)), || {
        rows(&agent, 18_960) == expected
    });
    // Its name is taken away, while a program goes on in it.
    let (number, scope) = (first.server.inode(), first.server.scope());
    let sleep = first.server.command("sleep").arg("600").spawn();
    let remains = (listener, Unshared(sleep.expect("every system has sleep")));
    drop((first, seen));
    let other = Pair::new();
    let _seen = is_seen(&agent, &other.server, 18_961);
    assert_eq!(rows(&agent, 18_960), expected, "{scope} is gone from the list");
    // It ends. Soon another one has its number, in which the same programs run.
    drop(remains);
    let mut tried = Vec::new();
    let began = std::time::Instant::now();
    let is_it = |pair: &Pair| [&pair.client, &pair.server].iter().any(|net| net.inode() == number);
    while !tried.last().is_some_and(is_it) {
        if began.elapsed() > PATIENCE / 2 {
            return false;
        }
        tried.push(Pair::new());
    }
    let pair = tried.last().expect("one");
    let second = if pair.client.inode() == number { &pair.client } else { &pair.server };
    let _seen = is_seen(&agent, second, 18_962);
    assert_eq!(rows(&agent, 18_960), expected, "nothing has happened since");
    let _listener = connect(second, 3);
    expected.push(row(second, 3));
    expected.sort();
    until(&format!("{expected:?}: {:?}", rows(&agent, 18_960)), || {
        rows(&agent, 18_960) == expected
    });
    agent.stop();
    true
}
