//! Which processes have a connection to a server, in whatever network namespace.
//!
//! A user asks for them, to try from there what such a client does. Reads the sockets of every
//! network namespace and the descriptors of every process, so it needs the rights of root to see all.

use std::net::SocketAddr;

use agent_common::address;
use hashbrown::{HashMap, HashSet};

use crate::namespaces::{self, Namespace};
use crate::{diag, holders};

/// A process with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its thread group id.
    pub tgid: u32,
    /// Its network namespace, by inode.
    pub netns: u32,
}

/// The processes that are connected, or try to connect, to one of `servers` from one of
/// `namespaces`.
pub fn of(servers: &[SocketAddr], namespaces: &[Namespace]) -> Vec<Client> {
    let ends: Vec<_> =
        servers.iter().map(|server| (address::from_ip(server.ip()), server.port())).collect();
    let ports: HashSet<u16> = servers.iter().map(SocketAddr::port).collect();
    let mut sockets: HashMap<u32, u32> = HashMap::new();
    for namespace in namespaces {
        let list = || ports.iter().filter_map(|port| diag::connections(0, *port).ok()).collect();
        // One that cannot be entered is left out: then no client is found.
        let dumps: Vec<diag::Dump> = namespaces::run_in(namespace, list).unwrap_or_default();
        let entries = dumps.iter().flat_map(|dump| &dump.entries);
        let ours = entries
            .filter(|entry| entry.inode != 0 && ends.contains(&(entry.remote, entry.remote_port)));
        sockets.extend(ours.map(|entry| (entry.inode, namespace.inode)));
    }
    let (found, _) = holders::find(&sockets.keys().copied().collect());
    let mut clients: Vec<Client> = found
        .iter()
        .filter_map(|(inode, holder)| {
            Some(Client { tgid: holder.tgid, netns: *sockets.get(inode)? })
        })
        .collect();
    clients.sort_unstable_by_key(|client| (client.tgid, client.netns));
    clients.dedup();
    clients
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_of_this_process_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = listener.local_addr().expect("an address");
        let here = || [Namespace::current().expect("our own")];
        assert_eq!(of(&[server], &here()), []);
        let client = TcpStream::connect(server).expect("a listener of ours");
        let expected = Client { tgid: std::process::id(), netns: here()[0].inode };
        assert_eq!(of(&[server], &here()), [expected]);
        drop(client);
    }
}
