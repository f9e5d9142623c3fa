//! Memory cgroups: one for the load, one for an agent outside of it.
//!
//! The kernel charges later allocations of a map, such as socket storage, to the cgroup of the
//! process that created the map. If that is the cgroup of the program whose socket it is, a charge
//! is often served from the CPU's stock; if it is another, as with every agent in a container or
//! unit of its own, each charge replaces the stock of the other.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

const LOAD: &str = "portolan-bench-load";
const AGENT: &str = "portolan-bench-agent";

/// Where the agent's maps are charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MemoryCgroup {
    /// To the memory cgroup of the load
    Same,
    /// In a memory cgroup of its own, as in a container or a systemd unit
    Other,
}

/// The two cgroups. This process is in the one of the load until this is dropped.
pub struct MemoryCgroups {
    before: PathBuf,
    load: PathBuf,
    agent: PathBuf,
}

impl MemoryCgroup {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Other => "other",
        }
    }
}

impl MemoryCgroups {
    /// Makes them and moves this process into the first.
    pub fn enter() -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").context("reading /proc/self/cgroup")?;
        let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
        let (root, own) = hierarchy(&own, &mounts).context(
            "no memory cgroups: mount the cgroup file system with its memory controller",
        )?;
        let (load, agent) = (root.join(LOAD), root.join(AGENT));
        let groups = Self { before: own, load, agent };
        for group in [&groups.load, &groups.agent] {
            fs::create_dir_all(group).with_context(|| format!("making {}", group.display()))?;
            if !["memory.current", "memory.usage_in_bytes"].iter().any(|f| group.join(f).exists()) {
                let control = root.join("cgroup.subtree_control");
                bail!(
                    "{} has no memory controller: write +memory to {}",
                    group.display(),
                    control.display()
                );
            }
        }
        move_into(&groups.load)?;
        Ok(groups)
    }

    /// Runs `work` in the requested cgroup: a process started there stays there.
    pub fn within<T>(&self, cgroup: MemoryCgroup, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if cgroup == MemoryCgroup::Same {
            return work();
        }
        move_into(&self.agent)?;
        let result = work();
        move_into(&self.load)?;
        result
    }
}

impl Drop for MemoryCgroups {
    fn drop(&mut self) {
        // A remaining empty cgroup does no harm.
        let _ = move_into(&self.before);
        let _ = fs::remove_dir(&self.agent);
        let _ = fs::remove_dir(&self.load);
    }
}

/// Moves all threads of this process.
fn move_into(group: &Path) -> Result<()> {
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())
        .with_context(|| format!("moving into the memory cgroup {}", group.display()))
}

/// The root of the hierarchy that accounts memory, and this process' cgroup in it.
fn hierarchy(own: &str, mounts: &str) -> Option<(PathBuf, PathBuf)> {
    let groups = || own.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let has = |list: &str, wanted: &str| list.split(',').any(|item| item == wanted);
    let first = groups().find(|(controllers, _)| has(controllers, "memory"));
    let is_first = first.is_some();
    let (_, path) = first.or_else(|| groups().find(|(controllers, _)| controllers.is_empty()))?;
    let root = mounts.lines().find_map(|line| {
        let [_, at, kind, options, ..] = line.split(' ').collect::<Vec<_>>()[..] else {
            return None;
        };
        let is_it =
            if is_first { kind == "cgroup" && has(options, "memory") } else { kind == "cgroup2" };
        is_it.then(|| PathBuf::from(at))
    })?;
    let own = root.join(path.trim_start_matches('/'));
    Some((root, own))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                          cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                          cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
                          cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";

    fn check(own: &str, mounts: &str, expected: Option<(&str, &str)>) {
        let expected = expected.map(|(root, own)| (PathBuf::from(root), PathBuf::from(own)));
        assert_eq!(hierarchy(own, mounts), expected);
    }

    #[test]
    fn the_hierarchy_that_accounts_memory_is_found_in_both_versions() {
        check(
            "9:cpu:/\n4:memory:/user/a\n0::/\n",
            MOUNTS,
            Some(("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/user/a")),
        );
        check(
            "0::/system.slice/ssh.service\n",
            "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n",
            Some(("/sys/fs/cgroup", "/sys/fs/cgroup/system.slice/ssh.service")),
        );
        check("0::/\n", "proc /proc proc rw 0 0\n", None);
        check("4:memory:/\n0::/\n", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", None);
    }
}
