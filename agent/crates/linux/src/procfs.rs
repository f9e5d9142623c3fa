//! What /proc says about a process, for its identity and its name.
//!
//! The files vanish with the process; callers treat an error as "it has exited", unless it is EPERM
//! or EACCES. Formats: man 5 proc, fs/proc/array.c.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::time::Duration;

use agent_common::owner::{ARGV_BYTES, app_hash, is_interpreter};

/// A process, with the fields that the kernel programs record of an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Thread group id, in the PID namespace of the agent's /proc.
    pub tgid: u32,
    /// Start time in clock ticks after boot: smaller is older.
    pub started_ticks: u64,
    /// Command name of the group leader, zero-padded.
    pub comm: [u8; 16],
    /// The arguments, separated by NUL, as far as the kernel half would read them
    /// (`ARGV_BYTES`).
    pub argv: Vec<u8>,
}

/// Fields of /proc/PID/stat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Command name of the group leader, zero-padded.
    pub comm: [u8; 16],
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
        let mut argv = command_line(tgid, ARGV_BYTES as u64).unwrap_or_default();
        // A process title that outgrew the arguments is shown whole (`get_mm_proctitle`,
        // fs/proc/base.c); the kernel half stops where the arguments ended.
        if let Some(len) = stat.argument_bytes {
            argv.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        }
        Ok(Self { tgid, started_ticks: stat.started_ticks, comm: stat.comm, argv })
    }

    /// The `app` part of an owner key: depends on the arguments only if `comm` is an interpreter.
    pub fn app(&self) -> u32 {
        if is_interpreter(&self.comm) { app_hash(&argv_region(&self.argv)) } else { 0 }
    }
}

/// The first bytes of the arguments, zero-filled, as the kernel half hashes and stores them.
pub fn argv_region(argv: &[u8]) -> [u8; ARGV_BYTES] {
    let mut region = [0; ARGV_BYTES];
    region.iter_mut().zip(argv).for_each(|(to, from)| *to = *from);
    region
}

/// Up to `limit` bytes of /proc/PID/cmdline; empty for kernel threads and zombies.
pub fn command_line(tgid: u32, limit: u64) -> io::Result<Vec<u8>> {
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
        Some(Self { comm, started_ticks: number(22)?, argument_bytes })
    }
}

/// The CPU time of the calling thread.
pub fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
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
            format!("7 ({name}) S {} 4711 {} 1000 1300 0 0 0", zeros(18), zeros(25))
        };
        let check = |name: &str, expected: &str| {
            let stat = Stat::parse(line(name).as_bytes()).unwrap();
            assert_eq!(stat.comm, comm(expected), "{name}");
            assert_eq!(stat.started_ticks, 4711, "{name}");
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

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(
            line in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,80}",
        ) {
            let _ = Stat::parse(&line);
            let _ = parse_cgroup(&text);
        }
    }
}
