//! Cgroups as they are made.
//!
//! A container that ends at once, because its port is taken, is gone with its cgroup before anybody
//! asks for it. So a thread hears of each new directory of the tree from the kernel (inotify) and
//! reads its id within milliseconds; starting a container takes far longer.
//!
//! What users make below directories that were given to them is not watched: they could keep the
//! thread busy, and nothing there names anybody but themselves. Nor is what is inside of containers.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::{fs, io, thread};

use hashbrown::HashMap;
use rustix::fs::inotify::{
    CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch,
};
use rustix::io::Errno;

use super::hierarchy::{Delegation, Hierarchy};

/// Directories watched at most; each takes about a kilobyte of the kernel's memory.
const MAX_WATCHED: usize = 4096;
/// New cgroups that wait to be read; further ones are found by their processes, or not at all.
const WAITING: usize = 1024;
/// Bytes of events read at once.
const BUFFER: usize = 4096;

/// A cgroup that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCgroup {
    /// Its id.
    pub id: u64,
    /// Its path, as in /proc/PID/cgroup.
    pub path: String,
    /// Where the path leaves what root made.
    pub delegation: Option<Delegation>,
}

struct Watch {
    hierarchy: Hierarchy,
    has_inside: fn(&str) -> bool,
    /// Watched directories by the number of the watch.
    watched: HashMap<i32, String>,
    made: SyncSender<NewCgroup>,
}

/// Why a directory was not reported.
enum Unreported {
    /// It is in one that was given to a user.
    OfUser,
    /// The receiver is gone.
    Ended,
}

/// Starts a thread that reports new cgroups, of those directories of which `has_inside` says that
/// cgroups below them matter. It ends with the receiver.
pub fn watch(
    hierarchy: &Hierarchy,
    has_inside: fn(&str) -> bool,
) -> io::Result<Receiver<NewCgroup>> {
    let inotify = init(CreateFlags::CLOEXEC)?;
    let (made, receiver) = sync_channel(WAITING);
    let hierarchy = hierarchy.clone();
    let mut watch = Watch { hierarchy, has_inside, watched: HashMap::new(), made };
    // Before this returns: what is made from then on is reported.
    let _ = watch.enter(&inotify, String::new(), false);
    thread::Builder::new().name("cgroups".to_owned()).spawn(move || watch.run(&inotify))?;
    Ok(receiver)
}

// === impl Watch ===

impl Watch {
    fn run(mut self, inotify: &OwnedFd) {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut events = Reader::new(inotify, &mut buffer);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(_) => return,
            };
            let (watch, happened) = (event.wd(), event.events());
            if happened.contains(ReadFlags::IGNORED) {
                self.watched.remove(&watch);
            }
            let is_new = happened.contains(ReadFlags::CREATE | ReadFlags::ISDIR);
            let name = event.file_name().filter(|_| is_new).and_then(|name| name.to_str().ok());
            let Some((name, parent)) = name.zip(self.watched.get(&watch)) else { continue };
            let path = format!("{parent}/{name}");
            match self.found(inotify, path) {
                Ok(()) => {}
                // It was given away after it was made; the kernel says that the watch has ended.
                Err(Unreported::OfUser) => {
                    let _ = remove_watch(inotify, watch);
                }
                Err(Unreported::Ended) => return,
            }
        }
    }

    /// Reports a directory, and watches it.
    fn found(&mut self, inotify: &OwnedFd, path: String) -> Result<(), Unreported> {
        let read = || {
            let id = self.hierarchy.id(&path)?;
            Ok::<_, io::Error>((id, self.hierarchy.delegation(&path, id)?))
        };
        // It may be gone already.
        let Ok((id, delegation)) = read() else { return Ok(()) };
        let parts = path.split('/').filter(|part| !part.is_empty()).count();
        if delegation.is_some_and(|delegation| delegation.parts < parts) {
            return Err(Unreported::OfUser);
        }
        let new = NewCgroup { id, path: path.clone(), delegation };
        if let Err(TrySendError::Disconnected(_)) = self.made.try_send(new) {
            return Err(Unreported::Ended);
        }
        if delegation.is_none() && (self.has_inside)(&path) {
            self.enter(inotify, path, true)?;
        }
        Ok(())
    }

    /// Watches a directory and those below it; `is_new` if these are to be reported, too: they may
    /// have been made before the watch.
    fn enter(&mut self, inotify: &OwnedFd, path: String, is_new: bool) -> Result<(), Unreported> {
        let mut folders = vec![path];
        while let Some(path) = folders.pop() {
            if self.watched.len() >= MAX_WATCHED {
                return Ok(());
            }
            let place = self.place(&path);
            let flags = WatchFlags::CREATE | WatchFlags::ONLYDIR;
            let Ok(watch) = add_watch(inotify, place.as_path(), flags) else { continue };
            self.watched.insert(watch, path.clone());
            for below in Self::inside(&place, &path) {
                if is_new {
                    match self.found(inotify, below) {
                        Ok(()) => {}
                        Err(Unreported::OfUser) => {
                            let _ = remove_watch(inotify, watch);
                            break;
                        }
                        Err(Unreported::Ended) => return Err(Unreported::Ended),
                    }
                } else if self.is_roots(&below) && (self.has_inside)(&below) {
                    folders.push(below);
                }
            }
        }
        Ok(())
    }

    /// The directories in one.
    fn inside(place: &Path, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(place) else { return Vec::new() };
        let folders =
            entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
        names.map(|name| format!("{path}/{name}")).collect()
    }

    fn is_roots(&self, path: &str) -> bool {
        let delegation = self.hierarchy.id(path).and_then(|id| self.hierarchy.delegation(path, id));
        matches!(delegation, Ok(None))
    }

    fn place(&self, path: &str) -> PathBuf {
        self.hierarchy.mount().join(path.trim_start_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, chown};
    use std::time::Duration;

    struct Tree {
        root: tempfile::TempDir,
        made: Receiver<NewCgroup>,
    }

    impl Tree {
        /// Any directory will do: inode numbers and events are those of every file system.
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("system.slice")).unwrap();
            let hierarchy = Hierarchy::at(root.path());
            let made = watch(&hierarchy, |path| !path.contains("container")).unwrap();
            Self { root, made }
        }

        fn make(&self, path: &str) -> u64 {
            let folder = self.root.path().join(path.trim_start_matches('/'));
            fs::create_dir(&folder).unwrap();
            fs::metadata(folder).unwrap().ino()
        }

        /// Makes a directory and waits for its report. One that is made while its parent begins to be
        /// watched may be reported twice; nothing inside of containers ever is.
        #[track_caller]
        fn reports(&self, path: &str) {
            let expected =
                NewCgroup { id: self.make(path), path: path.to_owned(), delegation: None };
            loop {
                let new = self.made.recv_timeout(Duration::from_secs(10)).expect("an event");
                assert!(!new.path.ends_with("/inside"), "{new:?}");
                if new == expected {
                    return;
                }
            }
        }
    }

    #[test]
    fn what_is_made_anywhere_in_the_tree_is_reported_with_its_id() {
        let tree = Tree::new();
        for path in ["/docker", "/docker/container-1", "/system.slice/a.service"] {
            tree.reports(path);
        }
        fs::remove_dir(tree.root.path().join("docker/container-1")).unwrap();
        tree.reports("/docker/container-1");
    }

    #[test]
    fn directories_below_a_new_one_are_reported_though_they_are_faster_than_the_watch() {
        let tree = Tree::new();
        fs::create_dir_all(tree.root.path().join("a/b/c")).unwrap();
        let new = || tree.made.recv_timeout(Duration::from_secs(10)).expect("an event").path;
        let mut found = std::collections::BTreeSet::new();
        while !found.contains("/a/b/c") {
            found.insert(new());
        }
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["/a", "/a/b", "/a/b/c"]);
    }

    #[test]
    fn what_is_inside_of_a_container_is_not_reported() {
        let tree = Tree::new();
        tree.reports("/container-1");
        tree.make("/container-1/inside");
        tree.reports("/other");
    }

    #[test]
    fn what_is_inside_of_a_directory_of_a_user_is_not_reported() {
        let tree = Tree::new();
        tree.reports("/system.slice/given");
        let given = tree.root.path().join("system.slice/given");
        let user = fs::metadata(&given).unwrap().uid() + 1500;
        if chown(&given, Some(user), None).is_err() {
            println!("SKIPPED: giving a directory away needs root");
            return;
        }
        tree.make("/system.slice/given/docker-1");
        tree.make("/system.slice/given/docker-2");
        tree.reports("/other");
    }
}
