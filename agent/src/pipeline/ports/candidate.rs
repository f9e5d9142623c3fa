//! Sockets that may be in the way of a bind.

use agent_common::address::to_ip;
use agent_common::attempt::{IS_V6, REUSE_ADDRESS, REUSE_PORT, V6_ONLY};
use agent_common::bound::BoundRecord;

use linux::diag::{SocketEntry, TIME_WAIT};
use model::port::{Held, PortState, Protocol};

/// A socket that may be in the way, and where to look for its process.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    /// What it has.
    pub held: Held,
    /// Inode of the socket; 0 if not known.
    pub inode: u32,
    /// Row of who bound it, if the kernel half saw that.
    pub owner: Option<u32>,
    /// The kernel made it for itself.
    pub is_kernel: bool,
    /// Process that bound it; 0 if not known.
    pub tgid: u32,
    /// Since when, CLOCK_MONOTONIC microseconds; 0 if from before the agent.
    pub since_us: u64,
}

// === impl Candidate ===

impl Candidate {
    /// A socket as the kernel half keeps it.
    pub(super) fn bound(bound: &BoundRecord) -> Option<Self> {
        let protocol = Protocol::from_number(bound.protocol)?;
        let has = |option| bound.options & option != 0;
        let held = Held {
            protocol,
            address: to_ip(bound.address),
            is_v6: has(IS_V6),
            v6_only: has(V6_ONLY),
            port: bound.port,
            device: bound.device,
            uid: Some(bound.uid),
            reuse_address: Some(has(REUSE_ADDRESS)),
            reuse_port: Some(has(REUSE_PORT)),
            state: PortState::of(protocol, bound.state),
            peer: None,
        };
        let (owner, tgid, since_us) = (Some(bound.owner), bound.tgid, bound.since_us);
        let (inode, is_kernel) = (bound.inode, bound.is_kernel != 0);
        Some(Self { held, inode, owner, is_kernel, tgid, since_us })
    }

    /// A socket as `sock_diag` lists it.
    pub(super) fn listed(entry: &SocketEntry) -> Self {
        let protocol = if entry.protocol == 17 { Protocol::Udp } else { Protocol::Tcp };
        let held = Held {
            protocol,
            address: to_ip(entry.local),
            is_v6: i32::from(entry.family) == libc::AF_INET6,
            v6_only: entry.v6_only == 1,
            port: entry.local_port,
            device: entry.device,
            uid: (entry.state != TIME_WAIT).then_some(entry.uid),
            reuse_address: None,
            reuse_port: None,
            state: PortState::of(protocol, entry.state),
            peer: (entry.remote_port != 0).then(|| (to_ip(entry.remote), entry.remote_port)),
        };
        Self { held, inode: entry.inode, owner: None, is_kernel: false, tgid: 0, since_us: 0 }
    }

    /// Adds what the kernel half knows.
    pub(super) fn learn(&mut self, bound: &BoundRecord) {
        if let Some(Self { held, owner, is_kernel, tgid, since_us, .. }) = Self::bound(bound) {
            self.held.reuse_address = held.reuse_address;
            self.held.reuse_port = held.reuse_port;
            (self.owner, self.tgid, self.since_us) = (owner, tgid, since_us);
            self.is_kernel = is_kernel;
        }
    }
}
