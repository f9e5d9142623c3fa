//! How many connection requests a network namespace dropped: `TcpExt: ListenDrops` of
//! `/proc/net/netstat`, read through a process in it or, failing that, from inside.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::namespaces;

/// The counter of namespace `inode` since the namespace was created, read through process `tgid` if
/// that is still in it. `None` if it cannot be read.
pub fn read(inode: u32, tgid: u32) -> Option<u64> {
    for process in [tgid.to_string(), "self".to_owned()] {
        let namespace = fs::metadata(format!("/proc/{process}/ns/net"));
        if namespace.is_ok_and(|file| file.ino() == u64::from(inode)) {
            return of(fs::read_to_string(format!("/proc/{process}/net/netstat")));
        }
    }
    let (all, _) = namespaces::all();
    let found = all.iter().find(|namespace| namespace.inode == inode)?;
    let inside = || fs::read_to_string("/proc/thread-self/net/netstat");
    of(match found.process {
        Some(tgid) => fs::read_to_string(format!("/proc/{tgid}/net/netstat")),
        None => namespaces::run_in(found, inside).flatten(),
    })
}

fn of(netstat: std::io::Result<String>) -> Option<u64> {
    parse(&netstat.ok()?)
}

/// The total in the text of /proc/net/netstat: two lines a group, names and values.
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
        assert!(read(inode, std::process::id()).is_some());
    }
}
