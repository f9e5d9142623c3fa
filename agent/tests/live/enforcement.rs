//! Ports that are denied to services other than the one they are reserved for.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::{self, Agent};
use crate::facts::{KernelObjects, patience};
use crate::namespace::{Namespace, Pair};
use crate::restart::PrivateBpf;
use crate::scrape::Scrape;

const BREACHES: &str = "portolan_port_reservation_breaches_total";
/// A name becomes stable within seconds.
const PATIENCE: Duration = Duration::from_secs(15);

fn portolan(agent: &Agent, namespace: &Namespace, arguments: &str) -> String {
    let mut command: Command = namespace.command(agent::binary().to_str().expect("a path of text"));
    agent::forget_our_variables(&mut command);
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    command.env("PORTOLAN_SOCKET", agent.run_directory().join("control.sock"));
    let output = command.output().expect("the agent's own binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {said}");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// Binds as a service of this name, and returns the result.
fn listen(namespace: &Namespace, name: &str, port: u16) -> io::Result<TcpListener> {
    namespace.act_as(name, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}

/// Binds until it is denied: a name must become stable first.
#[track_caller]
fn until_refused<T>(attempt: impl Fn() -> io::Result<T>) -> io::Error {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(error) => return error,
            Ok(_) => assert!(began.elapsed() < patience(PATIENCE), "it is let in again and again"),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn who_is_known_to_be_someone_else_is_refused_and_the_owner_let_in() {
    needs_kernel!();
    let net = Pair::new();
    let agent = Agent::start();
    let (owner, offender) = (&net.server.service, "offender");
    let place = &net.server;
    let said = portolan(&agent, place, &format!("ports reserve 19431 --for {owner} --enforce"));
    assert!(said.contains("and enforced"), "{said}");
    portolan(&agent, place, &format!("ports reserve 19432/udp --for {owner} --enforce"));
    // An unknown workload is allowed and reported.
    let first = listen(place, offender, 19_431).expect("it is unknown yet");
    let offender_here = place.full_name(offender);
    let audited = [("port", "19431"), ("offender", &*offender_here), ("action", "audited")];
    agent.eventually(1, |now: &Scrape| now.sum(BREACHES, &audited));
    drop(first);
    let refused = until_refused(|| listen(place, offender, 19_431));
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM), "{refused}");
    for _ in 0..2 {
        listen(place, offender, 19_431).expect_err("refused from then on");
    }
    let datagrams = || place.act_as(offender, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 19_432)));
    let refused_datagrams = until_refused(datagrams);
    assert_eq!(refused_datagrams.raw_os_error(), Some(libc::EPERM));
    // The same port of TCP, other ports and other namespaces are not affected.
    listen(place, offender, 19_432).expect("TCP is not UDP");
    listen(place, offender, 19_433).expect("not reserved");
    listen(&net.client, offender, 19_431).expect("another namespace");
    // The owner was never seen before.
    let held = listen(place, owner, 19_431).expect("its own port");
    let denied = [
        ("port", "19431"),
        ("protocol", "tcp"),
        ("owner", owner.as_str()),
        ("offender", &offender_here),
        ("action", "denied"),
    ];
    agent.eventually(3, |now: &Scrape| now.sum(BREACHES, &denied));
    let events = agent.json("/api/v1/reservations")["breaches"].to_string();
    let sentence = format!("{offender_here} was denied 19431/tcp, which is reserved for {owner}");
    assert!(events.contains(&sentence), "{events}");
    assert!(agent.log().contains("a bind to a reserved port was denied"));
    drop(held);
    // Released: any process may bind it.
    portolan(&agent, place, "ports release 19431");
    agent.scrape();
    listen(place, offender, 19_431).expect("released");
    agent.ledger_adds_up();
    agent.stop();
}

#[test]
fn refusals_end_with_the_agent_however_it_ends() {
    needs_kernel!();
    let before = KernelObjects::now();
    let net = Pair::new();
    let agent = Agent::start();
    let place = &net.server;
    portolan(&agent, place, "ports reserve 19441 --for another --enforce");
    let refused = until_refused(|| listen(place, "offender", 19_441));
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    agent.kill();
    listen(place, "offender", 19_441).expect("the agent is gone, and its verdicts with it");
    before.nothing_new_stays();
}

/// With `pin`, denials stay in force while no agent runs, and pass to the next one without a gap;
/// an agent without `pin` ends them when it exits.
#[test]
fn pinned_refusals_outlive_a_kill_and_go_over_to_the_next_agent() {
    needs_kernel!();
    let before = KernelObjects::now();
    let net = Pair::new();
    // After the namespaces: it sees the mounts that exist when it is started.
    let bpf = PrivateBpf::new();
    let directory = tempfile::tempdir().unwrap();
    let (run, state) = (directory.path().display().to_string(), directory.path().join("state"));
    let state = state.display().to_string();
    let launch = |pin| {
        let mut start = bpf.start(&run, pin);
        start.settings.push(("state_directory", &state));
        Agent::launch(&start)
    };
    let (owner, place) = (&net.server.service, &net.server);
    let run = |arguments: &str| {
        let mut command = place.command(agent::binary().to_str().expect("a path of text"));
        agent::forget_our_variables(&mut command);
        command.args(arguments.split_whitespace());
        command.env("PORTOLAN_SOCKET", directory.path().join("control.sock"));
        assert!(command.stdin(Stdio::null()).status().expect("it runs").success(), "{arguments}");
    };
    let is_refused = || match listen(place, "offender", 19_471) {
        Ok(_) => false,
        Err(error) => error.raw_os_error() == Some(libc::EPERM),
    };
    let first = launch("true");
    run(&format!("ports reserve 19471 --for {owner} --enforce"));
    until_refused(|| listen(place, "offender", 19_471));
    first.kill();
    for _ in 0..20 {
        assert!(is_refused(), "no agent runs, and what it wrote stands");
    }
    listen(place, owner, 19_471).expect("its own port, with or without an agent");
    // From here on until the next one has been at work for some seconds.
    let second = thread::scope(|scope| {
        let offender = scope.spawn(|| {
            let began = Instant::now();
            let mut tries = 0;
            while began.elapsed() < Duration::from_secs(6) {
                assert!(is_refused(), "let in {:?} after the start", began.elapsed());
                tries += 1;
                thread::sleep(Duration::from_millis(5));
            }
            tries
        });
        let second = launch("true");
        let tries = offender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(tries > 100, "{tries}");
        second
    });
    listen(place, owner, 19_471).expect("the second agent knows the owner too");
    let offender_here = place.full_name("offender");
    let denied = [("port", "19471"), ("offender", &*offender_here), ("action", "denied")];
    second.eventually(true, |now: &Scrape| now.sum(BREACHES, &denied) >= 100);
    // A reservation that was released meanwhile ends too.
    run("ports release 19471");
    second.scrape();
    drop(listen(place, "offender", 19_471).expect("released"));
    run(&format!("ports reserve 19471 --for {owner} --enforce"));
    until_refused(|| listen(place, "offender", 19_471));
    // A reservation that expires while no agent runs.
    run(&format!("ports reserve 19472 --for {owner} --enforce --until 8s"));
    let until = Instant::now() + Duration::from_secs(9);
    until_refused(|| listen(place, "offender", 19_472));
    second.kill();
    assert!(is_refused() && bpf.pins() > 10);
    thread::sleep(until.saturating_duration_since(Instant::now()));
    listen(place, "offender", 19_472).expect_err("the verdict is still in force");
    let late = launch("true");
    late.scrape();
    drop(listen(place, "offender", 19_472).expect("it has run out"));
    assert!(is_refused(), "the other one has not");
    late.kill();
    // One that does not pin begins anew, and takes its refusals along.
    let third = launch("false");
    assert_eq!(bpf.pins(), 0);
    until_refused(|| listen(place, "offender", 19_471));
    third.stop();
    listen(place, "offender", 19_471).expect("a clean end without pins leaves nothing");
    drop(bpf);
    before.nothing_new_stays();
}

/// As the user of uid 1500 would, in this namespace: takes a command name, binds, and says what came.
const BIND_AS: &str = "\
import ctypes, socket, sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
try:
    socket.create_server(('0.0.0.0', int(sys.argv[2])))
    print('bound')
except OSError as error:
    print(error.errno)";

/// The limit of enforcement, and that it is said where people decide about it.
#[test]
fn a_program_that_takes_the_owners_name_gets_the_port_and_the_command_says_so() {
    needs_kernel!();
    let net = Pair::new();
    let agent = Agent::start();
    let place = &net.server;
    let said = portolan(&agent, place, "ports reserve 19481 --for the-owner --enforce");
    let limit =
        "enforcement stops accidents, not attacks: a program that calls itself like the-owner";
    assert!(said.contains(limit), "{said}");
    let help = portolan(&agent, place, "ports reserve --help");
    assert!(help.contains("accidents, not attacks"), "{help}");
    until_refused(|| listen(place, "offender", 19_481));
    let bind_as = |name: &str| {
        let mut command = place.command("setpriv");
        command.args(["--reuid=1500", "--regid=1500", "--clear-groups"]);
        command.args(["/usr/bin/python3", "-c", BIND_AS, name, "19481"]);
        let output = command.output().expect("starting setpriv");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    // The same program: before it calls itself otherwise, and after.
    assert_eq!(bind_as("offender"), libc::EPERM.to_string());
    assert_eq!(bind_as("the-owner"), "bound");
    agent.stop();
}

#[test]
fn without_enforcement_no_bind_is_refused() {
    needs_kernel!();
    let net = Pair::new();
    let agent = Agent::start();
    let place = &net.server;
    portolan(&agent, place, "ports reserve 19451 --for another");
    let held = listen(place, "offender", 19_451).expect("only reported");
    let offender = place.full_name("offender");
    let audited = [("port", "19451"), ("offender", &*offender), ("action", "audited")];
    agent.eventually(1, |now: &Scrape| now.sum(BREACHES, &audited));
    drop(held);
    listen(place, "offender", 19_451).expect("only reported");
    assert_eq!(agent.scrape().sum(BREACHES, &[("action", "denied")]), 0);
    agent.stop();
}

/// A cgroup of this test; removed when dropped, once it is empty.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let place = fields.next()?;
            (fields.next()? == "cgroup2").then_some(place)
        })?;
        let path = PathBuf::from(root).join(format!("portolan-live-{}", std::process::id()));
        let _ = fs::remove_dir(&path);
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    /// Runs redis-server under another name in here, on a port of its own.
    fn serve(&self, namespace: &Namespace, name: &str, port: u16) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join(name);
        fs::copy("/usr/bin/redis-server", &program).unwrap();
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec {} --port {port} --bind 127.0.0.1 --save ''",
            self.0.display(),
            program.display()
        );
        let mut command = namespace.command("sh");
        command.args(["-c", &script]).current_dir(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Server { child: command.spawn().unwrap(), _directory: directory }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let began = Instant::now();
        // A killed process leaves the cgroup later.
        while fs::remove_dir(&self.0).is_err() && began.elapsed() < patience(PATIENCE) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

struct Server {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Server {
    /// Whether it gets to listen; it ends at once if it cannot.
    fn listens(&mut self, namespace: &Namespace, port: u16) -> bool {
        let began = Instant::now();
        while began.elapsed() < patience(PATIENCE) {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if namespace.within(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()) {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("it neither listens on {port} nor ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_newcomer_among_others_is_refused_at_its_first_attempt() {
    needs_kernel!();
    if !Path::new("/usr/bin/redis-server").exists() {
        println!("SKIPPED: redis-server is not installed");
        return;
    }
    let Some(cgroup) = Cgroup::new() else {
        println!("SKIPPED: no cgroup can be made here");
        return;
    };
    let net = Pair::new();
    let agent = Agent::start();
    let place = &net.server;
    portolan(&agent, place, "ports reserve 19461 --for the-owner --enforce");
    let mut other = cgroup.serve(place, "other", 19_462);
    assert!(other.listens(place, 19_462));
    let listens = [("service", "other"), ("port", "19462")];
    agent.eventually(1, |now: &Scrape| now.sum("portolan_port_listeners", &listens));
    // Its name becomes stable within three seconds, without an event.
    thread::sleep(Duration::from_secs(5));
    agent.scrape();
    let mut newcomer = cgroup.serve(place, "newcomer", 19_461);
    assert!(!newcomer.listens(place, 19_461), "all workloads there are foreign");
    let offender = place.full_name("newcomer");
    let denied = [("offender", &*offender), ("action", "denied")];
    agent.eventually(true, |now: &Scrape| now.sum(BREACHES, &denied) >= 1);
    // This one is unknown too, but has the owner's name.
    let mut owner = cgroup.serve(place, "the-owner", 19_461);
    assert!(owner.listens(place, 19_461), "it may be the owner");
    drop((other, newcomer, owner));
    agent.stop();
}
