//! Labels: which names an edge of the kernel half gets.

use agent_common::address::{UNSPECIFIED, owner_of};
use agent_common::edge::{EdgeKey, ROLE_CLIENT, ROLE_LISTENER, ROLE_SERVER};

use crate::identity::Names;
use crate::model::owners::Owners;
use crate::model::service::{Service, Source};
use crate::model::snapshot::{EdgeLabels, Role};
use crate::model::tables::Edge;

/// Names both ends of an edge.
pub(super) fn labels(names: &mut Names, owners: &Owners, edge: &Edge, now_us: u64) -> EdgeLabels {
    let EdgeKey { owner, port, role, .. } = edge.key;
    if edge.born_us == 0 {
        // Overflow rows are numbered by role.
        let role = role_of(edge.slot as u8);
        return EdgeLabels::other(role);
    }
    let local = local_name(names, owners, owner, now_us);
    let netns = owners.netns(owner);
    let anyone = || Service::new("any", Source::Unknown);
    let (client, server) = match role {
        ROLE_CLIENT => (local, names.remote(netns, &edge.key)),
        ROLE_SERVER if edge.key.remote == UNSPECIFIED => (anyone(), local),
        ROLE_SERVER => match owner_of(&edge.key.remote) {
            Some(client) => (local_name(names, owners, client, now_us), local),
            None => (names.remote(netns, &edge.key), local),
        },
        _ => (anyone(), local),
    };
    EdgeLabels::new(client, server, port, role_of(role))
}

/// The name of an owner of this host.
pub(super) fn local_name(names: &mut Names, owners: &Owners, index: u32, now_us: u64) -> Service {
    owners.row(index).map_or_else(Service::other, |row| names.owner(index, row, now_us))
}

fn role_of(role: u8) -> Role {
    match role {
        ROLE_CLIENT => Role::Client,
        ROLE_SERVER => Role::Server,
        ROLE_LISTENER => Role::Listener,
        _ => Role::Unknown,
    }
}
