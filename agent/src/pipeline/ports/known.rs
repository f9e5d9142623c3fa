//! How the parties of a conflict are called, and since when they are there.

use agent_common::address;
use agent_common::edge::{EdgeKey, ROLE_CLIENT};
use agent_common::listener::ListenerRecord;
use agent_common::owner::OwnerRow;

use super::candidate::Candidate;
use crate::pipeline::host::HeldBy;
use crate::pipeline::labels::local_name;
use discovery::{Acceptor, Names, docker_proxy, process};
use model::claims::Failures;
use model::conflicts::{Holder, Party};
use model::kernel_sockets;
use model::owners::Owners;
use model::port::{Port, Protocol};
use model::service::{Service, Source};

/// How long a failure of a container engine waits for the container's name.
const CONTAINER_WITHIN_US: u64 = 3_000_000;

/// What helps to name a party.
pub(in crate::pipeline) struct Known<'a> {
    /// Names.
    pub names: &'a mut Names,
    /// Rows of owners.
    pub owners: &'a Owners,
    /// Listeners, for those from before the agent.
    pub listeners: &'a [ListenerRecord],
    /// Now, CLOCK_MONOTONIC microseconds.
    pub now_us: u64,
    /// Now, seconds since the Unix epoch.
    pub now_seconds: f64,
}

// === impl Known ===

impl Known<'_> {
    /// A moment of the kernel's clock as seconds since the Unix epoch.
    pub(super) fn epoch(&self, at_us: u64) -> f64 {
        self.now_seconds - self.now_us.saturating_sub(at_us) as f64 / 1e6
    }

    pub(super) fn claimant(&mut self, failure: &Failures) -> Party {
        let owner = failure.key.owner;
        let command = self.owners.row(owner).map(command).unwrap_or_default();
        let service = match self.container(failure) {
            Some(container) => container,
            None => local_name(self.names, self.owners, owner, self.now_us).0,
        };
        Party { service, pid: failure.tgid, command }
    }

    /// Whether it may soon be known for which container an engine wanted a port.
    pub(super) fn may_learn_container(&self, failure: &Failures) -> bool {
        self.is_engine(failure)
            && self.now_us.saturating_sub(failure.last_us) < CONTAINER_WITHIN_US
            && self.names.publishes_in(failure.key.netns)
            && self.container(failure).is_none()
    }

    /// The container for which an engine wanted a port.
    fn container(&self, failure: &Failures) -> Option<Service> {
        let key = &failure.key;
        let protocol = Protocol::from_number(key.protocol)?;
        let port = Port { number: key.port, protocol };
        if !self.is_engine(failure) {
            return None;
        }
        self.names.failed_to_publish(key.netns, port, failure.last_us, failure.count)
    }

    fn is_engine(&self, failure: &Failures) -> bool {
        let row = self.owners.row(failure.key.owner);
        row.is_some_and(|row| docker_proxy::takes_ports(&command(row)))
    }

    /// The holder of a port, whose process was looked for; none while its cgroup is being looked
    /// at.
    pub(super) fn holder(
        &mut self,
        candidate: &Candidate,
        netns: u32,
        found: &HeldBy,
    ) -> Option<Holder> {
        let Candidate { held, owner, since_us, .. } = candidate;
        let HeldBy { pid, row, seen, age_seconds, proxy_arguments } = found;
        if candidate.is_kernel {
            let party = kernel_sockets::holder(held.protocol, held.port);
            let since_seconds = (*since_us != 0).then(|| self.epoch(*since_us));
            let (address, state) = (held.address, held.state);
            return Some(Holder { party, address, state, since_seconds });
        }
        let owned = owner.filter(|owner| self.owners.row(*owner).is_some());
        // The process that has it now, if that is not the one that bound it.
        let service = match (owned, row) {
            (_, Some(row)) => self.names.owner_without_row(row, seen, self.now_us)?.0,
            (Some(owner), None) => match self.names.acceptor(owner, held.port) {
                Some(Acceptor::Service(service)) if held.protocol == Protocol::Tcp => {
                    service.clone()
                }
                _ => local_name(self.names, self.owners, owner, self.now_us).0,
            },
            (None, None) => Service::new("none", Source::Unknown),
        };
        let command = match row.as_ref().or(owned.and_then(|owner| self.owners.row(owner))) {
            Some(row) => command(row),
            None => String::new(),
        };
        let behind = self.behind_proxy(&command, netns, held.port, || proxy_arguments);
        let service = behind.unwrap_or(service);
        let since_seconds = match since_us {
            0 => age_seconds.map(|age| self.now_seconds - age),
            since => Some(self.epoch(*since)),
        };
        let party = Party { service, pid: *pid, command };
        Some(Holder { party, address: held.address, state: held.state, since_seconds })
    }

    /// The service in the container for which Docker has a port: as Docker reports, else as the
    /// arguments of its proxy do.
    pub(super) fn behind_proxy<'b>(
        &mut self,
        command: &str,
        netns: u32,
        port: u16,
        arguments: impl FnOnce() -> &'b [u8],
    ) -> Option<Service> {
        if !docker_proxy::takes_ports(command) {
            return None;
        }
        if let Some(container) = self.names.published(netns, port) {
            return Some(container);
        }
        let (ip, port) = docker_proxy::target(arguments())?;
        let remote = address::from_ip(ip);
        let key = EdgeKey { owner: 0, port, role: ROLE_CLIENT, zero: 0, remote };
        Some(self.names.remote(netns, &key, false).service)
    }
}

/// The command name of an owner, as far as it is a name: programs write titles there.
pub(super) fn command(row: &OwnerRow) -> String {
    let comm = &row.key.comm;
    let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
    process::command_name(&String::from_utf8_lossy(comm.get(..end).unwrap_or_default()))
}
