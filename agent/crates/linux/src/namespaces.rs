//! Network namespaces: finding all of them, and running code inside one.
//!
//! A namespace lives as long as a process, a bind mount or an open descriptor holds it. The
//! first two are found here; one that is only held by somebody's descriptor is not.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::{fs, io, thread};

use agent_common::address::Address;
use hashbrown::{HashMap, HashSet};

use super::{Problem, addresses, process_addresses};
use crate::{mounts, procfs};

/// A network namespace, held open.
#[derive(Debug)]
pub struct Namespace {
    /// Inode number, as in `readlink /proc/PID/ns/net`; unique on the host while it lives.
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

    /// The namespace behind a file: `/proc/PID/ns/net`, `/run/netns/NAME`.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = File::open(path)?;
        // Numbers of /proc and nsfs inodes have 32 bits (`proc_alloc_inum`, fs/proc/generic.c).
        let inode = file.metadata()?.ino() as u32;
        Ok(Self { inode, process: None, file })
    }
}

/// The network namespace of the host: that of the first process, if it shows it.
pub fn host() -> io::Result<Namespace> {
    Namespace::open("/proc/1/ns/net").or_else(|_| Namespace::current())
}

/// The one with this inode, if it can be found.
pub fn find(inode: u32) -> Option<Namespace> {
    all().0.into_iter().find(|namespace| namespace.inode == inode)
}

/// Every network namespace that a process is in or that is mounted somewhere, the caller's own
/// first, each once. What could not be looked at is reported and left out.
pub fn all() -> (Vec<Namespace>, Vec<Problem>) {
    let mut search = Search::default();
    match Namespace::current() {
        Ok(own) => search.add(own),
        Err(error) => search.problems.push(Problem::new(
            format!("reading /proc/thread-self/ns/net: {error}"),
            "connections that exist already will not be seen",
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
        // Read before: by now the process may be another one.
        let still = fs::metadata(format!("/proc/{tgid}/ns/net")).ok()?.ino();
        (still == u64::from(namespace.inode)).then_some(addresses)
    };
    match namespace.process.and_then(through) {
        Some(addresses) => Ok(addresses),
        None => run_in(namespace, addresses::local).flatten(),
    }
}

/// What has been found so far.
#[derive(Default)]
struct Search {
    found: Vec<Namespace>,
    /// Inode → place in `found`.
    seen: HashMap<u32, usize>,
    mount_namespaces: HashSet<u64>,
    denied: usize,
    unopened: usize,
    problems: Vec<Problem>,
}

impl Search {
    fn add(&mut self, namespace: Namespace) {
        let Self { found, seen, .. } = self;
        seen.entry(namespace.inode).or_insert_with(|| {
            found.push(namespace);
            found.len() - 1
        });
    }

    /// A process shows its own namespace and, as the first of its mount namespace, the mounts.
    fn visit(&mut self, tgid: u32) {
        let path = format!("/proc/{tgid}/ns/net");
        match fs::metadata(&path) {
            Ok(file) => match self.seen.get(&(file.ino() as u32)) {
                // It may have been found by its mount.
                Some(&place) => {
                    if let Some(known) = self.found.get_mut(place) {
                        known.process.get_or_insert(tgid);
                    }
                }
                None => {
                    if let Ok(namespace) = Namespace::open(&path) {
                        self.add(Namespace { process: Some(tgid), ..namespace });
                    }
                }
            },
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.denied += 1,
            Err(_) => {} // Gone, or a zombie.
        }
        if let Ok(file) = fs::metadata(format!("/proc/{tgid}/ns/mnt"))
            && self.mount_namespaces.insert(file.ino())
        {
            self.visit_mounts(tgid);
        }
    }

    /// Bind mounts of namespaces, as `ip netns` (/run/netns) and container engines make them.
    fn visit_mounts(&mut self, tgid: u32) {
        let Ok(mounts) = mounts::of(&tgid.to_string()) else { return };
        for mount in mounts.iter().filter(|mount| mount.kind == "nsfs") {
            let Some(inode) = network_namespace(&mount.root) else { continue };
            if self.seen.contains_key(&inode) {
                continue;
            }
            let inside = mount.point.strip_prefix("/").unwrap_or(&mount.point);
            match Namespace::open(Path::new(&format!("/proc/{tgid}/root")).join(inside)) {
                // Another mount may hide this one: then the file is something else.
                Ok(namespace) if namespace.inode == inode => self.add(namespace),
                _ => self.unopened += 1,
            }
        }
    }

    fn finish(mut self) -> (Vec<Namespace>, Vec<Problem>) {
        if self.denied > 0 {
            self.problems.push(Problem::new(
                format!(
                    "{} processes do not show their network namespace (they hide it, or CAP_SYS_PTRACE is missing)",
                    self.denied
                ),
                "existing connections of namespaces that only they are in will not be seen",
            ));
        }
        if self.unopened > 0 {
            self.problems.push(Problem::new(
                format!("{} mounts of network namespaces cannot be opened", self.unopened),
                "existing connections in them will not be seen",
            ));
        }
        (self.found, self.problems)
    }
}

/// The inode in a mount's root `net:[4026532229]`.
fn network_namespace(root: &Path) -> Option<u32> {
    root.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::process::Command;

    fn root() -> bool {
        // SAFETY: geteuid cannot fail and touches no memory.
        unsafe { libc::geteuid() == 0 }
    }

    #[test]
    fn the_own_namespace_is_found_once_and_needs_no_privilege_to_enter() {
        let own = Namespace::current().unwrap();
        let (found, _) = all();
        assert_eq!(found.iter().filter(|namespace| namespace.inode == own.inode).count(), 1);
        let inside = run_in(&own, || Namespace::current().unwrap().inode).unwrap();
        assert_eq!(inside, own.inode);
    }

    #[test]
    fn only_network_namespaces_count() {
        assert_eq!(network_namespace(Path::new("net:[4026532229]")), Some(4_026_532_229));
        assert_eq!(network_namespace(Path::new("mnt:[4026532229]")), None);
        assert_eq!(network_namespace(Path::new("net:[x]")), None);
    }

    #[test]
    fn a_panic_inside_reaches_the_caller() {
        let own = Namespace::current().unwrap();
        let caught = std::panic::catch_unwind(|| run_in(&own, || panic!("on purpose")));
        assert!(caught.is_err());
    }

    #[test]
    fn a_mounted_namespace_without_processes_is_found_and_entered() {
        if !root() {
            println!("SKIPPED: making network namespaces needs root");
            return;
        }
        let name = format!("portolan-test-{}", std::process::id());
        let ip = |args: &[&str]| Command::new("ip").args(args).status().is_ok_and(|s| s.success());
        if !ip(&["netns", "add", &name]) {
            println!("SKIPPED: `ip netns add` does not work here");
            return;
        }
        let made = Namespace::open(format!("/run/netns/{name}")).unwrap().inode;
        let (found, problems) = all();
        assert!(
            found.iter().all(|namespace| namespace.inode != made || namespace.process.is_none())
        );
        let before = Namespace::current().unwrap().inode;
        let inside = found.iter().find(|namespace| namespace.inode == made).map(|namespace| {
            run_in(namespace, || {
                // A port that only exists in there: loopback is down, so nothing else can bind.
                let _listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
                Namespace::current().unwrap().inode
            })
            .unwrap()
        });
        assert!(ip(&["netns", "del", &name]));
        assert_eq!(inside, Some(made), "{problems:?}");
        assert_eq!(Namespace::current().unwrap().inode, before);
    }
}
