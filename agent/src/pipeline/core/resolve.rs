//! Resolve: what names are made of, as of this drain.

use agent_common::address::owner_of;
use agent_common::drained::Edge;
use agent_common::edge::{ROLE_CLIENT, ROLE_SERVER};
use agent_common::slot_table::SlotRow as _;
use agent_common::unsent::UnsentRow;

use super::{ADDRESSES_EVERY_US, ADDRESSES_SHARE, ADDRESSES_SOONEST_US, Core, Mounts, Now};
use crate::pipeline::kernel::Kernel;
use crate::pipeline::labels::{accepting, local};
use crate::pipeline::ports::Known;
use discovery::{Arrival, Client, Namespaces};
use hashbrown::HashSet;
use linux::addresses::{Held, Reach};
use linux::existing::Survey;
use linux::probes::Pending;
use loader::drain::Drained;
use model::owners::Owners;

impl<K: Kernel> Core<K> {
    /// Takes in owners, listeners, addresses and clients.
    pub(super) fn resolve(&mut self, drained: &mut Drained, now: Now) {
        let mut inhabited = HashSet::new();
        if !drained.owners.is_empty() {
            inhabited.extend(self.owners.namespaces());
        }
        for (index, row) in drained.owners.drain(..) {
            if self.names.is_in_doubt(&row) {
                self.met_us = self.met_us.max(row.born_us);
            }
            let netns = row.key.netns;
            self.inhabited.meet(netns, row.born_us, inhabited.insert(netns));
            self.owners.insert(index, row);
        }
        if let Some(listeners) = drained.listeners.take() {
            self.listeners = listeners;
        }
        self.names.take_cgroups();
        let (inventories, expecting) = self.sources.inventories();
        self.names.set_inventories(inventories, expecting);
        self.names.set_connection_lists(self.sources.connection_lists());
        self.look_for_addresses(now.us);
        for owner in self.returned.find(drained, &self.listeners, self.names.past()) {
            self.names.enter(owner);
        }
        self.names.set_ports(&self.listeners);
        self.names.learn_dns_answers(&drained.answers, drained.malformed_answers, now.us);
        let Self { names, owners, listeners, ports, host, .. } = self;
        let (now_us, now_seconds) = (now.us, now.epoch_seconds);
        let mut known = Known { names: &mut *names, owners, listeners, now_us, now_seconds };
        let acceptors = ports.take_sockets(drained, &mut known, &**host);
        names.set_acceptors(acceptors);
        let listening: Vec<_> = listeners
            .iter()
            .filter_map(|record| Some((*record, accepting(names, owners, record, now.us)?)))
            .collect();
        // What was seen from a namespace that has ended does not hold in the next one.
        let past = names.past().clone();
        let mut owner = |index: u32| local(names, owners, index, now.us);
        let is_client = |edge: &&Edge| edge.key.role == ROLE_CLIENT && !edge.is_overflow();
        let edges = drained.edges.iter().filter(is_client);
        let edges = edges.filter(|edge| !past.contains(&edge.key.owner));
        let edges = edges.map(|edge| (edge.key.owner, edge.key.remote, edge.key.port));
        let unsent = drained.unsent.iter().filter(|row| row.slot >= UnsentRow::RESERVED);
        let unsent = unsent.map(|row| (row.row.key.owner, row.row.key.remote, row.row.key.port));
        let client = |(index, remote, port)| Client {
            owner: index,
            netns: owners.netns(index),
            remote,
            port,
            found: owner(index),
        };
        let clients: Vec<_> = edges.chain(unsent).map(client).collect();
        let arrivals: Vec<_> = drained
            .edges
            .iter()
            .filter_map(|edge| arrivals(owners, &past, edge))
            .flatten()
            .collect();
        names.set_listeners(&listening);
        names.set_arrivals(&arrivals);
        let lacks_row = |edge: &Edge| {
            edge.is_overflow()
                && edge.key.role == ROLE_CLIENT
                && edge.counters.connects.iter().any(|count| *count > 0)
        };
        names.set_clients(&clients, !drained.edges.iter().any(lacks_row));
    }

    /// Has addresses looked for when it is time, and takes in what was found.
    fn look_for_addresses(&mut self, now_us: u64) {
        self.take_survey();
        // Who is met for the first time may be in a namespace that has the number of another one.
        let is_known = self.surveyed_us.is_none_or(|at| self.met_us <= at);
        let is_soon = self.has_unknown_namespaces() || !is_known;
        let soonest = ADDRESSES_SOONEST_US.max(self.look_cost_us.saturating_mul(ADDRESSES_SHARE));
        let patience = if is_soon { soonest } else { ADDRESSES_EVERY_US };
        let is_due = self.surveyed_us.is_none_or(|at| now_us.saturating_sub(at) >= patience);
        if (is_due || self.mounts == Mounts::Changed) && self.surveying.is_none() {
            let mounts = (!is_due).then_some(self.surveyed_mounts);
            if self.mounts == Mounts::Changed {
                self.mounts = Mounts::Looking;
            }
            self.asked_us = now_us;
            if mounts.is_none() {
                self.surveyed_us = Some(now_us);
            }
            self.surveyed_namespaces = self.owners.namespaces().collect();
            self.surveying = Some(self.host.addresses(&self.addresses, mounts));
            self.take_survey();
        }
        // They are looked for by the next collection at the latest.
        self.names.set_unknown_namespaces(self.has_unknown_namespaces());
    }

    /// Whether there are owners in namespaces of which no address is known, or not all may be.
    fn has_unknown_namespaces(&self) -> bool {
        self.inhabited.since_us() > self.looked_us
            || self.owners.namespaces().any(|netns| !self.known_namespaces.contains(&netns))
    }

    fn take_survey(&mut self) {
        let Some(answer) = self.surveying.as_ref().and_then(Pending::take) else { return };
        self.surveying = None;
        if self.mounts == Mounts::Looking {
            self.mounts = Mounts::Same;
        }
        match answer {
            Ok(Some(survey)) => {
                self.surveyed_us = Some(self.asked_us);
                self.looked_us = self.asked_us;
                self.look_cost_us = survey.cost.as_micros() as u64;
                self.take_addresses(&survey);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!("addresses of network namespaces stay as they were: {error}");
            }
        }
    }

    /// Takes in what namespaces there are.
    pub(super) fn take_addresses(&mut self, survey: &Survey) {
        self.known_namespaces = survey.namespaces.iter().map(|namespace| namespace.inode).collect();
        // A namespace that cannot be found stays a stranger; do not look for it every second.
        self.known_namespaces.extend(self.surveyed_namespaces.drain(..));
        self.surveyed_mounts = survey.mounts;
        self.inhabited.look(&survey.cookies);
        if let Err(error) = self.kernel.set_delegated(&survey.delegated) {
            tracing::warn!(
                "who has a cgroup at the first level may take more than a share: {error}"
            );
        }
        self.names.set_addresses(&survey.addresses);
        let listed = self.known_namespaces.clone();
        self.names.set_namespaces(Namespaces {
            host: survey.host,
            names: Some(&survey.names),
            cookies: Some(&survey.cookies),
            listed,
            began_us: self.surveyed_us.unwrap_or_default(),
        });
        // A process that may make a namespace can have any address there.
        let is_of_host = |held: &&Held| held.reach == Reach::Host;
        let of_host = survey.addresses.iter().filter(is_of_host);
        self.tables.set_addresses(of_host.map(|held| held.address));
        self.addresses.clone_from(&survey.addresses);
        self.ports.set_ephemeral(survey);
    }
}

/// What a server's edge shows of the addresses of both ends, if its client is an owner of another
/// namespace of this host.
fn arrivals(owners: &Owners, past: &HashSet<u32>, edge: &Edge) -> Option<[Arrival; 2]> {
    if edge.key.role != ROLE_SERVER || edge.is_overflow() {
        return None;
    }
    let rows = [owner_of(&edge.key.remote)?, edge.key.owner];
    if rows.iter().any(|row| past.contains(row)) {
        return None;
    }
    let [client, server] = rows.map(|row| owners.netns(row));
    let is_known = client != 0 && server != 0 && client != server;
    is_known.then_some([
        Arrival { from: client, address: edge.local, at: server },
        Arrival { from: server, address: edge.remote, at: client },
    ])
}
