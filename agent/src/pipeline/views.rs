//! What a snapshot shows of the agent's own parts and of listeners, and rare events in the log.

use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;

use agent_common::address::{UNSPECIFIED, to_ip};
use agent_common::attempt::FIRST_FREE_FAILURE;
use agent_common::edge::FIRST_FREE_SLOT;
use agent_common::listener::ListenerRecord;

use super::labels::local_name;
use agent_common::decode::Event;
use discovery::Names;
use loader::bpf::{self, ProgramRuns};
use loader::drain::Drained;
use loader::load::Kernel;
use loader::object::Link;
use model::owners::Owners;
use model::snapshot::{Disabled, HookView, ListenerView, MapView};
use model::tables::Tables;

/// Every hook: attached or why not, and what its program did.
pub(super) fn hooks(kernel: &Kernel) -> Vec<HookView> {
    kernel
        .hooks
        .iter()
        .map(|attached| {
            let link = attached.result.as_ref().ok();
            let runs = |link: &Link| bpf::program_runs(link.program.as_fd()).ok();
            let mut sum = link.and_then(runs).unwrap_or_default();
            if let Some(link) = attached.fallback.as_ref().and_then(|link| link.as_ref().ok())
                && let Some(fallback) = runs(link)
            {
                // Lost is what both have missed, which is no more than either has.
                sum = ProgramRuns {
                    time_ns: sum.time_ns + fallback.time_ns,
                    count: sum.count + fallback.count,
                    misses: sum.misses.min(fallback.misses),
                };
            }
            HookView {
                name: attached.hook.name.to_owned(),
                attached: link.is_some(),
                reason: attached.result.as_ref().err().cloned(),
                lost_without: attached.hook.lost_without.to_owned(),
                runs: sum.count,
                run_seconds: sum.time_ns as f64 / 1e9,
                misses: sum.misses,
            }
        })
        .collect()
}

/// Kernel tables and how full they are.
pub(super) fn maps(kernel: &Kernel, drained: &Drained) -> Vec<MapView> {
    let failures = drained.bind_failures.len().saturating_sub(FIRST_FREE_FAILURE as usize);
    let fill = kernel.drain.fill(edges_in_use(drained), failures).into_iter();
    fill.map(|(name, entries, capacity)| MapView { name: name.to_owned(), entries, capacity })
        .collect()
}

/// Rows of edges that are taken.
pub(super) fn edges_in_use(drained: &Drained) -> usize {
    drained.edges.iter().filter(|edge| edge.slot >= FIRST_FREE_SLOT).count()
}

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
            service: local_name(names, owners, record.owner, now_us).0,
            port: record.port,
            address: if record.family == 2 && record.address == UNSPECIFIED {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                to_ip(record.address)
            },
            netns: record.netns,
            backlog: record.backlog,
            max_backlog: record.max_backlog,
        })
        .collect();
    views.sort_unstable();
    views
}

/// Rare facts, one by one, for who debugs.
pub(super) fn log(event: &Event, tables: &Tables) {
    let (Event::ConnectFailed { slot, .. } | Event::Reset { slot, .. }) = event;
    let labels = tables.labels(*slot);
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

/// What is off, and why.
pub(super) fn disabled(kernel: &Kernel) -> Vec<Disabled> {
    let view = |off: &loader::load::Disabled| {
        let loader::load::Disabled { what, why } = off.clone();
        Disabled { what, why }
    };
    kernel.disabled.iter().map(view).collect()
}
