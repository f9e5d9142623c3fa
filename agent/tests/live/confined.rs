//! An agent with few resources: descriptors, memory, BPF file system; many sockets, and other
//! tools. In every case the host is unchanged afterwards.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::agent::{Agent, Start};
use crate::bpftrace::Bpftrace;
use crate::facts::{KernelObjects, is_emulated};
use crate::namespace::{self, Pair};
use crate::net;
use crate::scrape::Scrape;

/// The limit of descriptors in [`with_few_descriptors_it_goes_on`].
const DESCRIPTORS: u64 = 64;

#[test]
fn with_few_descriptors_it_goes_on() {
    needs_kernel!();
    let before = KernelObjects::now();
    let pair = Pair::new();
    let start = Start { descriptors: Some(DESCRIPTORS), ..Start::default() };
    let agent = match Agent::try_launch(&start) {
        Ok(agent) => agent,
        // Programs, links and tables are descriptors: with too few of them it refuses to start and
        // says so.
        Err(why) => {
            println!("it refused: {why}");
            assert!(why.contains("Too many open files"), "{why}");
            before.nothing_new_stays();
            return;
        }
    };
    // More clients than it has descriptors left; each holds its connection.
    let mut clients: Vec<TcpStream> = Vec::new();
    for _ in 0..2 * DESCRIPTORS {
        clients.extend(TcpStream::connect(agent.address));
    }
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    for _ in 0..10 {
        drop(pair.client.connect((pair.server.v4, port)).unwrap());
        drop(net::accept(&listener));
    }
    drop(clients);
    // Counting needs no descriptor; names of remote ends do, and may be missing.
    agent.eventually((10, 10), |now| both(now, port));
    agent.stop();
    before.nothing_new_stays();
}

/// Connections that the clients and the server of a port have, whatever these are called.
fn both(now: &Scrape, port: u16) -> (u64, u64) {
    let port = port.to_string();
    let ok = |role| now.edges(&[("port", &port), ("role", role)]).connects("ok");
    (ok("client"), ok("server"))
}

/// Where cgroups of memory are, and the file of their limit.
const LIMITS: [(&str, &str); 2] =
    [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];

/// A memory cgroup with a limit, of either version.
pub struct Memory(PathBuf);

impl Memory {
    /// A cgroup with this memory limit, or why there is none.
    pub fn new(name: &str, bytes: u64) -> Result<Self, String> {
        let mut why = String::from("no memory controller");
        for (root, file) in LIMITS {
            let enable = Path::new(root).join("cgroup.subtree_control");
            let _ = fs::write(enable, "+memory");
            let group = Path::new(root).join(format!("{name}-{}", std::process::id()));
            if fs::create_dir(&group).is_err() {
                continue;
            }
            let group = Self(group);
            match fs::write(group.0.join(file), bytes.to_string()) {
                Ok(()) => return Ok(group),
                Err(error) => why = format!("{root}: {error}"),
            }
        }
        Err(why)
    }

    /// Sets the limit.
    pub fn limit(&self, bytes: u64) {
        let file = LIMITS.iter().map(|(_, file)| self.0.join(file)).find(|file| file.exists());
        fs::write(file.expect("a limit"), bytes.to_string()).expect("a limit above what is used");
    }

    /// The file that moves a process into it.
    pub fn processes(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// OOM kills in it.
    pub fn kills(&self) -> u64 {
        ["memory.oom_control", "memory.events"]
            .iter()
            .filter_map(|name| fs::read_to_string(self.0.join(name)).ok())
            .filter_map(|text| {
                text.lines()
                    .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
            })
            .sum()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn with_little_memory_it_works_or_ends_and_leaves_nothing() {
    needs_kernel!();
    // BTF alone takes some megabytes while it starts: with too little it exits by itself or by the
    // OOM killer, and leaves nothing.
    for (bytes, must_work) in [(256 << 20, true), (32 << 20, false), (4 << 20, false)] {
        let before = KernelObjects::now();
        let group = match Memory::new("portolan-proof", bytes) {
            Ok(group) => group,
            Err(why) => {
                println!("SKIPPED: memory cannot be limited here: {why}");
                return;
            }
        };
        let start = Start {
            settings: vec![("limits.edges", "512"), ("limits.owners", "128")],
            cgroup: Some(group.processes()),
            ..Start::default()
        };
        match Agent::try_launch(&start) {
            Ok(agent) => {
                println!("with {bytes} bytes it runs");
                assert!(agent.scrape().has("portolan_build_info", &[]));
                let ours = KernelObjects::of(agent.pid());
                agent.kill();
                ours.are_gone();
            }
            Err(why) => {
                println!("with {bytes} bytes it ended; killed {}: {why}", group.kills());
                assert!(!must_work, "{why}");
            }
        }
        before.nothing_new_stays();
    }
}

/// A mount namespace made by a script, while this exists.
struct Mounts(Child);

impl Mounts {
    fn new(script: &str) -> Self {
        let script = format!("{script} && echo ok && exec sleep 600");
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "slave", "sh", "-c", &script]);
        let mut holder = unshare.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ok", "{script}");
        Self(holder)
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn pins_need_a_bpf_file_system_that_takes_them() {
    needs_kernel!();
    for (what, script) in [
        ("absent", "mount -t tmpfs none /sys/fs/bpf"),
        ("full", "mount -t bpf -o ro bpf /sys/fs/bpf"),
    ] {
        let before = KernelObjects::now();
        let mounts = Mounts::new(script);
        let mut start = Start { mounts_of: Some(mounts.0.id()), ..Start::default() };
        start.settings.push(("pin", "true"));
        let why = match Agent::try_launch(&start) {
            Err(why) => why,
            Ok(agent) => panic!("{what}: it claims to pin:\n{}", agent.log()),
        };
        let last = why.lines().next_back().unwrap_or_default();
        assert!(last.contains("/sys/fs/bpf"), "{what}: {why}");
        // Without pins the same file system is good enough.
        start.settings = Vec::new();
        Agent::launch(&start).stop();
        drop(mounts);
        before.nothing_new_stays();
    }
}

#[test]
fn ten_thousand_sockets_from_before_are_there() {
    needs_kernel!();
    let connections: u64 = if is_emulated() { 1000 } else { 5000 };
    more_descriptors();
    let pair = Pair::new();
    let listener = pair.server.act(|| {
        let address = SocketAddr::from((pair.server.v4, 0));
        let socket = net::socket_for(&address);
        socket.bind(&address.into()).unwrap();
        socket.listen(1024).unwrap();
        std::net::TcpListener::from(socket)
    });
    let port = net::port(&listener);
    let address = SocketAddr::from((pair.server.v4, port));
    let mut sockets = pair.client.act(|| {
        let one = |_| (TcpStream::connect(address).unwrap(), net::accept(&listener));
        (0..connections).map(one).collect::<Vec<_>>()
    });
    // This process holds both ends: it has one name.
    let agent = namespace::called(&pair.client.service, Agent::start);
    let number = port.to_string();
    let figures = |now: &Scrape, role| {
        let edge = now.edges(&[("port", &number), ("role", role)]);
        (edge.preexisting(), edge.active(), edge.all_connects(), edge.sent_bytes())
    };
    let all = (connections, connections, 0, 0);
    agent.eventually((all, all), |now| (figures(now, "client"), figures(now, "server")));
    for (client, server) in &mut sockets {
        client.write_all(&[b'q'; 7]).unwrap();
        server.write_all(&[b'x'; 3]).unwrap();
    }
    agent.eventually((connections * 7, connections * 3), |now| {
        (figures(now, "client").3, figures(now, "server").3)
    });
    drop(sockets);
    agent.eventually((0, 0), |now| (figures(now, "client").1, figures(now, "server").1));
    agent.stop();
}

/// The limit of descriptors of this process.
fn more_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid rlimit.
    let set = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

#[test]
fn beside_another_tool_on_the_same_tracepoint_both_are_exact() {
    needs_kernel!();
    const CONNECTIONS: u64 = 200;
    let pair = Pair::new();
    let listener = pair.server.listen((pair.server.v4, 0));
    let port = net::port(&listener);
    // ESTABLISHED is 1 and SYN_SENT is 2: each connect to our port once.
    let tool = match Bpftrace::start(&format!(
        "tracepoint:sock:inet_sock_set_state \
         /args->dport == {port} && args->oldstate == 2 && args->newstate == 1/ {{ @ok = count(); }}"
    )) {
        Ok(tool) => tool,
        Err(why) => {
            println!("SKIPPED: {why}");
            return;
        }
    };
    let connect = || {
        let client = pair.client.connect((pair.server.v4, port)).unwrap();
        drop((client, net::accept(&listener)));
    };
    let agent = Agent::start();
    (0..CONNECTIONS).for_each(|_| connect());
    agent.eventually((CONNECTIONS, CONNECTIONS), |now| both(now, port));
    agent.stop();
    // The other agent continues after ours has ended.
    (0..10).for_each(|_| connect());
    thread::sleep(Duration::from_millis(200));
    let said = tool.end();
    let expected = format!("@ok: {}", CONNECTIONS + 10);
    assert!(said.contains(&expected), "bpftrace counted {said:?}");
}
