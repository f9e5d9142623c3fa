//! Ends and new beginnings: nothing of ours stays without `--pin`, and nothing is lost with it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::{Agent, Start};
use crate::facts::KernelObjects;
use crate::impostors::as_user;
use crate::namespace::Pair;
use crate::net;
use crate::scrape::Scrape;

/// How often the agent is killed under load.
const KILLS: usize = 20;

/// A BPF file system that only agents started [`Start::inside`] it see, so that their pins are
/// separate from those of other agents on this host.
pub struct PrivateBpf {
    holder: Child,
}

impl PrivateBpf {
    /// Mounts it.
    pub fn new() -> Self {
        let script =
            "mkdir -p /sys/fs/bpf && mount -t bpf bpf /sys/fs/bpf && echo ok && exec sleep 600";
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "slave", "sh", "-c", script]);
        let mut holder = unshare.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ok", "mounting a BPF file system");
        Self { holder }
    }

    /// How many pins of ours are in it.
    pub fn pins(&self) -> usize {
        let root = format!("/proc/{}/root/sys/fs/bpf/portolan", self.holder.id());
        let output = Command::new("find").args([root.as_str(), "-type", "f"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().count()
    }

    /// An agent that sees it, with a run directory of its own, and with pins or not.
    pub fn start<'a>(&self, run: &'a str, pin: &'a str) -> Start<'a> {
        Start {
            settings: vec![("pin", pin), ("run_directory", run)],
            mounts_of: Some(self.holder.id()),
            ..Start::default()
        }
    }
}

impl Drop for PrivateBpf {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn after_sigterm_nothing_of_ours_is_left() {
    needs_kernel!();
    let before = KernelObjects::now();
    let agent = Agent::start();
    let ours = KernelObjects::of(agent.pid());
    assert!(ours.programs.len() >= 9 && ours.maps.len() >= 10 && ours.links.len() >= 7, "{ours:?}");
    agent.stop();
    ours.are_gone();
    before.nothing_new_stays();
}

#[test]
fn after_sigkill_without_pins_nothing_of_ours_is_left() {
    needs_kernel!();
    let before = KernelObjects::now();
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen("0.0.0.0:0");
    let open = pair.client.connect((pair.server.v4, net::port(&listener))).unwrap();
    let ours = KernelObjects::of(agent.pid());
    agent.kill();
    // Sockets that have state of ours live on; the table they were in does not.
    ours.are_gone();
    before.nothing_new_stays();
    drop(open);
}

#[test]
fn with_pins_a_kill_loses_nothing_and_no_counter_goes_back() {
    needs_kernel!();
    let pair = Pair::new();
    // On a slow machine there are more connections in a minute than ports: those of connections
    // that ended a second ago may be reused.
    pair.client.sysctl("ipv4/tcp_tw_reuse", "1");
    // After the namespaces: it sees the mounts that exist when it is started.
    let bpf = PrivateBpf::new();
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().display().to_string();
    let mut agent = Agent::launch(&bpf.start(&run, "true"));
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let (c, s) = (&pair.client.service, &pair.server.service);
    let (stop, connected) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            pair.client.act(|| {
                while !stop.load(Ordering::Relaxed) {
                    let address = std::net::SocketAddr::from((pair.server.v4, port));
                    let client = std::net::TcpStream::connect(address);
                    drop((client.expect("connecting"), net::accept(&listener)));
                    connected.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        let _stop = StopOnDrop(&stop);
        let mut last = Scrape::default();
        for _ in 0..KILLS {
            let so_far = connected.load(Ordering::Relaxed);
            let now = agent
                .eventually(true, |now| now.edge(c, s, port, "client").connects("ok") > so_far);
            went_nowhere_back(&last, &now, port);
            last = now;
            agent.kill();
            let at_kill = connected.load(Ordering::Relaxed);
            // Some happen while no agent runs.
            while connected.load(Ordering::Relaxed) < at_kill + 50 {
                assert!(!client.is_finished(), "the client has ended");
                thread::yield_now();
            }
            agent = Agent::launch(&bpf.start(&run, "true"));
            let now = agent.scrape();
            went_nowhere_back(&last, &now, port);
            let counted = now.edge(c, s, port, "client").connects("ok");
            assert!(counted >= at_kill + 50, "{counted} of {at_kill} and 50 more");
            last = now;
        }
        stop.store(true, Ordering::Relaxed);
        client.join().expect("the client");
        let total = connected.load(Ordering::Relaxed);
        agent.eventually(None, |now| unlike(now, total, (c, s, port)));
        agent.stop();
    });
    // A clean exit keeps the pins too; a start without `pin` removes them.
    assert!(bpf.pins() > 10, "{} pins", bpf.pins());
    let agent = Agent::launch(&bpf.start(&run, "false"));
    assert_eq!(bpf.pins(), 0);
    agent.stop();
}

#[test]
fn an_agent_that_stands_still_in_a_storm_loses_nothing() {
    needs_kernel!();
    // Half a minute takes `PORTOLAN_TEST_LONG=1`.
    let long = std::env::var_os("PORTOLAN_TEST_LONG").is_some();
    let stall = Duration::from_secs(if long { 30 } else { 4 });
    let pair = Pair::new();
    let bpf = PrivateBpf::new();
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().display().to_string();
    let agent = Agent::launch(&bpf.start(&run, "true"));
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let address = std::net::SocketAddr::from((pair.server.v4, port));
    let (c, s) = (&pair.client.service, &pair.server.service);
    let connect = || {
        drop((std::net::TcpStream::connect(address).expect("connecting"), net::accept(&listener)));
    };
    let mut connected = 0;
    pair.client.act(|| (0..50).for_each(|_| connect()));
    connected += 50;
    let before = agent.eventually(connected, |now| now.edge(c, s, port, "client").connects("ok"));
    agent.signal(libc::SIGSTOP);
    let began = Instant::now();
    pair.client.act(|| {
        while began.elapsed() < stall {
            connect();
            connected += 1;
        }
    });
    agent.signal(libc::SIGCONT);
    println!("{connected} connections");
    let now = agent.eventually(None, |now| unlike(now, connected, (c, s, port)));
    went_nowhere_back(&before, &now, port);
    agent.ledger_adds_up();
    agent.stop();
    Agent::launch(&bpf.start(&run, "false")).stop();
    assert_eq!(bpf.pins(), 0);
}

#[test]
fn pins_of_other_settings_are_not_taken_over() {
    needs_kernel!();
    let before = KernelObjects::now();
    let bpf = PrivateBpf::new();
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().display().to_string();
    let mut start = bpf.start(&run, "true");
    start.settings.push(("limits.edges", "128"));
    let first = Agent::launch(&start);
    let ours = KernelObjects::of(first.pid());
    first.stop();
    start.settings.push(("limits.edges", "256"));
    let second = Agent::launch(&start);
    ours.are_gone();
    let capacity = second.scrape().sum("portolan_map_capacity", &[("map", "edges")]);
    assert!(capacity >= 256, "{capacity}");
    second.stop();
    drop(bpf);
    before.nothing_new_stays();
}

/// Locks a file for as long as it runs, and says so: `locked`, or the error.
const LOCK: &str = "\
import fcntl, sys, time
try:
    file = open(sys.argv[1])
    fcntl.flock(file, fcntl.LOCK_EX)
    print('locked', flush=True)
    time.sleep(600)
except OSError as error:
    print(error.strerror, flush=True)";

/// A user without privileges who locks a file.
struct Locker(Child);

impl Locker {
    /// It, and what it said.
    fn of(path: &Path) -> (Self, String) {
        let mut command = as_user();
        command.args(["/usr/bin/python3", "-c", LOCK]).arg(path);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("starting setpriv");
        let mut said = String::new();
        let output = child.stdout.take().expect("stdout is piped");
        BufReader::new(output).read_line(&mut said).expect("what it says is UTF-8");
        (Self(child), said.trim().to_owned())
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_user_who_locks_the_agents_files_stops_no_start() {
    needs_kernel!();
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    let open = |path: &Path, bits| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(bits)).unwrap();
    };
    open(directory.path(), 0o755);
    open(&state, 0o755);
    let locks = [directory.path().join("lock"), state.join("lock")];
    // As versions before left them: everybody could open them, and this user has.
    let before: Vec<_> = locks
        .iter()
        .map(|lock| {
            fs::write(lock, "").unwrap();
            open(lock, 0o644);
            let (locker, said) = Locker::of(lock);
            assert_eq!(said, "locked");
            locker
        })
        .collect();
    let (run, state) = (directory.path().display().to_string(), state.display().to_string());
    let start = Start {
        settings: vec![("run_directory", &run), ("state_directory", &state)],
        ..Start::default()
    };
    let agent = Agent::launch(&start);
    let log = agent.log();
    assert!(!log.contains("another agent uses"), "the state can be changed: {log}");
    assert_eq!(log.matches("another user has locked").count(), 2, "{log}");
    // From now on nobody else can.
    for lock in &locks {
        assert_eq!(Locker::of(lock).1, "Permission denied");
    }
    // A second agent is still kept out.
    let why = Agent::try_launch(&start).err().expect("one agent per run directory");
    assert!(why.contains("another Portolan agent is running"), "{why}");
    drop(before);
    agent.stop();
    Agent::launch(&start).stop();
}

#[test]
fn pins_in_a_directory_of_another_user_are_refused() {
    needs_kernel!();
    let bpf = PrivateBpf::new();
    let holder = bpf.holder.id().to_string();
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().display().to_string();
    let inside = |mut command: Command, script: &str| {
        let done = command.args(["sh", "-c", script]).status().expect("starting nsenter");
        assert!(done.success(), "{script}");
    };
    let enter = || {
        let mut command = Command::new("nsenter");
        command.args(["--target", &holder, "--mount"]);
        command
    };
    let enter_as_user = || {
        let (mut command, user) = (enter(), as_user());
        command.arg(user.get_program()).args(user.get_args());
        command
    };
    // A BPF file system is writable for everybody unless it is mounted otherwise.
    inside(enter_as_user(), "mkdir -p /sys/fs/bpf/portolan/0123456789abcdef");
    let refused = |expected: &str| {
        let why = Agent::try_launch(&bpf.start(&run, "true")).err().expect("refused");
        assert!(why.contains("/sys/fs/bpf/portolan") && why.contains(expected), "{why}");
    };
    refused("belongs to user 1500");
    // An agent that pins nothing runs, and touches nothing there.
    let agent = Agent::launch(&bpf.start(&run, "false"));
    assert!(agent.log().contains("belongs to user 1500"), "{}", agent.log());
    agent.stop();
    inside(enter(), "test -d /sys/fs/bpf/portolan/0123456789abcdef");
    // One that is root's, and writable for others.
    inside(enter(), "chown -R 0:0 /sys/fs/bpf/portolan && chmod 777 /sys/fs/bpf/portolan");
    refused("can be written by others (mode 777)");
    // The fix that the error names.
    inside(enter(), "chmod go-w /sys/fs/bpf/portolan");
    Agent::launch(&bpf.start(&run, "true")).stop();
    assert!(bpf.pins() > 10);
    Agent::launch(&bpf.start(&run, "false")).stop();
    assert_eq!(bpf.pins(), 0);
}

/// Connects and open connections of both sides, unless all of `total` connections have been counted
/// and have ended. Only runs that the kernel skipped and counted may be missing.
fn unlike(
    now: &Scrape,
    total: u64,
    (client, server, port): (&str, &str, u16),
) -> Option<[(u64, u64); 2]> {
    let skipped = now.skipped();
    let sides = ["client", "server"].map(|role| {
        let edge = now.edge(client, server, port, role);
        (edge.connects("ok"), edge.active())
    });
    let is_right =
        |(ok, open): &(u64, u64)| *ok <= total && total - ok <= skipped && *open <= skipped;
    (!sides.iter().all(is_right)).then_some(sides)
}

/// Every counter of `port` in `before` is there in `after`, and no smaller.
#[track_caller]
fn went_nowhere_back(before: &Scrape, after: &Scrape, port: u16) {
    for sample in &before.samples {
        let counter = sample.name.ends_with("_total") || sample.name.ends_with("_count");
        if counter && sample.label("port") == Some(&port.to_string()) {
            let labels: Vec<_> =
                sample.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let now: f64 = after.matching(&sample.name, &labels).map(|sample| sample.value).sum();
            assert!(now >= sample.value, "{sample:?} went back to {now}");
        }
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
