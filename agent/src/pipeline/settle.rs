//! Counts of the kernel half that do not say all: the kernel itself is asked for the rest, before
//! they are told.

use std::net::SocketAddr;

use agent_common::address::to_ip;
use agent_common::edge::{CONNECT_OTHER, EdgeKey, connect_result};

use agent_common::drained::Edge;
use linux::drops::{self, NamespaceDrops};
use linux::refusal::refusal;
use model::listen_drops::{ListenDrops, Reading};
use model::owners::Owners;
use model::unsent::Unsent;

/// Replaces what listeners' sockets dropped by what they lost of connection requests.
pub(super) fn listen_drops(
    drops: &mut ListenDrops,
    namespaces: &mut NamespaceDrops,
    owners: &Owners,
    edges: &mut [Edge],
) {
    drops.settle(
        edges,
        |edge| owners.netns(edge.key.owner),
        |netns, edge| {
            let tgid = owners.row(edge.key.owner).map_or(0, |row| row.tgid);
            match namespaces.read(netns, tgid) {
                drops::Reading::Total(total) => Reading::Total(total),
                drops::Reading::Later => Reading::Later,
                drops::Reading::Never => Reading::Never,
            }
        },
    );
}

/// Adds connects that the kernel refused before a SYN to the results of their edges: why it did is
/// asked once a drain for each edge with new ones.
pub(super) fn unsent(unsent: &mut Unsent, owners: &Owners, edges: &mut [Edge]) {
    unsent.settle(edges, |edge| {
        let EdgeKey { owner, remote, port, .. } = edge.key;
        let process = owners.row(owner).map_or(0, |row| row.tgid);
        match refusal(owners.netns(owner), process, SocketAddr::new(to_ip(remote), port)) {
            // What spoke against it has gone, as the namespace may have.
            Ok(0) | Err(_) => CONNECT_OTHER,
            Ok(errno) => connect_result(errno, true),
        }
    });
}
