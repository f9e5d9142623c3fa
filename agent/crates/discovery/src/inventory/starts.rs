//! Containers that an engine could not start because of a port, to name the container that wanted
//! it and the one that has it.

use std::net::IpAddr;

use agent_common::address::{self, Address};

use super::{Inventory, MAX_ENTRIES, Workload, put};
use model::port::{Port, Protocol};

/// A container that failed to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FailedStart {
    /// CLOCK_MONOTONIC microseconds.
    at_us: u64,
    workload: Workload,
}

/// A port that a container was to publish, which was never started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusedStart {
    port: Port,
    address: IpAddr,
    at_us: u64,
    workload: Workload,
}

/// A container that the engine did not start because it had given one of its ports to another
/// container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocated {
    /// The network namespace that the port is in.
    pub netns: u32,
    /// The port.
    pub port: Port,
    /// The address; unspecified: all.
    pub address: IpAddr,
    /// When, CLOCK_MONOTONIC microseconds.
    pub at_us: u64,
    /// The container that was not started.
    pub claimant: Workload,
    /// The one that has the port.
    pub holder: Workload,
}

impl Inventory {
    /// A port that a container failed to publish at its start; `at_us` is when the engine gave up,
    /// CLOCK_MONOTONIC microseconds.
    pub fn add_failed_start(&mut self, port: Port, at_us: u64, workload: Workload) {
        let start = FailedStart { at_us, workload };
        match self.failed_starts.get_mut(&port) {
            Some(starts) if starts.len() >= MAX_ENTRIES => self.dropped += 1,
            Some(starts) => starts.push(start),
            None => self.dropped += put(&mut self.failed_starts, port, vec![start]),
        }
    }

    /// A port at an address of a container that the engine created and could not start.
    pub fn add_refused_start(
        &mut self,
        port: Port,
        address: IpAddr,
        at_us: u64,
        workload: Workload,
    ) {
        if self.refused_starts.len() < MAX_ENTRIES {
            self.refused_starts.push(RefusedStart { port, address, at_us, workload });
        } else {
            self.dropped += 1;
        }
    }

    /// Containers that were not started because another container of the engine has one of their
    /// ports.
    pub fn allocated(&self) -> impl Iterator<Item = Allocated> {
        let published = |start: &RefusedStart| {
            let places = self.published.get(&start.port.number)?;
            let overlap = |at: Address| {
                let (at, wanted) = (address::to_ip(at), start.address);
                at == wanted || at.is_unspecified() || wanted.is_unspecified()
            };
            let other = |workload: &Workload| workload.entity != start.workload.entity;
            let holder = places.iter().find(|(at, workload)| overlap(*at) && other(workload));
            Some(Allocated {
                netns: self.published_in?,
                port: start.port,
                address: start.address,
                at_us: start.at_us,
                claimant: start.workload.clone(),
                holder: holder?.1.clone(),
            })
        };
        // Only published TCP ports are known.
        let of_tcp = |start: &&RefusedStart| start.port.protocol == Protocol::Tcp;
        self.refused_starts.iter().filter(of_tcp).filter_map(published)
    }

    /// The workload for which an engine failed to bind a port in a namespace: the first one whose
    /// start failed after the bind did. `at_us` is when the last of `count` binds failed,
    /// CLOCK_MONOTONIC microseconds. Several binds belong to one workload only if no other one has
    /// failed to publish this port lately.
    pub fn failed_start(
        &self,
        netns: u32,
        port: Port,
        at_us: u64,
        count: u64,
    ) -> Option<&Workload> {
        if self.published_in != Some(netns) {
            return None;
        }
        let starts = self.failed_starts.get(&port)?;
        let after = starts.iter().filter(|start| start.at_us >= at_us);
        let found = &after.min_by_key(|start| start.at_us)?.workload;
        let is_only = || starts.iter().all(|start| start.workload.entity == found.entity);
        (count <= 1 || is_only()).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::workload;
    use super::*;

    #[test]
    fn a_failed_start_is_known_in_the_runtimes_namespace_only() {
        let mut inventory = Inventory::default();
        inventory.publishes_in(7);
        inventory.add_failed_start(Port::tcp(5432), 10, workload("one"));
        assert_eq!(inventory.failed_start(7, Port::tcp(5432), 9, 1), Some(&workload("one")));
        assert_eq!(inventory.failed_start(7, Port::udp(5432), 9, 1), None);
        assert_eq!(inventory.failed_start(8, Port::tcp(5432), 9, 1), None);
        assert_eq!(inventory.published(7, None, 5432), None, "it is not published");
    }

    #[test]
    fn a_failed_bind_belongs_to_the_container_that_failed_next() {
        let mut inventory = Inventory::default();
        inventory.publishes_in(7);
        let port = Port::tcp(5432);
        inventory.add_failed_start(port, 10, workload("one"));
        assert_eq!(inventory.failed_start(7, port, 11, 1), None, "it had failed before");
        assert_eq!(inventory.failed_start(7, port, 9, 2), Some(&workload("one")));
        inventory.add_failed_start(port, 20, workload("two"));
        assert_eq!(inventory.failed_start(7, port, 9, 1), Some(&workload("one")));
        assert_eq!(inventory.failed_start(7, port, 11, 1), Some(&workload("two")));
        assert_eq!(inventory.failed_start(7, port, 11, 2), None, "one may be the other's");
    }
}
