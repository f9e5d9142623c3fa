//! Ports that are refused to others than the service they are reserved for.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::{self, Agent};
use crate::facts::KernelObjects;
use crate::namespace::{Namespace, Pair};
use crate::scrape::Scrape;

const BREACHES: &str = "portolan_port_reservation_breaches_total";
/// A name settles within seconds.
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

/// Binds as a service of this name, and says how that went.
fn listen(namespace: &Namespace, name: &str, port: u16) -> io::Result<TcpListener> {
    namespace.act_as(name, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}

/// Tries until it is refused: a name must settle first.
#[track_caller]
fn until_refused<T>(attempt: impl Fn() -> io::Result<T>) -> io::Error {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(error) => return error,
            Ok(_) => assert!(began.elapsed() < PATIENCE, "it is let in again and again"),
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
    assert!(said.contains("and refused to others"), "{said}");
    portolan(&agent, place, &format!("ports reserve 19432/udp --for {owner} --enforce"));
    // Who is not known yet is let in, and told of.
    let first = listen(place, offender, 19_431).expect("nobody knows it yet");
    let audited = [("port", "19431"), ("offender", offender), ("action", "audited")];
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
    // The same port of TCP, other ports and other namespaces are nobody's business.
    listen(place, offender, 19_432).expect("TCP is not UDP");
    listen(place, offender, 19_433).expect("not reserved");
    listen(&net.client, offender, 19_431).expect("another namespace");
    // The owner was never seen before.
    let held = listen(place, owner, 19_431).expect("its own port");
    let denied = [
        ("port", "19431"),
        ("protocol", "tcp"),
        ("owner", owner.as_str()),
        ("offender", offender),
        ("action", "denied"),
    ];
    agent.eventually(3, |now: &Scrape| now.sum(BREACHES, &denied));
    let events = agent.json("/api/v1/reservations")["breaches"].to_string();
    let sentence =
        format!("{offender} wanted, and was refused, 19431/tcp, which is reserved for {owner}");
    assert!(events.contains(&sentence), "{events}");
    assert!(agent.log().contains("a reserved port was refused to somebody else"));
    drop(held);
    // Released: anybody may have it.
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
    portolan(&agent, place, "ports reserve 19441 --for somebody --enforce");
    let refused = until_refused(|| listen(place, "offender", 19_441));
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    agent.kill();
    listen(place, "offender", 19_441).expect("the agent is gone, and its verdicts with it");
    before.nothing_new_stays();
}

#[test]
fn without_enforcement_nobody_is_refused() {
    needs_kernel!();
    let net = Pair::new();
    let agent = Agent::start();
    let place = &net.server;
    portolan(&agent, place, "ports reserve 19451 --for somebody");
    let held = listen(place, "offender", 19_451).expect("only told");
    let audited = [("port", "19451"), ("offender", "offender"), ("action", "audited")];
    agent.eventually(1, |now: &Scrape| now.sum(BREACHES, &audited));
    drop(held);
    listen(place, "offender", 19_451).expect("only told");
    assert_eq!(agent.scrape().sum(BREACHES, &[("action", "denied")]), 0);
    agent.stop();
}
