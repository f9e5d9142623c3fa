//! Unprivileged users who want to be taken for somebody else: with an address that is not theirs,
//! with a cgroup that is called like a container or a unit.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use linux::hierarchy::Hierarchy;

use crate::agent::Agent;
use crate::delegated::{Delegated, USER};
use crate::facts::patience;
use crate::namespace::{Namespace, Pair};
use crate::net;

/// An address of no interface but an impostor's: routed to the server's namespace, and local there.
const VICTIM: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 50);
const WITHIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// Listens on a port of all addresses, connects to one, and says so: name, port, address.
const LISTEN: &str = "\
import ctypes, socket, sys, time
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
listener = socket.create_server(('0.0.0.0', int(sys.argv[2])))
client = socket.create_connection((sys.argv[3], int(sys.argv[2])))
print('ready', flush=True)
time.sleep(600)";

/// Connects to an address and a port under a name, and says so.
const CONNECT: &str = "\
import ctypes, socket, sys, time
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
client = socket.create_connection((sys.argv[2], int(sys.argv[3])))
print('ready', flush=True)
time.sleep(600)";

/// Connects again and again between the same addresses and ports, under a name: name, client's
/// address and port, server's.
const FORGE: &str = "\
import ctypes, socket, sys, time
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
listener = socket.create_server((sys.argv[4], int(sys.argv[5])))
said = False
while True:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\\1\\0\\0\\0\\0\\0\\0\\0')
    client.bind((sys.argv[2], int(sys.argv[3])))
    client.connect((sys.argv[4], int(sys.argv[5])))
    listener.accept()[0].close()
    client.close()
    if not said:
        print('ready', flush=True)
        said = True
    time.sleep(0.02)";

/// Ways to have an address in a namespace of one's own.
const CLAIMS: [(&str, &str); 3] = [
    ("loopback", "ip addr add $A/32 dev lo"),
    ("bridge", "ip link add br1 type bridge && ip addr add $A/32 dev br1 && ip link set br1 up"),
    (
        "veth to another namespace of the user",
        "unshare --net sleep 60 & \
         until [ $(readlink /proc/$!/ns/net) != $(readlink /proc/self/ns/net) ]; do sleep 0.05; done; \
         ip link add veth1 type veth peer name veth2 netns $! && ip addr add $A/24 dev veth1 && \
         ip link set veth1 up && nsenter -t $! -n ip link set veth2 up",
    ),
];

/// A process of that user that is ready; it ends when dropped.
pub struct Impostor(Child);

impl Impostor {
    /// Starts it, and waits until it is ready.
    pub fn start(mut command: Command) -> Result<Self, String> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|error| format!("starting {command:?}: {error}"))?;
        let mut said = String::new();
        let output = child.stdout.take().expect("stdout is piped");
        BufReader::new(output).read_line(&mut said).expect("what it says is UTF-8");
        if said.trim() == "ready" {
            return Ok(Self(child));
        }
        let output = child.wait_with_output().expect("waiting for a program we started");
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Called `name`, claims `address` in a user and a network namespace of its own, and listens
    /// on `port` there; `prepare` gives it the address.
    fn claim(prepare: &str, address: Ipv4Addr, port: u16, name: &str) -> Result<Self, String> {
        let script = format!(
            "ip link set lo up && {prepare} && exec python3 -c \"$LISTEN\" {name} {port} {address}"
        );
        let mut command = as_user();
        command.args(["unshare", "--user", "--map-root-user", "--net", "sh", "-c", &script]);
        command.env("A", address.to_string()).env("LISTEN", LISTEN);
        Self::start(command)
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that the user will run.
pub fn as_user() -> Command {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={USER}"), format!("--regid={USER}")]).arg("--clear-groups");
    command
}

/// Why there are no impostors here.
pub fn no_impostors() -> Option<String> {
    let tried = Impostor::claim("true", Ipv4Addr::LOCALHOST, 4711, "impostor");
    tried.err().map(|why| format!("a user cannot make namespaces here: {why}"))
}

fn ip(namespace: &Namespace, arguments: &str) {
    let status = namespace.command("ip").args(arguments.split_whitespace()).status();
    assert!(status.expect("starting ip").success(), "ip {arguments}");
}

/// A name of this process and this test of at most 15 characters.
pub fn name(short: &str) -> String {
    format!("{short}-{:x}", std::process::id() & 0xff_ffff)
}

/// Edges of one role on a port, each as client, server, and how the server's name was found.
fn edges(agent: &Agent, port: u16, role: &str) -> Vec<[String; 3]> {
    let answer = agent.json("/api/v1/edges");
    let edges = answer["edges"].as_array().expect("a list of edges").iter();
    let text =
        |edge: &serde_json::Value, field: &str| edge[field].as_str().unwrap_or_default().to_owned();
    let ours = edges.filter(|edge| edge["port"] == port && edge["role"] == role);
    let mut found: Vec<_> = ours
        .map(|edge| ["client", "server", "server_source"].map(|field| text(edge, field)))
        .collect();
    found.sort_unstable();
    found
}

#[track_caller]
fn expect(what: &str, agent: &Agent, port: u16, role: &str, expected: &[[&str; 3]]) {
    let began = Instant::now();
    loop {
        let found = edges(agent, port, role);
        if found == expected {
            return;
        }
        assert!(
            began.elapsed() < patience(WITHIN),
            "{what}: expected {expected:?}, found {found:?}"
        );
        std::thread::sleep(PAUSE);
    }
}

#[test]
fn who_claims_an_address_is_never_the_server_of_others() {
    needs_kernel!();
    if let Some(why) = no_impostors() {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    ip(&pair.client, &format!("route add {VICTIM}/32 via {}", pair.server.v4));
    ip(&pair.server, &format!("route add local {VICTIM}/32 dev lo"));
    let victim = VICTIM.to_string();
    for (index, (what, prepare)) in (0..).zip(CLAIMS) {
        let port = 4720 + index;
        let vault = name(&format!("vault{index}"));
        let _impostor = Impostor::claim(prepare, VICTIM, port, &vault).expect("a claim");
        let agent = Agent::start();
        let listener = pair.server.listen(("0.0.0.0", port));
        let open = pair.client.connect((VICTIM, port)).expect("a connection");
        let served = net::accept(&listener);
        let client = &*pair.client.service;
        // Its own connections say that the agent knows the impostor and its address.
        let mut expected = vec![[client, &*victim, "address"], [&*vault, &*vault, "listener"]];
        expected.sort_unstable();
        expect(what, &agent, port, "client", &expected);
        drop((open, served));
        agent.stop();
    }
}

#[test]
fn a_claim_takes_no_name_from_who_has_the_address() {
    needs_kernel!();
    if let Some(why) = no_impostors() {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let [_, (_, prepare), _] = CLAIMS;
    let (port, vault) = (4730, name("vault"));
    let _impostor = Impostor::claim(prepare, pair.server.v4, port, &vault).expect("a claim");
    let agent = Agent::start();
    let _listener = pair.server.listen(("0.0.0.0", port));
    let open = pair.client.connect((pair.server.v4, port)).expect("a connection");
    let (client, server) = (&*pair.client.service, &*pair.server.service);
    let mut expected = vec![[client, server, "listener"], [&*vault, &*vault, "listener"]];
    expected.sort_unstable();
    expect("the holder's", &agent, port, "client", &expected);
    drop(open);
    agent.stop();
}

#[test]
fn a_service_in_a_users_namespace_has_its_name_where_connections_arrive() {
    needs_kernel!();
    if let Some(why) = no_impostors() {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let (port, service) = (4712, name("inner"));
    let inside = Impostor::claim("true", Ipv4Addr::LOCALHOST, port, &service).expect("a namespace");
    // As root connects a container that has a user namespace of its own.
    let pid = inside.0.id().to_string();
    ip(&pair.client, &format!("link add inner0 type veth peer name eth0 netns {pid}"));
    ip(&pair.client, "addr add 192.0.2.1/30 dev inner0");
    ip(&pair.client, "link set inner0 up");
    for arguments in ["addr add 192.0.2.2/30 dev eth0", "link set eth0 up"] {
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid, "-n", "ip"]).args(arguments.split_whitespace());
        assert!(command.status().expect("starting nsenter").success(), "{arguments}");
    }
    let agent = Agent::start();
    let address: SocketAddr = "192.0.2.2:4712".parse().expect("an address");
    let open = pair.client.connect(address).expect("a connection");
    let client = &*pair.client.service;
    let mut expected = vec![[client, &*service, "listener"], [&*service, &*service, "listener"]];
    expected.sort_unstable();
    expect("reached", &agent, port, "client", &expected);
    drop(open);
    agent.stop();
}

#[test]
fn a_connection_between_the_same_addresses_elsewhere_leaves_no_note_for_this_one() {
    needs_kernel!();
    if let Some(why) = no_impostors() {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let (port, client_port, service) = (4740, 4741, name("forger"));
    // The server sees its client under another address, as one of another host: no note is for it.
    let [a, b, c, _] = pair.client.v4.octets();
    let seen_as = Ipv4Addr::new(a, b, c, 77);
    ip(&pair.client, &format!("addr add {seen_as}/24 dev veth0"));
    pair.client.nft(&format!(
        "table ip nat {{\nchain post {{\ntype nat hook postrouting priority 100;\n\
         tcp dport {port} snat to {seen_as}:{client_port}\n}}\n}}\n"
    ));
    let script = format!(
        "ip link set lo up && ip addr add {seen_as}/32 dev lo && ip addr add {0}/32 dev lo && \
         exec python3 -c \"$FORGE\" {service} {seen_as} {client_port} {0} {port}",
        pair.server.v4
    );
    let mut command = as_user();
    command.args(["unshare", "--user", "--map-root-user", "--net", "sh", "-c", &script]);
    let agent = Agent::start();
    let _forger = Impostor::start({
        command.env("FORGE", FORGE);
        command
    })
    .expect("a forger");
    let listener = pair.server.listen(("0.0.0.0", port));
    let open = pair.client.connect((pair.server.v4, port)).expect("a connection");
    let served = net::accept(&listener);
    let seen = served.peer_addr().expect("it is connected");
    assert_eq!(seen, (seen_as, client_port).into(), "the forger writes where this one looks");
    let server = &*pair.server.service;
    let began = Instant::now();
    loop {
        let edges = edges(&agent, port, "server");
        let of = |server: &str| -> Vec<String> {
            let ours = edges.iter().filter(|[_, at, _]| at == server);
            ours.map(|[client, ..]| client.clone()).collect()
        };
        let (forgers, ours) = (of(&service), of(server));
        assert!(!ours.contains(&service), "{edges:?}");
        if forgers == [service.clone()] && ours.len() == 1 {
            let right = [seen_as.to_string(), pair.client.service.clone()];
            assert!(right.contains(&ours[0]), "{edges:?}");
            break;
        }
        assert!(began.elapsed() < patience(WITHIN), "{edges:?}");
        std::thread::sleep(PAUSE);
    }
    drop((open, served));
    agent.stop();
}

#[test]
fn a_cgroup_that_a_user_made_names_no_container_and_no_unit() {
    needs_kernel!();
    let Ok(Some(hierarchy)) = Hierarchy::find() else {
        println!("SKIPPED: no cgroup2 file system is mounted");
        return;
    };
    let pair = Pair::new();
    let id = "5ec0".repeat(16);
    let given = Delegated::new(hierarchy.mount(), &name("given"));
    let mut impostors = Vec::new();
    let mut expected = Vec::new();
    let agent = Agent::with(&[("names.units", "true")]);
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let folders = [
        format!("docker-{id}.scope"),
        format!("kubepods/pod1b2c0a8c-1111-2222-3333-444455556666/{id}"),
        "system.slice/payment.service".to_owned(),
        "user@0.service/app.slice/payment.service".to_owned(),
        "machine.slice/systemd-nspawn@box.service/payload/system.slice/payment.service".to_owned(),
    ];
    for (index, folder) in (0..).zip(&folders) {
        let comm = name(&format!("own{index}"));
        let folder = given.0.join(folder);
        let folder = folder.display();
        let script = format!(
            "mkdir -p {folder} && echo $$ >{folder}/cgroup.procs && \
             exec python3 -c \"$CONNECT\" {comm} {} {port}",
            pair.server.v4
        );
        let mut command = given.shell(&pair.client, &script);
        command.env("CONNECT", CONNECT);
        impostors.push(Impostor::start(command).expect("a process in a cgroup of its own"));
        expected.push(comm);
    }
    let server = &*pair.server.service;
    let mut expected: Vec<[&str; 3]> =
        expected.iter().map(|comm| [&**comm, server, "listener"]).collect();
    expected.sort_unstable();
    expect("clients", &agent, port, "client", &expected);
    let served: Vec<TcpStream> = expected.iter().map(|_| net::accept(&listener)).collect();
    drop((served, impostors));
    agent.stop();
}
