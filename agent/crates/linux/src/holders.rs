//! Which process holds a socket: `/proc/PID/fd` of every process, read once for all sockets.
//!
//! A socket that several processes hold belongs to the oldest of them: prefork servers listen
//! in the parent, which the kernel programs see as the owner too. Descriptor tables are those of thread
//! groups; a thread that unshared its own is not read.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt as _;
use std::{fs, io};

use agent_common::owner::{OwnerKey, PATH_BYTES, app_hash, counts_arguments};
use hashbrown::{HashMap, HashSet};

use super::Problem;
use crate::hierarchy::{self, Hierarchy};
use crate::procfs::{self, Stat};

/// The process that holds a socket. The owner of an interpreter is known once its arguments are read:
/// see [`Holder::with_arguments`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its thread group id.
    pub tgid: u32,
    /// The owner that the kernel half would record for a socket of this process, without the
    /// namespace, which is the socket's: `netns` is 0 here, see [`Holder::owner_in`].
    pub owner: OwnerKey,
    /// The first bytes of its arguments, separated by NUL, once they were read.
    pub argv: Vec<u8>,
    /// The last names of the path of its working directory.
    pub path: [u8; PATH_BYTES],
    stat: Stat,
}

impl Holder {
    /// A holder that no process is looked at for.
    #[cfg(test)]
    pub(crate) fn of(tgid: u32, owner: OwnerKey) -> Self {
        let stat = Stat { comm: owner.comm, parent: 0, started_ticks: 0, argument_bytes: None };
        Self { tgid, owner, argv: Vec::new(), path: [0; PATH_BYTES], stat }
    }

    /// The owner of a socket of network namespace `netns` that this process holds.
    pub fn owner_in(&self, netns: u32) -> OwnerKey {
        OwnerKey { netns, ..self.owner }
    }

    /// Whether its arguments are part of its identity.
    pub fn counts_arguments(&self) -> bool {
        counts_arguments(&self.stat.comm)
    }

    /// Reads its arguments. They lie in its memory: if that is a file of its own, or a fault that it
    /// handles itself, this takes as long as it likes.
    pub fn read_arguments(&self) -> io::Result<Vec<u8>> {
        let argv = self.stat.arguments(self.tgid)?;
        // By now the number may be another's.
        if Stat::read(self.tgid)?.started_ticks == self.stat.started_ticks {
            Ok(argv)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    /// The holder with these arguments.
    #[must_use]
    pub fn with_arguments(mut self, argv: Vec<u8>) -> Self {
        if self.counts_arguments() {
            self.owner.app = app_hash(&self.stat.comm, &procfs::argv_region(&argv), &self.path);
        }
        Self { argv, ..self }
    }
}

/// Finds the holders of the sockets with these inodes, without their arguments: the memory of
/// processes is not read. Omits sockets without a process, and those of processes
/// that cannot be inspected.
pub fn find(inodes: &HashSet<u32>) -> (HashMap<u32, Holder>, Vec<Problem>) {
    find_last(inodes, &HashSet::new())
}

/// As [`find`]; of these sockets (inode) these processes are the holders only if no other one is.
pub fn find_last(
    inodes: &HashSet<u32>,
    last: &HashSet<(u32, u32)>,
) -> (HashMap<u32, Holder>, Vec<Problem>) {
    let mut search = Search { inodes, last, oldest: HashMap::new(), denied: 0 };
    let mut problems = Vec::new();
    match procfs::processes() {
        Ok(processes) => processes.for_each(|tgid| search.visit(tgid)),
        Err(error) => problems.push(Problem::new(
            format!("reading /proc: {error}"),
            "existing connections have no service name",
        )),
    }
    if search.denied > 0 {
        problems.push(Problem::new(
            format!(
                "processes whose descriptors cannot be read: {} (CAP_SYS_PTRACE is missing)",
                search.denied
            ),
            "their existing connections have no service name",
        ));
    }
    (search.describe(&mut problems), problems)
}

/// Cgroup ids of processes, each path resolved once.
struct Cgroups {
    hierarchy: Option<Hierarchy>,
    ids: HashMap<String, Option<u64>>,
    unknown: usize,
}

struct Search<'a> {
    inodes: &'a HashSet<u32>,
    /// Sockets, and processes that are considered last.
    last: &'a HashSet<(u32, u32)>,
    /// Socket inode → (start time, thread group) of the oldest holder so far.
    oldest: HashMap<u32, (u64, u32)>,
    denied: usize,
}

// === impl Search ===

impl Search<'_> {
    fn visit(&mut self, tgid: u32) {
        let folder = format!("/proc/{tgid}/fd");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                self.denied += usize::from(error.kind() == io::ErrorKind::PermissionDenied);
                return;
            }
        };
        let mut started = None;
        for entry in entries.flatten() {
            let Some(inode) = socket_inode(entry.path().into_os_string().into_vec()) else {
                continue;
            };
            if !self.inodes.contains(&inode) {
                continue;
            }
            if started.is_none() {
                let Ok(stat) = Stat::read(tgid) else { return };
                started = Some(stat.started_ticks);
            }
            let age = if self.last.contains(&(inode, tgid)) { None } else { started };
            let age = (age.unwrap_or(u64::MAX), tgid);
            self.oldest.entry(inode).and_modify(|oldest| *oldest = age.min(*oldest)).or_insert(age);
        }
    }

    /// Reads the fields of an owner, once per process.
    fn describe(self, problems: &mut Vec<Problem>) -> HashMap<u32, Holder> {
        let mut cgroups = Cgroups::find(problems);
        let mut processes: HashMap<u32, Option<Holder>> = HashMap::new();
        let mut holders = HashMap::with_capacity(self.oldest.len());
        for (inode, (_, tgid)) in self.oldest {
            let holder = processes.entry(tgid).or_insert_with(|| holder(tgid, &mut cgroups));
            if let Some(holder) = holder {
                holders.insert(inode, holder.clone());
            }
        }
        if cgroups.unknown > 0 {
            problems.push(Problem::new(
                format!("processes whose cgroups are out of sight: {}", cgroups.unknown),
                "their existing connections are shown apart from their new ones; run the agent \
                 in the host's cgroup namespace and with the host's cgroup file system mounted",
            ));
        }
        holders
    }
}

fn holder(tgid: u32, cgroups: &mut Cgroups) -> Option<Holder> {
    let stat = Stat::read(tgid).ok()?;
    let owner = OwnerKey { netns: 0, app: 0, cgroup: cgroups.id(tgid), comm: stat.comm };
    let path = stat.path(tgid);
    // A program whose arguments cannot be read has empty ones, for the kernel half too.
    Some(Holder { tgid, owner, argv: Vec::new(), path, stat }.with_arguments(Vec::new()))
}

/// The inode in the link `socket:[N]` at `path`.
///
/// readlinkat(2) into a buffer on the stack: most of tens of thousands of descriptors are not
/// sockets of interest, and the standard library would allocate for each.
pub fn socket_inode(path: Vec<u8>) -> Option<u32> {
    let path = CString::new(path).ok()?;
    let mut target = [0u8; 32];
    // SAFETY: a NUL-terminated path, and a buffer of the length that is given.
    let length = unsafe { libc::readlink(path.as_ptr(), target.as_mut_ptr().cast(), target.len()) };
    let target = target.get(..usize::try_from(length).ok()?)?;
    let digits = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

// === impl Cgroups ===

impl Cgroups {
    fn find(problems: &mut Vec<Problem>) -> Self {
        let hierarchy = Hierarchy::find().unwrap_or_else(|error| {
            problems.push(Problem::new(
                format!("reading /proc/self/mountinfo: {error}"),
                "existing connections are shown apart from the new ones of the same service",
            ));
            None
        });
        Self { hierarchy, ids: HashMap::new(), unknown: 0 }
    }

    /// The cgroup v2 id of a process, 0 if unknown.
    fn id(&mut self, tgid: u32) -> u64 {
        let Ok(path) = procfs::cgroup_path(tgid) else { return 0 };
        let Some(hierarchy) = &self.hierarchy else {
            // Not mounted here: no process can have left the root, unless it is mounted elsewhere.
            return match path.as_deref() {
                None | Some("/") => hierarchy::ROOT_ID,
                Some(_) => {
                    self.unknown += 1;
                    0
                }
            };
        };
        let id = path.and_then(|path| {
            *self.ids.entry(path).or_insert_with_key(|path| hierarchy.id(path).ok())
        });
        self.unknown += usize::from(id.is_none());
        id.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;

    fn inode(socket: &impl std::os::fd::AsRawFd) -> u32 {
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        socket_inode(path.into_bytes()).unwrap()
    }

    #[test]
    fn this_process_holds_its_own_sockets() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let wanted = HashSet::from([inode(&listener), inode(&client), u32::MAX]);
        let (holders, _) = find(&wanted);
        assert_eq!(holders.len(), 2);
        let holder = &holders[&inode(&listener)];
        assert_eq!(holder.tgid, std::process::id());
        let comm = fs::read("/proc/self/comm").unwrap();
        assert!(holder.owner.comm.starts_with(comm.trim_ascii_end()));
        assert_eq!(holder.owner_in(77).netns, 77);
        assert_eq!(holder.owner.app, 0);
        assert_eq!(holder.argv, [0; 0], "nothing of its memory is read");
        let argv = holder.read_arguments().unwrap();
        assert!(fs::read("/proc/self/cmdline").unwrap().starts_with(&argv) && !argv.is_empty());
    }

    #[test]
    fn of_parent_and_child_the_parent_holds_the_socket() {
        use std::process::{Command, Stdio};
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        // The child inherits the socket as its standard input.
        let inherited = Stdio::from(std::os::fd::OwnedFd::from(listener.try_clone().unwrap()));
        let mut child = Command::new("sleep").arg("60").stdin(inherited).spawn().unwrap();
        let (holders, _) = find(&HashSet::from([inode(&listener)]));
        assert_eq!(holders[&inode(&listener)].tgid, std::process::id());
        let wanted = inode(&listener);
        drop(listener);
        let (holders, _) = find(&HashSet::from([wanted]));
        let held_by_child = holders.get(&wanted).map(|holder| holder.tgid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(held_by_child, Some(child.id()));
    }

    #[test]
    fn links_to_other_things_are_no_sockets() {
        let file = fs::File::open("/proc/self/stat").unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert_eq!(socket_inode(path.into_bytes()), None);
        assert_eq!(socket_inode(b"/proc/self/fd/no\0pe".to_vec()), None);
    }
}
