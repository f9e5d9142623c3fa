//! Network namespaces: finding all of them, and running code inside one.
//!
//! A namespace lives as long as a process, a bind mount or an open descriptor holds it. The
//! first two are found here; one that only an open descriptor holds is not.

mod search;
mod users;

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::{fs, io, thread};

use agent_common::address::{self, Address};

use self::search::Search;
pub(crate) use self::users::user_namespace_maker;
use self::users::{outermost_maker, own_user_namespace, owner, related};
use super::{Problem, addresses, peer, process_addresses, procfs};

/// A network namespace, held open.
#[derive(Debug)]
pub struct Namespace {
    /// Inode number, as in `readlink /proc/PID/ns/net`; unique on the host while the namespace
    /// exists.
    pub inode: u32,
    /// A process that is in it: then much can be read without entering.
    pub process: Option<u32>,
    file: File,
}

impl Namespace {
    /// The namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// The namespace behind a file: `/proc/PID/ns/net`, `/run/netns/NAME`. Not for paths below
    /// `/proc/PID/root`, where `open` may block forever: see [`foreign_path`].
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::of(File::open(path)?)
    }

    fn of(file: File) -> io::Result<Self> {
        // Numbers of /proc and nsfs inodes have 32 bits (`proc_alloc_inum`, fs/proc/generic.c).
        let inode = file.metadata()?.ino() as u32;
        Ok(Self { inode, process: None, file })
    }

    /// Its descriptor.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The user namespace that it belongs to (by inode), if that is not the agent's own: then any
    /// user may be root in it.
    pub fn tenant(&self) -> Option<u64> {
        let own = own_user_namespace()?;
        owner(&self.file).ok().filter(|owner| *owner != own)
    }

    /// The user who made the outermost user namespace above it, if that is not the agent's own:
    /// this user can make any number of network namespaces.
    pub fn user(&self) -> Option<u32> {
        outermost_maker(related(&self.file, libc::NS_GET_USERNS).ok()?)
    }
}

/// The network namespace of the host: that of the first process, if it shows it.
pub fn host() -> io::Result<Namespace> {
    Namespace::open("/proc/1/ns/net").or_else(|_| Namespace::current())
}

/// The cookie of the calling thread's network namespace (`SO_NETNS_COOKIE`, Linux 5.14): unlike its
/// inode number, it is never given to another one.
pub fn cookie() -> Option<u64> {
    let socket = UnixDatagram::unbound().ok()?;
    peer::read(&socket, libc::SO_NETNS_COOKIE, &mut [0u64]).ok()?.first().copied()
}

/// The one with this inode, if it can be found.
pub fn find(inode: u32) -> Option<Namespace> {
    all().0.into_iter().find(|namespace| namespace.inode == inode)
}

/// Every network namespace with a process or a mount, the caller's own first, each once. What could
/// not be inspected is reported and omitted.
pub fn all() -> (Vec<Namespace>, Vec<Problem>) {
    let mut search = Search::new();
    match Namespace::current() {
        Ok(own) => search.add(own),
        Err(error) => search.problems.push(Problem::new(
            format!("reading /proc/thread-self/ns/net: {error}"),
            "pre-existing connections are not observed",
        )),
    }
    match procfs::processes() {
        Ok(processes) => processes.for_each(|tgid| search.visit(tgid)),
        Err(error) => search.problems.push(Problem::new(
            format!("reading /proc: {error}"),
            "existing connections are only seen in the agent's own network namespace",
        )),
    }
    search.finish()
}

/// Runs `f` inside `namespace`, on a thread of its own that ends with it; the caller's
/// namespace never changes. Needs CAP_SYS_ADMIN unless the caller already is there.
pub fn run_in<T: Send>(namespace: &Namespace, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
            enter(namespace)?;
            Ok(f())
        })?;
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves the calling thread.
fn enter(namespace: &Namespace) -> io::Result<()> {
    if Namespace::current().is_ok_and(|own| own.inode == namespace.inode) {
        return Ok(());
    }
    // SAFETY: setns takes a descriptor, which `namespace` keeps open, and touches no memory.
    match unsafe { libc::setns(namespace.file.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Local addresses of `namespace`: read through a process in it, which takes no capability, or
/// from inside.
pub fn addresses(namespace: &Namespace) -> io::Result<Vec<Address>> {
    let through = |tgid| {
        let addresses = process_addresses::of(tgid).ok()?;
        // Read earlier: the pid may belong to another process by now.
        let still = fs::metadata(format!("/proc/{tgid}/ns/net")).ok()?.ino();
        (still == u64::from(namespace.inode)).then_some(addresses)
    };
    match namespace.process.and_then(through) {
        Some(addresses) => Ok(addresses),
        None => run_in(namespace, addresses::local).flatten(),
    }
}

/// The same as the standard library has them.
pub fn ip_addresses(namespace: &Namespace) -> io::Result<Vec<IpAddr>> {
    Ok(addresses(namespace)?.into_iter().map(address::to_ip).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::users_namespace::UsersNamespace;

    #[test]
    fn the_own_namespace_is_found_once_and_needs_no_privilege_to_enter() {
        let own = Namespace::current().unwrap();
        let (found, _) = all();
        assert_eq!(found.iter().filter(|namespace| namespace.inode == own.inode).count(), 1);
        let inside = run_in(&own, || Namespace::current().unwrap().inode).unwrap();
        assert_eq!(inside, own.inode);
    }

    #[test]
    fn a_panic_inside_reaches_the_caller() {
        let own = Namespace::current().unwrap();
        let caught = std::panic::catch_unwind(|| run_in(&own, || panic!("on purpose")));
        assert!(caught.is_err());
    }

    #[test]
    fn the_user_who_made_a_namespace_is_that_of_the_outermost_user_namespace() {
        assert_eq!(Namespace::current().unwrap().user(), None);
        for depth in [0, 1, 2] {
            let Some(made) = UsersNamespace::new(1500, depth) else { return };
            assert_eq!(made.namespace.user(), Some(1500), "{depth}");
        }
    }
}
