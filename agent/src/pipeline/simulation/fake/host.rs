//! The host around the simulated kernel half: answers what the agent asks it, at once or later.

use std::net::SocketAddr;

use agent_common::edge::{CONNECT_OTHER, CONNECT_UNREACHABLE};
use linux::addresses::{Held, Reach};
use linux::existing::Survey;
use linux::inspection::Inspection;
use linux::probes::Pending;
use model::probes::ProbesView;

use super::Fake;
use super::world::address_of;
use crate::pipeline::host::{HeldBy, Host};

impl Host for Fake {
    fn addresses(&self, _known: &[Held]) -> Pending<Survey> {
        let addresses = (0..8)
            .map(|program| Held {
                netns: 100 + program,
                address: address_of(program),
                reach: Reach::Host,
            })
            .collect();
        self.world().ask(|_| Ok(Survey { addresses, ..Survey::default() }))
    }

    fn listen_drops(&self, netns: u32, _tgid: u32) -> Pending<Option<u64>> {
        self.world().ask(move |world| Ok(Some(world.drops.get(&netns).copied().unwrap_or(0))))
    }

    fn refusal(&self, _netns: u32, _tgid: u32, _local: u16, remote: SocketAddr) -> Pending<u8> {
        let is_even = remote.ip().is_ipv4();
        self.world().ask(move |_| Ok(if is_even { CONNECT_UNREACHABLE } else { CONNECT_OTHER }))
    }

    fn sockets(&self, _netns: u32, _processes: Vec<u32>) -> Pending<Inspection> {
        unreachable!("no bind fails here")
    }

    fn holder(&self, _tgid: u32, _inode: u32, _netns: u32) -> Pending<HeldBy> {
        unreachable!("no bind fails here")
    }

    fn proxy_arguments(&self, _tgid: u32) -> Pending<Vec<u8>> {
        unreachable!("no ports are bound here")
    }

    fn probes(&self) -> ProbesView {
        ProbesView::default()
    }
}
