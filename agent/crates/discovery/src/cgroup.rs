//! Cgroups: from the id that the kernel reports to the cgroup's path.
//!
//! The path is found through the owner's process while it runs, else by walking the cgroup tree. What
//! was made since the start is known from the moment that it was made, also if it has ended.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use agent_common::owner::OwnerRow;
use hashbrown::HashMap;

use super::cgroup_info::CgroupInfo;
use linux::cgroup_watch::{self, NewCgroup};
use linux::hierarchy::Hierarchy;
use linux::probes::{Kind, Pending, Probes};
use linux::procfs;

/// Maximum number of paths kept and directories visited. A host with a thousand pods has about 5 000.
const MAX_CGROUPS: usize = 65_536;
/// New cgroups remembered: an owner is named within seconds of its first bind or connect.
const MAX_NEW: usize = 1024;
/// Shortest and longest time between two walks. A walk of 5 000 directories takes some 20 ms.
const FIRST_WALK_PAUSE_US: u64 = 1_000_000;
const LAST_WALK_PAUSE_US: u64 = 60_000_000;

/// The cgroups of this host.
pub struct Cgroups {
    hierarchy: Option<Hierarchy>,
    probes: Probes,
    infos: HashMap<u64, Arc<CgroupInfo>>,
    /// Cgroups with a pending lookup of their process.
    asked: HashMap<u64, Pending<Option<CgroupInfo>>>,
    /// The last ones that were made, the newest at the end.
    new: VecDeque<(u64, Arc<CgroupInfo>)>,
    made: Option<Receiver<NewCgroup>>,
    walking: Option<Pending<Vec<(u64, CgroupInfo)>>>,
    next_walk_us: u64,
    pause_us: u64,
}

/// The result of a lookup of an owner's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The process is in this cgroup.
    Found(Arc<CgroupInfo>),
    /// There is none, and there will be none.
    NotFound,
    /// A probe is pending: there is an answer within seconds.
    Running,
    /// Not found yet; a later lookup may find it.
    Pending,
}

impl Cgroups {
    /// Finds the cgroup v2 hierarchy; without one no cgroup is found. `probes` read processes and
    /// walk the tree.
    pub fn new(probes: Probes) -> Self {
        Self::with_hierarchy(Hierarchy::find().ok().flatten(), probes)
    }

    /// With this hierarchy.
    pub fn with_hierarchy(hierarchy: Option<Hierarchy>, probes: Probes) -> Self {
        Self {
            hierarchy,
            probes,
            infos: HashMap::new(),
            asked: HashMap::new(),
            new: VecDeque::new(),
            made: None,
            walking: None,
            next_walk_us: 0,
            pause_us: FIRST_WALK_PAUSE_US,
        }
    }

    /// From now on learns of cgroups when they are made.
    pub fn watch(&mut self) -> io::Result<()> {
        if let Some(hierarchy) = &self.hierarchy {
            let has_inside = |path: &str| CgroupInfo::of(path).container.is_none();
            self.made = Some(cgroup_watch::watch(hierarchy, has_inside)?);
        }
        Ok(())
    }

    /// Takes in the cgroups that were made since the last call.
    pub fn take_new(&mut self) {
        while let Some(Ok(new)) = self.made.as_ref().map(Receiver::try_recv) {
            self.learn(new);
        }
    }

    fn learn(&mut self, new: NewCgroup) {
        let NewCgroup { id, path, delegation } = new;
        if self.new.len() >= MAX_NEW {
            self.new.pop_front();
        }
        self.new.push_back((id, Arc::new(CgroupInfo::within(&path, delegation))));
    }

    /// The cgroup of this row's owner.
    pub fn lookup(&mut self, row: &OwnerRow, now_us: u64) -> Lookup {
        let id = row.key.cgroup;
        if id == 0 || self.hierarchy.is_none() {
            return Lookup::NotFound;
        }
        self.take_walk();
        if let Some(info) = self.infos.get(&id) {
            self.asked.remove(&id);
            return Lookup::Found(info.clone());
        }
        self.take_new();
        if let Some((_, info)) = self.new.iter().rev().find(|(new, _)| *new == id) {
            self.infos.insert(id, info.clone());
            return Lookup::Found(info.clone());
        }
        if !self.asked.contains_key(&id) {
            self.ask_process(row.tgid, id);
        }
        if let Some(pending) = self.asked.get(&id) {
            let Some(answer) = pending.take() else { return Lookup::Running };
            self.asked.remove(&id);
            if let Ok(Some(info)) = answer {
                self.infos.insert(id, Arc::new(info));
            }
        }
        if !self.infos.contains_key(&id) {
            self.walk(now_us);
            self.take_walk();
        }
        match self.infos.get(&id) {
            Some(info) => Lookup::Found(info.clone()),
            None if self.walking.is_some() => Lookup::Running,
            None => Lookup::Pending,
        }
    }

    /// Reads the cgroup of the row's process. It may have moved, or its pid may belong to another
    /// process by now.
    fn ask_process(&mut self, tgid: u32, id: u64) {
        let Some(hierarchy) = &self.hierarchy else { return };
        if tgid == 0 || self.infos.len() + self.asked.len() >= MAX_CGROUPS {
            return;
        }
        let hierarchy = hierarchy.clone();
        let look = move || {
            let Some(path) = procfs::cgroup_path(tgid)? else { return Ok(None) };
            let delegation = hierarchy.delegation(&path, id);
            Ok(delegation.ok().map(|delegation| CgroupInfo::within(&path, delegation)))
        };
        self.asked.insert(id, self.probes.ask(Kind::Cgroup, look));
    }

    /// Reads the whole tree and forgets removed cgroups; at most once per pause, which grows while
    /// walks are frequent.
    fn walk(&mut self, now_us: u64) {
        let Some(hierarchy) = &self.hierarchy else { return };
        if now_us < self.next_walk_us || self.walking.is_some() {
            return;
        }
        let idle = now_us.saturating_sub(self.next_walk_us);
        self.pause_us = if idle > LAST_WALK_PAUSE_US {
            FIRST_WALK_PAUSE_US
        } else {
            (self.pause_us * 2).min(LAST_WALK_PAUSE_US)
        };
        self.next_walk_us = now_us + self.pause_us;
        let hierarchy = hierarchy.clone();
        self.walking = Some(self.probes.ask(Kind::Cgroup, move || {
            let mut cgroups = Vec::new();
            hierarchy.walk(MAX_CGROUPS, |id, path, delegation| {
                cgroups.push((id, CgroupInfo::within(path, delegation)));
            });
            Ok(cgroups)
        }));
    }

    /// Takes the result of a walk that has ended.
    fn take_walk(&mut self) {
        let Some(answer) = self.walking.as_ref().and_then(Pending::take) else { return };
        self.walking = None;
        if let Ok(cgroups) = answer {
            self.infos = cgroups.into_iter().map(|(id, info)| (id, Arc::new(info))).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::wire::Wire as _;
    use std::os::unix::fs::MetadataExt as _;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn row(cgroup: u64, tgid: u32) -> OwnerRow {
        let mut row = OwnerRow::zeroed();
        row.key.cgroup = cgroup;
        row.tgid = tgid;
        row
    }

    #[test]
    fn a_cgroup_without_a_living_process_is_found_in_the_tree() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            std::fs::create_dir_all(root.path().join(path)).unwrap();
            std::fs::metadata(root.path().join(path)).unwrap().ino()
        };
        let container = make(&format!("docker/{ID}"));
        let unit = make("system.slice/nginx.service");
        let mut cgroups =
            Cgroups::with_hierarchy(Some(Hierarchy::at(root.path())), Probes::inline());
        let at = |path: &str| Lookup::Found(Arc::new(CgroupInfo::of(path)));
        assert_eq!(cgroups.lookup(&row(container, 0), 0), at(&format!("/docker/{ID}")));
        assert_eq!(cgroups.lookup(&row(unit, 0), 0), at("/system.slice/nginx.service"));
        assert_eq!(cgroups.lookup(&row(u64::MAX, 0), 0), Lookup::Pending);
        assert_eq!(cgroups.lookup(&row(0, 0), 0), Lookup::NotFound);

        let late = make("docker/late");
        assert_eq!(cgroups.lookup(&row(late, 0), 1_000), Lookup::Pending, "no walk yet");
        assert_eq!(cgroups.lookup(&row(late, 0), 60_000_000), at("/docker/late"));
    }

    #[test]
    fn a_cgroup_that_has_ended_is_known_from_when_it_was_made() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            std::fs::create_dir_all(root.path().join(path)).unwrap();
            std::fs::metadata(root.path().join(path)).unwrap().ino()
        };
        let mut cgroups =
            Cgroups::with_hierarchy(Some(Hierarchy::at(root.path())), Probes::inline());
        cgroups.watch().unwrap();
        // Not found by a walk.
        cgroups.next_walk_us = u64::MAX;
        let path = format!("docker/{ID}");
        let id = make(&path);
        let began = std::time::Instant::now();
        while cgroups.new.len() < 2 && began.elapsed().as_secs() < 10 {
            cgroups.take_new();
        }
        std::fs::remove_dir(root.path().join(&path)).unwrap();
        let expected = Lookup::Found(Arc::new(CgroupInfo::of(&format!("/{path}"))));
        assert_eq!(cgroups.lookup(&row(id, 0), 0), expected);
        for _ in 0..2 * MAX_NEW {
            cgroups.learn(NewCgroup { id: 1, path: "/x".to_owned(), delegation: None });
        }
        assert_eq!(cgroups.new.len(), MAX_NEW, "there is an end to what is remembered");
    }

    #[test]
    fn this_process_is_in_a_cgroup_that_is_known() {
        let Ok(Some(hierarchy)) = Hierarchy::find() else {
            println!("SKIPPED: no cgroup2 file system is mounted");
            return;
        };
        let tgid = std::process::id();
        let path = procfs::cgroup_path(tgid).unwrap().unwrap();
        let Ok(id) = hierarchy.id(&path) else {
            println!("SKIPPED: the own cgroup is outside of the cgroup namespace");
            return;
        };
        let mut cgroups = Cgroups::with_hierarchy(Some(hierarchy), Probes::inline());
        cgroups.next_walk_us = u64::MAX;
        assert_eq!(cgroups.lookup(&row(id + 1, tgid), 0), Lookup::Pending, "it lives elsewhere");
        let found = cgroups.lookup(&row(id, tgid), 0);
        assert_eq!(found, Lookup::Found(Arc::new(CgroupInfo::of(&path))));
    }
}
