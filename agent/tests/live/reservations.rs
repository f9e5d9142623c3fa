//! Port reservations, made with the command through the agent's socket.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use std::thread;

use serde_json::Value;

use crate::agent::{self, Agent, Start};
use crate::namespace::{Namespace, Pair};
use crate::net;
use crate::scrape::Scrape;

const BREACHES: &str = "portolan_port_reservation_breaches_total";

/// `portolan …` with this agent's socket.
fn portolan(agent: &Agent, mut command: Command, arguments: &str) -> Output {
    agent::forget_our_variables(&mut command);
    command.args(arguments.split_whitespace());
    command.env("PORTOLAN_SOCKET", agent.run_directory().join("control.sock"));
    command.env("PORTOLAN_URL", format!("http://{}", agent.address));
    command.stdin(Stdio::null()).output().expect("the agent's own binary runs")
}

/// Its output; panics with the error if it fails.
#[track_caller]
fn output(agent: &Agent, command: Command, arguments: &str) -> String {
    let output = portolan(agent, command, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {said}");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// Why it fails.
#[track_caller]
fn refused(agent: &Agent, command: Command, arguments: &str) -> String {
    let output = portolan(agent, command, arguments);
    assert!(!output.status.success(), "{arguments} succeeded");
    String::from_utf8(output.stderr).expect("it says text")
}

fn here() -> Command {
    Command::new(agent::binary())
}

fn inside(namespace: &Namespace) -> Command {
    namespace.command(agent::binary().to_str().expect("a path of text"))
}

fn reservations(agent: &Agent) -> Vec<Value> {
    agent.json("/api/v1/reservations")["reservations"].as_array().expect("a list").clone()
}

#[test]
fn a_breach_is_reported_once_and_the_owner_never() {
    needs_kernel!();
    let net = Pair::new();
    let agent = Agent::start();
    let (owner, offender) = (&net.server.service, &net.client.service);
    for port in [18_431, 18_432] {
        let reserve = format!("ports reserve {port} --for {owner}");
        let said = output(&agent, inside(&net.server), &reserve);
        assert!(said.starts_with(&format!("{port}/tcp is reserved for {owner}")), "{said}");
    }
    let held = net.server.listen("0.0.0.0:18431");
    let address = (Ipv4Addr::UNSPECIFIED, 18_432);
    let taken = net.server.act_as(offender, || TcpListener::bind(address)).unwrap();
    let offender_here = net.server.full_name(offender);
    // The same port in another namespace is another port.
    let elsewhere = net.client.act_as(offender, || TcpListener::bind(address)).unwrap();
    let labels = [
        ("port", "18432"),
        ("protocol", "tcp"),
        ("owner", owner.as_str()),
        ("offender", offender_here.as_str()),
        ("action", "audited"),
    ];
    agent.eventually(1, |now: &Scrape| now.sum(BREACHES, &labels));
    for _ in 0..20 {
        let now = agent.scrape();
        assert_eq!(now.sum(BREACHES, &[("owner", owner)]), 1, "one breach, and only that one");
    }
    let listed = agent.json("/api/v1/reservations");
    let sentence = listed["breaches"][0]["finding"]["title"].as_str().unwrap_or_default();
    let expected = format!("{offender_here} has 18432/tcp, which is reserved for {owner}");
    assert_eq!(sentence, expected);
    let table = output(&agent, here(), "ports reservations");
    assert!(table.contains(&expected) && table.contains("18431/tcp"), "{table}");
    assert!(agent.log().contains("a reserved port is held by another service"), "{}", agent.log());
    // The table of ports shows the same, and separates the namespaces.
    let ports = agent.json("/api/v1/ports?port=18432");
    let rows: Vec<_> = ports["ports"].as_array().expect("a list").iter().collect();
    let of = |namespace: &Namespace| {
        let row = rows.iter().find(|row| row["netns"] == namespace.inode());
        row.map(|row| row["reserved_for"].clone()).expect("a row")
    };
    assert_eq!((of(&net.server), of(&net.client)), (Value::from(owner.as_str()), Value::Null));
    let table = output(&agent, here(), "ports");
    let row = table.lines().find(|line| line.trim_start().starts_with("18431 ")).expect(&table);
    assert!(row.contains(&format!("{owner} ")) && table.contains("RESERVED FOR"), "{table}");
    drop((held, taken, elsewhere));
    let vacant = agent.json("/api/v1/ports?port=18432");
    assert_eq!(vacant["ports"], Value::Array(Vec::new()), "{vacant:#}");
    assert_eq!(vacant["unused_reservations"][0]["service"], owner.as_str(), "{vacant:#}");
    let who = output(&agent, here(), "ports who 18432");
    let expected =
        format!("No process holds port 18432.\n18432/tcp is reserved for {owner} (network");
    assert!(who.starts_with(&expected), "{who}");
    output(&agent, inside(&net.server), "ports release 18432");
    let again = refused(&agent, inside(&net.server), "ports release 18432");
    assert!(again.contains("18432/tcp is not reserved"), "{again}");
    agent.stop();
}

#[test]
fn ports_are_free_where_the_caller_is() {
    needs_kernel!();
    let net = Pair::new();
    let agent = Agent::start();
    let _held = net.server.listen("0.0.0.0:18500");
    let bound = net.server.within(|| {
        // Bound, and in no list of listeners.
        let socket = net::socket_for(&"127.0.0.1:18501".parse().unwrap());
        socket.bind(&"127.0.0.1:18501".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        socket
    });
    let free = |namespace: &Namespace, more: &str| {
        output(&agent, inside(namespace), &format!("ports free --near 18500 {more}"))
    };
    assert_eq!(free(&net.client, ""), "18500\n");
    assert_eq!(free(&net.server, ""), "18502\n");
    // Handed out a second ago: withheld.
    assert_eq!(free(&net.server, ""), "18503\n");
    assert_eq!(free(&net.server, "--for web --count 2"), "18504\n18505\n");
    drop(bound);
    let kept: Vec<_> = reservations(&agent);
    let ports: Vec<_> = kept.iter().map(|one| one["port"].as_u64().unwrap_or_default()).collect();
    assert_eq!(ports, [18_504, 18_505]);
    assert!(kept.iter().all(|one| one["until"].is_string()), "a lease ends: {kept:?}");
    // Ephemeral there, unless excluded.
    net.server.sysctl("ipv4/ip_local_port_range", "20000 21000");
    net.server.sysctl("ipv4/ip_local_reserved_ports", "20500");
    let near = output(&agent, inside(&net.server), "ports free --near 20400");
    assert_eq!(near, "20500\n");
    agent.stop();
}

#[test]
fn a_reserved_port_that_the_kernel_may_give_away_is_reported_with_the_fix() {
    needs_kernel!();
    let net = Pair::new();
    let agent = Agent::start();
    net.server.sysctl("ipv4/ip_local_port_range", "20000 21000");
    net.server.sysctl("ipv4/ip_local_reserved_ports", "20100-20110");
    let said = output(&agent, inside(&net.server), "ports reserve 20500 --for web");
    let line = said.lines().find_map(|line| line.trim().strip_prefix("fix: sysctl -w net."));
    let (sysctl, value) = line.and_then(|line| line.split_once('=')).expect(&said);
    assert_eq!((sysctl, value), ("ipv4.ip_local_reserved_ports", "20100-20110,20500"));
    net.server.sysctl(&sysctl.replace('.', "/"), value);
    let said = output(&agent, inside(&net.server), "ports reserve 20500 --for web");
    assert!(!said.contains("sysctl"), "it is kept out now: {said}");
    agent.stop();
}

#[test]
fn callers_at_the_same_time_are_given_different_ports() {
    needs_kernel!();
    let net = Pair::new();
    let agent = Agent::start();
    let given = thread::scope(|scope| {
        let callers: Vec<_> = (0..8)
            .map(|i| {
                let more = if i % 2 == 0 { "--for web" } else { "" };
                let agent = &agent;
                let command = inside(&net.server);
                scope.spawn(move || {
                    output(agent, command, &format!("ports free --near 18600 --count 4 {more}"))
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect::<String>()
    });
    let mut ports: Vec<&str> = given.lines().collect();
    assert_eq!(ports.len(), 32);
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 32, "{ports:?}");
    agent.stop();
}

#[test]
fn what_was_acknowledged_outlives_every_kill() {
    needs_kernel!();
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("state").display().to_string();
    let start = || Agent::with(&[("state_directory", &directory)]);
    let mut acknowledged = 0u16;
    for _ in 0..4 {
        let agent = start();
        let found: Vec<u64> =
            reservations(&agent).iter().map(|one| one["port"].as_u64().unwrap()).collect();
        // The pending one may be there or not; nothing else may differ.
        let expected: Vec<u64> = (1..=acknowledged).map(|i| 18_700 + u64::from(i)).collect();
        assert!(found.starts_with(&expected) && found.len() <= expected.len() + 1, "{found:?}");
        acknowledged = found.len() as u16;
        acknowledged = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut last = acknowledged;
                loop {
                    let port = 18_701 + last;
                    let reserve = format!("ports reserve {port} --for web --netns host");
                    if !portolan(&agent, here(), &reserve).status.success() {
                        return last;
                    }
                    last += 1;
                }
            });
            // In the middle of it.
            let enough = usize::from(acknowledged) + 3;
            while !writer.is_finished() && reservations_on_disk(&directory) < enough {
                thread::yield_now();
            }
            agent.signal(libc::SIGKILL);
            writer.join().unwrap()
        });
        agent.kill();
    }
    assert!(acknowledged >= 8, "{acknowledged}");
}

/// How many reservations the file has; 0 while there is none.
fn reservations_on_disk(directory: &str) -> usize {
    let text = fs::read_to_string(format!("{directory}/state.json")).unwrap_or_default();
    text.matches("\"port\"").count()
}

#[test]
fn a_broken_file_is_kept_aside_and_nothing_is_written_over_it() {
    needs_kernel!();
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().display().to_string();
    let broken = "{\"version\": 1, \"reservations\": [{\"port\": \"0\", \"service\": \"x\"}]}";
    fs::write(state.path().join("state.json"), broken).unwrap();
    for _ in 0..2 {
        let agent = Agent::with(&[("state_directory", &directory)]);
        assert!(agent.log().contains("state.json.broken"), "{}", agent.log());
        let said = refused(&agent, here(), "ports reserve 18800 --for web --netns host");
        assert!(said.contains("state.json.broken") && said.contains("until you fix it"), "{said}");
        agent.stop();
        assert_eq!(fs::read_to_string(state.path().join("state.json.broken")).unwrap(), broken);
        assert!(!state.path().join("state.json").exists());
    }
    let agent = Agent::with(&[
        ("state_directory", &directory),
        ("ports.reservations", "18801 web,18802/udp statsd enforce"),
    ]);
    let origins: Vec<_> =
        reservations(&agent).iter().map(|one| one["origin"].to_string()).collect();
    assert_eq!(origins, ["\"config\"", "\"config\""], "the configuration stands all the same");
    agent.stop();
}

#[test]
fn only_this_host_and_only_who_may_can_change_anything() {
    needs_kernel!();
    let agent = Agent::start();
    // Over the network nothing can be changed.
    let body = "{\"port\": 18900, \"protocol\": \"tcp\", \"service\": \"x\"}";
    for (method, path) in [
        ("POST", "/api/v1/reservations"),
        ("DELETE", "/api/v1/reservations"),
        ("POST", "/api/v1/ports/free"),
        ("POST", "/api/v1/services"),
        ("DELETE", "/api/v1/services"),
    ] {
        let status = ask_over_tcp(&agent, method, path, body);
        assert!(status == 405 || status == 404, "{method} {path}: {status}");
    }
    // Another user: the file's mode refuses it.
    let other_user = |group: &str, arguments: &str| {
        // A directory that every user can enter.
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let binary = place.path().join("portolan");
        fs::copy(agent::binary(), &binary).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", group, "--clear-groups", "--inh-caps=-all"]).arg(&binary);
        (place, command, arguments.to_owned())
    };
    fs::set_permissions(agent.run_directory(), fs::Permissions::from_mode(0o755)).unwrap();
    let reserve = "ports reserve 18900 --for web --netns host";
    let (_place, command, arguments) = other_user("--regid=65534", reserve);
    let said = refused(&agent, command, &arguments);
    assert!(said.contains("permission denied") && said.contains("--control-group"), "{said}");
    // Even if the file allowed it, the peer credentials refuse it.
    let socket = agent.run_directory().join("control.sock");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let (_place, command, arguments) = other_user("--regid=65534", reserve);
    let said = refused(&agent, command, &arguments);
    assert!(said.contains("permission denied"), "{said}");
    assert_eq!(reservations(&agent), Vec::<Value>::new());
    agent.stop();
    assert!(!socket.exists(), "the socket goes with the agent");
    // A member of the configured group is allowed.
    let agent =
        Agent::launch(&Start { settings: vec![("control_group", "65533")], ..Start::default() });
    fs::set_permissions(agent.run_directory(), fs::Permissions::from_mode(0o755)).unwrap();
    let (_place, command, arguments) = other_user("--regid=65533", reserve);
    output(&agent, command, &arguments);
    assert_eq!(reservations(&agent).len(), 1);
    agent.stop();
}

fn ask_over_tcp(agent: &Agent, method: &str, path: &str, body: &str) -> u16 {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(agent.address).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap()
}
