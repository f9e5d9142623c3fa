//! The backends behind translated addresses: of a Service, of a published port, of a sidecar.
//!
//! The kernel keeps both ends of every connection that it tracks (nf_conntrack), and both as they
//! are after translation. In each namespace that tracks any, the translated ones are listed, and all
//! others to the same addresses ([`Connections`]): when a client is new, when the core misses a
//! name, and periodically, so that no connection ends and is forgotten between two lists.
//!
//! The kernel has one table for all namespaces and walks all of it for a list of one of them: 9 ms
//! for the usual 262,144 buckets, even if they are empty. So a namespace is listed once, unless it
//! tracks many, and lists have an [`Allowance`] of CPU time. Root in a user namespace translates what it
//! likes in network namespaces of its own, so a user has a [`Share`] of a list, after all others.

use std::io;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::{Instant, sleep_until};

use super::allowance::Allowance;
use super::{NameSource, Publisher, SourceError};
use crate::connections::{Connections, MAX_CONNECTIONS, OwnerOf, Routes};
use crate::inventory::Inventory;
use linux::conntrack::{self, Filter, Tracked};
use linux::diag::DiagError;
use linux::namespaces::{self, Namespace};
use linux::probes::{Failure, Kind, Probes};
use linux::procfs;

/// Between two lists at least.
const PAUSE: Duration = Duration::from_millis(100);
/// In the long run lists may take this fraction of one CPU (one part in N): not of the time, as a
/// list takes long on a busy host, and the fewer there are the later names come.
const SHARE: u32 = 50;
/// And so much in advance after a quiet time.
const SAVED_UP: Duration = Duration::from_secs(1);
/// Of a namespace that tracks more, the kernel filters the translated ones: reading a connection
/// takes one or two microseconds, and walking the table once more as long as thousands of them.
const FEW: u64 = 8192;
const ALL: &[Filter] = &[Filter::All];
const TRANSLATED: &[Filter] = &[Filter::Destination, Filter::Source];
const NONE: &[Filter] = &[];

/// What is listed of the namespaces that one user has made.
#[derive(Clone, Copy)]
struct Share {
    /// Namespaces that track connections.
    namespaces: usize,
    /// Tracked connections in these.
    connections: u64,
}

/// Engines without root translate in one namespace.
const OF_USER: Share = Share { namespaces: 4, connections: 8192 };

/// The kernel's connection tracking.
pub(super) struct Conntrack {
    probes: Probes,
    owner_of: OwnerOf,
    lists: u64,
    allowance: Allowance,
}

/// A list of all namespaces.
struct List {
    routes: Routes,
    /// What there is to say about it.
    detail: Option<String>,
    /// CPU time that it took.
    cost: Duration,
}

impl Conntrack {
    pub(super) fn new(probes: Probes, owner_of: OwnerOf) -> Self {
        let allowance = Allowance::new(SHARE, SAVED_UP, std::time::Instant::now());
        Self { probes, owner_of, lists: 0, allowance }
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
            let ended = Instant::now();
            let wait = match answer.unwrap_or(Err(Failure::Deadline)) {
                Ok(List { routes, detail, cost }) => {
                    publisher.publish(Inventory::of_routes(routes), detail);
                    self.allowance.take(cost, ended.into_std())
                }
                Err(why) => return SourceError::Failed(why.to_string()),
            };
            // At once: a snapshot may wait for it.
            if let Err(error) = publisher.happened(std::future::pending()).await {
                return error;
            }
            sleep_until(ended + PAUSE.max(wait)).await;
        }
    }
}

/// The routes of all connections that are translated, or go where others are translated.
fn list(number: u64, owner_of: &OwnerOf) -> io::Result<List> {
    let began = procfs::thread_time();
    let mut cost = Duration::ZERO;
    let (namespaces, _) = namespaces::all();
    // What root made finds room first.
    let made = |namespace: Namespace| (namespace.user().filter(|user| *user != 0), namespace);
    let mut namespaces: Vec<_> = namespaces.into_iter().map(made).collect();
    namespaces.sort_by_key(|(user, _)| user.is_some());
    let (mut shares, mut left_out) = (HashMap::<u32, Share>::new(), 0);
    let mut connections = Connections::default();
    // Connections that are not translated, and namespaces of which they are listed later.
    let (mut direct, mut many) = (Vec::new(), Vec::new());
    let (mut tracking, mut failure) = (false, None);
    for (user, namespace) in &namespaces {
        let mut share = user.map(|user| shares.entry(user).or_insert(OF_USER));
        if share.as_ref().is_some_and(|share| share.namespaces == 0) {
            left_out += 1;
            continue;
        }
        let room = share.as_ref().map_or(u64::MAX, |share| share.connections);
        let few = FEW.min((MAX_CONNECTIONS - direct.len()) as u64);
        let filters = |tracked: u64| {
            if tracked > room {
                NONE
            } else if tracked <= few {
                ALL
            } else {
                TRANSLATED
            }
        };
        let mut listed = 0;
        let mut keep = |filter: Filter, one: &Tracked| {
            listed += 1;
            if one.is_translated() || one.client != one.seen_as {
                connections.add(namespace.inode, one);
            } else if filter == Filter::All && direct.len() < MAX_CONNECTIONS {
                direct.push((namespace.inode, *one));
            } else if filter == Filter::All {
                connections.drop_one();
            }
        };
        match each_in(namespace, filters, &mut keep, &mut cost) {
            Ok(None) => {}
            Ok(Some(filters)) => {
                tracking = true;
                many.extend((filters == TRANSLATED).then_some(namespace));
                left_out += usize::from(filters == NONE);
                if let Some(share) = &mut share {
                    share.namespaces -= 1;
                    share.connections = share.connections.saturating_sub(listed);
                }
            }
            Err(error) => failure = Some((namespace.inode, error)),
        }
    }
    let translated = connections.translated();
    let is_wanted = |one: &Tracked| !one.is_translated() && translated.contains(&one.requested);
    for (netns, one) in direct.iter().filter(|(_, one)| is_wanted(one)) {
        connections.add(*netns, one);
    }
    for namespace in many.into_iter().filter(|_| !translated.is_empty()) {
        let mut keep = |_, one: &Tracked| {
            if is_wanted(one) {
                connections.add(namespace.inode, one);
            }
        };
        // Without these a client may seem to be translated that is not.
        each_in(namespace, |_| ALL, &mut keep, &mut cost).map_err(io::Error::other)?;
    }
    let detail = match failure {
        Some((_, why)) if !tracking => return Err(io::Error::other(why)),
        Some((netns, why)) => Some(format!("without network namespace {netns}: {why}")),
        None if left_out > 0 => Some(format!(
            "{left_out} network namespaces that users have made are left out: of each user {} are listed that track at most {} connections together",
            OF_USER.namespaces, OF_USER.connections
        )),
        None => (!tracking).then(|| "no network namespace tracks connections".to_owned()),
    };
    let (routes, dropped) = (connections.routes(owner_of), connections.dropped());
    let routes = Routes { number, tracking, routes, dropped };
    cost += procfs::thread_time().saturating_sub(began);
    Ok(List { routes, detail, cost })
}

/// Calls `each` with the connections of a namespace that pass the filters that are chosen by how many
/// it tracks; returns these, or nothing if it tracks none. One that may not be entered, which was
/// logged at the start, or is gone, tracks none. Adds the CPU time that it took to `cost`.
fn each_in(
    namespace: &Namespace,
    filters: impl Fn(u64) -> &'static [Filter] + Sync,
    each: &mut (dyn FnMut(Filter, &Tracked) + Send),
    cost: &mut Duration,
) -> Result<Option<&'static [Filter]>, DiagError> {
    let mut list = || {
        let tracked = conntrack::tracked();
        if tracked == 0 {
            return Ok(None);
        }
        let filters = filters(tracked);
        for filter in filters {
            conntrack::connections(*filter, |one| each(*filter, &one))?;
        }
        Ok(Some(filters))
    };
    // A thread of its own, which ends with this.
    let timed = || (list(), procfs::thread_time());
    let Ok((listed, took)) = namespaces::run_in(namespace, timed) else { return Ok(None) };
    *cost += took;
    listed
}
