//! Processes that the OOM killer has killed, from the kernel's log (Documentation/ABI/testing/dev-kmsg).
//!
//! `memory.events` counts them, but a cgroup may be gone with its process. Reading the log needs root,
//! or `kernel.dmesg_restrict=0`.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::time::{ClockId, clock_gettime};

/// Where the log is.
const LOG: &str = "/dev/kmsg";
/// No record is longer (`CONSOLE_EXT_LOG_MAX`).
const LONGEST: usize = 8192;
/// More records are not read: a safety limit.
const MOST: usize = 200_000;
/// `__oom_kill_process`, mm/oom_kill.c.
const KILLED: &str = "Killed process ";

/// A process that was killed.
#[derive(Clone, Debug, PartialEq)]
pub struct Kill {
    /// Its pid.
    pub pid: u32,
    /// Its command name.
    pub command: String,
    /// How long ago, to within a fraction of a second.
    pub seconds_ago: f64,
}

/// Those of the last `seconds`, the latest first.
pub fn kills(seconds: f64) -> io::Result<Vec<Kill>> {
    let mut log = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(LOG)?;
    // The log's clock is not adjusted by NTP either.
    let now = clock_gettime(ClockId::MonotonicRaw);
    let now_seconds = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
    let mut buffer = [0; LONGEST];
    let mut kills = Vec::new();
    for _ in 0..MOST {
        // Each read returns one record.
        let length = match log.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // It was overwritten before it was read; the next one is there.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => continue,
            Err(error) => return Err(error),
        };
        let record = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        if let Some((at, pid, command)) = parse(&record) {
            let seconds_ago = (now_seconds - at).max(0.0);
            kills.push(Kill { pid, command, seconds_ago });
        }
    }
    kills.retain(|kill| kill.seconds_ago <= seconds);
    kills.reverse();
    Ok(kills)
}

/// Time, pid and command of a record about a kill: `priority,number,microseconds,flags;text`.
pub fn parse(record: &str) -> Option<(f64, u32, String)> {
    let (head, text) = record.split_once(';')?;
    let mut fields = head.split(',');
    // The facility is above the three bits of the level; what programs write has another than 0.
    let priority: u32 = fields.next()?.parse().ok()?;
    let microseconds: u64 = fields.nth(1)?.parse().ok()?;
    if priority >> 3 != 0 {
        return None;
    }
    let (_, rest) = text.lines().next()?.split_once(KILLED)?;
    let (pid, rest) = rest.split_once(" (")?;
    // A command name may contain parentheses.
    let (command, _) = rest.split_once(") total-vm")?;
    Some((microseconds as f64 / 1e6, pid.parse().ok()?, command.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_kill_is_read_and_what_programs_write_is_not() {
        let text = "Memory cgroup out of memory: Killed process 867 (a (b)) total-vm:34kB, anon-rss:3kB\n SUBSYSTEM=x\n";
        let record = format!("3,1203,5000000,-;{text}");
        assert_eq!(parse(&record), Some((5.0, 867, "a (b)".to_owned())));
        assert_eq!(parse(&format!("12,1203,5000000,-;{text}")), None);
        assert_eq!(parse("6,1,1,-;eth0: link up\n"), None);
    }

    #[test]
    fn the_log_of_this_host_is_read_to_its_end() {
        match kills(600.0) {
            Ok(kills) => assert!(kills.iter().all(|kill| kill.seconds_ago <= 600.0)),
            Err(error) => println!("SKIPPED: {LOG}: {error}"),
        }
    }

    proptest! {
        #[test]
        fn any_record_is_parsed_without_panic(record in "[0-9,;() a-zK]{0,80}") {
            let _ = parse(&record);
        }
    }
}
