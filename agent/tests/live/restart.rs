//! Ends and new beginnings: nothing of ours stays without `--pin`, and nothing is lost with it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::{Agent, Start};
use crate::facts::KernelObjects;
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
