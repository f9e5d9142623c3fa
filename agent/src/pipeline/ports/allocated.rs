//! Conflicts of which the kernel knows nothing: a container engine has given a port to one container,
//! and does not start another one that is to publish it ("port is already allocated").

use hashbrown::HashMap;

use super::Ports;
use super::known::Known;
use discovery::Allocated;
use model::clash::{self, Reason};
use model::conflicts::{Conflict, Holder, Party};
use model::port::{Port, PortState, Protocol};
use model::service::Entity;

/// Containers remembered at most; a source reports a failed start for a minute.
const MOST: usize = 1024;

/// When the last failed start of a container with a port was reported, CLOCK_MONOTONIC microseconds.
pub(super) type Reported = HashMap<(Entity, Port), u64>;

impl Ports {
    /// Reports each failed start once.
    pub(super) fn take_allocated(&mut self, known: &Known<'_>) {
        let all: Vec<Allocated> = known.names.allocated().collect();
        let is_there = |(entity, port): &(Entity, Port)| {
            all.iter().any(|one| (one.claimant.entity, one.port) == (*entity, *port))
        };
        self.allocated.retain(|start, _| is_there(start));
        for one in all {
            let start = (one.claimant.entity, one.port);
            let is_new = self.allocated.get(&start).is_none_or(|at_us| *at_us < one.at_us);
            let has_room = self.allocated.len() < MOST || self.allocated.contains_key(&start);
            if is_new && has_room {
                self.allocated.insert(start, one.at_us);
                self.record(
                    self.refused_by_engine(&one, known),
                    clash::errno_name(clash::EADDRINUSE),
                );
            }
        }
    }

    fn refused_by_engine(&self, one: &Allocated, known: &Known<'_>) -> Conflict {
        let Allocated { netns, port, address, at_us, claimant, holder } = one;
        let party = |workload: &discovery::inventory::Workload| Party {
            service: workload.service.clone(),
            pid: 0,
            command: String::new(),
        };
        let is_its = |bound: &&agent_common::bound::BoundRecord| {
            let protocol = Protocol::from_number(bound.protocol);
            (bound.netns, bound.port, protocol) == (*netns, port.number, Some(port.protocol))
        };
        let bound = self.bound.iter().find(is_its).filter(|bound| bound.since_us != 0);
        let at = known.epoch(*at_us);
        Conflict {
            first_seconds: at,
            last_seconds: at,
            count: 1,
            claimant: party(claimant),
            port: port.number,
            protocol: port.protocol,
            address: *address,
            netns: *netns,
            by_listen: false,
            // What bind would have returned.
            errno: clash::errno_name(clash::EADDRINUSE).to_owned(),
            inferred: true,
            reason: Reason::Allocated,
            holder: Some(Holder {
                party: party(holder),
                address: *address,
                state: PortState::Listening,
                since_seconds: bound.map(|bound| known.epoch(bound.since_us)),
            }),
            next_free: None,
            // Its engine reports it, which runs as root or as one user.
            unverified_user: None,
        }
    }
}
