//! Where the two services run: their processes and network namespaces, found with the rights of the
//! user who runs the command.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use api_types::{Port, PortState, Ports, Protocol};
use linux::clients;
use linux::links;
use linux::listening::{self, Listener};
use linux::namespace_names;
use linux::namespaces::{self, Namespace};
use linux::network;
use linux::procfs::{self, Process};

use super::evidence::{DeadLink, FullTable, Listening, Name};

/// So full, connection tracking drops packets: the count is read a little later.
const FULL: f64 = 0.98;
/// Further namespaces are not looked at.
const MOST: usize = 256;
/// The namespaces of programs that root has named (`ip netns`) have this prefix.
const NAMED: &str = "netns-";
/// Where those names are.
const NAMES: &str = "/run/netns";

/// All network namespaces that can be seen, held open.
#[derive(Default)]
pub(super) struct Host {
    namespaces: Vec<Namespace>,
    /// Whether the host could be searched as a whole.
    is_root: bool,
    /// The namespace of each address that is not of a loopback interface, by index.
    addresses: OnceCell<HashMap<IpAddr, usize>>,
}

/// Where a service runs.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) namespace: Namespace,
    /// One of its processes.
    pub(super) process: Option<u32>,
}

// === impl Host ===

impl Host {
    /// Looks for them.
    pub(super) fn survey() -> Self {
        let is_root = rustix::process::geteuid().is_root();
        Self { namespaces: namespaces::all().0, is_root, addresses: OnceCell::new() }
    }

    /// Where a client runs that connects to `servers`. `pid` wins, if the user has given it.
    pub(super) fn client(
        &self,
        client: &Name,
        servers: &[SocketAddr],
        ports: Option<&Ports>,
        pid: Option<u32>,
    ) -> Result<Place, String> {
        if let Some(pid) = pid {
            return of_process(pid).map_err(|why| format!("process {pid}: {why}"));
        }
        // One that listens as well.
        let held = ports
            .into_iter()
            .flat_map(|ports| &ports.ports)
            .find(|port| is_of(port, client) && port.holder.pid != 0);
        if let Some(port) = held
            && let Ok(place) = in_namespace(port.holder.pid, port.netns)
        {
            return Ok(place);
        }
        if !self.is_root {
            return Err("finding the client's network namespace needs root".to_owned());
        }
        let named = named(client);
        // One with a connection.
        let seen = match &named {
            Some(namespace) => clients::of(servers, std::slice::from_ref(namespace)),
            None => clients::of(servers, &self.namespaces),
        };
        let others: Vec<u32> = ports
            .into_iter()
            .flat_map(|ports| &ports.ports)
            .filter(|port| !is_of(port, client))
            .map(|port| port.holder.pid)
            .collect();
        let mut found: Vec<(u32, u32, bool)> = seen
            .into_iter()
            .filter(|one| !others.contains(&one.tgid) && one.tgid != std::process::id())
            .map(|one| (one.tgid, one.netns, is_named(one.tgid, &client.name)))
            .collect();
        if found.iter().any(|(_, _, is_named)| *is_named) {
            found.retain(|(_, _, is_named)| *is_named);
        }
        // Else one of this name.
        if found.is_empty() {
            let inode = named.as_ref().map(|namespace| namespace.inode);
            found = called(&client.name, inode);
        }
        match (found.first(), named) {
            (Some((tgid, netns, _)), _) if found.iter().all(|(_, other, _)| other == netns) => {
                in_namespace(*tgid, *netns)
            }
            (_, Some(namespace)) => {
                let known = self.namespaces.iter().find(|one| one.inode == namespace.inode);
                Ok(Place { namespace, process: known.and_then(|one| one.process) })
            }
            (Some(_), None) => Err(format!(
                "processes of {client} are in several network namespaces: choose one with --pid"
            )),
            (None, None) => Err(format!("no process of {client} was found: name one with --pid")),
        }
    }

    /// The network namespace that has `address`, which is not of a loopback interface.
    pub(super) fn holder_of(&self, address: IpAddr) -> Option<&Namespace> {
        let read = || {
            let mut holders = HashMap::new();
            for (at, namespace) in self.namespaces.iter().enumerate() {
                let addresses = namespaces::ip_addresses(namespace).unwrap_or_default();
                for address in addresses.into_iter().filter(|address| !address.is_loopback()) {
                    holders.entry(address).or_insert(at);
                }
            }
            holders
        };
        self.namespaces.get(*self.addresses.get_or_init(read).get(&address)?)
    }

    /// What listens on a port of a namespace, as the kernel says; `None` if it cannot be asked.
    pub(super) fn listening(&self, inode: u32, port: u16) -> Option<Vec<Listening>> {
        let found = listening::on(self.namespace(inode)?, port)?;
        let one = |one: Listener| Listening {
            address: one.address,
            v6_only: one.v6_only,
            backlog: one.backlog,
            max_backlog: one.max_backlog,
            pid: one.pid,
            command: one.command,
        };
        Some(found.into_iter().map(one).collect())
    }

    /// Namespaces whose connection tracking is full, those of `ends` among them.
    pub(super) fn full_tables(&self, ends: &[u32]) -> Vec<FullTable> {
        let full = |namespace: &Namespace| {
            let fill = network::tracking(namespace).ok().flatten()?;
            (fill.ratio() >= FULL).then_some((namespace.inode, fill))
        };
        let full: Vec<_> = self.namespaces.iter().take(MOST).filter_map(full).collect();
        if full.is_empty() {
            return Vec::new();
        }
        let (mut names, _) = namespace_names::read();
        if let Ok(host) = namespaces::host() {
            names.insert(host.inode, "the host".to_owned());
        }
        let table = |(inode, fill): (u32, network::Fill)| FullTable {
            namespace: names.get(&inode).cloned().unwrap_or_else(|| format!("net:[{inode}]")),
            used: fill.used,
            limit: fill.limit,
            is_of_an_end: ends.contains(&inode),
        };
        full.into_iter().map(table).collect()
    }

    /// The interface of a namespace that has `address`, if it is down or has no carrier.
    pub(super) fn dead_link(&self, inode: u32, address: IpAddr) -> Option<DeadLink> {
        if address.is_loopback() {
            return None;
        }
        let read = || Some((links::list().ok()?, links::addresses().ok()?));
        let (all, addresses) = namespaces::run_in(self.namespace(inode)?, read).ok()??;
        let index = addresses.iter().find(|one| one.address == address)?.index;
        let link = all.into_iter().find(|link| link.index == index)?;
        if link.is_up && link.has_carrier {
            return None;
        }
        let names = namespace_names::read().0;
        let namespace = names.get(&inode).cloned().unwrap_or_else(|| format!("net:[{inode}]"));
        Some(DeadLink { interface: link.name, namespace, address, is_up: link.is_up })
    }

    /// The network namespace with this inode.
    pub(super) fn namespace(&self, inode: u32) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.inode == inode)
    }
}

/// The addresses at which a listener can be reached from another network namespace, or from its own.
pub(super) fn reached_at(
    port: &Port,
    server: Option<&Namespace>,
    client: Option<u32>,
) -> Option<SocketAddr> {
    let at = |address| Some(SocketAddr::new(address, port.port));
    if !port.address.is_unspecified() {
        return at(port.address);
    }
    if client == Some(port.netns) {
        return at(if port.address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    let addresses = namespaces::ip_addresses(server?).ok()?;
    let usable = |address: &&IpAddr| match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => {
            port.address.is_ipv6() && !address.is_loopback() && !address.is_unicast_link_local()
        }
    };
    addresses.iter().find(usable).and_then(|address| at(*address))
}

/// The listening sockets of a service on a port; of all ports if none is given.
pub(super) fn listeners<'a>(ports: &'a Ports, server: &Name, port: Option<u16>) -> Vec<&'a Port> {
    let is_it = |one: &&Port| {
        one.protocol == Protocol::Tcp
            && one.state == PortState::Listening
            && is_of(one, server)
            && port.is_none_or(|port| port == one.port)
    };
    ports.ports.iter().filter(is_it).collect()
}

fn is_of(port: &Port, name: &Name) -> bool {
    let service = &port.holder.service;
    (&service.namespace, &service.name) == (&name.namespace, &name.name)
}

fn of_process(pid: u32) -> Result<Place, String> {
    let namespace =
        Namespace::open(format!("/proc/{pid}/ns/net")).map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "its network namespace can only be entered by root".to_owned()
            }
            _ => error.to_string(),
        })?;
    Ok(Place { namespace, process: Some(pid) })
}

/// A process, and the namespace of its socket, which may be another one than its own.
fn in_namespace(tgid: u32, netns: u32) -> Result<Place, String> {
    match of_process(tgid) {
        Ok(place) if place.namespace.inode == netns => Ok(place),
        _ => {
            let namespace = namespaces::find(netns);
            let namespace = namespace.ok_or("the client's network namespace is gone")?;
            Ok(Place { process: namespace.process, namespace })
        }
    }
}

/// The namespace that the name of a service says it is in.
fn named(name: &Name) -> Option<Namespace> {
    let label = name.namespace.strip_prefix(NAMED)?;
    if label.contains('/') {
        return None;
    }
    Namespace::open(format!("{NAMES}/{label}")).ok()
}

/// Processes of this name, in one network namespace or in all.
fn called(name: &str, netns: Option<u32>) -> Vec<(u32, u32, bool)> {
    let Ok(all) = procfs::processes() else { return Vec::new() };
    all.filter(|tgid| *tgid != std::process::id() && is_named(*tgid, name))
        .filter_map(|tgid| {
            Some((tgid, Namespace::open(format!("/proc/{tgid}/ns/net")).ok()?.inode, true))
        })
        .filter(|(_, inode, _)| netns.is_none_or(|netns| netns == *inode))
        .collect()
}

/// Whether a process has this name: its command's, or that of a file among its arguments.
fn is_named(tgid: u32, name: &str) -> bool {
    let Ok(Process { comm, argv, .. }) = Process::read(tgid) else { return false };
    let command = comm.split(|byte| *byte == 0).next().unwrap_or_default();
    if command == name.as_bytes() {
        return true;
    }
    let mut arguments = argv.split(|byte| *byte == 0).take(3);
    arguments.any(|argument| argument.rsplit(|byte| *byte == b'/').next() == Some(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_command_and_its_script() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let script = folder.path().join("checkout.py");
        std::fs::write(&script, "echo ready; read x").expect("written");
        let mut command = std::process::Command::new("sh");
        let pipes = command
            .arg(&script)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        let mut child = pipes.spawn().expect("starting sh");
        let mut said = [0];
        // It has its own name and arguments from exec on.
        std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut said).expect("ready");
        let found = ["sh", "checkout.py", "checkout"].map(|name| is_named(child.id(), name));
        let _ = child.kill();
        let _ = child.wait();
        assert_eq!(found, [true, true, false]);
        assert!(!is_named(u32::MAX, "sh"));
    }
}
