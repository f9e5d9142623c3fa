//! The host around the simulated kernel half: answers what the agent asks it, at once or later.

use std::net::SocketAddr;

use agent_common::address;
use agent_common::edge::{CONNECT_OTHER, CONNECT_UNREACHABLE};
use hashbrown::HashSet;
use linux::addresses::{Held, Reach};
use linux::conditions::Conditions;
use linux::current_holders::Bound;
use linux::diag::SocketEntry;
use linux::existing::Survey;
use linux::inspection::Inspection;
use linux::probes::Pending;
use model::probes::ProbesView;

use super::Fake;
use super::world::address_of;
use crate::pipeline::host::{HeldBy, Holders, Host, Socket};
use crate::pipeline::walks::Cgroup;

/// TCP_LISTEN (include/net/tcp_states.h).
const LISTEN: u8 = 10;

impl Host for Fake {
    fn addresses(&self, _known: &[Held], _mounts: Option<u64>) -> Pending<Option<Survey>> {
        let addresses = (0..8)
            .map(|program| Held {
                netns: 100 + program,
                address: address_of(program),
                reach: Reach::Host,
            })
            .collect();
        self.world().ask(|world| {
            let namespaces = &world.namespaces;
            let of = |(netns, (_, name)): (&u32, &(u64, String))| (*netns, name.clone());
            let names = namespaces.iter().map(of).collect();
            let cookies = namespaces.iter().map(|(netns, (cookie, _))| (*netns, *cookie)).collect();
            let host = (!namespaces.is_empty()).then_some(1);
            Ok(Some(Survey { addresses, host, names, cookies, ..Survey::default() }))
        })
    }

    fn listen_drops(&self, netns: u32, _tgid: u32) -> Pending<Option<u64>> {
        self.world().ask(move |world| Ok(Some(world.drops.get(&netns).copied().unwrap_or(0))))
    }

    fn refusal(&self, _netns: u32, _tgid: u32, _local: u16, remote: SocketAddr) -> Pending<u8> {
        let is_even = remote.ip().is_ipv4();
        self.world().ask(move |_| Ok(if is_even { CONNECT_UNREACHABLE } else { CONNECT_OTHER }))
    }

    fn sockets(&self, netns: u32, _processes: Vec<u32>) -> Pending<Inspection> {
        self.world().ask(move |world| {
            let there = world.listeners.iter().filter(|listener| listener.netns == netns);
            let sockets = there.map(|listener| SocketEntry {
                cookie: listener.cookie,
                inode: listener.netns,
                protocol: libc::IPPROTO_TCP as u8,
                state: LISTEN,
                device: 0,
                family: listener.family,
                v6_only: 0,
                local: address::UNSPECIFIED,
                local_port: listener.port,
                remote: address::UNSPECIFIED,
                remote_port: 0,
                uid: 0,
                receive_queue: 0,
                send_queue: 0,
            });
            Ok(Inspection {
                sockets: sockets.collect(),
                addresses: HashSet::new(),
                unprivileged_from: 0,
                ephemeral: (32_768, 60_999),
                nonlocal: (false, false),
            })
        })
    }

    fn holder(&self, bound: Bound, _netns: u32) -> Pending<HeldBy> {
        self.world().ask(move |_| Ok(HeldBy { pid: bound.inode, ..HeldBy::default() }))
    }

    fn holders(&self, _bound: Vec<Socket>) -> Pending<Holders> {
        unreachable!("no ports are bound here")
    }

    fn proxy_arguments(&self, _tgid: u32) -> Pending<Vec<u8>> {
        unreachable!("no ports are bound here")
    }

    fn conditions(&self, _trusted: Vec<u32>) -> Pending<Conditions> {
        self.world().ask(|_| Ok(Conditions::default()))
    }

    fn cgroup(&self, _id: u64) -> Pending<Option<Cgroup>> {
        self.world().ask(|_| Ok(None))
    }

    fn probes(&self) -> ProbesView {
        ProbesView::default()
    }
}
