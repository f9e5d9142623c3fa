//! The backends behind translated addresses: of a Service, of a published port, of a sidecar.
//!
//! The kernel keeps both ends of every connection that it tracks (nf_conntrack), and both as they
//! are after translation. In each namespace that tracks any, the translated ones are listed, then
//! all others to the same addresses ([`Connections`]): when a client is new, when the core misses a
//! name, and periodically, so that no connection ends and is forgotten between two lists. The kernel
//! does that work, so the pause until the next list grows with the duration of the last.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{NameSource, Publisher, SourceError};
use crate::connections::{Connections, OwnerOf, Routes};
use crate::inventory::Inventory;
use linux::conntrack::{self, Filter, Tracked};
use linux::diag::DiagError;
use linux::namespaces::{self, Namespace};
use linux::probes::{Failure, Kind, Probes};
use linux::procfs;

/// Between two lists at least.
const PAUSE: Duration = Duration::from_millis(100);
/// Lists may take at most this fraction of one CPU (one part in N): not of the time, as a list takes
/// long on a busy host, and the fewer there are the later names come.
const SHARE: u32 = 50;

/// The kernel's connection tracking.
pub(super) struct Conntrack {
    probes: Probes,
    owner_of: OwnerOf,
    lists: u64,
}

impl Conntrack {
    pub(super) fn new(probes: Probes, owner_of: OwnerOf) -> Self {
        Self { probes, owner_of, lists: 0 }
    }
}

impl NameSource for Conntrack {
    async fn run(&mut self, publisher: &Publisher) -> SourceError {
        loop {
            publisher.looked_up();
            self.lists += 1;
            let (number, owner_of) = (self.lists, self.owner_of.clone());
            let look = move || list(number, &owner_of);
            let pending = self.probes.ask(Kind::Conntrack, look);
            let answer = tokio::task::spawn_blocking(move || pending.wait()).await;
            let cost = match answer.unwrap_or(Err(Failure::Deadline)) {
                Ok((routes, cost)) => {
                    let nothing = "no network namespace tracks connections";
                    let detail = (!routes.tracking).then(|| nothing.to_owned());
                    publisher.publish(Inventory::of_routes(routes), detail);
                    cost
                }
                Err(why) => return SourceError::Failed(why.to_string()),
            };
            let ended = Instant::now();
            // At once: a snapshot may wait for it.
            if let Err(error) = publisher.happened(std::future::pending()).await {
                return error;
            }
            sleep_until(ended + PAUSE.max(cost * SHARE)).await;
        }
    }
}

/// The routes of all connections that are translated, or go where others are translated; and the CPU
/// time that it took.
fn list(number: u64, owner_of: &OwnerOf) -> io::Result<(Routes, Duration)> {
    let began = procfs::thread_time();
    let mut cost = Duration::ZERO;
    let (namespaces, _) = namespaces::all();
    let mut connections = Connections::default();
    let (mut tracking, mut failure) = (Vec::new(), None);
    for namespace in &namespaces {
        let mut keep = |one: &Tracked| {
            if one.is_translated() || one.client != one.seen_as {
                connections.add(namespace.inode, one);
            }
        };
        match each_in(namespace, &[Filter::Destination, Filter::Source], &mut keep, &mut cost) {
            Ok(true) => tracking.push(namespace),
            Ok(false) => {}
            Err(error) => failure = Some(error),
        }
    }
    if let Some(why) = failure.filter(|_| tracking.is_empty()) {
        return Err(io::Error::other(why));
    }
    let translated = connections.translated();
    for namespace in tracking.iter().filter(|_| !translated.is_empty()) {
        let mut keep = |one: &Tracked| {
            if !one.is_translated() && translated.contains(&one.requested) {
                connections.add(namespace.inode, one);
            }
        };
        if let Err(error) = each_in(namespace, &[Filter::All], &mut keep, &mut cost) {
            // Without these a client may seem to be translated that is not.
            return Err(io::Error::other(error));
        }
    }
    let routes = Routes {
        number,
        tracking: !tracking.is_empty(),
        routes: connections.routes(owner_of),
        dropped: connections.dropped(),
    };
    Ok((routes, cost + procfs::thread_time().saturating_sub(began)))
}

/// Calls `each` with the connections of a namespace; returns whether it tracks any. One that may
/// not be entered, which was logged at the start, or is gone, tracks none. Adds the CPU time that it
/// took to `cost`.
fn each_in(
    namespace: &Namespace,
    filters: &[Filter],
    each: &mut (dyn FnMut(&Tracked) + Send),
    cost: &mut Duration,
) -> Result<bool, DiagError> {
    let mut list = || {
        if conntrack::tracked() == 0 {
            return Ok(false);
        }
        for filter in filters {
            conntrack::connections(*filter, |one| each(&one))?;
        }
        Ok(true)
    };
    // A thread of its own, which ends with this.
    let timed = || (list(), procfs::thread_time());
    let Ok((is_tracking, took)) = namespaces::run_in(namespace, timed) else { return Ok(false) };
    *cost += took;
    is_tracking
}
