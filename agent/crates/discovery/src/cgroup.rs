//! Cgroups: from the number that the kernel half reports to the place that its path tells.
//!
//! The path is found through the owner's process while it lives, else by walking the cgroup tree.

use std::sync::Arc;

use agent_common::owner::OwnerRow;
use hashbrown::HashMap;

use super::place::Place;
use linux::hierarchy::Hierarchy;
use linux::probes::{Kind, Pending, Probes};
use linux::procfs;

/// Paths kept and folders visited at most. A host with a thousand pods has about 5 000.
const MAX_CGROUPS: usize = 65_536;
/// Shortest and longest time between two walks. A walk of 5 000 folders takes some 20 ms.
const FIRST_WALK_PAUSE_US: u64 = 1_000_000;
const LAST_WALK_PAUSE_US: u64 = 60_000_000;

/// The places of this host.
pub struct Cgroups {
    hierarchy: Option<Hierarchy>,
    probes: Probes,
    places: HashMap<u64, Arc<Place>>,
    /// Cgroups whose process is being looked at.
    asked: HashMap<u64, Pending<Option<String>>>,
    walking: Option<Pending<Vec<(u64, Place)>>>,
    next_walk_us: u64,
    pause_us: u64,
}

/// What is known of where an owner lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In this cgroup.
    At(Arc<Place>),
    /// In none that could be found, now or later.
    Nowhere,
    /// It is being looked for.
    Pending,
    /// Worth asking again later.
    NotYet,
}

impl Cgroups {
    /// Looks for the cgroup v2 hierarchy; without one nobody lives anywhere. `probes` look at
    /// processes and walk the tree.
    pub fn new(probes: Probes) -> Self {
        Self::with_hierarchy(Hierarchy::find().ok().flatten(), probes)
    }

    /// With this hierarchy.
    pub fn with_hierarchy(hierarchy: Option<Hierarchy>, probes: Probes) -> Self {
        Self {
            hierarchy,
            probes,
            places: HashMap::new(),
            asked: HashMap::new(),
            walking: None,
            next_walk_us: 0,
            pause_us: FIRST_WALK_PAUSE_US,
        }
    }

    /// Where the owner of this row lives.
    pub fn place(&mut self, row: &OwnerRow, now_us: u64) -> Whereabouts {
        let id = row.key.cgroup;
        if id == 0 || self.hierarchy.is_none() {
            return Whereabouts::Nowhere;
        }
        self.take_walk();
        if let Some(place) = self.places.get(&id) {
            self.asked.remove(&id);
            return Whereabouts::At(place.clone());
        }
        if !self.asked.contains_key(&id) {
            self.ask_process(row.tgid, id);
        }
        if let Some(pending) = self.asked.get(&id) {
            let Some(answer) = pending.take() else { return Whereabouts::Pending };
            self.asked.remove(&id);
            if let Ok(Some(path)) = answer {
                self.places.insert(id, Arc::new(Place::of(&path)));
            }
        }
        if !self.places.contains_key(&id) {
            self.walk(now_us);
            self.take_walk();
        }
        match self.places.get(&id) {
            Some(place) => Whereabouts::At(place.clone()),
            None if self.walking.is_some() => Whereabouts::Pending,
            None => Whereabouts::NotYet,
        }
    }

    /// Asks the process of the row, if it still lives in that cgroup: it may have moved, and its
    /// number may be somebody else's by now.
    fn ask_process(&mut self, tgid: u32, id: u64) {
        let Some(hierarchy) = &self.hierarchy else { return };
        if tgid == 0 || self.places.len() + self.asked.len() >= MAX_CGROUPS {
            return;
        }
        let hierarchy = hierarchy.clone();
        let look = move || {
            let path = procfs::cgroup_path(tgid)?;
            Ok(path.filter(|path| hierarchy.id(path).is_ok_and(|found| found == id)))
        };
        self.asked.insert(id, self.probes.ask(Kind::Cgroup, look));
    }

    /// Learns the whole tree anew, which also forgets cgroups that are gone; at most once per
    /// pause, which grows while walks keep coming.
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
            let mut places = Vec::new();
            hierarchy.walk(MAX_CGROUPS, |id, path| places.push((id, Place::of(path))));
            Ok(places)
        }));
    }

    /// Takes in what a walk has found, if it has ended.
    fn take_walk(&mut self) {
        let Some(answer) = self.walking.as_ref().and_then(Pending::take) else { return };
        self.walking = None;
        if let Ok(places) = answer {
            self.places = places.into_iter().map(|(id, place)| (id, Arc::new(place))).collect();
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
        let at = |path: &str| Whereabouts::At(Arc::new(Place::of(path)));
        assert_eq!(cgroups.place(&row(container, 0), 0), at(&format!("/docker/{ID}")));
        assert_eq!(cgroups.place(&row(unit, 0), 0), at("/system.slice/nginx.service"));
        assert_eq!(cgroups.place(&row(u64::MAX, 0), 0), Whereabouts::NotYet);
        assert_eq!(cgroups.place(&row(0, 0), 0), Whereabouts::Nowhere);

        let late = make("docker/late");
        assert_eq!(cgroups.place(&row(late, 0), 1_000), Whereabouts::NotYet, "no walk yet");
        assert_eq!(cgroups.place(&row(late, 0), 60_000_000), at("/docker/late"));
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
        assert_eq!(cgroups.place(&row(id + 1, tgid), 0), Whereabouts::NotYet, "it lives elsewhere");
        let found = cgroups.place(&row(id, tgid), 0);
        assert_eq!(found, Whereabouts::At(Arc::new(Place::of(&path))));
    }
}
