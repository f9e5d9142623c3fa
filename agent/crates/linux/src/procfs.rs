//! What /proc says about a process, for its identity and its name.
//!
//! The files vanish with the process; callers treat an error as "it has exited", unless it is EPERM
//! or EACCES. Formats: man 5 proc, fs/proc/array.c.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use agent_common::owner::{
    ARGV_BYTES, DIRECTORIES, DIRECTORY_BYTES, PATH_BYTES, app_hash, counts_arguments,
    counts_directory,
};

use super::memory_read::MemoryRead;

/// A process, with the fields that the kernel programs record of an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Thread group id, in the PID namespace of the agent's /proc.
    pub tgid: u32,
    /// Its parent; 0 if that is in another PID namespace.
    pub parent: u32,
    /// Start time in clock ticks after boot: smaller is older.
    pub started_ticks: u64,
    /// Command name of the group leader, zero-padded.
    pub comm: [u8; 16],
    /// The arguments, separated by NUL, as far as the kernel half would read them
    /// (`ARGV_BYTES`).
    pub argv: Vec<u8>,
    /// The last names of the path of its working directory, as the kernel half records them.
    pub path: [u8; PATH_BYTES],
}

/// Fields of /proc/PID/stat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Command name of the group leader, zero-padded.
    pub comm: [u8; 16],
    /// The parent's thread group; 0 if that is in another PID namespace.
    pub parent: u32,
    /// Start time in clock ticks after boot.
    pub started_ticks: u64,
    /// `arg_end - arg_start`; `None` where the reader lacks the permission (both are shown as 0).
    pub argument_bytes: Option<u64>,
}

/// All thread groups of this PID namespace. A process that starts meanwhile may be missing.
pub fn processes() -> io::Result<impl Iterator<Item = u32>> {
    Ok(fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()))
}

impl Process {
    /// Reads `tgid` from /proc.
    pub fn read(tgid: u32) -> io::Result<Self> {
        let stat = Stat::read(tgid)?;
        let argv = stat.arguments(tgid).unwrap_or_default();
        let path = stat.path(tgid);
        let Stat { comm, parent, started_ticks, .. } = stat;
        Ok(Self { tgid, parent, started_ticks, comm, argv, path })
    }

    /// Whether it started before a time of CLOCK_MONOTONIC, in microseconds. The kernel counts the
    /// time that the host was suspended into the start of a process, so after a suspend a process
    /// may be taken for older than it is.
    pub fn started_before(&self, monotonic_us: u64) -> Option<bool> {
        let now_us = |clock| {
            let now = clock_gettime(clock);
            u64::try_from(now.tv_sec)
                .ok()?
                .checked_mul(1_000_000)?
                .checked_add(now.tv_nsec as u64 / 1000)
        };
        let suspended_us = now_us(ClockId::Boottime)?.saturating_sub(now_us(ClockId::Monotonic)?);
        let tick_us = 1_000_000 / rustix::param::clock_ticks_per_second().max(1);
        let started_us = self.started_ticks.checked_mul(tick_us)?;
        Some(started_us.saturating_sub(suspended_us) <= monotonic_us)
    }

    /// The `app` part of an owner key: 0 if `comm` says which program it is.
    pub fn app(&self) -> u32 {
        if counts_arguments(&self.comm) {
            app_hash(&self.comm, &argv_region(&self.argv), &self.path)
        } else {
            0
        }
    }
}

/// The first bytes of the arguments, zero-filled, as the kernel half hashes and stores them.
pub fn argv_region(argv: &[u8]) -> [u8; ARGV_BYTES] {
    let mut region = [0; ARGV_BYTES];
    region.iter_mut().zip(argv).for_each(|(to, from)| *to = *from);
    region
}

/// The path of a process's working directory, as far as this mount namespace names it. Calls no
/// file system: readlink(2) on /proc/PID/cwd only prints names that the kernel holds.
fn working_directory(tgid: u32) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt as _;
    let path = fs::read_link(format!("/proc/{tgid}/cwd")).ok()?.into_os_string().into_vec();
    let path = path.strip_prefix(b"(unreachable)").unwrap_or(&path);
    Some(path.strip_suffix(b" (deleted)").unwrap_or(path).to_owned())
}

/// The last names of a path, the last one first, as the kernel half stores them: of a mount point
/// the kernel half sees the name in the file system that is mounted there, which may differ.
pub fn last_names(path: &[u8]) -> [u8; PATH_BYTES] {
    let mut region = [0; PATH_BYTES];
    let names = path.rsplit(|byte| *byte == b'/').filter(|name| !name.is_empty());
    let names = names.chain(std::iter::repeat(&b"/"[..])).take(DIRECTORIES);
    for (to, name) in region.chunks_mut(DIRECTORY_BYTES).zip(names) {
        to.iter_mut().take(DIRECTORY_BYTES - 1).zip(name).for_each(|(to, from)| *to = *from);
    }
    region
}

/// Up to `limit` bytes of /proc/PID/cmdline; empty for kernel threads and zombies. An error if too many
/// such reads in processes of the same user take long.
pub fn command_line(tgid: u32, limit: u64) -> io::Result<Vec<u8>> {
    let _reading = MemoryRead::of(tgid)?;
    let mut bytes = Vec::new();
    File::open(format!("/proc/{tgid}/cmdline"))?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Path of the process in the cgroup v2 hierarchy, relative to that hierarchy's root.
pub fn cgroup_path(tgid: u32) -> io::Result<Option<String>> {
    let text = fs::read_to_string(format!("/proc/{tgid}/cgroup"))?;
    Ok(parse_cgroup(&text).map(str::to_owned))
}

/// The line `0::/path` of /proc/PID/cgroup (man 7 cgroups). `None` if the directory is gone.
pub fn parse_cgroup(text: &str) -> Option<&str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    (path.starts_with('/') && !path.ends_with(" (deleted)")).then_some(path)
}

// === impl Stat ===

impl Stat {
    /// Reads /proc/PID/stat.
    pub fn read(tgid: u32) -> io::Result<Self> {
        let bytes = fs::read(format!("/proc/{tgid}/stat"))?;
        Self::parse(&bytes).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// The arguments of the process `tgid`. They are in its memory, so the process determines how
    /// long the read takes.
    pub fn arguments(&self, tgid: u32) -> io::Result<Vec<u8>> {
        let mut argv = command_line(tgid, ARGV_BYTES as u64)?;
        // A process title longer than the arguments is shown whole (`get_mm_proctitle`,
        // fs/proc/base.c); the kernel half stops at the end of the arguments.
        if let Some(len) = self.argument_bytes {
            argv.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        }
        Ok(argv)
    }

    /// The last names of the path of its working directory, if the kernel half records them.
    pub fn path(&self, tgid: u32) -> [u8; PATH_BYTES] {
        let is_recorded = counts_arguments(&self.comm) && counts_directory(&self.comm);
        let path = if is_recorded { working_directory(tgid) } else { None };
        path.map_or([0; PATH_BYTES], |path| last_names(&path))
    }

    /// Parses one line of /proc/PID/stat. The command name may contain any byte, spaces and
    /// parentheses included: it ends at the last closing parenthesis.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let open = line.iter().position(|byte| *byte == b'(')?;
        let close = line.iter().rposition(|byte| *byte == b')')?;
        let name = line.get(open + 1..close)?;
        let mut comm = [0; 16];
        comm.iter_mut().take(15).zip(name).for_each(|(to, from)| *to = *from);
        // Numbered as in man 5 proc, where (1) is the pid, (2) the name and (3) the state.
        let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
        let field = |number: usize| rest.split_ascii_whitespace().nth(number.checked_sub(3)?);
        let number = |at: usize| field(at).and_then(|text| text.parse::<u64>().ok());
        let argument_bytes = match (number(48), number(49)) {
            (Some(start), Some(end)) if start != 0 && end >= start => Some(end - start),
            _ => None,
        };
        let parent = number(4).and_then(|parent| u32::try_from(parent).ok()).unwrap_or(0);
        Some(Self { comm, parent, started_ticks: number(22)?, argument_bytes })
    }
}

/// The CPU time of the calling thread.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn comm(text: &str) -> [u8; 16] {
        let mut out = [0; 16];
        out[..text.len()].copy_from_slice(text.as_bytes());
        out
    }

    #[test]
    fn a_command_name_may_hold_parentheses_and_spaces() {
        let line = |name: &str| {
            let zeros = |n: usize| vec!["0"; n].join(" ");
            format!("7 ({name}) S 3 {} 4711 {} 1000 1300 0 0 0", zeros(17), zeros(25))
        };
        let check = |name: &str, expected: &str| {
            let stat = Stat::parse(line(name).as_bytes()).unwrap();
            assert_eq!(stat.comm, comm(expected), "{name}");
            assert_eq!((stat.parent, stat.started_ticks), (3, 4711), "{name}");
            assert_eq!(stat.argument_bytes, Some(300), "{name}");
        };
        check("nginx", "nginx");
        check("(sd-pam)", "(sd-pam)");
        check("a) S 1 (b", "a) S 1 (b");
        check("kworker/u8:2-events_unbound", "kworker/u8:2-ev");
    }

    #[test]
    fn the_v2_line_is_found_among_v1_lines() {
        let check = |text, expected: Option<&str>| assert_eq!(parse_cgroup(text), expected);
        check("0::/system.slice/nginx.service\n", Some("/system.slice/nginx.service"));
        check("9:name=systemd:/\n4:memory:/a/b\n0::/\n", Some("/"));
        check("0::/gone (deleted)\n", None);
        check("4:memory:/a\n", None);
        check("", None);
    }

    #[test]
    fn this_process_is_read_as_the_kernel_keeps_it() {
        let me = Process::read(std::process::id()).unwrap();
        let named = fs::read("/proc/self/comm").unwrap();
        assert!(me.comm.starts_with(named.strip_suffix(b"\n").unwrap()));
        let whole = fs::read("/proc/self/cmdline").unwrap();
        assert!(whole.starts_with(&me.argv) && !me.argv.is_empty());
        assert_eq!(me.app(), 0);
    }

    #[test]
    fn of_a_path_the_last_names_are_kept() {
        let check = |path: &str, expected: [&str; DIRECTORIES]| {
            let region = last_names(path.as_bytes());
            let names = region.chunks(DIRECTORY_BYTES).map(|name| {
                let end = name.iter().position(|byte| *byte == 0).unwrap();
                std::str::from_utf8(&name[..end]).unwrap().to_owned()
            });
            assert_eq!(names.collect::<Vec<_>>(), expected, "{path}");
        };
        check("/", ["/", "/", "/"]);
        check("/srv/shop", ["shop", "srv", "/"]);
        check("/a/b/c/d/", ["d", "c", "b"]);
        check(&format!("/{}", "x".repeat(300)), [&"x".repeat(DIRECTORY_BYTES - 1), "/", "/"]);
        let here = std::env::current_dir().unwrap();
        let found = working_directory(std::process::id()).unwrap();
        assert_eq!(found, here.to_str().unwrap().as_bytes());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(
            line in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,80}",
        ) {
            let _ = Stat::parse(&line);
            let _ = parse_cgroup(&text);
            let _ = last_names(&line);
        }
    }
}
