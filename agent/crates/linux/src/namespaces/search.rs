//! The search for network namespaces: through all processes, then through mounts in their mount
//! namespaces, within limits where any user can mount.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use hashbrown::{HashMap, HashSet};

use super::Namespace;
use super::users::{own_user_namespace, owner};
use crate::mounts::{self, Mount};
use crate::{Problem, foreign_path, namespace_names};

/// How much of one mount table is read, and how many namespaces are opened by mounts in it: a
/// safety limit, since root made those mounts.
const TRUSTED: Share = Share { bytes: 16 << 20, opened: 4096 };

/// The same for mount namespaces of other user namespaces, where any user can mount. A rootless
/// engine has some ten lines of 100 bytes per container.
const OTHERS: Share = Share { bytes: 256 << 10, opened: 256 };

/// And for all of these together, in one search.
const ALL_OTHERS: Share = Share { bytes: 8 << 20, opened: 1024 };

/// Number of mounts held open at a time until the mount table was read again.
const AT_A_TIME: usize = 64;

/// Processes kept per mount namespace, because the first may exit before it is inspected.
const WITNESSES: usize = 3;

/// What has been found so far.
#[derive(Default)]
pub(super) struct Search {
    found: Vec<Namespace>,
    seen: HashSet<u32>,
    mount_namespaces: HashMap<u64, MountNamespace>,
    user_namespace: Option<u64>,
    denied: usize,
    /// Namespaces that could not be opened, and why the last of them could not.
    unopened: usize,
    reason: Option<io::Error>,
    /// Mount namespaces that were not read to the end.
    cut_short: usize,
    pub(super) problems: Vec<Problem>,
}

/// Processes of one mount namespace.
#[derive(Default)]
struct MountNamespace {
    processes: Vec<u32>,
    /// It belongs to the agent's own user namespace: only root could make mounts in it.
    trusted: bool,
}

/// Limits of a search.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// Of mount tables.
    bytes: u64,
    /// Namespaces, by their mounts.
    opened: usize,
}

// === impl Search ===

impl Search {
    pub(super) fn new() -> Self {
        Self { user_namespace: own_user_namespace(), ..Self::default() }
    }

    pub(super) fn add(&mut self, namespace: Namespace) {
        if self.seen.insert(namespace.inode) {
            self.found.push(namespace);
        }
    }

    /// Notes the network namespace and the mount namespace of a process.
    pub(super) fn visit(&mut self, tgid: u32) {
        let path = format!("/proc/{tgid}/ns/net");
        match fs::metadata(&path) {
            Ok(file) if self.seen.contains(&(file.ino() as u32)) => {}
            Ok(_) => match Namespace::open(&path) {
                Ok(namespace) => self.add(Namespace { process: Some(tgid), ..namespace }),
                Err(error) if is_gone(&error) => {}
                Err(error) => self.not_opened(1, error),
            },
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.denied += 1,
            Err(_) => {} // Gone, or a zombie.
        }
        let path = format!("/proc/{tgid}/ns/mnt");
        let Ok(file) = fs::metadata(&path) else { return };
        let Self { mount_namespaces, user_namespace, .. } = self;
        let mounts = mount_namespaces.entry(file.ino()).or_insert_with(|| {
            let owner = File::open(&path).and_then(|file| owner(&file));
            let trusted = user_namespace.is_some() && owner.ok() == *user_namespace;
            MountNamespace { processes: Vec::new(), trusted }
        });
        if mounts.processes.len() < WITNESSES {
            mounts.processes.push(tgid);
        }
    }

    pub(super) fn finish(mut self) -> (Vec<Namespace>, Vec<Problem>) {
        self.visit_mounts();
        if self.denied > 0 {
            self.problems.push(Problem::new(
                format!(
                    "processes that do not show their network namespace: {} (they hide it, or CAP_SYS_PTRACE is missing)",
                    self.denied
                ),
                "pre-existing connections in namespaces of these processes alone are not observed",
            ));
        }
        if self.unopened > 0 {
            let reason = self.reason.map(|error| format!(": {error}")).unwrap_or_default();
            self.problems.push(Problem::new(
                format!("{} network namespaces cannot be opened{reason}", self.unopened),
                "pre-existing connections in them are not observed",
            ));
        }
        if self.cut_short > 0 {
            self.problems.push(Problem::new(
                format!(
                    "{} mount namespaces have more mounts than the agent reads; if any user can mount there, the limits are {} KiB of the mount table and {} network namespaces each, {} KiB and {} in total",
                    self.cut_short,
                    OTHERS.bytes >> 10,
                    OTHERS.opened,
                    ALL_OTHERS.bytes >> 10,
                    ALL_OTHERS.opened,
                ),
                "pre-existing connections in network namespaces held only by the other mounts are not observed",
            ));
        }
        (self.found, self.problems)
    }

    /// Bind mounts of namespaces, as `ip netns` (/run/netns) and container engines make them. Runs
    /// after all processes, when most namespaces are known.
    fn visit_mounts(&mut self) {
        let (trusted, others): (Vec<_>, Vec<_>) =
            self.mount_namespaces.drain().map(|(_, one)| one).partition(|one| one.trusted);
        for one in &trusted {
            self.visit_mounts_of(one, TRUSTED);
        }
        let mut left = ALL_OTHERS;
        for one in &others {
            let share = Share {
                bytes: left.bytes.min(OTHERS.bytes),
                opened: left.opened.min(OTHERS.opened),
            };
            let used = self.visit_mounts_of(one, share);
            left.bytes = left.bytes.saturating_sub(used.bytes);
            left.opened = left.opened.saturating_sub(used.opened);
        }
    }

    /// Returns how much of the share was used.
    fn visit_mounts_of(&mut self, namespace: &MountNamespace, share: Share) -> Share {
        let listing = namespace.processes.iter().find_map(|tgid| {
            let list = mounts::list(&tgid.to_string(), share.bytes, foreign_path::is_namespace);
            Some((*tgid, list.ok()?))
        });
        // All of them have exited, or may not be inspected.
        let Some((tgid, listing)) = listing else { return Share { bytes: 0, opened: 0 } };
        let mut unknown: Vec<(u32, Mount)> = listing
            .mounts
            .into_iter()
            .filter_map(|mount| Some((namespace_names::inode(&mount.root)?, mount)))
            .filter(|(inode, _)| !self.seen.contains(inode))
            .collect();
        self.cut_short += usize::from(listing.truncated || unknown.len() > share.opened);
        unknown.truncate(share.opened);
        for some in unknown.chunks(AT_A_TIME) {
            self.open_mounts(tgid, some, share.bytes);
        }
        Share { bytes: listing.bytes, opened: unknown.len() }
    }

    fn open_mounts(&mut self, tgid: u32, mounts: &[(u32, Mount)], limit: u64) {
        let wanted: Vec<&Mount> = mounts.iter().map(|(_, mount)| mount).collect();
        let opened = match foreign_path::open_namespaces(tgid, &wanted, limit) {
            Ok(opened) => opened,
            Err(error) => return self.not_opened(mounts.len(), error),
        };
        for (opened, (inode, _)) in opened.into_iter().zip(mounts) {
            match opened.and_then(Namespace::of) {
                Ok(namespace) if namespace.inode == *inode => self.add(namespace),
                Ok(_) => self.not_opened(1, io::Error::from(io::ErrorKind::NotFound)),
                Err(error) => self.not_opened(1, error),
            }
        }
    }

    fn not_opened(&mut self, count: usize, error: io::Error) {
        self.unopened += count;
        self.reason = Some(error);
    }
}

/// Whether a process exited while it was read.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::super::{all, run_in};
    use super::*;
    use std::io::Read as _;
    use std::net::TcpListener;
    use std::process::{Command, Stdio};
    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    fn root() -> bool {
        // SAFETY: geteuid cannot fail and touches no memory.
        unsafe { libc::geteuid() == 0 }
    }

    #[test]
    fn mounts_count_as_made_by_root_in_the_own_user_namespace_only() {
        let trusted = |tgid: u32| {
            let mut search = Search::new();
            search.visit(tgid);
            search.mount_namespaces.into_values().map(|one| one.trusted).collect::<Vec<_>>()
        };
        assert_eq!(trusted(std::process::id()), [true]);
        let mut inside = Command::new("unshare");
        inside.args(["-Urm", "sh", "-c", "echo; exec sleep 60"]).stdout(Stdio::piped());
        let mut inside = inside.spawn().unwrap();
        let ready = inside.stdout.take().unwrap().read(&mut [0]).unwrap();
        let theirs = trusted(inside.id());
        inside.kill().unwrap();
        inside.wait().unwrap();
        if ready == 0 {
            println!("SKIPPED: user namespaces are not allowed here");
            return;
        }
        assert_eq!(theirs, [false]);
    }

    #[test]
    fn a_mount_table_longer_than_its_share_is_a_problem() {
        let own = MountNamespace { processes: vec![std::process::id()], trusted: true };
        let mut search = Search::new();
        let used = search.visit_mounts_of(&own, Share { bytes: 100, opened: 100 });
        assert_eq!((used.bytes, search.cut_short), (100, 1));
        // The second process is used if the first has exited.
        let witnesses = MountNamespace { processes: vec![u32::MAX, std::process::id()], ..own };
        let used = search.visit_mounts_of(&witnesses, Share { bytes: 100, opened: 100 });
        assert_eq!((used.bytes, search.cut_short), (100, 2));
        search.mount_namespaces.clear();
        let (_, problems) = search.finish();
        assert!(problems[0].what.starts_with("2 mount namespaces have more"), "{problems:?}");
    }

    #[test]
    fn a_namespace_that_turns_into_a_fifo_and_back_never_makes_the_search_wait() {
        let folder = tempfile::tempdir().unwrap();
        let turns = "mkfifo fifo; touch ns; echo; while :; do
            mount --bind /proc/self/ns/net ns; mount --bind fifo ns; umount ns; umount ns
        done";
        let mut tenant = Command::new("unshare");
        tenant.args(["-Urnm", "--propagation", "private", "sh", "-c", turns]);
        tenant.current_dir(&folder).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut tenant = tenant.spawn().unwrap();
        let ready = tenant.stdout.take().unwrap().read(&mut [0]).unwrap();
        let (send, receive) = mpsc::channel();
        let began = Instant::now();
        thread::spawn(move || {
            while began.elapsed() < Duration::from_secs(1) {
                all();
            }
            let _ = send.send(());
        });
        let ended = receive.recv_timeout(Duration::from_secs(20));
        tenant.kill().unwrap();
        tenant.wait().unwrap();
        if ready == 0 {
            println!("SKIPPED: user namespaces are not allowed here");
            return;
        }
        ended.expect("the search ends");
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
        let own = MountNamespace { processes: vec![std::process::id()], trusted: true };
        let mut search = Search::new();
        search.visit_mounts_of(&own, Share { bytes: u64::MAX, opened: 0 });
        let beyond_its_share = (search.found.len(), search.cut_short);
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
        assert_eq!(beyond_its_share, (0, 1));
        assert_eq!(Namespace::current().unwrap().inode, before);
    }
}
