//! How many connection requests a network namespace dropped: `TcpExt: ListenDrops` of
//! `/proc/net/netstat`, read through a process in it or, failing that, from inside.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use super::namespaces;

/// Shortest time between two searches, which read every process.
const SEARCH_EVERY: Duration = Duration::from_secs(1);

/// What can be read of a namespace's `ListenDrops`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The total since the namespace was created.
    Total(u64),
    /// Retry later.
    Later,
    /// It cannot be read.
    Never,
}

/// Reads `ListenDrops` of namespaces.
#[derive(Default)]
pub struct NamespaceDrops {
    searched: Option<Instant>,
}

impl NamespaceDrops {
    /// The counter of namespace `inode`, in which process `tgid` was, or is.
    pub fn read(&mut self, inode: u32, tgid: u32) -> Reading {
        for process in [tgid.to_string(), "self".to_owned()] {
            let namespace = fs::metadata(format!("/proc/{process}/ns/net"));
            if namespace.is_ok_and(|file| file.ino() == u64::from(inode)) {
                return of(fs::read_to_string(format!("/proc/{process}/net/netstat")));
            }
        }
        if self.searched.is_some_and(|at| at.elapsed() < SEARCH_EVERY) {
            return Reading::Later;
        }
        self.searched = Some(Instant::now());
        let (all, _) = namespaces::all();
        let Some(found) = all.iter().find(|namespace| namespace.inode == inode) else {
            return Reading::Never;
        };
        let inside = || fs::read_to_string("/proc/thread-self/net/netstat");
        of(match found.process {
            Some(tgid) => fs::read_to_string(format!("/proc/{tgid}/net/netstat")),
            None => namespaces::run_in(found, inside).flatten(),
        })
    }
}

fn of(netstat: std::io::Result<String>) -> Reading {
    netstat.ok().and_then(|text| parse(&text)).map_or(Reading::Never, Reading::Total)
}

/// Two lines a group: names, values.
/// The total in the text of /proc/net/netstat.
pub fn parse(netstat: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|name| name == "ListenDrops")?;
    values.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found_by_its_name() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 2 3\n";
        assert_eq!(parse(text), Some(3));
        assert_eq!(parse("TcpExt: ListenOverflows\nTcpExt: 2\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn our_own_namespace_has_it() {
        let inode = fs::metadata("/proc/self/ns/net").unwrap().ino() as u32;
        let reading = NamespaceDrops::default().read(inode, std::process::id());
        assert!(matches!(reading, Reading::Total(_)), "{reading:?}");
    }
}
