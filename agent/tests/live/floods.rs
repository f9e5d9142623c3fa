//! Floods with tables of default sizes, one after the other and all at once: what each costs another
//! namespace that makes 100 connections a second. Takes minutes, so it needs `PORTOLAN_TEST_LONG=1`;
//! what it prints is the table in docs/proof.md.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::facts;
use crate::namespace::{Namespace, Pair};
use crate::net;
use crate::scrape::Scrape;

/// How often the agent is scraped during a flood.
const SCRAPED_EVERY: Duration = Duration::from_millis(500);
/// A scrape takes at most so long meanwhile.
const SCRAPED_WITHIN: Duration = Duration::from_secs(1);
/// When nothing of a flood is left, there is room again within so long.
const ROOM_WITHIN: Duration = Duration::from_secs(30);

/// Connects 100 times a second under a name until its input ends; prints how often.
const VICTIM: &str = "
import ctypes, socket, sys, threading, time
ctypes.CDLL(None).prctl(15, sys.argv[3].encode(), 0, 0, 0)
stop = []
threading.Thread(target=lambda: (sys.stdin.read(), stop.append(1)), daemon=True).start()
made, at = 0, time.monotonic()
while not stop:
    with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as s:
        s.send(b'x')
        s.recv(1)
    made += 1
    at = max(at + 0.01, time.monotonic())
    time.sleep(max(0, at - time.monotonic()))
print(made)
";

const CONNECT: &str = "
import ctypes, os, socket, sys
def connect(address, port, family=socket.AF_INET):
    with socket.socket(family) as s:
        s.setblocking(0)
        try: s.connect((address, port))
        except OSError: pass
";

const PORTS: &str = "
for port in range(1, 65536): connect('127.0.0.1', port)";

const ADDRESSES: &str = "
for i in range(100000): connect('127.%d.%d.%d' % (9 + (i >> 16), i >> 8 & 255, i & 255), 9)";

const OWNERS: &str = "
libc = ctypes.CDLL(None)
for i in range(100000):
    libc.prctl(15, b'o%d' % i, 0, 0, 0)
    connect('127.9.9.9', 9)";

/// Below two levels, as those of a user are.
const CGROUPS: &str = "
for i in range(10000):
    folder = sys.argv[1] + '/%d' % i
    os.mkdir(folder)
    open(folder + '/cgroup.procs', 'w').write(str(os.getpid()))
    connect('127.9.9.9', 9)";

/// Addresses of one /64 that are all this host's.
const CLIENTS: &str = "
for i in range(1, 10001):
    with socket.socket(socket.AF_INET6) as s:
        s.setsockopt(41, 78, 1)
        s.bind(('fd77::%x' % i, 0))
        s.connect((sys.argv[1], int(sys.argv[2])))";

/// A user's network namespaces.
const NAMESPACES: &str = "for n in $(seq 400); do unshare --user --map-root-user --net bash -c \
    'ip link set lo up; for p in $(seq 50); do : < /dev/tcp/127.0.0.1/$p; done' 2>/dev/null; done";

/// Connects of another namespace, and what was counted of them.
struct Victim {
    client: Child,
    until: ChildStdin,
    /// Names of both ends.
    names: [String; 2],
    port: u16,
}

/// A cgroup, for a flood to make its own below.
struct Folder(PathBuf);

// === impl Victim ===

impl Victim {
    fn start(pair: &Pair) -> Self {
        let listener = pair.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        thread::spawn(move || {
            while let Ok((mut client, _)) = listener.accept() {
                let _ = net::answer(&mut client, 1, 1, Duration::ZERO);
            }
        });
        let mut command = pair.client.command("python3");
        let names = [&pair.client, &pair.server].map(|end| end.service.clone());
        command.args(["-c", VICTIM, &pair.server.v4.to_string(), &port.to_string(), &names[0]]);
        let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it");
        let until = client.stdin.take().expect("stdin is piped");
        Self { client, until, names, port }
    }

    /// Ends it; how often it connected, which is what both sides counted under both names.
    fn end(self, agent: &Agent) -> u64 {
        let Self { mut client, until, names: [from, to], port } = self;
        drop(until);
        let mut made = String::new();
        client.stdout.take().expect("piped").read_to_string(&mut made).expect("a number");
        client.wait().expect("it ended");
        let made = made.trim().parse().expect("a number");
        agent.eventually((made, made, made), |now| {
            let of = |role| now.edge(&from, &to, port, role);
            let answered = of("client").requests().count;
            (of("client").connects("ok"), of("server").connects("ok"), answered)
        });
        made
    }
}

// === impl Folder ===

impl Folder {
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let tree = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let tree = tree.into_iter().find(|fields| fields.get(2) == Some(&"cgroup2"))?;
        let top = PathBuf::from(tree[1]).join(format!("portolan-{}", std::process::id()));
        fs::create_dir_all(top.join("user")).ok()?;
        Some(Self(top))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let user = self.0.join("user");
        for folder in fs::read_dir(&user).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(folder.path());
        }
        let _ = fs::remove_dir(user);
        let _ = fs::remove_dir(&self.0);
    }
}

fn python(namespace: &Namespace, flood: &str, arguments: &[&str]) -> Command {
    let mut command = namespace.command("python3");
    command.args(["-c", &format!("{CONNECT}{flood}")]).args(arguments);
    command
}

/// How full the tables are that one flood can fill, as a part of a thousand.
fn fullest(now: &Scrape) -> u64 {
    let part = |map| {
        let of = |metric| now.sum(metric, &[("map", map)]);
        of("portolan_map_entries") * 1000 / of("portolan_map_capacity").max(1)
    };
    ["edges", "owners", "listeners", "unsent_connects"].map(part).into_iter().max().unwrap_or(0)
}

/// Runs floods at once beside the victim, and prints what they cost.
fn check(agent: &Agent, name: &str, floods: Vec<Command>) {
    let pair = Pair::new();
    let victim = Victim::start(&pair);
    let (mut longest, mut failed, mut most, mut full) = (Duration::ZERO, 0, 0, 0);
    let start = |mut flood: Command| flood.spawn().expect("a flood");
    let mut floods: Vec<Child> = floods.into_iter().map(start).collect();
    let began = Instant::now();
    while !floods.is_empty() {
        floods.retain_mut(|flood| flood.try_wait().expect("a child of ours").is_none());
        let asked = Instant::now();
        let (status, text) = agent.get("/metrics").expect("an answer");
        longest = longest.max(asked.elapsed());
        if status != 200 {
            failed += 1;
            continue;
        }
        let now = Scrape::parse(&text);
        let resident = now.sum("process_resident_memory_bytes", &[]) >> 20;
        (most, full) = (most.max(resident), full.max(fullest(&now)));
        thread::sleep(SCRAPED_EVERY);
    }
    let took = began.elapsed();
    let ended = Instant::now();
    while fullest(&agent.scrape()) > 625 {
        assert!(ended.elapsed() < facts::patience(ROOM_WITHIN), "{name}: no room");
        thread::sleep(SCRAPED_EVERY);
    }
    let room = ended.elapsed();
    let made = victim.end(agent);
    println!(
        "| {name} | {:.0} s | {:.0} % | {made} of {made} | {} ms, {failed} failed | {most} MiB | {:.1} s |",
        took.as_secs_f64(),
        full as f64 / 10.0,
        longest.as_millis(),
        room.as_secs_f64(),
    );
    // The agent is built as this test is; without optimisation it takes several times as long.
    let is_slow = failed > 0 || longest >= facts::patience(SCRAPED_WITHIN);
    assert!(
        !is_slow || cfg!(debug_assertions),
        "{name}: a scrape took {longest:?}, {failed} had no answer"
    );
}

#[test]
fn floods_with_default_sizes_cost_another_namespace_nothing() {
    needs_kernel!();
    if std::env::var_os("PORTOLAN_TEST_LONG").is_none() {
        println!("SKIPPED: takes minutes; PORTOLAN_TEST_LONG=1 runs it");
        return;
    }
    let agent = Agent::start();
    let (flooder, clients) = (Pair::new(), Pair::new());
    let listener = clients.server.listen("[::]:0");
    let port = net::port(&listener).to_string();
    thread::spawn(move || listener.incoming().for_each(drop));
    let (client_v6, server_v6) = (clients.client.v6.to_string(), clients.server.v6.to_string());
    for (end, route) in [
        (&clients.client, "local fd77::/64 dev lo".to_owned()),
        (&clients.server, format!("fd77::/64 via {client_v6}")),
    ] {
        let mut ip = end.command("ip");
        let status = ip.args(["-6", "route", "add"]).args(route.split(' ')).status();
        assert!(status.expect("ip runs").success(), "{route}");
    }
    let folder = Folder::new();
    let below = folder.as_ref().map(|folder| folder.0.join("user").display().to_string());
    let of = |name: &str| match name {
        "65 535 ports" => Some(python(&flooder.client, PORTS, &[])),
        "100 000 addresses" => Some(python(&flooder.client, ADDRESSES, &[])),
        "100 000 command names" => Some(python(&flooder.client, OWNERS, &[])),
        "10 000 cgroups" => Some(python(&flooder.client, CGROUPS, &[below.as_deref()?])),
        "10 000 clients of a /64" => Some(python(&clients.client, CLIENTS, &[&server_v6, &port])),
        _ => {
            let mut user = Command::new("setpriv");
            user.args(["--reuid=1500", "--regid=1500", "--clear-groups", "bash", "-c", NAMESPACES]);
            Some(user)
        }
    };
    let names = [
        "65 535 ports",
        "100 000 addresses",
        "100 000 command names",
        "10 000 cgroups",
        "10 000 clients of a /64",
        "400 namespaces of a user",
    ];
    println!(
        "| flood | takes | fullest table | victim's connections | slowest scrape | RSS | room after |"
    );
    println!("|---|---|---|---|---|---|---|");
    for name in names {
        match of(name) {
            Some(flood) => check(&agent, name, vec![flood]),
            None => println!("SKIPPED: {name}: no cgroup2 tree to write to"),
        }
    }
    drop(folder);
    let folder = Folder::new();
    check(&agent, "all at once", names.iter().filter_map(|name| of(name)).collect());
    drop(folder);
    agent.ledger_adds_up();
    agent.stop();
}
