//! Network namespaces for tests, with veth between them; removed when dropped, panic or not.
//!
//! [`Pair::new`] makes two of them, `client` and `server`, with IPv4 and IPv6 addresses that work
//! at once. Each has a `service`: a unique name of at most 15 characters, which is the agent's name
//! for the sockets that [`Namespace::listen`], [`Namespace::connect`] and [`Namespace::act`] make
//! there. The kernel half takes an owner's name from the command name of the process; `act` sets it
//! temporarily, so that the two ends have different names although one test plays both.
//!
//! * [`Namespace::act`]: runs a closure there, under the service's name; keep it short;
//! * [`Namespace::within`]: runs a closure there, for any time, under no special name;
//! * [`Namespace::command`]: a program to be started there (it has its own name);
//! * [`Namespace::nft`], [`Namespace::sysctl`]: faults and settings.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::Socket;

use crate::net;

/// Two namespaces, joined by veth.
pub struct Pair {
    /// 10.a.b.1 and fd00:a:b::1.
    pub client: Namespace,
    /// 10.a.b.2 and fd00:a:b::2.
    pub server: Namespace,
}

/// A network namespace.
pub struct Namespace {
    /// The agent's name for sockets made by [`Namespace::act`].
    pub service: String,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// Its name in `ip netns`.
    pub name: String,
    file: File,
    /// A process that does nothing but be here, as there is one in every container: the agent
    /// reads a namespace's addresses and counters through its processes.
    resident: Child,
}

/// An open connection between a pair; this test holds both ends.
pub struct Connection {
    /// Where it was accepted.
    pub listener: TcpListener,
    /// Its port.
    pub port: u16,
    /// The end in the client's namespace.
    pub client: TcpStream,
    /// The end in the server's.
    pub server: TcpStream,
}

/// How long [`Namespace::connect`] waits.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

static NUMBER: AtomicU32 = AtomicU32::new(0);
/// Held while this process bears a service's name.
static NAME: Mutex<()> = Mutex::new(());

/// Runs `f` while this process is called `name`; one at a time.
pub fn called<T>(name: &str, f: impl FnOnce() -> T) -> T {
    let _alone = NAME.lock().unwrap_or_else(PoisonError::into_inner);
    let _named = Named::new(name);
    f()
}

/// Reads a file in another process's namespace; empty if that is gone.
pub fn read_in(name: &str, path: &str) -> Option<String> {
    within_named(name, || fs::read_to_string(path).ok())?
}

/// Runs `f` in the namespace that `ip netns` calls so; nothing if there is none.
pub fn within_named<T: Send>(name: &str, f: impl FnOnce() -> T + Send) -> Option<T> {
    let file = File::open(format!("/run/netns/{name}")).ok()?;
    let run = || enter(file.as_raw_fd()).ok().map(|()| f());
    thread::scope(|scope| scope.spawn(run).join().ok()?)
}

// === impl Pair ===

impl Pair {
    /// Makes both namespaces and the link between them.
    pub fn new() -> Self {
        Self::with_addresses_after(Duration::ZERO)
    }

    /// The same, with a pause before the link is configured.
    pub fn with_addresses_after(pause: Duration) -> Self {
        let (pid, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let tag = format!("{:x}-{number:x}", pid & 0xff_ffff);
        // From 10.128 on are the containers of `names`.
        let (a, b) = ((pid & 0x7f) as u8, (number & 0xff) as u8);
        let (client, server) = (format!("cli-{tag}"), format!("srv-{tag}"));
        // Remains of an earlier run with this pid.
        for name in [&client, &server] {
            let _ = quiet(Command::new("ip").args(["netns", "del", name])).status();
        }
        ip(&format!(
            "netns add {client}\nnetns add {server}\n\
             link add veth0 netns {client} type veth peer name veth0 netns {server}\n"
        ));
        thread::sleep(pause);
        for (name, host) in [(&client, 1), (&server, 2)] {
            // The link-local address, too, is there at once: until duplicate address detection has
            // ended, which takes up to two seconds, no neighbour is asked for in its name, and
            // datagrams from an address of another interface are lost.
            ip_in(
                name,
                &format!(
                    "addr add 10.{a}.{b}.{host}/24 dev veth0\n\
                 link set veth0 addrgenmode none\n\
                 addr add fe80::{host}/64 dev veth0 nodad\n\
                 addr add fd00:{a:x}:{b:x}::{host}/64 dev veth0 nodad\n\
                 link set lo up\nlink set veth0 up\n"
                ),
            );
        }
        let end = |name: String, host: u8| Namespace {
            service: name.clone(),
            v4: Ipv4Addr::new(10, a, b, host),
            v6: Ipv6Addr::new(0xfd00, a.into(), b.into(), 0, 0, 0, 0, host.into()),
            resident: resident(&name),
            file: open(&name),
            name,
        };
        Self { client: end(client, 1), server: end(server, 2) }
    }

    /// A connection from the client to the server, over IPv4.
    pub fn connection(&self) -> Connection {
        let listener = self.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        let client = self.client.connect((self.server.v4, port)).expect("a listener of ours");
        let server = net::accept(&listener);
        Connection { listener, port, client, server }
    }

    /// Both ends.
    pub fn both(&self) -> [&Namespace; 2] {
        [&self.client, &self.server]
    }
}

// === impl Namespace ===

impl Namespace {
    /// Runs `f` here on a thread of its own.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let run = || {
            self.enter().expect("entering a namespace of ours");
            f()
        };
        thread::scope(|scope| match scope.spawn(run).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Runs `f` here, under the name of this namespace's service. Calls are serialised.
    pub fn act<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.act_as(&self.service, f)
    }

    /// As [`Namespace::act`] under a name of one's own, of at most 15 characters.
    pub fn act_as<T: Send>(&self, name: &str, f: impl FnOnce() -> T + Send) -> T {
        called(name, || self.within(f))
    }

    /// A listener here; port 0 for any port.
    pub fn listen(&self, address: impl ToSocketAddrs + Send) -> TcpListener {
        self.act(|| TcpListener::bind(address)).expect("listening in a namespace of ours")
    }

    /// A connection from here.
    pub fn connect(&self, address: impl Into<SocketAddr>) -> io::Result<TcpStream> {
        let address = address.into();
        self.act(|| TcpStream::connect_timeout(&address, crate::facts::patience(CONNECT_WITHIN)))
    }

    /// The socket of a non-blocking connect that was started here.
    pub fn begin_connect(&self, address: SocketAddr) -> Socket {
        self.act(|| {
            let socket = net::socket_for(&address);
            net::begin_connect(&socket, address);
            socket
        })
    }

    /// A program to be started here.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let fd = self.file.as_raw_fd();
        let enter = move || enter(fd);
        // SAFETY: setns is a plain system call: sound between fork and exec. The descriptor is
        // this namespace's own; should it be closed by then, the start fails.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Feeds rules to nft here; panics with nft's error if it refuses.
    pub fn nft(&self, rules: &str) {
        feed(self.command("nft").args(["-f", "-"]), rules);
    }

    /// Applies these rules to incoming packets.
    pub fn nft_input(&self, rules: &str) {
        self.nft(&format!(
            "table inet fault {{ chain input {{ type filter hook input priority 0;\n{rules}\n}}\n}}\n"
        ));
    }

    /// Takes all rules away.
    pub fn nft_flush(&self) {
        self.nft("flush ruleset\n");
    }

    /// Runs `tc` with these arguments; false if this kernel lacks the module.
    pub fn tc(&self, arguments: &str) -> bool {
        let mut command = self.command("tc");
        quiet(command.args(arguments.split_whitespace())).status().is_ok_and(|s| s.success())
    }

    /// Writes a sysctl below /proc/sys/net, such as `ipv4/tcp_syn_retries`.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/net/{name}");
        let written = self.within(|| fs::write(&path, value));
        written.unwrap_or_else(|error| panic!("writing {path}: {error}"));
    }

    /// A program's name as the agent reports it here, with the namespace that it is unique in.
    pub fn full_name(&self, name: &str) -> String {
        format!("{}/{name}", self.scope())
    }

    /// The namespace of programs' names here.
    pub fn scope(&self) -> String {
        format!("netns-{}", self.name)
    }

    /// A process that is here for as long as the namespace is.
    pub fn resident_pid(&self) -> u32 {
        self.resident.id()
    }

    /// Inode number, as the agent reports it.
    pub fn inode(&self) -> u32 {
        use std::os::unix::fs::MetadataExt as _;
        self.file.metadata().expect("an open file has metadata").ino() as u32
    }

    fn enter(&self) -> io::Result<()> {
        enter(self.file.as_raw_fd())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.resident.kill();
        let _ = self.resident.wait();
        let _ = quiet(Command::new("ip").args(["netns", "del", &self.name])).status();
    }
}

/// While it exists, this is the command name of the process.
struct Named {
    before: String,
}

impl Named {
    fn new(name: &str) -> Self {
        assert!(name.len() < 16, "{name} is longer than a command name can be");
        let before = fs::read_to_string(comm()).expect("reading our own command name");
        fs::write(comm(), name).expect("writing our own command name");
        Self { before }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = fs::write(comm(), self.before.trim_end());
    }
}

/// The command name of the first thread, which is the process's.
fn comm() -> String {
    format!("/proc/self/task/{}/comm", std::process::id())
}

fn enter(fd: i32) -> io::Result<()> {
    // SAFETY: setns takes a descriptor and touches no memory.
    match unsafe { libc::setns(fd, libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn open(name: &str) -> File {
    let path = format!("/run/netns/{name}");
    File::open(&path).unwrap_or_else(|error| panic!("opening {path}: {error}"))
}

fn resident(name: &str) -> Child {
    let mut sleep = Command::new("sleep");
    let file = open(name);
    // SAFETY: setns is a plain system call: sound between fork and exec.
    unsafe { sleep.pre_exec(move || enter(file.as_raw_fd())) };
    quiet(sleep.arg("infinity")).spawn().expect("starting sleep in a namespace of ours")
}

fn ip(batch: &str) {
    feed(Command::new("ip").args(["-batch", "-"]), batch);
}

fn ip_in(name: &str, batch: &str) {
    feed(Command::new("ip").args(["-n", name, "-batch", "-"]), batch);
}

/// Runs a command with this input; panics with its output if it fails.
fn feed(command: &mut Command, input: &str) {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(input.as_bytes()).expect("writing to a program we started");
    drop(stdin);
    let output = child.wait_with_output().expect("waiting for a program we started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} refused\n{input}\n{said}");
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}
