//! Connections whose addresses are translated on their way, beside others that are not: each end is
//! named after the program that is really there, or by its address; never after a bystander.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{edges, lacking, run, text};
use crate::agent::Agent;
use crate::namespace::{Namespace, Pair};
use crate::net;

/// The mark of connections that a rule leaves alone.
const MARK: u32 = 1337;
/// How long names may change until they are the right ones.
const SOON: Duration = Duration::from_secs(10);
/// And how long they must stay so: longer than two lists of the kernel's connections.
const STAYS: Duration = Duration::from_secs(2);

/// Client, server, port, role → connects that succeeded, and that were refused.
type Rows = BTreeMap<(String, String, u64, String), (u64, u64)>;

fn row(
    client: &str,
    server: &str,
    port: u16,
    role: &str,
    ok: u64,
) -> ((String, String, u64, String), (u64, u64)) {
    let names = (client.to_owned(), server.to_owned(), port.into(), role.to_owned());
    (names, (ok, 0))
}

/// The rows at these ports, of clients or servers.
fn rows(agent: &Agent, ports: &[u16]) -> Rows {
    let all = edges(agent);
    let is_ours = |edge: &&serde_json::Value| {
        // The agent's own port can have the same number.
        edge["role"] != "listener"
            && edge["server"] != "portolan"
            && ports.iter().any(|port| edge["port"].as_u64() == Some(u64::from(*port)))
    };
    let mut rows = Rows::new();
    for edge in all.iter().filter(is_ours) {
        let count = |result: &str| edge["connects"][result].as_u64().unwrap_or_default();
        let counts = (count("ok"), count("refused"));
        if counts != (0, 0) {
            let port = edge["port"].as_u64().unwrap_or_default();
            let key = (text(edge, "client"), text(edge, "server"), port, text(edge, "role"));
            rows.insert(key, counts);
        }
    }
    rows
}

/// Asks until exactly these rows are there, and then for some time more.
#[track_caller]
fn expect_rows(
    agent: &Agent,
    ports: &[u16],
    expected: impl IntoIterator<Item = ((String, String, u64, String), (u64, u64))>,
) {
    let expected: Rows = expected.into_iter().collect();
    let began = Instant::now();
    let mut right_since: Option<Instant> = None;
    loop {
        let found = rows(agent, ports);
        if found == expected {
            if right_since.get_or_insert_with(Instant::now).elapsed() > STAYS {
                return;
            }
        } else {
            assert!(right_since.is_none(), "no longer {expected:#?}, but {found:#?}");
            assert!(
                began.elapsed() < crate::facts::patience(SOON),
                "expected {expected:#?}, found {found:#?}\n{}",
                agent.json("/api/v1/status")["name_sources"]
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn agent() -> Agent {
    Agent::with(&[("names.conntrack", "true")])
}

/// Ports of this run, below the ephemeral ones: rows of the whole host are looked at, and others use
/// 8080 too.
fn ports<const N: usize>() -> [u16; N] {
    let first = 10_000 + (std::process::id() % 2_000 * 10) as u16;
    std::array::from_fn(|n| first + n as u16)
}

/// A name of this run, of at most 15 characters.
fn named(name: &str) -> String {
    format!("{name}{:x}", std::process::id() & 0xff_ffff)
}

/// A family: its address of a namespace, and how nft calls it.
type Family = (fn(&Namespace) -> IpAddr, &'static str);

/// Both families.
fn families() -> [Family; 2] {
    [(|one| one.v4.into(), "ip"), (|one| one.v6.into(), "ip6")]
}

fn any(ip: IpAddr) -> SocketAddr {
    if ip.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() }
}

/// `name` connects from a namespace, with a mark or without.
fn connect(from: &Namespace, name: &str, to: SocketAddr, mark: u32) -> std::io::Result<TcpStream> {
    from.act_as(name, || {
        let socket = net::socket_for(&to);
        if mark != 0 {
            SockRef::from(&socket).set_mark(mark)?;
        }
        socket.connect(&to.into())?;
        Ok(TcpStream::from(socket))
    })
}

fn listen(at: &Namespace, name: &str, ip: IpAddr) -> TcpListener {
    at.act_as(name, || TcpListener::bind(any(ip))).expect("listening in a namespace of ours")
}

/// `output` rules of address translation in a namespace.
fn translate(at: &Namespace, family: &str, rules: &str) {
    at.nft(&format!(
        "table {family} t {{\nchain o {{\ntype nat hook output priority -100;\n{rules}\n}}\n}}\n"
    ));
}

macro_rules! needs_translation {
    () => {
        needs_kernel!();
        if let Some(program) = lacking(&["nft"]) {
            println!("SKIPPED: {program} is not installed");
            return;
        }
    };
}

/// A mesh: what a program connects to is redirected to its sidecar, which connects there itself.
fn sidecar(address: fn(&Namespace) -> IpAddr, family: &str) {
    let pair = Pair::new();
    let agent = agent();
    let (page, side, server) = (named("page"), named("side"), &pair.server.service);
    let ip = address(&pair.server);
    let (reviews, inbound) = (listen(&pair.server, server, ip), listen(&pair.client, &side, ip));
    let (port, own) = (net::port(&reviews), net::port(&inbound));
    translate(
        &pair.client,
        family,
        &format!("meta mark {MARK} return\ntcp dport {port} redirect to :{own}"),
    );
    let to = SocketAddr::new(ip, port);
    for _ in 0..5 {
        let asked = connect(&pair.client, &page, to, 0).expect("the sidecar listens");
        let inside = net::accept(&inbound);
        let outside = connect(&pair.client, &side, to, MARK).expect("the server listens");
        drop((net::accept(&reviews), outside, inside, asked));
    }
    expect_rows(
        &agent,
        &[port, own],
        [
            row(&page, &side, port, "client", 5),
            row(&page, &side, own, "server", 5),
            row(&side, server, port, "client", 5),
            row(&side, server, port, "server", 5),
        ],
    );
    agent.stop();
}

#[test]
fn a_sidecars_redirected_and_own_connections_have_the_same_right_names_at_every_run() {
    needs_translation!();
    let [(four, ip), _] = families();
    // Ten runs take most of a minute: `PORTOLAN_TEST_LONG=1`.
    let runs = if std::env::var_os("PORTOLAN_TEST_LONG").is_some() { 10 } else { 3 };
    (0..runs).for_each(|_| sidecar(four, ip));
}

#[test]
fn a_sidecars_connections_have_their_right_names_over_ipv6() {
    needs_translation!();
    let [_, (six, ip6)] = families();
    sidecar(six, ip6);
}

#[test]
fn one_virtual_address_in_two_namespaces_leads_to_the_backend_of_each() {
    needs_translation!();
    for (address, family) in families() {
        let (one, two) = (Pair::new(), Pair::new());
        let agent = agent();
        let virtual_ip: IpAddr = if family == "ip" {
            [10, 96, 0, 10].into()
        } else {
            [0xfd96, 0, 0, 0, 0, 0, 0, 10].into()
        };
        let (ports, mut expected) = (ports::<2>(), Vec::new());
        let [first, second] = ports;
        for pair in [&one, &two] {
            let (ip, server) = (address(&pair.server), &pair.server.service);
            let listener = listen(&pair.server, server, ip);
            // Nobody listens where the second one's first port leads to.
            let closed = if pair.client.name == two.client.name { 1 } else { net::port(&listener) };
            let open = net::port(&listener);
            let target = if family == "ip" { ip.to_string() } else { format!("[{ip}]") };
            let length = if family == "ip" { 32 } else { 128 };
            let name = &pair.client.name;
            run(Command::new("ip").args(["-n", name, "route", "add"]).args([
                format!("{virtual_ip}/{length}"),
                "dev".to_owned(),
                "veth0".to_owned(),
                "via".to_owned(),
                ip.to_string(),
            ]));
            translate(
                &pair.client,
                family,
                &format!(
                    "{family} daddr {virtual_ip} tcp dport {first} dnat to {target}:{closed}\n\
                     {family} daddr {virtual_ip} tcp dport {second} dnat to {target}:{open}"
                ),
            );
            let client = &pair.client.service;
            for port in ports {
                for _ in 0..4 {
                    let to = SocketAddr::new(virtual_ip, port);
                    match connect(&pair.client, client, to, 0) {
                        Ok(stream) => drop((net::accept(&listener), stream)),
                        Err(error) => {
                            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
                        }
                    }
                }
            }
            expected.push(row(client, server, second, "client", 4));
            if closed == 1 {
                let (names, _) = row(client, &virtual_ip.to_string(), first, "client", 0);
                expected.push((names, (0, 4)));
            } else {
                expected.push(row(client, server, first, "client", 4));
            }
            let at_server = if closed == 1 { 4 } else { 8 };
            let found = || rows(&agent, &[open]);
            let wanted = BTreeMap::from([row(client, server, open, "server", at_server)]);
            super::until(&format!("the server says {wanted:?}"), || found() == wanted);
        }
        expect_rows(&agent, &ports, expected);
        agent.stop();
    }
}

#[test]
fn an_untranslated_connection_to_a_translated_address_is_its_own_and_who_does_both_shows_the_address()
 {
    needs_translation!();
    for (address, family) in families() {
        let pair = Pair::new();
        let agent = agent();
        let ip = address(&pair.server);
        let [there, elsewhere, near, far, both] =
            ["there", "else", "near", "far", "both"].map(named);
        let (real, other) =
            (listen(&pair.server, &there, ip), listen(&pair.server, &elsewhere, ip));
        let (port, target) = (net::port(&real), net::port(&other));
        let literal = if ip.is_ipv4() { ip.to_string() } else { format!("[{ip}]") };
        translate(
            &pair.client,
            family,
            &format!("meta mark {MARK} return\ntcp dport {port} dnat to {literal}:{target}"),
        );
        let to = SocketAddr::new(ip, port);
        for _ in 0..3 {
            for (name, mark) in [(&near, MARK), (&both, MARK), (&far, 0), (&both, 0)] {
                let client = connect(&pair.client, name, to, mark).expect("both listen");
                drop((net::accept(if mark == 0 { &other } else { &real }), client));
            }
        }
        let from = address(&pair.client).to_string();
        expect_rows(
            &agent,
            &[port, target],
            [
                row(&near, &there, port, "client", 3),
                row(&near, &there, port, "server", 3),
                row(&far, &elsewhere, port, "client", 3),
                row(&both, &ip.to_string(), port, "client", 6),
                row(&both, &there, port, "server", 3),
                // Two clients behind the address of their namespace.
                row(&from, &elsewhere, target, "server", 6),
            ],
        );
        agent.stop();
    }
}

/// Client — router — server, where the router also runs a proxy, as a host of containers does.
struct Host {
    /// Its server is the router.
    outside: Pair,
    /// Its server is the server; its client is left alone.
    inside: Pair,
    /// The router's and the server's address on the link between them.
    link: [IpAddr; 2],
}

impl Host {
    fn new(family: &str, number: u8) -> Self {
        let (outside, inside) = (Pair::new(), Pair::new());
        let (router, server) = (&outside.server.name, &inside.server.name);
        let tag = (std::process::id() & 0xff) as u8;
        let link: [IpAddr; 2] = if family == "ip" {
            [1, 2].map(|host| IpAddr::from([172, 29, tag, 16 * number + host]))
        } else {
            [1, 2].map(|host| IpAddr::from([0xfd29, tag.into(), number.into(), 0, 0, 0, 0, host]))
        };
        let ip = |arguments: &str| {
            run(Command::new("ip").args(arguments.split_whitespace()));
        };
        let length = if family == "ip" { "30" } else { "64" };
        let option = if family == "ip" { "" } else { "nodad" };
        ip(&format!("link add in0 netns {router} type veth peer name in0 netns {server}"));
        for (name, address) in [(router, link[0]), (server, link[1])] {
            ip(&format!("-n {name} addr add {address}/{length} dev in0 {option}"));
            ip(&format!("-n {name} link set in0 up"));
        }
        let client = &outside.client.name;
        let gateway: IpAddr =
            if family == "ip" { outside.server.v4.into() } else { outside.server.v6.into() };
        let only = if family == "ip" { "-4" } else { "-6" };
        ip(&format!("-n {client} {only} route add default via {gateway}"));
        ip(&format!("-n {server} {only} route add default via {}", link[0]));
        outside.server.sysctl("ipv4/ip_forward", "1");
        outside.server.sysctl("ipv6/conf/all/forwarding", "1");
        Self { outside, inside, link }
    }
}

#[test]
fn behind_a_proxy_and_behind_translation_the_server_names_its_real_clients() {
    needs_translation!();
    if let Some(program) = lacking(&["socat", "ss"]) {
        println!("SKIPPED: {program} is not installed");
        return;
    }
    for (number, (address, family)) in (0..).zip(families()) {
        let host = Host::new(family, number);
        let agent = agent();
        let (client, router, server) =
            (&host.outside.client, &host.outside.server, &host.inside.server);
        let ip = address(router);
        let listener = listen(server, &server.service, ip);
        let port = net::port(&listener);
        let literal = |ip: IpAddr| if ip.is_ipv4() { ip.to_string() } else { format!("[{ip}]") };
        let target = format!("{}:{port}", literal(host.link[1]));
        let [published] = ports();
        // As Docker does it: the proxy has the port, and only loopback traffic reaches it. What the
        // router itself connects to arrives from the address that the proxy has there.
        router.nft(&format!(
            "table {family} t {{\n\
             chain p {{\ntype nat hook prerouting priority -100;\n\
             {family} daddr {ip} tcp dport {published} dnat to {target}\n}}\n\
             chain o {{\ntype nat hook output priority -100;\n\
             {family} daddr {ip} tcp dport {published} dnat to {target}\n}}\n\
             chain s {{\ntype nat hook postrouting priority 100;\n\
             {family} saddr {ip} oif in0 masquerade\n}}\n}}\n"
        ));
        let kind = if family == "ip" { "TCP4" } else { "TCP6" };
        let mut socat = router.command("socat");
        socat
            .arg(format!("{kind}-LISTEN:{published},fork,reuseaddr"))
            .arg(format!("{kind}:{target}"));
        let mut socat = socat.stdin(Stdio::null()).spawn().expect("socat is installed");
        super::until("socat listens", || {
            let output = router
                .command("ss")
                .args(["-Htln", format!("sport = :{published}").as_str()])
                .output();
            !output.expect("ss is installed").stdout.is_empty()
        });
        let [local, guest, user] = ["local", "guest", "user"].map(named);
        let loopback: IpAddr = if family == "ip" {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        };
        for _ in 0..5 {
            let stream = connect(router, &user, SocketAddr::new(loopback, published), 0);
            drop((net::accept(&listener), stream.expect("socat listens")));
        }
        for (from, name) in [(router, &local), (client, &guest)] {
            for _ in 0..3 {
                let stream = connect(from, name, SocketAddr::new(ip, published), 0);
                drop((net::accept(&listener), stream.expect("it is translated")));
            }
        }
        expect_rows(
            &agent,
            &[port],
            [
                row("socat", &server.service, port, "client", 5),
                row("socat", &server.service, port, "server", 5),
                row(&local, &server.service, port, "server", 3),
                row(&guest, &server.service, port, "server", 3),
            ],
        );
        expect_rows(
            &agent,
            &[published],
            [
                row(&user, "socat", published, "client", 5),
                row(&user, "socat", published, "server", 5),
                row(&local, &server.service, published, "client", 3),
                row(&guest, &server.service, published, "client", 3),
            ],
        );
        // A second one of the router behind the same address: nobody can tell them apart.
        let stream = connect(router, &user, SocketAddr::new(ip, published), 0);
        drop((net::accept(&listener), stream.expect("it is translated")));
        let from = host.link[0].to_string();
        expect_rows(
            &agent,
            &[port],
            [
                row("socat", &server.service, port, "client", 5),
                row("socat", &server.service, port, "server", 5),
                row(&from, &server.service, port, "server", 4),
                row(&guest, &server.service, port, "server", 3),
            ],
        );
        let _ = socat.kill();
        let _ = socat.wait();
        agent.stop();
    }
}
