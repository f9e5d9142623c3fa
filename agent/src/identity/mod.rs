//! Names: which service owns a socket, and which service is at the other end.
//!
//! [`Names::owner`] asks the sources in this order; the first that knows wins:
//!
//! 1. [`cgroup::Cgroups`]: the container that the owner's cgroup belongs to;
//! 2. [`process::Processes`]: the program, from its command name and arguments.
//!
//! A new source is one file with an [`OwnerSource`] and its place in [`Names::new`].
//! [`Names::remote`] finds the other end in tables made from the last sweep ([`remote`]).
//!
//! Names may arrive late: a source says [`Answer::NotYet`], the next source's name is used
//! meanwhile, and the question is asked again later. [`Source`] is ordered from the surest to
//! the last resort, so whoever keeps a name may keep the surer one.

use agent_common::address::Address;
use agent_common::edge::EdgeKey;
use agent_common::listener::ListenerRecord;
use agent_common::owner::{OWNER_OVERFLOW, OwnerRow};
use hashbrown::HashMap;

use crate::model::service::{Service, Source};

pub mod cgroup;
mod command_line;
pub mod docker_proxy;
mod flags;
pub mod hierarchy;
pub mod mounts;
pub mod process;
pub mod procfs;
pub mod remote;

pub use remote::Client;

/// Owners kept at most; the kernel's table is smaller.
const MAX_OWNERS: usize = 65_536;
/// How long to wait before the first retry; doubles with each.
const FIRST_RETRY_US: u64 = 500_000;
/// After this many retries an answer stays as it is.
const RETRIES: u32 = 8;

/// One way to name an owner.
pub trait OwnerSource: Send {
    /// What it is called in logs.
    fn name(&self) -> &'static str;

    /// Names `row`'s owner, if this source can. `now_us` only grows (CLOCK_MONOTONIC).
    fn resolve(&mut self, row: &OwnerRow, now_us: u64) -> Answer;
}

/// What a source says of an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its name.
    Name(Service),
    /// This source has no name for it, now or later.
    No,
    /// Worth asking again.
    NotYet,
}

/// The names of everything, and what they are made from.
pub struct Names {
    sources: Vec<Box<dyn OwnerSource>>,
    owners: HashMap<u32, Named>,
    remotes: remote::Remotes,
}

struct Named {
    born_us: u64,
    service: Service,
    /// When to ask again, and how often that has happened; `None` once the answer is final.
    retry: Option<(u64, u32)>,
}

impl Default for Names {
    fn default() -> Self {
        Self::new()
    }
}

impl Names {
    /// With the sources of this host, in their order.
    pub fn new() -> Self {
        Self::with_sources(vec![Box::new(cgroup::Cgroups::new()), Box::new(process::Processes)])
    }

    /// With these sources, the surest first.
    pub fn with_sources(sources: Vec<Box<dyn OwnerSource>>) -> Self {
        Self { sources, owners: HashMap::new(), remotes: remote::Remotes::default() }
    }

    /// The service of an owner row. Remembered per slot until the row belongs to another owner
    /// (`born_us`); asks the sources again only if an answer was provisional and its time has
    /// come.
    pub fn owner(&mut self, slot: u32, row: &OwnerRow, now_us: u64) -> Service {
        if slot == OWNER_OVERFLOW {
            return Service::other();
        }
        let known = self.owners.get(&slot).filter(|known| known.born_us == row.born_us);
        let (former, retries) = match known {
            None => (None, 0),
            Some(Named { service, retry: None, .. }) => return service.clone(),
            Some(Named { service, retry: Some((at, _)), .. }) if now_us < *at => {
                return service.clone();
            }
            Some(Named { service, retry: Some((_, retries)), .. }) => {
                (Some(service.clone()), retries + 1)
            }
        };
        let (found, is_final) = self.ask(row, now_us);
        // The process may have gone meanwhile, and what is known of it with it.
        let service = former.filter(|former| former.source <= found.source).unwrap_or(found);
        if self.owners.len() < MAX_OWNERS || self.owners.contains_key(&slot) {
            let wait = FIRST_RETRY_US << retries.min(RETRIES);
            let retry = (!is_final && retries < RETRIES).then_some((now_us + wait, retries));
            let named = Named { born_us: row.born_us, service: service.clone(), retry };
            self.owners.insert(slot, named);
        }
        service
    }

    /// The service of an owner that has no row: a process that was there before the agent.
    pub fn stranger(&mut self, row: &OwnerRow, now_us: u64) -> Service {
        self.ask(row, now_us).0
    }

    /// Forgets a slot that the kernel half gave back.
    pub fn forget_owner(&mut self, slot: u32) {
        self.owners.remove(&slot);
    }

    /// Owners that no source could name (yet).
    pub fn unresolved(&self) -> u64 {
        self.owners.values().filter(|named| &*named.service.name == UNKNOWN).count() as u64
    }

    /// What listens where, from the last sweep, each with the name of its owner.
    pub fn set_listeners(&mut self, listeners: &[(ListenerRecord, Service)]) {
        self.remotes.set_listeners(listeners);
    }

    /// Which address belongs to which network namespace of this host (by inode).
    pub fn set_addresses(&mut self, addresses: &[(u32, Address)]) {
        self.remotes.set_addresses(addresses);
    }

    /// Who connects where, from the edges of role client. Call after [`Self::set_addresses`].
    pub fn set_clients(&mut self, clients: &[Client]) {
        self.remotes.set_clients(clients);
    }

    /// The service at the other end of an edge whose owner is in network namespace `netns`.
    ///
    /// Made from what the tables hold now: when a listener has gone, its name has too. Whoever
    /// labels rows that live longer should keep the surest name that a row ever had.
    pub fn remote(&self, netns: u32, key: &EdgeKey) -> Service {
        self.remotes.resolve(netns, key)
    }

    /// Table entries left out because a table was full.
    pub fn dropped(&self) -> u64 {
        self.remotes.dropped()
    }

    /// Asks the sources; returns whether the answer is final.
    fn ask(&mut self, row: &OwnerRow, now_us: u64) -> (Service, bool) {
        if row.key.cgroup == 0 && row.key.comm[0] == 0 {
            // No task was involved when the socket was first seen.
            return (Service::new("none", Source::Unknown), true);
        }
        let mut is_final = true;
        for source in &mut self.sources {
            match source.resolve(row, now_us) {
                Answer::Name(service) => return (service, is_final),
                Answer::No => {}
                Answer::NotYet => is_final = false,
            }
        }
        (Service::new(UNKNOWN, Source::Unknown), is_final)
    }
}

/// The name of owners without a name.
const UNKNOWN: &str = "unknown";

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::wire::Wire as _;
    use std::sync::{Arc, Mutex};

    type Shared = Arc<Mutex<(Vec<Answer>, usize)>>;

    /// Answers from a list, and counts how often it was asked.
    struct Script(Shared);

    impl OwnerSource for Script {
        fn name(&self) -> &'static str {
            "script"
        }

        fn resolve(&mut self, _: &OwnerRow, _: u64) -> Answer {
            let mut script = self.0.lock().unwrap();
            script.1 += 1;
            if script.0.len() > 1 { script.0.remove(0) } else { script.0[0].clone() }
        }
    }

    fn row(comm: &str, born_us: u64) -> OwnerRow {
        let mut row = OwnerRow::zeroed();
        row.key.comm[..comm.len()].copy_from_slice(comm.as_bytes());
        row.key.cgroup = 5;
        row.born_us = born_us;
        row
    }

    fn name(text: &str) -> Answer {
        Answer::Name(Service::new(text, Source::Container))
    }

    fn names(answers: Vec<Answer>) -> (Names, Shared) {
        let script = Arc::new(Mutex::new((answers, 0)));
        let sources: Vec<Box<dyn OwnerSource>> =
            vec![Box::new(Script(script.clone())), Box::new(process::Processes)];
        (Names::with_sources(sources), script)
    }

    #[test]
    fn a_name_is_asked_for_once_per_owner() {
        let (mut names, script) = names(vec![name("a"), name("b")]);
        for now in 0..10 {
            assert_eq!(&*names.owner(7, &row("nginx", 1), now * 1_000_000).name, "a");
        }
        assert_eq!(script.lock().unwrap().1, 1);
        assert_eq!(&*names.owner(7, &row("nginx", 2), 0).name, "b", "the slot has a new owner");
    }

    #[test]
    fn a_late_name_replaces_the_provisional_one() {
        let (mut names, script) = names(vec![Answer::NotYet, Answer::NotYet, name("web")]);
        let row = row("nginx", 1);
        let mut at = |now_us| names.owner(7, &row, now_us).name.to_string();
        assert_eq!(at(0), "nginx");
        assert_eq!(at(499_999), "nginx");
        assert_eq!(script.lock().unwrap().1, 1);
        assert_eq!(at(500_000), "nginx");
        assert_eq!(at(1_499_999), "nginx");
        assert_eq!(at(1_500_000), "web");
    }

    #[test]
    fn a_name_does_not_get_worse_with_time() {
        let process = |text| Answer::Name(Service::new(text, Source::Process));
        let waiting: Shared = Arc::new(Mutex::new((vec![Answer::NotYet], 0)));
        let dying = Arc::new(Mutex::new((vec![process("com.shop.Main"), process("java")], 0)));
        let mut names =
            Names::with_sources(vec![Box::new(Script(waiting)), Box::new(Script(dying))]);
        for second in 0..100 {
            let service = names.owner(7, &row("java", 1), second * 1_000_000);
            assert_eq!(&*service.name, "com.shop.Main");
        }
    }

    #[test]
    fn asking_again_ends() {
        let (mut names, script) = names(vec![Answer::NotYet]);
        for hour in 0..100 {
            names.owner(7, &row("nginx", 1), hour * 3_600_000_000);
        }
        assert_eq!(script.lock().unwrap().1, 1 + RETRIES as usize);
    }

    #[test]
    fn overflow_nobody_and_unnamed_are_three_things() {
        let (mut names, _) = names(vec![Answer::No]);
        assert_eq!(names.owner(OWNER_OVERFLOW, &row("nginx", 1), 0), Service::other());
        let mut nobody = row("", 1);
        nobody.key.cgroup = 0;
        assert_eq!(&*names.owner(1, &nobody, 0).name, "none");
        assert_eq!(names.unresolved(), 0);
        assert_eq!(&*names.owner(2, &row("", 1), 0).name, "unknown");
        assert_eq!(names.unresolved(), 1);
        names.forget_owner(2);
        assert_eq!(names.unresolved(), 0);
    }
}
