//! What a snapshot shows of listeners, and rare events in the log.

use std::net::Ipv4Addr;

use agent_common::address::{UNSPECIFIED, to_ip};
use agent_common::drained::Table;
use agent_common::listener::ListenerRecord;

use super::labels::{accepting, local_name};
use agent_common::decode::Event;
use discovery::Names;
use model::owners::Owners;
use model::snapshot::ListenerView;
use model::tables::Tables;

/// Listening sockets with the names of who has them, sorted.
pub(super) fn listeners(
    names: &mut Names,
    owners: &Owners,
    records: &[ListenerRecord],
    now_us: u64,
) -> Vec<ListenerView> {
    let mut views: Vec<_> = records
        .iter()
        .map(|record| ListenerView {
            // One that waits for its service belongs to who opened it.
            service: match accepting(names, owners, record, now_us) {
                Some(found) => found.service,
                None => local_name(names, owners, record.owner, now_us).0,
            },
            port: record.port,
            address: if record.family == 2 && record.address == UNSPECIFIED {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                to_ip(record.address)
            },
            netns: record.netns,
            backlog: record.backlog,
            max_backlog: record.max_backlog,
            unverified_user: owners.user(record.owner),
        })
        .collect();
    views.sort_unstable();
    views
}

/// Rare facts, one by one, for who debugs.
pub(super) fn log(event: &Event, tables: &Tables) {
    let (table, slot) = match event {
        Event::Reset { slot, is_listener: true, .. } => (Table::Listeners, slot),
        Event::ConnectFailed { slot, .. } | Event::Reset { slot, .. } => (Table::Edges, slot),
    };
    let labels = tables.labels(table, *slot);
    let client = labels.map(|labels| labels.client.name.as_ref());
    let server = labels.map(|labels| labels.server.name.as_ref());
    match event {
        Event::ConnectFailed { remote, port, result, errno, elapsed_us, .. } => {
            tracing::debug!(client, server, %remote, port, result, errno, elapsed_us, "connect failed");
        }
        Event::Reset { remote, remote_port, local_port, sent, cause, idle_us, .. } => {
            // A socket that is closed already has given its port back; the edge knows a server's.
            let port = labels.map(|labels| labels.port);
            tracing::debug!(client, server, port, %remote, remote_port, local_port, sent, cause, idle_us, "reset");
        }
    }
}
