//! Which process holds a socket now, as opposed to the one that bound it: a child that inherited it
//! from a parent that has ended, a process that it was passed to, a service for which systemd opened
//! it.

use std::fs;
use std::io;
use std::iter;
use std::os::unix::ffi::OsStringExt as _;

use agent_common::owner::OwnerKey;
use hashbrown::{HashMap, HashSet};

use crate::holders::{self, Holder, socket_inode};
use crate::{diag, inspection, namespaces};

/// Command names of programs that open sockets for others: they keep them, or become those.
const ACTIVATORS: [&str; 9] = [
    "systemd",
    "(systemd)",
    "systemd-socket-",
    "inetd",
    "inetutils-inetd",
    "rlinetd",
    "xinetd",
    "tcpserver",
    "launchd",
];
/// What the title of another begins with, of which the command name has the first bytes: PM2's
/// daemon, which accepts connections for the applications in cluster mode and passes them on.
const TITLES: [&[u8]; 1] = [b"PM2 v"];
/// The first process.
const INIT: u32 = 1;

/// A socket, and the process that bound it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The process that bound it; 0 if unknown.
    pub tgid: u32,
    /// What it was: the owner that the kernel half recorded.
    pub command: [u8; 16],
    /// The socket.
    pub inode: u32,
}

/// Who holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// The process that bound it, or one that it has started and that has not begun its program yet.
    Binder,
    /// Another one, or what that one has become.
    Other(Box<Holder>),
    /// No process that can be seen.
    Nobody,
}

/// Who holds these sockets, by inode. Walks over all processes only if a process that bound one
/// no longer has it, or has it for others.
pub fn find(bound: &[Bound]) -> HashMap<u32, Holding> {
    let mut found = HashMap::with_capacity(bound.len());
    let mut wanted: HashMap<u32, Bound> = HashMap::new();
    let mut by_process: HashMap<u32, HashSet<u32>> = HashMap::new();
    for one in bound.iter().filter(|one| one.inode != 0) {
        if one.tgid == 0 || opens_for_others(one) {
            wanted.insert(one.inode, *one);
        } else {
            by_process.entry(one.tgid).or_default().insert(one.inode);
        }
    }
    for (tgid, mut inodes) in by_process {
        // A process that may not be inspected keeps the name it has.
        let is_seen = take_held(tgid, &mut inodes);
        for one in bound.iter().filter(|one| one.tgid == tgid && one.inode != 0) {
            if is_seen && inodes.contains(&one.inode) {
                wanted.insert(one.inode, *one);
            } else {
                found.entry(one.inode).or_insert(Holding::Binder);
            }
        }
    }
    if wanted.is_empty() {
        return found;
    }
    let activators = wanted.values().filter(|one| opens_for_others(one));
    let last: HashSet<(u32, u32)> = activators.map(|one| (one.inode, one.tgid)).collect();
    let (mut holders, _) = holders::find_last(&wanted.keys().copied().collect(), &last);
    for (inode, one) in wanted {
        let holding = match holders.remove(&inode) {
            // Before it started what it opened the socket for.
            Some(holder) if holder.tgid == one.tgid && holder.owner.comm == one.command => {
                Holding::Binder
            }
            // Just started, with the cgroup of the one that started it.
            Some(holder) if opens_for_others(&one) && is_beginning(&holder.owner.comm) => {
                Holding::Binder
            }
            Some(holder) => Holding::Other(Box::new(holder)),
            None => Holding::Nobody,
        };
        found.insert(inode, holding);
    }
    found
}

/// A process that has a connection which arrived at this port of a network namespace, and is not
/// the one that listens there for others: that accepts, and hands each connection to a process of
/// its own (inetd, `Accept=yes`). Of several the one with the lowest number.
pub fn acceptor(netns: u32, port: u16, listener: &Bound) -> Option<Holder> {
    let namespace = inspection::find(netns, iter::once(listener.tgid))?;
    let dump = namespaces::run_in(&namespace, diag::dump_ports).ok()?.ok()?;
    let is_accepted = |entry: &&diag::SocketEntry| {
        i32::from(entry.protocol) == libc::IPPROTO_TCP
            && entry.local_port == port
            && entry.state != diag::LISTEN
            && entry.inode != 0
    };
    let accepted: HashSet<u32> =
        dump.entries.iter().filter(is_accepted).map(|entry| entry.inode).collect();
    if accepted.is_empty() {
        return None;
    }
    let last = accepted.iter().map(|inode| (*inode, listener.tgid)).collect();
    let (holders, _) = holders::find_last(&accepted, &last);
    // Before it becomes the service it has the name of the one that started it.
    let is_service = |holder: &Holder| {
        let command = &holder.owner.comm;
        holder.tgid != listener.tgid && !is_activator(command) && !is_beginning(command)
    };
    holders.into_values().filter(is_service).min_by_key(|holder| holder.tgid)
}

/// Removes those of `inodes` that a process has a descriptor of, and returns whether it could be
/// seen: one that has ended has none. Listeners have low numbers, so it mostly ends early.
fn take_held(tgid: u32, inodes: &mut HashSet<u32>) -> bool {
    let entries = match fs::read_dir(format!("/proc/{tgid}/fd")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return false,
        // It has ended.
        Err(_) => return true,
    };
    for entry in entries.flatten() {
        if let Some(inode) = socket_inode(entry.path().into_os_string().into_vec()) {
            inodes.remove(&inode);
        }
        if inodes.is_empty() {
            break;
        }
    }
    true
}

fn opens_for_others(bound: &Bound) -> bool {
    bound.tgid == INIT || is_activator(&bound.command)
}

/// Whether a process that an activator has started still prepares to be the service: systemd calls it
/// `(NAME)` then, and moves it to the cgroup of its unit before it executes the program.
fn is_beginning(command: &[u8; 16]) -> bool {
    command.first() == Some(&b'(')
}

/// Whether programs of this name open sockets for others and do not serve any themselves.
pub fn is_activator(command: &[u8; 16]) -> bool {
    let end = command.iter().position(|byte| *byte == 0).unwrap_or(command.len());
    ACTIVATORS.iter().any(|name| command.get(..end) == Some(name.as_bytes()))
        || TITLES.iter().any(|title| command.starts_with(title))
}

// === impl Bound ===

impl Bound {
    /// A socket that a process of this owner bound.
    pub fn of(tgid: u32, owner: Option<&OwnerKey>, inode: u32) -> Self {
        Self { tgid, command: owner.map_or([0; 16], |owner| owner.comm), inode }
    }

    /// Whether it was opened for others, as far as its owner says.
    pub fn is_for_others(&self) -> bool {
        opens_for_others(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::{AsRawFd as _, OwnedFd};
    use std::process::{Child, Command, Stdio};

    fn inode(listener: &TcpListener) -> u32 {
        socket_inode(format!("/proc/self/fd/{}", listener.as_raw_fd()).into_bytes()).unwrap()
    }

    fn command(text: &str) -> [u8; 16] {
        let mut command = [0; 16];
        command[..text.len()].copy_from_slice(text.as_bytes());
        command
    }

    /// A child that has the socket as its standard input.
    fn heir(listener: &TcpListener) -> Child {
        let inherited = Stdio::from(OwnedFd::from(listener.try_clone().unwrap()));
        Command::new("sleep").arg("60").stdin(inherited).spawn().unwrap()
    }

    #[test]
    fn the_one_that_bound_a_socket_holds_it_while_it_has_it_and_then_its_heir() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let socket = inode(&listener);
        let mut child = heir(&listener);
        let bound = [Bound { tgid: std::process::id(), command: command("one"), inode: socket }];
        let before = find(&bound);
        drop(listener);
        let after = find(&bound);
        child.kill().unwrap();
        child.wait().unwrap();
        let in_the_end = find(&bound);
        assert_eq!(before[&socket], Holding::Binder);
        let Holding::Other(holder) = &after[&socket] else { panic!("{after:?}") };
        assert_eq!((holder.tgid, &holder.owner.comm[..5]), (child.id(), &b"sleep"[..]));
        assert_eq!(in_the_end[&socket], Holding::Nobody);
    }

    #[test]
    fn who_is_handed_a_connection_accepts_at_the_port() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let place = listener.local_addr().unwrap();
        let netns = namespaces::Namespace::current().unwrap().inode;
        let bound = Bound { tgid: std::process::id(), command: command("inetd"), inode: 1 };
        assert_eq!(acceptor(netns, place.port(), &bound), None);
        let _client = std::net::TcpStream::connect(place).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        // It has not been handed on.
        assert_eq!(acceptor(netns, place.port(), &bound), None);
        let mut service = Command::new("sleep");
        service.arg("60").stdin(Stdio::from(OwnedFd::from(accepted)));
        let mut service = service.spawn().unwrap();
        let found = acceptor(netns, place.port(), &bound).map(|holder| holder.tgid);
        service.kill().unwrap();
        service.wait().unwrap();
        assert_eq!(found, Some(service.id()));
    }

    #[test]
    fn a_socket_of_an_activator_is_that_of_the_service_once_it_runs() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let socket = inode(&listener);
        let comm = fs::read("/proc/self/comm").unwrap();
        let own = command(std::str::from_utf8(comm.trim_ascii_end()).unwrap());
        let bound = |command| [Bound { tgid: std::process::id(), command, inode: socket }];
        // It became another program itself.
        let found = find(&bound(command("systemd-socket-")));
        let Holding::Other(holder) = &found[&socket] else { panic!("{found:?}") };
        assert_eq!((holder.tgid, holder.owner.comm), (std::process::id(), own));
        let mut child = heir(&listener);
        let found = find(&bound(command("systemd")));
        child.kill().unwrap();
        child.wait().unwrap();
        let Holding::Other(holder) = &found[&socket] else { panic!("{found:?}") };
        assert_eq!(holder.tgid, child.id());
    }

    #[test]
    fn a_child_of_an_activator_is_no_service_before_it_executes_its_program() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let socket = inode(&listener);
        let folder = tempfile::tempdir().unwrap();
        // As systemd calls it: a command name is that of the file.
        let name = folder.path().join("(sleep)");
        std::os::unix::fs::symlink("/bin/sleep", &name).unwrap();
        let bound =
            [Bound { tgid: std::process::id(), command: command("systemd"), inode: socket }];
        let held_by = |program: &std::path::Path| {
            let inherited = Stdio::from(OwnedFd::from(listener.try_clone().unwrap()));
            let mut child = Command::new(program).arg("60").stdin(inherited).spawn().unwrap();
            let found = find(&bound).remove(&socket);
            child.kill().unwrap();
            child.wait().unwrap();
            (found, child.id())
        };
        assert_eq!(held_by(&name).0, Some(Holding::Binder));
        let (found, child) = held_by("/bin/sleep".as_ref());
        assert!(
            matches!(&found, Some(Holding::Other(holder)) if holder.tgid == child),
            "{found:?}"
        );
    }
}
