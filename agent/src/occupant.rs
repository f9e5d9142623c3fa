//! The process that listens on a port, for the error message when ours is in use.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;

use linux::holders::socket_inode;

use discovery::process::command_name;

/// The state column of a listening socket in /proc/net/tcp.
const LISTEN: &str = "0A";

/// The process that listens on the port of `address`, as far as we may see it.
pub fn of(address: SocketAddr) -> Option<String> {
    let inodes: Vec<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listeners(&table, address.port()))
        .collect();
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        // The links are read, not followed: another user's file may block.
        let holds = fs::read_dir(process.path().join("fd")).ok()?.flatten().any(|descriptor| {
            let path = descriptor.path().into_os_string().into_vec();
            socket_inode(path).is_some_and(|inode| inodes.contains(&u64::from(inode)))
        });
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        holds.then(|| format!("{} (pid {pid})", command_name(name.trim_end_matches('\n'))))
    })
}

/// Inodes of the sockets that listen on `port`, from the text of /proc/net/tcp.
pub fn listeners(table: &str, port: u16) -> Vec<u64> {
    let inode = |line: &str| {
        let mut columns = line.split_whitespace();
        let local = columns.nth(1)?;
        let (_, local_port) = local.rsplit_once(':')?;
        let state = columns.nth(1)?;
        if state != LISTEN || u16::from_str_radix(local_port, 16) != Ok(port) {
            return None;
        }
        columns.nth(5)?.parse().ok()
    };
    table.lines().filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_process_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bound");
        let found = of(listener.local_addr().expect("an address")).expect("found");
        assert!(found.ends_with(&format!("(pid {})", std::process::id())), "{found}");
    }

    #[test]
    fn only_listeners_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:274E 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7001 1 0 100 0 0 10 0
   1: 0100007F:274E 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 7002 1 0 20 4 30 10 -1
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7003 1 0 100 0 0 10 0
";
        assert_eq!(listeners(table, 10062), [7001]);
        assert_eq!(listeners(table, 80), [7003]);
        assert!(listeners("", 80).is_empty());
    }
}
