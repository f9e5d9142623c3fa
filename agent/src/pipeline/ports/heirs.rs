//! Who has a socket now: mostly the process that bound it. Others have inherited it from a parent
//! that has ended, have been passed it, or had it opened by systemd; some are the kernel's.

use agent_common::bound::BoundRecord;
use agent_common::drained::Edge;
use agent_common::edge::ROLE_SERVER;
use hashbrown::{HashMap, HashSet};

use super::known::{self, Known};
use crate::pipeline::host::{HeldBy, Holders, Host, Socket};
use crate::pipeline::labels::local_name;
use discovery::{Acceptor, Names};
use linux::current_holders::{self, Bound};
use linux::probes::Pending;
use model::conflicts::Party;
use model::kernel_sockets;
use model::owners::Owners;
use model::port::Protocol;

/// How often it is looked who has which socket.
const EVERY_US: u64 = 10_000_000;
/// How soon it is looked again for a service that has connections and is not known; doubles each
/// time.
const SOON_US: u64 = 500_000;
/// After so many looks it will not be known soon.
const LOOKS: u32 = 4;
/// A process may not be yet what it will be: systemd moves it to the cgroup of its unit, it executes its
/// program, a server sets its title. It is looked at again when it is as old as this, seconds.
const SETTLED_SECONDS: f64 = 3.0;
/// How often a name is looked up that a later look may improve: for two minutes.
const NAME_LOOKS: u32 = 8;
/// Sockets that are looked at, at most; those beyond are with the process that bound them.
const MOST: usize = 4096;
/// TCP_LISTEN (include/net/tcp_states.h).
const LISTEN: u8 = 10;

/// Sockets that are not with the process that bound them.
#[derive(Default)]
pub(super) struct Heirs {
    /// By inode.
    known: HashMap<u32, Heir>,
    /// Who has connections of sockets that listen for others, by inode of those; the last that was
    /// seen.
    acceptors: HashMap<u32, Heir>,
    /// Services that have connections and are not known, by owner and port.
    awaited: HashMap<(u32, u16), Awaited>,
    asked: Option<Pending<Holders>>,
    asked_us: Option<u64>,
    /// When a process that had just started is looked at again.
    again_us: Option<u64>,
}

/// Who has one.
struct Heir {
    held_by: HeldBy,
    /// Its name, once it is known.
    party: Option<Party>,
    /// When its name is looked up, and how often it was; `None` once that is final.
    next: Option<(u64, u32)>,
}

/// A service that is looked for.
#[derive(Clone, Copy, Default)]
struct Awaited {
    looks: u32,
    next_us: u64,
}

// === impl Heirs ===

impl Heirs {
    /// Takes in the last answer, and asks again when it is time.
    pub(super) fn update(
        &mut self,
        bound: &[BoundRecord],
        edges: &[Edge],
        known: &Known<'_>,
        host: &dyn Host,
    ) {
        if let Some(answer) = self.asked.as_ref().and_then(Pending::take) {
            self.asked = None;
            if let Ok(found) = answer {
                self.again_us = settles_at(&found, known.now_us);
                self.take(found, bound);
            }
        }
        let now_us = known.now_us;
        let is_awaited = self.awaits(bound, edges, known);
        let is_due = self.asked_us.is_none_or(|at| now_us.saturating_sub(at) >= EVERY_US);
        let is_settled = self.again_us.is_some_and(|at| at <= now_us);
        if self.asked.is_some() || !(is_due || is_awaited || is_settled) || bound.is_empty() {
            return;
        }
        self.asked_us = Some(now_us);
        self.again_us = None;
        for awaited in self.awaited.values_mut().filter(|awaited| awaited.next_us <= now_us) {
            awaited.next_us = now_us + (SOON_US << awaited.looks).min(EVERY_US);
            awaited.looks = (awaited.looks + 1).min(LOOKS);
        }
        let of_processes = bound.iter().filter(|bound| bound.is_kernel == 0 && bound.inode != 0);
        let socket = |bound: &BoundRecord| {
            let is_awaited = self.awaited.contains_key(&(bound.owner, bound.port));
            Socket {
                bound: bound_of(bound, known.owners),
                netns: bound.netns,
                accepts_at: (is_awaited && is_listening(bound)).then_some(bound.port),
            }
        };
        self.asked = Some(host.holders(of_processes.take(MOST).map(socket).collect()));
    }

    /// Which services with connections are not known, and whether it is time to look for one.
    fn awaits(&mut self, bound: &[BoundRecord], edges: &[Edge], known: &Known<'_>) -> bool {
        let for_others = |bound: &&BoundRecord| {
            let command = known.owners.row(bound.owner).map(|row| row.key.comm);
            is_listening(bound) && command.is_some_and(|name| current_holders::is_activator(&name))
        };
        let mut unknown: HashSet<(u32, u16)> =
            bound.iter().filter(for_others).map(|bound| (bound.owner, bound.port)).collect();
        unknown.retain(|(owner, port)| {
            matches!(known.names.acceptor(*owner, *port), None | Some(Acceptor::Unknown { .. }))
        });
        if unknown.is_empty() {
            self.awaited.clear();
            return false;
        }
        let connected: HashSet<(u32, u16)> = edges
            .iter()
            .filter(|edge| edge.key.role == ROLE_SERVER && edge.counters.opened > 0)
            .map(|edge| (edge.key.owner, edge.key.port))
            .collect();
        unknown.retain(|place| connected.contains(place));
        self.awaited.retain(|place, _| unknown.contains(place));
        for place in unknown {
            self.awaited.entry(place).or_default();
        }
        self.awaited.values().any(|awaited| awaited.next_us <= known.now_us)
    }

    /// Who accepts at the ports of programs that open sockets for others.
    pub(super) fn acceptors(
        &mut self,
        bound: &[BoundRecord],
        known: &mut Known<'_>,
    ) -> HashMap<(u32, u16), Acceptor> {
        let mut found: HashMap<(u32, u16), Acceptor> = HashMap::new();
        for bound in bound.iter().filter(|bound| is_listening(bound)) {
            let opener = bound_of(bound, known.owners);
            if !opener.is_for_others() {
                continue;
            }
            let place = (bound.owner, bound.port);
            let Self { known: heirs, acceptors, awaited, .. } = self;
            let heir = heirs.get_mut(&bound.inode).filter(|heir| heir.held_by.row.is_some());
            let heir = heir.or_else(|| acceptors.get_mut(&bound.inode));
            let party = heir.and_then(|heir| heir.party(known.names, known.now_us));
            let is_final = awaited.get(&place).is_none_or(|awaited| awaited.looks >= LOOKS);
            let acceptor = match party {
                Some(party) => Acceptor::Service(party.service.clone()),
                // The first process is a server of its own, if it does not activate.
                None if !current_holders::is_activator(&opener.command) => continue,
                None => Acceptor::Unknown { is_final },
            };
            found
                .entry(place)
                .and_modify(|other| match (&*other, &acceptor) {
                    (Acceptor::Service(one), Acceptor::Service(two)) if one.is_called_as(two) => {}
                    (Acceptor::Service(_), Acceptor::Service(_)) => *other = Acceptor::Several,
                    (Acceptor::Unknown { .. }, _) => *other = acceptor.clone(),
                    _ => {}
                })
                .or_insert(acceptor);
        }
        found
    }

    /// Who has a socket.
    pub(super) fn holder(
        &mut self,
        bound: &BoundRecord,
        protocol: Protocol,
        known: &mut Known<'_>,
    ) -> Party {
        if bound.is_kernel != 0 {
            return kernel_sockets::holder(protocol, bound.port);
        }
        let command = known.owners.row(bound.owner).map(known::command).unwrap_or_default();
        let service = match known.names.acceptor(bound.owner, bound.port) {
            Some(Acceptor::Service(service)) if protocol == Protocol::Tcp => service.clone(),
            _ => local_name(known.names, known.owners, bound.owner, known.now_us).0,
        };
        let binder = Party { service, pid: bound.tgid, command };
        let Some(heir) = self.known.get_mut(&bound.inode) else { return binder };
        let pid = heir.held_by.pid;
        if heir.held_by.row.is_none() {
            return Party { pid: 0, ..binder };
        }
        let party = heir.party(known.names, known.now_us).cloned();
        party.unwrap_or(Party { pid, ..binder })
    }

    fn take(&mut self, found: Holders, bound: &[BoundRecord]) {
        let Holders { others, acceptors } = found;
        let before = std::mem::take(&mut self.known);
        for (inode, held_by) in others {
            self.known.insert(inode, Heir::after(before.get(&inode), held_by));
        }
        for (inode, held_by) in acceptors {
            let heir = Heir::after(self.acceptors.get(&inode), held_by);
            self.acceptors.insert(inode, heir);
        }
        let here: HashSet<u32> = bound.iter().map(|bound| bound.inode).collect();
        self.acceptors.retain(|inode, _| here.contains(inode));
    }
}

// === impl Heir ===

impl Heir {
    /// With the name that it had before, if it is the same process. That is looked up again if the
    /// process had just started, or is in another cgroup or another program since.
    fn after(before: Option<&Self>, held_by: HeldBy) -> Self {
        let key = |held_by: &HeldBy| held_by.row.as_ref().map(|row| row.key);
        match before.filter(|heir| heir.held_by.pid == held_by.pid) {
            Some(Self { held_by: old, party, next })
                if old.is_settled() && key(old) == key(&held_by) =>
            {
                Self { held_by, party: party.clone(), next: *next }
            }
            same => Self {
                held_by,
                party: same.and_then(|heir| heir.party.clone()),
                next: Some((0, 0)),
            },
        }
    }

    fn party(&mut self, names: &mut Names, now_us: u64) -> Option<&Party> {
        let Self { held_by: HeldBy { row, seen, pid, .. }, party, next } = self;
        if let (Some(row), Some((at, looks))) = (row, *next)
            && at <= now_us
            && let Some((service, is_final)) = names.owner_without_row(row, seen, now_us)
        {
            // While a process ends, less is known about it.
            let is_better = |former: &Party| service.source <= former.service.source;
            if party.as_ref().is_none_or(is_better) {
                *party = Some(Party { service, pid: *pid, command: known::command(row) });
            }
            let more = !is_final && looks < NAME_LOOKS;
            *next = more.then(|| (now_us + (SOON_US << looks), looks + 1));
        }
        party.as_ref()
    }
}

impl HeldBy {
    /// Whether the process was old enough, when it was looked at, to be what it will be.
    fn is_settled(&self) -> bool {
        self.age_seconds.is_none_or(|age| age >= SETTLED_SECONDS)
    }
}

/// When processes that had just started are to be looked at again. A look is at all of them, so there is
/// one in [`SETTLED_SECONDS`] at most.
fn settles_at(found: &Holders, now_us: u64) -> Option<u64> {
    let is_young = found.others.values().any(|held_by| !held_by.is_settled());
    is_young.then_some(now_us + (SETTLED_SECONDS * 1e6) as u64)
}

fn is_listening(bound: &BoundRecord) -> bool {
    bound.state == LISTEN && i32::from(bound.protocol) == libc::IPPROTO_TCP
}

fn bound_of(bound: &BoundRecord, owners: &Owners) -> Bound {
    Bound::of(bound.tgid, owners.row(bound.owner).map(|row| &row.key), bound.inode)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use agent_common::owner::OwnerRow;
    use agent_common::wire::Wire as _;
    use discovery::cgroup::Cgroups;
    use discovery::rules::Rules;
    use linux::hierarchy::Hierarchy;
    use linux::probes::Probes;
    use model::service::Source;

    use super::*;

    /// A tree of cgroups, and names from it.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a directory"))
        }

        /// The number of a cgroup.
        fn make(&self, path: &str) -> u64 {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(&path).expect("made");
            std::fs::metadata(&path).expect("there").ino()
        }

        fn names(&self) -> Names {
            let probes = Probes::inline();
            let cgroups =
                Cgroups::with_hierarchy(Some(Hierarchy::at(self.0.path())), probes.clone());
            Names::with_cgroups(Rules::default(), true, 10, cgroups, probes)
        }
    }

    /// What a look at process 7 finds.
    fn look(cgroup: u64, age_seconds: f64) -> HeldBy {
        let mut row = OwnerRow::zeroed();
        row.key.cgroup = cgroup;
        row.key.comm[..7].copy_from_slice(b"python3");
        let seen = discovery::processes::see(&row, false);
        HeldBy { pid: 7, row: Some(row), seen, age_seconds: Some(age_seconds), ..HeldBy::default() }
    }

    fn name(heir: &mut Heir, names: &mut Names, seconds: u64) -> (String, Source) {
        let party = heir.party(names, seconds * 1_000_000).expect("inline probes answer at once");
        (party.service.name.to_string(), party.service.source)
    }

    #[test]
    fn a_process_that_was_seen_before_systemd_moved_it_gets_the_name_of_its_unit() {
        let tree = Tree::new();
        let (before, unit) = (tree.make("init.scope"), tree.make("system.slice/door.service"));
        let mut names = tree.names();
        let program = ("python3".to_owned(), Source::Process);
        let door = ("door".to_owned(), Source::Unit);
        let mut heir = Heir::after(None, look(before, 0.1));
        assert_eq!(name(&mut heir, &mut names, 100), program);
        // Looked at again, it has settled; that look is final.
        let mut heir = Heir::after(Some(&heir), look(unit, 3.2));
        assert_eq!(name(&mut heir, &mut names, 103), door);
        assert_eq!(heir.next, None);
        let mut heir = Heir::after(Some(&heir), look(unit, 13.2));
        assert_eq!(heir.next, None, "nothing has changed");
        assert_eq!(name(&mut heir, &mut names, 113), door);
        // While it ends, its cgroup cannot be read.
        let mut heir = Heir::after(Some(&heir), look(0, 23.2));
        assert_eq!(name(&mut heir, &mut names, 123), door);
    }

    #[test]
    fn a_young_process_is_looked_at_once_more_when_it_has_settled() {
        let found = |ages: &[f64]| Holders {
            others: (1..).zip(ages.iter().map(|age| look(1, *age))).collect(),
            acceptors: HashMap::new(),
        };
        assert_eq!(settles_at(&found(&[0.2, 50.0]), 1_000_000), Some(4_000_000));
        assert_eq!(settles_at(&found(&[3.0, 50.0]), 1_000_000), None);
        assert_eq!(settles_at(&found(&[]), 1_000_000), None);
    }

    #[test]
    fn a_cgroup_that_is_not_found_at_once_is_looked_up_again_and_not_forever() {
        let tree = Tree::new();
        let mut names = tree.names();
        // Walks over the tree have a pause between them, and this one begins it.
        let mut first = Heir::after(None, look(u64::MAX, 60.0));
        assert_eq!(name(&mut first, &mut names, 100).1, Source::Process);
        let unit = tree.make("system.slice/door.service");
        let mut heir = Heir::after(None, look(unit, 60.0));
        assert_eq!(name(&mut heir, &mut names, 100).1, Source::Process);
        let later = (101..400).find(|now| name(&mut heir, &mut names, *now).1 == Source::Unit);
        assert!(later.is_some_and(|now| now < 200), "{later:?}");
        assert_eq!(heir.next, None);
        for now in 101..2_000 {
            name(&mut first, &mut names, now);
        }
        assert_eq!(first.next, None, "nothing is found there");
    }
}
