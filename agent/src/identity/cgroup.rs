//! Containers, from the cgroup that a socket's owner lives in.
//!
//! The kernel half reports the cgroup as a number. Its path is found through the process while
//! it lives, else by walking the cgroup tree, and the path of a container ends in its id.

use agent_common::owner::OwnerRow;
use hashbrown::HashMap;

use super::hierarchy::Hierarchy;
use super::{Answer, OwnerSource, procfs};
use crate::model::service::{Service, Source};

/// Paths kept and folders visited at most. A host with a thousand pods has about 5 000.
const MAX_CGROUPS: usize = 65_536;
/// Shortest and longest time between two walks. A walk of 5 000 folders takes some 20 ms.
const FIRST_WALK_PAUSE_US: u64 = 1_000_000;
const LAST_WALK_PAUSE_US: u64 = 60_000_000;
/// Hex digits of an id, and how many of them people use.
const ID_DIGITS: usize = 64;
const SHORT_DIGITS: usize = 12;

/// What runtimes write before the id when systemd keeps their cgroups (`docker-<id>.scope`).
const PREFIXES: [&str; 8] = [
    "docker-",
    "cri-containerd-",
    "crio-",
    "libpod-",
    "libpod-payload-",
    "containerd-",
    "nerdctl-",
    "buildkit-",
];

/// The container id in a cgroup path: 64 hex digits, bare (`/docker/<id>`,
/// `/kubepods/burstable/pod<uid>/<id>`), after a runtime's name (`docker-<id>.scope`) or after a
/// colon (`<slice>:cri-containerd:<id>`). Of nested containers the innermost.
pub fn container_id(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(|part| {
        let part = part.rsplit(':').next()?;
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let bare =
            PREFIXES.iter().find_map(|prefix| part.strip_prefix(prefix).filter(|rest| is_id(rest)));
        bare.or(Some(part).filter(|part| is_id(part)))
    })
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Names owners by their container: the first twelve digits of its id, as long as there is no
/// container runtime to ask for a better name.
pub struct Cgroups {
    hierarchy: Option<Hierarchy>,
    /// Cgroup id → container, for every cgroup seen.
    containers: HashMap<u64, Option<Service>>,
    next_walk_us: u64,
    pause_us: u64,
}

impl Default for Cgroups {
    fn default() -> Self {
        Self::new()
    }
}

impl OwnerSource for Cgroups {
    fn name(&self) -> &'static str {
        "cgroup"
    }

    fn resolve(&mut self, row: &OwnerRow, now_us: u64) -> Answer {
        let id = row.key.cgroup;
        if id == 0 || self.hierarchy.is_none() {
            return Answer::No;
        }
        if !self.containers.contains_key(&id) {
            self.learn_from_process(row.tgid, id);
        }
        if !self.containers.contains_key(&id) {
            self.walk(now_us);
        }
        match self.containers.get(&id) {
            Some(Some(service)) => Answer::Name(service.clone()),
            Some(None) => Answer::No,
            None => Answer::NotYet,
        }
    }
}

impl Cgroups {
    /// Looks for the cgroup v2 hierarchy; without one no owner gets a name here.
    pub fn new() -> Self {
        Self::with_hierarchy(Hierarchy::find().ok().flatten())
    }

    fn with_hierarchy(hierarchy: Option<Hierarchy>) -> Self {
        Self {
            hierarchy,
            containers: HashMap::new(),
            next_walk_us: 0,
            pause_us: FIRST_WALK_PAUSE_US,
        }
    }

    /// Asks the process of the row, if it still lives in that cgroup: it may have moved, and its
    /// number may be somebody else's by now.
    fn learn_from_process(&mut self, tgid: u32, id: u64) {
        let Some(hierarchy) = &self.hierarchy else { return };
        if tgid == 0 || self.containers.len() >= MAX_CGROUPS {
            return;
        }
        let Ok(Some(path)) = procfs::cgroup_path(tgid) else { return };
        if hierarchy.id(&path).is_ok_and(|found| found == id) {
            self.containers.insert(id, service(&path));
        }
    }

    /// Learns the whole tree anew, which also forgets cgroups that are gone; at most once per
    /// pause, which grows while walks keep coming.
    fn walk(&mut self, now_us: u64) {
        let Some(hierarchy) = &self.hierarchy else { return };
        if now_us < self.next_walk_us {
            return;
        }
        let idle = now_us.saturating_sub(self.next_walk_us);
        self.pause_us = if idle > LAST_WALK_PAUSE_US {
            FIRST_WALK_PAUSE_US
        } else {
            (self.pause_us * 2).min(LAST_WALK_PAUSE_US)
        };
        self.next_walk_us = now_us + self.pause_us;
        let containers = &mut self.containers;
        containers.clear();
        hierarchy.walk(MAX_CGROUPS, |id, path| {
            containers.insert(id, service(path));
        });
    }
}

fn service(path: &str) -> Option<Service> {
    let id = container_id(path)?;
    Some(Service::new(id.get(..SHORT_DIGITS)?, Source::Container))
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::wire::Wire as _;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt as _;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const INNER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

    #[test]
    fn runtimes_write_ids_into_paths_in_their_own_ways() {
        let check = |pattern: &str, expected: Option<&str>| {
            let path = pattern.replace("ID", ID).replace("INNER", INNER);
            assert_eq!(container_id(&path), expected, "{pattern}");
        };
        for pattern in [
            "/docker/ID",
            "/docker/ID/system.slice/nginx.service",
            "/system.slice/docker-ID.scope",
            "/system.slice/docker-ID.scope/init.scope",
            "/kubepods/burstable/pod1b2c0a8c-1111-2222-3333-444455556666/ID",
            "/kubepods/besteffort/pod1b2c0a8c-1111-2222-3333-444455556666/ID",
            "/kubepods/pod1b2c0a8c/ID",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b_2c.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-pod1b_2c.slice/crio-ID.scope",
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1.slice/cri-containerd-ID.scope",
            "/system.slice/containerd.service/kubepods-burstable-pod1b_2c.slice:cri-containerd:ID",
            "/machine.slice/libpod-ID.scope",
            "/machine.slice/libpod-ID.scope/container",
            "/machine.slice/libpod-ID",
            "/libpod_parent/libpod-ID",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/libpod-payload-ID",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/docker-ID.scope",
            "/k8s.io/ID",
            "/default/ID",
            "/ecs/0123456789abcdef0123456789abcdef/ID",
            "/actions_job/ID",
            "/../../docker/ID",
        ] {
            check(pattern, Some(ID));
        }
        check("/docker/ID/docker/INNER", Some(INNER));
        check("/docker/ID/kubepods/besteffort/pod12/INNER", Some(INNER));
        for pattern in [
            "/",
            "",
            "/system.slice/nginx.service",
            "/system.slice/docker.service",
            "/init.scope",
            "/user.slice/user-1000.slice/session-3.scope",
            "/machine.slice/libpod-conmon-ID.scope",
            "/kubepods.slice/crio-conmon-ID.scope",
            "/kubepods/burstable/pod1b2c0a8c-1111-2222-3333-444455556666",
            "/docker/IDa",
            "/docker/0123456789ab",
            "/docker/0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef",
            "/process_api/0123456789abcdef0123456789abcdef",
        ] {
            check(pattern, None);
        }
    }

    fn row(cgroup: u64, tgid: u32) -> OwnerRow {
        let mut row = OwnerRow::zeroed();
        row.key.cgroup = cgroup;
        row.tgid = tgid;
        row
    }

    #[test]
    fn a_cgroup_without_a_living_process_is_found_in_the_tree() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: String| {
            std::fs::create_dir_all(root.path().join(&path)).unwrap();
            std::fs::metadata(root.path().join(path)).unwrap().ino()
        };
        let container = make(format!("docker/{ID}"));
        let unit = make("system.slice/nginx.service".into());
        let mut source = Cgroups::with_hierarchy(Some(Hierarchy::at(root.path())));
        let expected = Service::new("0123456789ab", Source::Container);
        assert_eq!(source.resolve(&row(container, 0), 0), Answer::Name(expected));
        assert_eq!(source.resolve(&row(unit, 0), 0), Answer::No);
        assert_eq!(source.resolve(&row(u64::MAX, 0), 0), Answer::NotYet);

        let late = make(format!("docker/{INNER}"));
        assert_eq!(source.resolve(&row(late, 0), 1_000), Answer::NotYet, "no walk yet");
        let expected = Service::new("fedcba987654", Source::Container);
        assert_eq!(source.resolve(&row(late, 0), 60_000_000), Answer::Name(expected));
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
        let mut source = Cgroups::with_hierarchy(Some(hierarchy));
        source.learn_from_process(tgid, id + 1);
        assert!(source.containers.is_empty(), "the process lives elsewhere");
        source.learn_from_process(tgid, id);
        assert_eq!(source.containers.get(&id), Some(&service(&path)));
    }

    proptest! {
        #[test]
        fn any_path_is_looked_at_without_panic(path in "[/:.\\PC]{0,100}", id in "[0-9a-f]{60,68}") {
            let _ = container_id(&path);
            let found = container_id(&id);
            prop_assert_eq!(found.is_some(), id.len() == ID_DIGITS);
        }
    }
}
