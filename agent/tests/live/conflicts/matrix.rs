//! The bind part of the fault matrix: every way to lose a port, with claimant, holder, errno and
//! reason as the kernel and the program's own errno have it; and the ways that are none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use super::claim::{Claim, conflict_of};
use crate::agent::Agent;
use crate::namespace::Pair;
use crate::net;

const ALL4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ALL6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const LOOP4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One conflict: a holder, and a socket that fails to bind.
struct Row {
    port: u16,
    has: Claim,
    listens: bool,
    wants: Claim,
    reason: &'static str,
}

#[test]
fn every_clash_of_two_sockets_has_its_reason_and_its_holder() {
    needs_kernel!();
    let pair = Pair::new();
    let v4 = IpAddr::from(pair.server.v4);
    let row = |port, has: (Claim, bool), wants: Claim, reason| Row {
        port,
        has: has.0,
        listens: has.1,
        wants,
        reason,
    };
    let tcp = |ip, port| Claim::tcp(SocketAddr::new(ip, port));
    let udp = |ip, port| Claim::udp(SocketAddr::new(ip, port));
    let rows = [
        row(7001, (tcp(v4, 7001), true), tcp(v4, 7001), "same_address"),
        row(7002, (tcp(ALL4, 7002), true), tcp(ALL4, 7002).reuse_address(), "same_address"),
        row(7003, (tcp(v4, 7003), true), tcp(ALL4, 7003), "wildcard_over_specific"),
        row(7004, (tcp(ALL4, 7004), true), tcp(LOOP4, 7004), "specific_under_wildcard"),
        row(7005, (tcp(ALL6, 7005).v6_only(false), true), tcp(ALL4, 7005), "dual_stack"),
        row(7006, (tcp(ALL4, 7006), true), tcp(ALL6, 7006).v6_only(false), "dual_stack"),
        row(7007, (tcp(ALL4, 7007).reuse_port(), true), tcp(ALL4, 7007), "reuse_port_missing"),
        row(7008, (tcp(ALL4, 7008), true), tcp(ALL4, 7008).reuse_port(), "reuse_port_missing"),
        row(
            7009,
            (tcp(ALL4, 7009), false),
            tcp(ALL4, 7009).reuse_address(),
            "reuse_address_missing",
        ),
        row(7010, (udp(v4, 7010), false), udp(v4, 7010), "same_address"),
        row(7011, (udp(ALL4, 7011), false), udp(LOOP4, 7011), "specific_under_wildcard"),
        row(7012, (udp(ALL6, 7012).v6_only(false), false), udp(ALL4, 7012), "dual_stack"),
        row(
            7013,
            (udp(ALL4, 7013).reuse_address(), false),
            udp(ALL4, 7013),
            "reuse_address_missing",
        ),
        row(7014, (udp(ALL4, 7014).reuse_port(), false), udp(ALL4, 7014), "reuse_port_missing"),
        row(7015, (tcp(ALL6, 7015), true), tcp(ALL6, 7015), "same_address"),
    ];
    let agent = Agent::start();
    let held: Vec<_> = rows
        .iter()
        .map(|row| {
            let holder = || if row.listens { row.has.listen() } else { row.has.bind() };
            pair.server.act_as(&format!("has-{}", row.port), holder).unwrap()
        })
        .collect();
    for row in &rows {
        let lost = pair.server.act_as(&format!("wants-{}", row.port), || row.wants.bind());
        assert_eq!(lost.unwrap_err(), libc::EADDRINUSE, "port {}", row.port);
    }
    for row in &rows {
        let found = conflict_of(&agent, &format!("wants-{}", row.port), row.port);
        assert_eq!(found["reason"], row.reason, "{found:#}");
        assert_eq!(found["errno"], "EADDRINUSE", "{found:#}");
        assert_eq!(found["count"], 1, "{found:#}");
        let holder = &found["holder"];
        assert_eq!(holder["service"]["name"], format!("has-{}", row.port), "{found:#}");
        assert_eq!(holder["state"], if row.listens { "listening" } else { "bound" }, "{found:#}");
        assert!(holder["since"].is_string(), "{found:#}");
        assert!(found["finding"]["title"].as_str().unwrap().contains(&format!("has-{}", row.port)));
    }
    drop(held);
    agent.ledger_adds_up();
    agent.stop();
}

#[test]
fn binds_without_a_conflict_are_not_reported() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let at = |ip, port| SocketAddr::new(ip, port);
    pair.server.act_as("the-innocent", || {
        // A group of one user.
        let group = Claim::tcp(at(ALL4, 7101)).reuse_port();
        let _group = [group.listen().unwrap(), group.listen().unwrap(), group.listen().unwrap()];
        // Port 0, repeatedly.
        for _ in 0..100 {
            Claim::tcp(at(ALL4, 0)).bind().unwrap();
            Claim::udp(at(ALL6, 0)).bind().unwrap();
        }
        // IPv6 only beside IPv4, and two addresses beside each other.
        let _both = [
            Claim::tcp(at(ALL4, 7102)).listen().unwrap(),
            Claim::tcp(at(ALL6, 7102)).v6_only(true).listen().unwrap(),
        ];
        let _two = [
            Claim::tcp(at(LOOP4, 7103)).listen().unwrap(),
            Claim::tcp(at(pair.server.v4.into(), 7103)).listen().unwrap(),
        ];
        // A port that is bound, closed and bound again.
        for _ in 0..10 {
            Claim::tcp(at(ALL4, 7104)).listen().unwrap();
        }
        // A server that restarts into its own TIME_WAIT, as servers do.
        for _ in 0..3 {
            let server = Claim::tcp(at(LOOP4, 7105)).reuse_address().listen().unwrap();
            let client = TcpStream::connect(at(LOOP4, 7105)).unwrap();
            drop(server.accept().unwrap());
            drop(client);
        }
    });
    // Long enough for pending binds to expire.
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_millis(2500) {
        std::thread::sleep(std::time::Duration::from_millis(250));
        let now = agent.scrape();
        let false_ones = now.sum("portolan_port_conflicts_total", &[("claimant", "the-innocent")]);
        assert_eq!(false_ones, 0, "{}", agent.json("/api/v1/conflicts"));
    }
    agent.ledger_adds_up();
    agent.stop();
}

#[test]
fn a_remembered_connection_is_in_the_way_of_a_bind_without_reuse() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let place = SocketAddr::new(LOOP4, 7201);
    pair.server.act_as("the-restarted", || {
        let server = Claim::tcp(place).listen().unwrap();
        let client = TcpStream::connect(place).unwrap();
        let (accepted, _) = server.accept().unwrap();
        // The server closes first: TIME_WAIT is on its side.
        drop(accepted);
        net::read_to_end(&mut &client).unwrap();
        drop((client, server));
        assert_eq!(Claim::tcp(place).bind().unwrap_err(), libc::EADDRINUSE);
    });
    let found = conflict_of(&agent, "the-restarted", 7201);
    assert_eq!(found["reason"], "reuse_address_missing", "{found:#}");
    assert_eq!(found["holder"]["state"], "time_wait", "{found:#}");
    agent.stop();
}

#[test]
fn a_reuseport_group_of_another_user_refuses_the_bind() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let place = SocketAddr::new(ALL4, 7301);
    let _held =
        pair.server.act_as("the-group", || Claim::tcp(place).reuse_port().listen().unwrap());
    pair.server.act_as("the-other-user", || {
        // SAFETY: changes the rights of this thread alone, which ends with the closure.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, -1, 33, -1) };
        assert_eq!(result, 0);
        assert_eq!(Claim::tcp(place).reuse_port().bind().unwrap_err(), libc::EADDRINUSE);
    });
    let found = conflict_of(&agent, "the-other-user", 7301);
    assert_eq!(found["reason"], "reuse_port_other_user", "{found:#}");
    assert_eq!(found["holder"]["service"]["name"], "the-group", "{found:#}");
    agent.stop();
}

#[test]
fn low_ports_and_strange_addresses_are_refused_by_the_kernel_itself() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    pair.server.act_as("the-humble", || {
        // SAFETY: as above; the thread loses its capabilities with the user.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, 33, 33, 33) };
        assert_eq!(result, 0);
        let low = Claim::tcp(SocketAddr::new(ALL4, 80)).bind();
        assert_eq!(low.unwrap_err(), libc::EACCES);
    });
    let strange = SocketAddr::new("192.0.2.77".parse().unwrap(), 7401);
    let strange6 = SocketAddr::new("2001:db8::77".parse().unwrap(), 7402);
    pair.server.act_as("the-stranger", || {
        assert_eq!(Claim::tcp(strange).bind().unwrap_err(), libc::EADDRNOTAVAIL);
        assert_eq!(Claim::udp(strange6).bind().unwrap_err(), libc::EADDRNOTAVAIL);
    });
    pair.server.act_as("the-doubter", || {
        let socket = Claim::tcp(SocketAddr::new(ALL4, 7403)).bind().unwrap();
        let again = socket.bind(&SocketAddr::new(ALL4, 7404).into()).unwrap_err();
        assert_eq!(again.raw_os_error(), Some(libc::EINVAL));
    });
    let check = |claimant, port, errno: &str, reason: &str| {
        let found = conflict_of(&agent, claimant, port);
        assert_eq!(found["errno"], errno, "{found:#}");
        assert_eq!(found["reason"], reason, "{found:#}");
        assert!(found["holder"].is_null(), "{found:#}");
    };
    check("the-humble", 80, "EACCES", "privileged");
    check("the-stranger", 7401, "EADDRNOTAVAIL", "foreign_address");
    check("the-stranger", 7402, "EADDRNOTAVAIL", "foreign_address");
    check("the-doubter", 7404, "EINVAL", "already_bound");
    agent.ledger_adds_up();
    agent.stop();
}

#[test]
fn a_listen_that_loses_after_both_could_bind_is_reported() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let claim = Claim::tcp(SocketAddr::new(ALL4, 7501)).reuse_address();
    let first = pair.server.act_as("the-faster", || claim.bind().unwrap());
    let second = pair.server.act_as("the-slower", || claim.bind().unwrap());
    pair.server.act_as("the-faster", || first.listen(1).unwrap());
    let lost = pair.server.act_as("the-slower", || second.listen(1).unwrap_err());
    assert_eq!(lost.raw_os_error(), Some(libc::EADDRINUSE));
    let found = conflict_of(&agent, "the-slower", 7501);
    assert_eq!(found["reason"], "listen_lost", "{found:#}");
    assert_eq!(found["system_call"], "listen", "{found:#}");
    assert_eq!(found["holder"]["service"]["name"], "the-faster", "{found:#}");
    // A program that closes its listener has no conflict.
    drop((first, second));
    let labels = [("claimant", "the-faster")];
    agent.ledger_adds_up();
    assert!(!agent.scrape().has("portolan_port_conflicts_total", &labels));
    agent.stop();
}

#[test]
fn a_range_without_a_free_port_is_exhausted() {
    needs_kernel!();
    let pair = Pair::new();
    pair.server.sysctl("ipv4/ip_local_port_range", "40000 40003");
    let agent = Agent::start();
    let any = SocketAddr::new(ALL4, 0);
    let _all = pair.server.act_as("the-greedy", || {
        let all: Vec<_> = (0..8).map_while(|_| Claim::tcp(any).listen().ok()).collect();
        assert!(!all.is_empty() && all.len() < 8, "{} of 4 ports", all.len());
        all
    });
    let found = conflict_of(&agent, "the-greedy", 0);
    assert_eq!(found["errno"], "EADDRINUSE", "{found:#}");
    assert_eq!(found["reason"], "exhausted", "{found:#}");
    agent.stop();
}

#[test]
fn a_holder_from_before_the_agent_is_found() {
    needs_kernel!();
    let pair = Pair::new();
    let place = SocketAddr::new(ALL4, 7601);
    let datagrams = SocketAddr::new(ALL4, 7602);
    let sockets = pair.server.within(|| {
        vec![
            Claim::tcp(place).listen().unwrap().into(),
            Claim::udp(datagrams).bind().unwrap().into(),
        ]
    });
    let _holder = crate::holder::Holder::new("the-old-one", sockets);
    let agent = Agent::start();
    pair.server.act_as("the-new-one", || {
        assert_eq!(Claim::tcp(place).bind().unwrap_err(), libc::EADDRINUSE);
        assert_eq!(Claim::udp(datagrams).bind().unwrap_err(), libc::EADDRINUSE);
    });
    for (port, state) in [(7601, "listening"), (7602, "bound")] {
        let found = conflict_of(&agent, "the-new-one", port);
        assert_eq!(found["holder"]["service"]["name"], "the-old-one", "{found:#}");
        assert_eq!(found["holder"]["state"], state, "{found:#}");
        assert_ne!(found["holder"]["pid"], 0, "{found:#}");
    }
    agent.stop();
}
