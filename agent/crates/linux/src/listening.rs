//! The sockets that listen on a TCP port of a network namespace, and their processes, from the
//! kernel (sock_diag, man 7) by a command with its caller's rights, where no agent can say it.

use std::net::IpAddr;

use agent_common::address;
use hashbrown::HashSet;

use crate::diag::{self, SocketEntry};
use crate::holders;
use crate::namespaces::{self, Namespace};

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its address; unspecified if it listens on all.
    pub address: IpAddr,
    /// Whether it refuses IPv4, as an IPv6 socket.
    pub v6_only: bool,
    /// Connections that wait for accept(), and how many may wait.
    pub backlog: u32,
    /// How many connections may wait.
    pub max_backlog: u32,
    /// The process that holds it, and its command name; 0 and empty if it cannot be seen.
    pub pid: u32,
    /// The command name of that process.
    pub command: String,
}

/// What listens on `port` in `namespace`; `None` if it cannot be asked.
pub fn on(namespace: &Namespace, port: u16) -> Option<Vec<Listener>> {
    let dump = namespaces::run_in(namespace, || diag::connections(port, 0)).ok()?.ok()?;
    let listens = |entry: &&SocketEntry| entry.state == diag::LISTEN && entry.local_port == port;
    let entries: Vec<&SocketEntry> = dump.entries.iter().filter(listens).collect();
    if entries.is_empty() {
        return Some(Vec::new());
    }
    let inodes: HashSet<u32> = entries.iter().map(|entry| entry.inode).collect();
    let (holders, _) = holders::find(&inodes);
    let listener = |entry: &SocketEntry| {
        let holder = holders.get(&entry.inode);
        let command = holder.map_or_else(String::new, |holder| {
            let bytes = holder.owner.comm.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        });
        Listener {
            address: address::to_ip(entry.local),
            v6_only: entry.v6_only != 0,
            backlog: entry.receive_queue,
            max_backlog: entry.send_queue,
            pid: holder.map_or(0, |holder| holder.tgid),
            command,
        }
    };
    Some(entries.into_iter().map(listener).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_listener_is_found_with_its_process_and_its_queue() {
        let here = Namespace::current().unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let _waiting = TcpStream::connect(address).unwrap();
        let found = on(&here, address.port()).unwrap();
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((one.address, one.pid), (address.ip(), std::process::id()), "{one:?}");
        assert_eq!(one.backlog, 1, "{one:?}");
        assert!(one.max_backlog > 1 && !one.command.is_empty(), "{one:?}");
        drop(socket);
        assert_eq!(on(&here, address.port()).unwrap(), []);
    }
}
