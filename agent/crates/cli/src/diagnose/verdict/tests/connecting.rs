//! Evidence of connects that fail: name, route, refusal, packets that are dropped.

use std::net::IpAddr;

use linux::hops::Hop as Passed;

use super::evidence::{Case, dead_link, fails, full_table, listening, live, probes, router};
use super::{Cause, Certainty};
use crate::diagnose::evidence::{Blocked, Changed, Killed, Lookup, Path};

pub(super) const CASES: &[Case] = &[
    (
        "a name that does not resolve",
        |all| {
            all.probes.name = Some(Lookup {
                name: "db.example".to_owned(),
                by: "DNS server 10.0.0.53".to_owned(),
                result: Err("there is no such name (NXDOMAIN)".to_owned()),
            });
            all.probes.connect = None;
            all.live = None;
        },
        Cause::NameNotResolved,
        "db.example does not resolve: there is no such name (NXDOMAIN) (DNS server 10.0.0.53)",
        Certainty::High,
    ),
    (
        "local ports run out",
        |all| {
            fails(all, "ports_exhausted", 30, 70);
            live(all).local_ports = Some(1.0);
            probes(all, "ports_exhausted", 20);
        },
        Cause::NoLocalPort,
        "gateway has no local port left (100% of its local ports are in use)",
        Certainty::High,
    ),
    (
        "a source port in use",
        |all| fails(all, "port_in_use", 30, 0),
        Cause::SourceAddress,
        "30 with a source port in use",
        Certainty::Medium,
    ),
    (
        "a firewall on the client's host",
        |all| {
            fails(all, "denied", 3, 0);
            probes(all, "denied", 20);
        },
        Cause::Denied,
        "the client's own host refuses the connect",
        Certainty::High,
    ),
    (
        "a link whose other end is down",
        |all| {
            fails(all, "aborted", 12, 0);
            probes(all, "timeout", 20);
            all.probes.route = Some(Ok(Path { is_silent: true, ..Path::default() }));
            all.dead_link = Some(dead_link(true));
        },
        Cause::LinkDown,
        "the interface eth0 of shop, which has 10.0.0.2, has no carrier: the other end of its link is down",
        Certainty::High,
    ),
    (
        "an interface that is down",
        |all| {
            fails(all, "unreachable", 12, 0);
            all.probes.connect = None;
            all.dead_link = Some(dead_link(false));
        },
        Cause::LinkDown,
        "which has 10.0.0.2, is down",
        Certainty::Medium,
    ),
    (
        "a link-local address without its interface",
        |all| {
            live(all).addresses = vec!["[fe80::1]:3002".parse().expect("an address")];
            all.probes.connect = None;
            fails(all, "other", 5, 0);
        },
        Cause::NoRoute,
        "gateway connects to fe80::1, a link-local address, without its interface",
        Certainty::Medium,
    ),
    (
        "no route",
        |all| {
            let text = "no route to 10.0.0.2".to_owned();
            all.probes.route = Some(Err(Blocked { text, is_certain: true }));
            fails(all, "unreachable", 3, 0);
            probes(all, "unreachable", 20);
        },
        Cause::NoRoute,
        "the client has no route to the server: no route to 10.0.0.2",
        Certainty::High,
    ),
    (
        "a router that answers",
        |all| {
            fails(all, "unreachable", 3, 0);
            probes(all, "unreachable", 20);
        },
        Cause::NoRoute,
        "a router or a firewall on the way answers",
        Certainty::High,
    ),
    (
        "a host that is gone",
        |all| {
            all.probes.route = Some(Ok(Path { is_silent: true, ..Path::default() }));
            fails(all, "timeout", 3, 0);
            probes(all, "unreachable", 20);
        },
        Cause::HostGone,
        "the next hop on the link does not answer",
        Certainty::High,
    ),
    (
        "a server that ended",
        |all| {
            fails(all, "refused", 12, 3);
            probes(all, "refused", 20);
            live(all).listeners.clear();
            live(all).changes = vec![Changed {
                service: "catalog".to_owned(),
                cause: "service_stopped".to_owned(),
                text: "stopped".to_owned(),
                seconds_ago: 39.2,
            }];
        },
        Cause::NothingListens,
        "nothing listens on port 3002 of catalog: it stopped 39 seconds ago",
        Certainty::High,
    ),
    (
        "a server that was killed",
        |all| {
            fails(all, "refused", 12, 3);
            probes(all, "refused", 20);
            live(all).listeners.clear();
            let command = "node".to_owned();
            all.host.killed = Some(Killed { pid: 42, command, seconds_ago: 39.2, is_named: false });
        },
        Cause::OomKilled,
        "the OOM killer has killed catalog (node, pid 42) 39 seconds ago, and nothing listens since",
        Certainty::Medium,
    ),
    (
        "a server elsewhere that refuses",
        |all| {
            fails(all, "refused", 12, 0);
            probes(all, "refused", 20);
            live(all).is_here = false;
            live(all).listeners.clear();
        },
        Cause::NothingListens,
        "nothing listens there, or a firewall rejects them",
        Certainty::High,
    ),
    (
        "the loopback",
        |all| {
            fails(all, "refused", 12, 0);
            live(all).listeners = vec![listening("127.0.0.1", 0)];
            probes(all, "refused", 20);
        },
        Cause::LoopbackOnly,
        "node (pid 42) listens on the loopback only (127.0.0.1:3002)",
        Certainty::High,
    ),
    (
        "another family",
        |all| {
            live(all).addresses = vec!["[fd00::2]:3002".parse().expect("an address")];
            all.probes.connect = None;
            fails(all, "refused", 12, 0);
        },
        Cause::OtherAddress,
        "listens for IPv4 only (0.0.0.0:3002)",
        Certainty::High,
    ),
    (
        "another address",
        |all| {
            fails(all, "refused", 12, 0);
            live(all).listeners = vec![listening("10.0.0.3", 0)];
            probes(all, "refused", 20);
        },
        Cause::OtherAddress,
        "listens on 10.0.0.3:3002 only",
        Certainty::High,
    ),
    (
        "a firewall that rejects",
        |all| {
            fails(all, "refused", 12, 0);
            probes(all, "refused", 20);
        },
        Cause::Rejected,
        "although node (pid 42) listens on 0.0.0.0:3002",
        Certainty::High,
    ),
    (
        "a server that came back",
        |all| {
            fails(all, "refused", 12, 30);
            live(all).changes = vec![Changed {
                service: "catalog".to_owned(),
                cause: "service_restarted".to_owned(),
                text: "restarted".to_owned(),
                seconds_ago: 20.0,
            }];
        },
        Cause::WasNotListening,
        "refused connects in the window and accepts them now; restarted 20 seconds ago",
        Certainty::High,
    ),
    (
        "descriptors used up, and a queue that fills",
        |all| {
            all.host.descriptors = Some((1024, 1024));
            live(all).listeners = vec![listening("0.0.0.0", 9)];
            probes(all, "timeout", 20);
        },
        Cause::OutOfDescriptors,
        "has 1024 of 1024 descriptors open",
        Certainty::High,
    ),
    (
        "a full queue, and connects that time out",
        |all| {
            live(all).listeners = vec![listening("0.0.0.0", 9)];
            live(all).listen_drops = 12;
            fails(all, "timeout", 12, 0);
            probes(all, "timeout", 20);
        },
        Cause::AcceptQueueFull,
        "9 connections wait for accept(), 8 may",
        Certainty::High,
    ),
    (
        "no way back",
        |all| {
            let text = "no route to 10.0.0.1".to_owned();
            all.probes.back = Some(Err(Blocked { text, is_certain: true }));
            fails(all, "timeout", 12, 0);
            probes(all, "timeout", 20);
        },
        Cause::NoRouteBack,
        "the server has no route back to the client: no route to 10.0.0.1",
        Certainty::High,
    ),
    (
        "dropped SYNs",
        |all| {
            fails(all, "timeout", 12, 0);
            live(all).syn_retransmits = 30;
            probes(all, "timeout", 20);
        },
        Cause::Dropped,
        "packets to 10.0.0.2:3002 are dropped silently",
        Certainty::High,
    ),
    (
        "a full table of connection tracking at the server",
        |all| {
            fails(all, "timeout", 10, 2);
            probes(all, "timeout", 20);
            all.full_tables = vec![full_table(false), full_table(true)];
        },
        Cause::TrackingFull,
        "connection tracking of end is full (262k of 262k entries)",
        Certainty::High,
    ),
    (
        "a full table somewhere on this host",
        |all| {
            probes(all, "timeout", 20);
            fails(all, "timeout", 10, 0);
            all.full_tables = vec![full_table(false)];
        },
        Cause::TrackingFull,
        "connection tracking of router is full",
        Certainty::Medium,
    ),
    (
        "packets that are lost behind the second hop",
        |all| {
            fails(all, "timeout", 10, 0);
            probes(all, "timeout", 20);
            all.probes.hops =
                Some(vec![router("10.0.0.254"), Passed::Silent, router("10.1.0.254")]);
        },
        Cause::Dropped,
        "The last hop that answers is 10.1.0.254: they are lost behind it.",
        Certainty::High,
    ),
    (
        "a refusal, and an agent that cannot list what listens",
        |all| {
            fails(all, "refused", 30, 0);
            probes(all, "refused", 20);
            (live(all).sees_listeners, live(all).listeners) = (false, Vec::new());
        },
        Cause::NothingListens,
        "catalog:3002 refuses connects: nothing listens there, or a firewall rejects them",
        Certainty::High,
    ),
    (
        "a server whose own rule rejects, with few ICMP messages",
        |all| {
            fails(all, "unreachable", 9, 0);
            probes(all, "timeout", 20);
            let (by, why) = (IpAddr::from([10, 0, 0, 2]), "a rule prohibits it");
            all.probes.hops = Some(vec![Passed::Rejected { by, why }]);
        },
        Cause::Rejected,
        "the server's own host rejects the connects (10.0.0.2, ICMP: a rule prohibits it)",
        Certainty::High,
    ),
    (
        "a rejection on the link by nobody knows whom, and probes that get no answer",
        |all| {
            all.probes.route = Some(Ok(Path { is_direct: true, ..Path::default() }));
            fails(all, "unreachable", 9, 0);
            probes(all, "timeout", 20);
        },
        Cause::Rejected,
        "no router is between them",
        Certainty::Medium,
    ),
    (
        "a router that rejects",
        |all| {
            fails(all, "unreachable", 10, 0);
            probes(all, "unreachable", 20);
            let (by, why) = (IpAddr::from([10, 0, 0, 254]), "a rule prohibits it");
            all.probes.hops = Some(vec![Passed::Rejected { by, why }]);
        },
        Cause::NoRoute,
        "10.0.0.254 rejects the connects (ICMP: a rule prohibits it)",
        Certainty::High,
    ),
];
