//! Violations of segments: one for every connection that is not allowed, whichever sides are seen.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use linux::hierarchy::Hierarchy;

use crate::agent::{Agent, binary, forget_our_variables};
use crate::delegated::Delegated;
use crate::impostors::{Impostor, as_user, name, no_impostors};
use crate::namespace::{Namespace, Pair};
use crate::net;
use crate::scrape::Scrape;

/// The networks of the test's segments.
const CONFIGURATION: &str = r#"
[segments]
allow = ["frontend -> backend", "backend -> database", "monitoring -> *"]
[segments.frontend]
networks = ["172.20.0.0/16"]
[segments.backend]
networks = ["172.21.0.0/16"]
[segments.database]
networks = ["172.22.0.0/16"]
[segments.monitoring]
networks = ["172.23.0.0/16"]
"#;

/// Connects from an address to ports of another one under a name, and says so: name, both addresses,
/// ports.
const CONNECT_TO_ALL: &str = "\
import ctypes, socket, sys, time
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
held = [socket.create_connection((sys.argv[3], int(port)), source_address=(sys.argv[2], 0))
        for port in sys.argv[4:]]
print('ready', flush=True)
time.sleep(600)";

const FRONTEND: u8 = 20;
const BACKEND: u8 = 21;
const DATABASE: u8 = 22;

/// Our address in one of the networks. Other programs of this host, containers among them, may use
/// the same networks, hardly the same address.
fn at(network: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, network, std::process::id().to_le_bytes()[0] | 1, 177)
}

/// An agent with this configuration file; the folder must outlive it.
pub fn agent_with(configuration: &str) -> (Agent, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("portolan.toml");
    fs::write(&path, configuration).expect("writing a configuration");
    let path = path.to_str().expect("a plain path").to_owned();
    (Agent::with(&[("config", &path)]), folder)
}

/// A host with an address in each of the given networks; routes to the others lead to its peer.
fn live_in(namespace: &Namespace, addresses: &[Ipv4Addr], elsewhere: &[&str]) {
    let ip = |arguments: &str| {
        let done = namespace.command("ip").args(arguments.split(' ')).status();
        assert!(done.expect("starting ip").success(), "ip {arguments}");
    };
    for address in addresses {
        ip(&format!("addr add {address}/16 dev veth0"));
    }
    for network in elsewhere {
        ip(&format!("route add {network} dev veth0"));
    }
}

/// Frontend and backend on the client's side, the database on the server's.
fn networks() -> Pair {
    let pair = Pair::new();
    live_in(&pair.client, &[at(FRONTEND), at(BACKEND)], &["172.22.0.0/16"]);
    live_in(&pair.server, &[at(DATABASE)], &["172.20.0.0/16", "172.21.0.0/16"]);
    pair
}

/// A connection of a service on the client's side that comes from `from`.
fn connect_as(service: &str, pair: &Pair, from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    pair.client.act_as(service, || {
        let socket = net::socket_for(&to);
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("an address of ours");
        socket.connect_timeout(&to.into(), Duration::from_secs(5)).expect("connecting");
        socket.into()
    })
}

/// Violations of this client, by segments and server.
fn violations(now: &Scrape, client: &str) -> Vec<(String, String, String, u64)> {
    now.matching("portolan_segment_violations_total", &[("client", client)])
        .map(|sample| {
            let label = |name| sample.label(name).unwrap_or_default().to_owned();
            let count = sample.value as u64;
            (label("client_segment"), label("server_segment"), label("server"), count)
        })
        .collect()
}

#[test]
fn a_frontend_that_connects_to_the_database_violates_once_per_connection() {
    needs_kernel!();
    let pair = networks();
    let (agent, _folder) = agent_with(CONFIGURATION);
    let listener = pair.server.listen((at(DATABASE), 0));
    let port = net::port(&listener);
    let to = SocketAddr::from((at(DATABASE), port));
    let expected = |count| {
        let row = ("frontend".into(), "database".into(), pair.server.service.clone(), count);
        vec![row]
    };
    let mut held = Vec::new();
    let frontend = &pair.client.service;
    let mut meet = |service: &str, from, connections: usize| {
        for _ in 0..connections {
            held.push((connect_as(service, &pair, from, to), net::accept(&listener)));
        }
    };
    meet(frontend, at(FRONTEND), 7);
    agent.eventually(expected(7), |now| violations(now, &pair.client.service));
    // The backend is allowed.
    meet("segments-api", at(BACKEND), 5);
    meet(frontend, at(FRONTEND), 3);
    agent.eventually(expected(10), |now| violations(now, &pair.client.service));
    assert_eq!(violations(&agent.scrape(), "segments-api"), []);
    // Both sides are seen, and further collections add nothing.
    let now = agent.scrape();
    for role in ["client", "server"] {
        let seen = now.sum(
            "portolan_tcp_connects_total",
            &[("server", &pair.server.service), ("role", role), ("result", "ok")],
        );
        assert_eq!(seen, 15, "as {role}");
    }
    drop(held);
    for _ in 0..5 {
        assert_eq!(violations(&agent.scrape(), &pair.client.service), expected(10));
    }

    let answer = agent.json("/api/v1/segments");
    let cell = |client: &str, server: &str| {
        let cells = answer["matrix"].as_array().expect("a list").iter();
        let mut cells = cells
            .filter(|cell| cell["client_segment"] == client && cell["server_segment"] == server);
        let cell = cells.next().cloned().unwrap_or_default();
        (cell["verdict"].clone(), cell["connections"].as_u64().unwrap_or(0))
    };
    // The matrix is of the whole host, and other containers may use the same networks.
    let (verdict, seen) = cell("frontend", "database");
    assert!(verdict == "violation" && seen >= 10, "{answer}");
    let (verdict, seen) = cell("backend", "database");
    assert!(verdict == "allowed" && seen >= 5, "{answer}");
    let all = answer["events"].as_array().expect("a list").iter();
    let events: Vec<_> = all.filter(|event| event["client"] == *frontend).collect();
    let total: u64 = events.iter().filter_map(|event| event["connections"].as_u64()).sum();
    assert_eq!(total, 10);
    for event in events {
        assert_eq!(event["client_address"], at(FRONTEND).to_string());
        assert_eq!(event["server_address"], at(DATABASE).to_string());
        assert_eq!(event["port"], port);
    }
    let log = agent.log();
    let line = format!(
        "{} in segment frontend connected to {}:{port} in segment database",
        pair.client.service, pair.server.service
    );
    assert!(log.contains(&line), "{log}");
    let said = portolan(&agent, &["segments", "violations"]);
    assert!(said.contains(&format!("{}  frontend", at(FRONTEND))), "{said}");
    let said = portolan(&agent, &["segments"]);
    assert!(said.contains("NO ") && said.contains("numbers are connections, last "), "{said}");
    let ours = |window: &str| -> u64 {
        let answer = agent.json(&format!("/api/v1/segments?window={window}"));
        let all = answer["violations"].as_array().expect("a list").iter();
        let all = all.filter(|one| one["client"] == *frontend);
        all.filter_map(|one| one["connections"].as_u64()).sum()
    };
    assert_eq!((ours("300"), ours("start")), (10, 10));
    agent.stop();
}

#[test]
fn a_violation_from_before_the_agent_counts_once_too() {
    needs_kernel!();
    let pair = networks();
    let listener = pair.server.listen((at(DATABASE), 0));
    let to = SocketAddr::from((at(DATABASE), net::port(&listener)));
    let client = connect_as(&pair.client.service, &pair, at(FRONTEND), to);
    let server = net::accept(&listener);
    let (agent, _folder) = agent_with(CONFIGURATION);
    // Whatever their names: this process made both sockets.
    let count = |now: &Scrape| {
        let port = to.port().to_string();
        now.sum("portolan_segment_violations_total", &[("port", &port)])
    };
    agent.eventually(1, count);
    for _ in 0..5 {
        assert_eq!(count(&agent.scrape()), 1);
    }
    drop((client, server));
    agent.stop();
}

#[test]
fn a_translated_connection_is_judged_where_it_ended() {
    needs_kernel!();
    let pair = networks();
    let (agent, _folder) = agent_with(CONFIGURATION);
    let listener = pair.server.listen((at(DATABASE), 0));
    let port = net::port(&listener);
    // Like a Service address: no interface has it, and it leads to the database.
    let database = at(DATABASE);
    pair.client.nft(&format!(
        "table ip nat {{ chain out {{ type nat hook output priority -100;\n\
         ip daddr 198.51.100.7 tcp dport 15432 dnat to {database}:{port}\n}}\n}}\n"
    ));
    let route = ["route", "add", "198.51.100.0/24", "dev", "veth0"];
    let done = pair.client.command("ip").args(route).status().expect("starting ip");
    assert!(done.success());
    let to = SocketAddr::from(([198, 51, 100, 7], 15432));
    let held: Vec<_> = (0..4)
        .map(|_| {
            (connect_as(&pair.client.service, &pair, at(FRONTEND), to), net::accept(&listener))
        })
        .collect();
    let count = |now: &Scrape| {
        now.sum("portolan_segment_violations_total", &[("server", &pair.server.service)])
    };
    agent.eventually(4, count);
    drop(held);
    for _ in 0..5 {
        assert_eq!(count(&agent.scrape()), 4);
    }
    agent.stop();
}

/// Makes things up in a network namespace of its own, each `many` times: connections, refused
/// ones, ones without a packet (TCP_REPAIR), failed binds. Arguments: name, client's address,
/// server's address and port, many.
const MAKE_UP: &str = "\
import ctypes, socket, sys, time
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
client, server, port, many = sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
TCP_REPAIR = 19
listener = socket.create_server((server, port), backlog=64)
held = []
def bound():
    one = socket.socket()
    one.bind((client, 0))
    return one
for _ in range(many):
    one = bound()
    one.connect((server, port))
    held += [one, listener.accept()[0]]
for _ in range(many):
    one = bound()
    assert one.connect_ex((server, port + 1)) != 0
for _ in range(many):
    one = bound()
    one.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    one.connect((server, port + 2))
    held.append(one)
for _ in range(many):
    try:
        socket.create_server((server, port))
        sys.exit('a bind that should fail did not')
    except OSError:
        pass
print('ready', flush=True)
time.sleep(600)";

/// Series that name this service as an end of a connection, a party of a conflict, or a namespace.
fn naming(now: &Scrape, service: &str) -> Vec<String> {
    let ends = ["client", "server", "claimant", "holder", "netns_of"];
    let named = now.samples.iter().filter(|one| {
        one.name != "portolan_service_info"
            && ends.iter().any(|label| one.label(label) == Some(service))
    });
    named.map(|one| one.name.clone()).collect()
}

#[test]
fn what_a_user_makes_up_in_namespaces_of_their_own_alerts_nobody() {
    needs_kernel!();
    if let Some(why) = no_impostors() {
        println!("SKIPPED: {why}");
        return;
    }
    const MANY: u64 = 5;
    let made_up = |service: &str| {
        let (client, server) = (at(FRONTEND), at(DATABASE));
        let script = format!(
            "ip link set lo up && ip addr add {client}/32 dev lo && ip addr add {server}/32 dev lo \
             && exec /usr/bin/python3 -c \"$MAKE_UP\" {service} {client} {server} 5432 {MANY}"
        );
        let mut command = as_user();
        command.args(["unshare", "--user", "--map-root-user", "--net", "sh", "-c", &script]);
        command.env("MAKE_UP", MAKE_UP);
        Impostor::start(command).expect("a user who makes things up")
    };
    let unverified = |now: &Scrape, kind| {
        now.sum("portolan_unverified_events_total", &[("kind", kind), ("user", "1500")])
    };

    let (agent, _folder) = agent_with(CONFIGURATION);
    let liar = name("liar");
    let held = made_up(&liar);
    // Both sides of a connection, and what was refused or established without a packet.
    let expected = (4 * MANY, MANY, 2 * MANY);
    agent.eventually(expected, |now| {
        (unverified(now, "connect"), unverified(now, "bind"), unverified(now, "segment_violation"))
    });
    assert_eq!(naming(&agent.scrape(), &liar), Vec::<String>::new());
    assert!(!agent.log().contains("which is not allowed"), "{}", agent.log());
    // Who asks sees them, marked.
    let ours = |path: &str, list: &str, is_ours: &dyn Fn(&serde_json::Value) -> bool| {
        let answer = agent.json(path);
        let all = answer[list].as_array().expect("a list").iter();
        all.filter(|one| is_ours(one)).cloned().collect::<Vec<_>>()
    };
    let edges = ours("/api/v1/edges", "edges", &|edge| edge["client"] == *liar);
    assert!(edges.len() >= 3, "{edges:?}");
    assert!(edges.iter().all(|edge| edge["unverified_user"] == 1500), "{edges:?}");
    let conflicts = ours("/api/v1/conflicts", "conflicts", &|conflict| {
        conflict["claimant"]["service"]["name"] == *liar
    });
    assert!(!conflicts.is_empty());
    let is_marked = |one: &serde_json::Value| {
        one["unverified_user"] == 1500 && one["finding"]["severity"] == "info"
    };
    assert!(conflicts.iter().all(is_marked), "{conflicts:?}");
    let events = ours("/api/v1/segments", "events", &|event| event["client"] == *liar);
    assert_eq!(events, Vec::<serde_json::Value>::new());
    drop(held);
    agent.stop();

    // The same of a user who is trusted: nothing of the above was so because it was not seen.
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("portolan.toml");
    fs::write(&path, CONFIGURATION).expect("writing a configuration");
    let path = path.to_str().expect("a plain path").to_owned();
    let agent = Agent::with(&[("config", &path), ("trusted_users", "1500")]);
    let engine = name("engine");
    let _held = made_up(&engine);
    let of = |now: &Scrape, family: &str, label| now.sum(family, &[(label, &engine)]);
    agent.eventually(expected, |now| {
        (
            of(now, "portolan_tcp_connects_total", "client"),
            of(now, "portolan_port_conflicts_total", "claimant"),
            of(now, "portolan_segment_violations_total", "client"),
        )
    });
    assert_eq!(unverified(&agent.scrape(), "connect"), 0);
    assert!(agent.log().contains("which is not allowed"), "{}", agent.log());
    agent.stop();
}

/// Connects as soon as there is a way. Arguments: name, client's address, server's address and port.
const CONNECT: &str = "\
import ctypes, socket, sys, time
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
print('ready', flush=True)
while True:
    try:
        client = socket.create_connection((sys.argv[3], int(sys.argv[4])), source_address=(sys.argv[2], 0))
        break
    except OSError:
        time.sleep(0.05)
time.sleep(600)";

#[test]
fn a_connection_that_leaves_a_users_namespace_is_a_violation_like_any_other() {
    needs_kernel!();
    if let Some(why) = no_impostors() {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let (client, server, service) = (at(FRONTEND), at(DATABASE), name("leaver"));
    let (agent, _folder) = agent_with(CONFIGURATION);
    let listener = pair.server.listen(("0.0.0.0", 0));
    let port = net::port(&listener);
    let mut command = as_user();
    let port_text = port.to_string();
    command.args(["unshare", "--user", "--map-root-user", "--net", "/usr/bin/python3", "-c"]);
    command.args([CONNECT, &service, &client.to_string(), &server.to_string(), &port_text]);
    let inside = Impostor::start(command).expect("a namespace of a user");
    // As root connects a container that has a user namespace of its own.
    let pid = inside.pid().to_string();
    let run = |command: &mut Command, arguments: &str| {
        let done = command.args(arguments.split(' ')).status().expect("starting it");
        assert!(done.success(), "{arguments}");
    };
    let outside = |arguments: &str| run(&mut pair.server.command("ip"), arguments);
    outside(&format!("link add inner0 type veth peer name eth0 netns {pid}"));
    outside(&format!("addr add {server}/16 dev inner0"));
    outside("link set inner0 up");
    outside("route add 172.20.0.0/16 dev inner0");
    for arguments in [
        &format!("addr add {client}/16 dev eth0"),
        "link set eth0 up",
        "route add 172.22.0.0/16 dev eth0",
    ] {
        run(Command::new("nsenter").args(["-t", &pid, "-n", "ip"]), arguments);
    }
    let _served = net::accept(&listener);
    let database = &pair.server.service;
    let expected = vec![("frontend".into(), "database".into(), database.clone(), 1)];
    agent.eventually(expected, |now| violations(now, &service));
    let unverified = [("kind", "segment_violation"), ("user", "1500")];
    assert_eq!(agent.scrape().sum("portolan_unverified_events_total", &unverified), 0);
    agent.stop();
}

#[test]
fn contradictions_are_reported_with_both_lines_before_anything_starts() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("portolan.toml");
    let more = "[segments.cache]\nnetworks = [\n  \"172.22.0.0/16\",\n]\n";
    fs::write(&path, format!("{CONFIGURATION}{more}")).expect("writing a configuration");
    let mut command = Command::new(binary());
    forget_our_variables(&mut command);
    let output = command.args(["config", "check", "--config"]).arg(&path).output();
    let output = output.expect("starting portolan");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("portolan.toml:14: puts network 172.22.0.0/16"), "{said}");
    assert!(said.trim_end().ends_with("portolan.toml:9"), "{said}");
}

/// The output of a command about a running agent.
pub fn portolan(agent: &Agent, arguments: &[&str]) -> String {
    let mut command = Command::new(binary());
    forget_our_variables(&mut command);
    let output = command.args(arguments).args(["--url", &format!("http://{}", agent.address)]);
    let output = output.output().expect("starting portolan");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complained}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_user_who_violates_with_many_connections_leaves_others_their_lines_in_the_log() {
    needs_kernel!();
    let Ok(Some(hierarchy)) = Hierarchy::find() else {
        println!("SKIPPED: no cgroup2 file system is mounted");
        return;
    };
    let pair = networks();
    let (agent, _folder) = agent_with(CONFIGURATION);
    let listeners: Vec<_> = (0..30).map(|_| pair.server.listen((at(DATABASE), 0))).collect();
    let ports: Vec<_> = listeners.iter().map(|listener| net::port(listener).to_string()).collect();
    let flood = name("flood");
    let given = Delegated::new(hierarchy.mount(), &name("given"));
    let script = format!(
        "exec python3 -c \"$CONNECT\" {flood} {} {} {}",
        at(FRONTEND),
        at(DATABASE),
        ports.join(" ")
    );
    let mut command = given.shell(&pair.client, &script);
    command.env("CONNECT", CONNECT_TO_ALL);
    let _flood = Impostor::start(command).expect("a program of the user");
    let counted = |now: &Scrape, client: &str| {
        now.sum("portolan_segment_violations_total", &[("client", client)])
    };
    agent.eventually(30, |now| counted(now, &flood));
    let victim = &*pair.client.service;
    let to = SocketAddr::from((at(DATABASE), net::port(&listeners[0])));
    let open = connect_as(victim, &pair, at(FRONTEND), to);
    agent.eventually(1, |now| counted(now, victim));
    let log = agent.log();
    let lines = |client: &str| {
        let said = format!("{client} in segment frontend connected to ");
        log.lines().filter(|line| line.contains(&said)).count()
    };
    assert_eq!(lines(victim), 1, "{log}");
    // A quarter of a minute's twenty, or of two minutes'.
    assert!((1..=10).contains(&lines(&flood)), "{log}");
    drop(open);
    agent.stop();
}
