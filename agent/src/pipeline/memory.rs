//! The agent's own memory: usage, limit, and overflow mode when it runs short.

use std::fs;
use std::path::{Path, PathBuf};

use super::kernel::Kernel;
use linux::mounts::{self, Mount};
use model::memory::{Memory, MemoryView, Usage};

/// Below this share of a cgroup's limit, reclaimable memory is not subtracted.
const LOOK_CLOSER: (u64, u64) = (2, 3);

/// Keeps the agent below its limits.
pub(super) struct Keeper {
    meter: Meter,
    memory: Memory,
    overflows: u64,
}

/// Measures memory against the configured limit and those of the cgroups that the agent is in.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    configured: Option<u64>,
    groups: Vec<Group>,
}

/// A cgroup of the memory controller.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    folder: PathBuf,
    version: &'static Version,
}

/// File names of the two versions of cgroups.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    limit: &'static str,
    used: &'static str,
}

/// In version 1 "no limit" is a number beyond all memory.
const V1: Version = Version { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes" };
const V2: Version = Version { limit: "memory.max", used: "memory.current" };
const BEYOND_ALL_MEMORY: u64 = 1 << 60;

// === impl Keeper ===

impl Keeper {
    pub(super) fn new(meter: Meter) -> Self {
        Self { meter, memory: Memory::default(), overflows: 0 }
    }

    /// Measures, and offers as many free rows as there is room for. `in_use` are taken.
    pub(super) fn look(&mut self, kernel: &mut impl Kernel, in_use: usize) -> MemoryView {
        let usage = self.meter.usage();
        let before = self.memory.is_overflowing();
        let room = self.memory.room(usage);
        let overflow_mode = self.memory.is_overflowing();
        if let Err(error) = kernel.offer_edges(in_use, room) {
            tracing::warn!("free rows of edges could not be withheld or offered: {error}");
        }
        if overflow_mode != before {
            self.overflows += u64::from(overflow_mode);
            log(overflow_mode, usage);
        }
        if overflow_mode {
            linux::pages::trim_heap();
        }
        MemoryView {
            usage,
            overflow_mode,
            held_rows: kernel.held_edges(),
            overflows: self.overflows,
        }
    }
}

fn log(overflow_mode: bool, usage: Option<Usage>) {
    let mib = |bytes: u64| bytes >> 20;
    let Some(Usage { used, limit }) = usage else { return };
    let (used, limit) = (mib(used), mib(limit));
    if overflow_mode {
        tracing::warn!(
            "overflow mode: {used} MiB of {limit} MiB are in use, so new edges are counted in the rows `other` until memory is free; raise the limit (limits.memory_bytes, or the cgroup's) or reduce the number of edges (internal_ranges, limits.addresses)"
        );
    } else {
        tracing::info!("end of overflow mode: {used} MiB of {limit} MiB are in use");
    }
}

// === impl Meter ===

impl Meter {
    /// Finds the cgroups of this process.
    pub(super) fn new(configured: Option<u64>) -> Self {
        let mounts = mounts::of("self").unwrap_or_default();
        let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self { configured, groups: groups(&mounts, &memberships) }
    }

    /// The smallest limit.
    pub(super) fn limit(&self) -> Option<u64> {
        let limits = self.groups.iter().filter_map(|group| group.read(group.version.limit));
        self.configured.into_iter().chain(limits).min()
    }

    /// The limit that is nearest, and what counts against it.
    fn usage(&self) -> Option<Usage> {
        let own = self.configured.zip(resident()).map(|(limit, used)| Usage { used, limit });
        let theirs = self.groups.iter().filter_map(Group::usage);
        own.into_iter().chain(theirs).min_by_key(|usage| usage.left())
    }
}

// === impl Group ===

impl Group {
    fn read(&self, file: &str) -> Option<u64> {
        let text = fs::read_to_string(self.folder.join(file)).ok()?;
        // Without a limit version 2 says "max".
        text.trim().parse().ok().filter(|bytes| *bytes < BEYOND_ALL_MEMORY)
    }

    fn usage(&self) -> Option<Usage> {
        let limit = self.read(self.version.limit)?;
        let used = self.read(self.version.used)?;
        let (part, whole) = LOOK_CLOSER;
        if used < limit / whole * part {
            return Some(Usage { used, limit });
        }
        // Pages of files are given back before anybody is killed for want of them.
        let stat = fs::read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        Some(Usage { used: used.saturating_sub(files(&stat)), limit })
    }
}

/// Bytes of files in memory.stat.
fn files(stat: &str) -> u64 {
    let values = stat.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        matches!(key, "inactive_file" | "active_file").then(|| value.parse::<u64>().ok())?
    });
    values.sum()
}

/// The cgroups of memory that a process is in, from its own to the root of what it sees.
fn groups(mounts: &[Mount], memberships: &str) -> Vec<Group> {
    // One line for each hierarchy: `ID:CONTROLLERS:PATH`; version 2 has neither number nor names.
    let paths = memberships.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let version = match controllers {
            "" => &V2,
            names if names.split(',').any(|name| name == "memory") => &V1,
            _ => return None,
        };
        Some((version, Path::new(path)))
    });
    let mut found = Vec::new();
    for (version, path) in paths {
        let kind = if *version == V1 { "cgroup" } else { "cgroup2" };
        for mount in mounts.iter().filter(|mount| mount.kind == kind) {
            // What is mounted may be a part of the tree.
            let inside = path.strip_prefix(&mount.root).unwrap_or(Path::new(""));
            let folder = mount.point.join(inside);
            for folder in folder.ancestors().take_while(|folder| folder.starts_with(&mount.point)) {
                // Mounts of other controllers have no such file.
                if folder.join(version.used).exists() {
                    found.push(Group { folder: folder.to_owned(), version });
                }
            }
        }
    }
    found
}

/// Resident memory of this process (man 5 proc_pid_statm).
fn resident() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, root: &str, point: &Path) -> Mount {
        Mount { id: 1, root: root.into(), point: point.to_owned(), kind: kind.into() }
    }

    #[test]
    fn the_nearest_limit_of_all_cgroups_counts() {
        let tree = tempfile::tempdir().unwrap();
        let write = |folder: &str, values: &[(&str, &str)]| {
            let folder = tree.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            for (file, text) in values {
                fs::write(folder.join(file), text).unwrap();
            }
        };
        write("a", &[("memory.max", "1000\n"), ("memory.current", "950\n")]);
        write("a", &[("memory.stat", "anon 500\ninactive_file 100\nactive_file 50\nfile 150\n")]);
        write("a/b", &[("memory.max", "max\n"), ("memory.current", "900\n")]);
        write("v1/c", &[("memory.limit_in_bytes", "9223372036854771712\n")]);
        write("v1/c", &[("memory.usage_in_bytes", "7\n")]);
        let mounts = [
            mount("tmpfs", "/", tree.path()),
            mount("cgroup2", "/", tree.path()),
            mount("cgroup", "/docker", &tree.path().join("v1")),
        ];
        let groups = groups(&mounts, "5:cpu,memory:/docker/c\n2:pids:/x\n0::/a/b\n");
        let folders: Vec<_> =
            groups.iter().map(|group| group.folder.strip_prefix(tree.path()).unwrap()).collect();
        assert_eq!(folders, [Path::new("v1/c"), Path::new("a/b"), Path::new("a")]);
        let meter = Meter { configured: None, groups };
        assert_eq!(meter.limit(), Some(1000));
        assert_eq!(meter.usage(), Some(Usage { used: 800, limit: 1000 }));
        let lower = Meter { configured: Some(1), ..meter };
        let Usage { used, limit } = lower.usage().unwrap();
        assert!(limit == 1 && used > 1 << 20, "{used} of {limit}");
        assert_eq!(lower.limit(), Some(1));
    }

    #[test]
    fn this_process_has_memory() {
        let Usage { used, .. } = Meter::new(Some(1 << 50)).usage().unwrap();
        assert!(used > 1 << 20, "{used}");
    }
}
