//! What keeps a process from running: stopped, throttled, short of memory, out of descriptors.
//!
//! Read for one process when a user asks; nothing here is needed for counting.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::hierarchy::Hierarchy;
use crate::mounts::{self, Mount};
use crate::procfs;

/// A process as /proc shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// `R`, `S`, `D`, `T` (stopped), `t` (traced), `Z` (zombie): man 5 proc_pid_stat.
    pub letter: char,
    /// Open descriptors, if they may be counted.
    pub descriptors: Option<u64>,
    /// How many it may open (`RLIMIT_NOFILE`).
    pub descriptor_limit: Option<u64>,
}

/// What the cgroup of a process counts. What a kernel or a cgroup does not have is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cgroup {
    /// Periods in which its processes were runnable (`nr_periods`).
    pub periods: Option<u64>,
    /// Those in which they used up their quota (`nr_throttled`).
    pub throttled_periods: Option<u64>,
    /// Processes that the OOM killer has killed there.
    pub oom_kills: Option<u64>,
    /// Share of the last ten seconds in which some of them waited for a CPU.
    pub cpu_pressure: Option<f64>,
    /// Share of the last ten seconds in which some of them waited for memory.
    pub memory_pressure: Option<f64>,
}

/// Reads the state of a process.
pub fn state(tgid: u32) -> io::Result<State> {
    let stat = fs::read(format!("/proc/{tgid}/stat"))?;
    let letter = letter(&stat).ok_or(io::ErrorKind::InvalidData)?;
    let descriptors = fs::read_dir(format!("/proc/{tgid}/fd")).ok();
    let limits = fs::read_to_string(format!("/proc/{tgid}/limits")).unwrap_or_default();
    Ok(State {
        letter,
        descriptors: descriptors.map(|entries| entries.count() as u64),
        descriptor_limit: descriptor_limit(&limits),
    })
}

/// Reads the counters of the cgroup that a process is in, of version 2 and where controllers are
/// mounted as version 1, of that.
pub fn cgroup(tgid: u32) -> io::Result<Cgroup> {
    let table = fs::read_to_string(format!("/proc/{tgid}/cgroup"))?;
    let mut found = Cgroup::default();
    if let (Some(path), Ok(Some(hierarchy))) = (procfs::parse_cgroup(&table), Hierarchy::find()) {
        let folder = below(hierarchy.mount(), path);
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let cpu = read("cpu.stat");
        found.periods = value(&cpu, "nr_periods");
        found.throttled_periods = value(&cpu, "nr_throttled");
        found.oom_kills = value(&read("memory.events"), "oom_kill");
        found.cpu_pressure = pressure(&read("cpu.pressure"));
        found.memory_pressure = pressure(&read("memory.pressure"));
    }
    if found.periods.is_none() || found.oom_kills.is_none() {
        let mounts = mounts::list("self", u64::MAX, |mount| mount.kind == "cgroup")?.mounts;
        let read = |controller: &str, name: &str| {
            let folder = first_version(&mounts, &table, controller)?;
            fs::read_to_string(folder.join(name)).ok()
        };
        let cpu = read("cpu", "cpu.stat").unwrap_or_default();
        found.periods = found.periods.or_else(|| value(&cpu, "nr_periods"));
        found.throttled_periods = found.throttled_periods.or_else(|| value(&cpu, "nr_throttled"));
        let memory = read("memory", "memory.oom_control").unwrap_or_default();
        found.oom_kills = found.oom_kills.or_else(|| value(&memory, "oom_kill"));
    }
    Ok(found)
}

/// The state letter of a line of /proc/PID/stat: behind the name, which may contain anything.
fn letter(stat: &[u8]) -> Option<char> {
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(close + 2).map(|byte| char::from(*byte))
}

/// The soft limit in the line of /proc/PID/limits; `None` if there is none.
fn descriptor_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The folder of a cgroup of version 1: where its controller is mounted, by the name of the mount
/// point, and its path there.
fn first_version(mounts: &[Mount], table: &str, controller: &str) -> Option<PathBuf> {
    let has = |list: &str| list.split(',').any(|one| one == controller);
    let path = table.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        has(controllers).then_some(path)
    })?;
    let mount = mounts
        .iter()
        .find(|mount| mount.point.file_name().and_then(|name| name.to_str()).is_some_and(has))?;
    // Of a mount of a part of the tree (in a container) the path begins behind that part.
    let inside = Path::new(path).strip_prefix(&mount.root).unwrap_or(Path::new(path));
    Some(below(&mount.point, inside.to_str()?))
}

fn below(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

/// The number behind a key, in lines of keys and numbers.
fn value(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    rest.trim().parse().ok()
}

/// `some avg10=1.53 avg60=…`, per cent (Documentation/accounting/psi.rst), as a share.
fn pressure(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let percent: f64 = line.split_whitespace().next()?.strip_prefix("avg10=")?.parse().ok()?;
    Some(percent / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_understood() {
        assert_eq!(letter(b"7 (a) T (b) S 1 7 7"), Some('S'));
        assert_eq!(letter(b"7 (nginx) T 1"), Some('T'));
        assert_eq!(letter(b"7 nginx"), None);
        let limits = "Limit  Soft Limit  Hard Limit  Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(descriptor_limit(limits), Some(1024));
        let unlimited = limits.replace("1024 ", "unlimited ");
        assert_eq!(descriptor_limit(&unlimited), None);
        let cpu = "usage_usec 5\nnr_periods 40\nnr_throttled 31\nthrottled_usec 9\n";
        assert_eq!((value(cpu, "nr_periods"), value(cpu, "nr_throttled")), (Some(40), Some(31)));
        assert_eq!(value(cpu, "nr"), None);
        let pressured = pressure("some avg10=12.50 avg60=1.00 avg300=0.20 total=9\nfull avg10=0\n");
        assert!(pressured.is_some_and(|share| (share - 0.125).abs() < 1e-9), "{pressured:?}");
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn a_controller_of_version_one_is_found_by_its_mount() {
        let mount = |root: &str, point: &str| Mount {
            id: 1,
            root: root.into(),
            point: point.into(),
            kind: "cgroup".into(),
        };
        let table = "4:memory:/a/b\n3:cpu,cpuacct:/docker/x/y\n0::/z\n";
        let check = |root, point, controller, expected: Option<&str>| {
            let found = first_version(&[mount(root, point)], table, controller);
            assert_eq!(found, expected.map(PathBuf::from), "{point}");
        };
        check("/", "/cg/cpu,cpuacct", "cpu", Some("/cg/cpu,cpuacct/docker/x/y"));
        check("/docker/x", "/cg/cpu", "cpu", Some("/cg/cpu/y"));
        check("/", "/cg/memory", "memory", Some("/cg/memory/a/b"));
        check("/", "/cg/memory", "cpu", None);
        check("/", "/cg/pids", "pids", None);
    }

    #[test]
    fn this_process_runs_and_has_descriptors() {
        let me = state(std::process::id()).expect("our own");
        assert!(matches!(me.letter, 'R' | 'S'), "{me:?}");
        assert!(me.descriptors.is_some_and(|open| open > 2), "{me:?}");
        assert!(cgroup(std::process::id()).is_ok());
        assert!(state(u32::MAX).is_err());
    }
}
