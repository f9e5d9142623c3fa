//! The cgroup v2 hierarchy as a directory tree: paths to ids and back.
//!
//! The id that `bpf_get_current_cgroup_id` returns is the id of the cgroup's kernfs node, and on
//! 64-bit kernels that is the inode number of its directory (`kernfs_ino`, include/linux/kernfs.h).

use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use hashbrown::HashMap;

use super::mounts;

/// Id of the root cgroup: the first node of its tree. Without a mounted hierarchy, and where no
/// process was ever moved, every process is in it.
pub const ROOT_ID: u64 = 1;

/// Where a cgroup's path leaves what root made: everything below may be made, and named, by a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// The names on the path up to here were chosen by root: this directory is the first of another
    /// owner, made by root and given away (`Delegate=` and `User=`, man 5 systemd.resource-control).
    pub parts: usize,
    /// Its owner.
    pub uid: u32,
}

/// The mounted cgroup v2 hierarchy.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    mount: PathBuf,
}

impl Hierarchy {
    /// Finds where the hierarchy is mounted: `/sys/fs/cgroup`, or `unified` below it on hosts
    /// that mix both versions. `None` if no cgroup2 file system is mounted here.
    pub fn find() -> io::Result<Option<Self>> {
        let mut found: Vec<_> =
            mounts::of("self")?.into_iter().filter(|mount| mount.kind == "cgroup2").collect();
        // A mount of the whole tree is better than a bind mount of a part of it.
        found.sort_by_key(|mount| mount.root != Path::new("/"));
        Ok(found.into_iter().next().map(|mount| Self { mount: mount.point }))
    }

    /// The mount point.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// The hierarchy mounted at this directory.
    pub fn at(mount: &Path) -> Self {
        Self { mount: mount.to_owned() }
    }

    /// The id of the cgroup at `path` (as in /proc/PID/cgroup).
    ///
    /// A path that leaves the tree (`/../x`: seen from inside a cgroup namespace) has no id here.
    pub fn id(&self, path: &str) -> io::Result<u64> {
        let inside = Path::new(path.trim_start_matches('/'));
        if inside.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        Ok(fs::metadata(self.mount.join(inside))?.ino())
    }

    /// Where the path of the cgroup with this id leaves what root made; `None` if nowhere. An error
    /// if another cgroup is at this path, or none.
    pub fn delegation(&self, path: &str, id: u64) -> io::Result<Option<Delegation>> {
        if self.id(path)? != id {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        let root = fs::metadata(&self.mount)?.uid();
        let mut at = self.mount.clone();
        for (index, part) in path.split('/').filter(|part| !part.is_empty()).enumerate() {
            at.push(part);
            let uid = fs::metadata(&at)?.uid();
            if uid != root {
                return Ok(Some(Delegation { parts: index + 1, uid }));
            }
        }
        Ok(None)
    }

    /// Cgroups at the first level that root has given to a user: their ids, and the users.
    pub fn delegated(&self) -> HashMap<u64, u32> {
        let Ok(root) = fs::metadata(&self.mount) else { return HashMap::new() };
        let entries = fs::read_dir(&self.mount).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let owned =
            folders.filter_map(|folder| Some((folder.ino(), folder.metadata().ok()?.uid())));
        owned.filter(|(_, uid)| *uid != root.uid()).collect()
    }

    /// Visits the directories of the tree, nearest to the root first, with id, path, and where that
    /// leaves what root made; stops after `limit` of them and returns whether the whole tree was
    /// seen. Directories that vanish meanwhile are skipped.
    pub fn walk(&self, limit: usize, mut visit: impl FnMut(u64, &str, Option<Delegation>)) -> bool {
        let mut visited = 1;
        let Ok(root) = fs::metadata(&self.mount) else { return true };
        visit(root.ino(), "/", None);
        let mut folders = std::collections::VecDeque::from([(String::new(), 0, None)]);
        while let Some((parent, depth, above)) = folders.pop_front() {
            let Ok(entries) = fs::read_dir(self.mount.join(parent.trim_start_matches('/'))) else {
                continue;
            };
            for entry in entries.flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                let Ok(name) = entry.file_name().into_string() else { continue };
                if visited >= limit {
                    return false;
                }
                visited += 1;
                let path = format!("{parent}/{name}");
                let delegation = if above.is_some() {
                    above
                } else {
                    let Ok(uid) = entry.metadata().map(|folder| folder.uid()) else { continue };
                    (uid != root.uid()).then_some(Delegation { parts: depth + 1, uid })
                };
                visit(entry.ino(), &path, delegation);
                folders.push_back((path, depth + 1, delegation));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in tree: any directory has inode numbers.
    fn tree() -> (tempfile::TempDir, Hierarchy) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("system.slice/a.service/deep")).unwrap();
        fs::create_dir_all(root.path().join("user.slice")).unwrap();
        fs::write(root.path().join("cgroup.procs"), "").unwrap();
        let hierarchy = Hierarchy::at(root.path());
        (root, hierarchy)
    }

    #[test]
    fn a_walk_finds_the_id_that_the_path_has() {
        let (_root, hierarchy) = tree();
        let mut seen = Vec::new();
        assert!(hierarchy.walk(100, |id, path, _| seen.push((id, path.to_owned()))));
        assert_eq!(seen.len(), 5);
        for (id, path) in seen {
            assert_eq!(hierarchy.id(&path).unwrap(), id, "{path}");
        }
    }

    #[test]
    fn a_walk_is_bounded() {
        let (_root, hierarchy) = tree();
        let mut seen = 0;
        assert!(!hierarchy.walk(3, |_, _, _| seen += 1));
        assert_eq!(seen, 3);
    }

    #[test]
    fn what_is_below_a_directory_of_a_user_is_delegated() {
        let (root, hierarchy) = tree();
        let given = root.path().join("system.slice/a.service");
        assert!(hierarchy.delegated().is_empty());
        let user = fs::metadata(root.path()).unwrap().uid() + 1500;
        if std::os::unix::fs::chown(&given, Some(user), None).is_err() {
            println!("SKIPPED: giving a directory away needs root");
            return;
        }
        let expected = Some(Delegation { parts: 2, uid: user });
        let mut seen = 0;
        hierarchy.walk(100, |id, path, delegation| {
            let expected = expected.filter(|_| path.contains("a.service"));
            assert_eq!(delegation, expected, "{path}");
            assert_eq!(hierarchy.delegation(path, id).unwrap(), expected, "{path}");
            assert!(hierarchy.delegation(path, id + 1000).is_err(), "another cgroup is there");
            seen += 1;
        });
        assert_eq!(seen, 5);
        assert!(hierarchy.delegated().is_empty(), "not at the first level");
        let given = root.path().join("user.slice");
        std::os::unix::fs::chown(&given, Some(user), None).unwrap();
        let id = hierarchy.id("/user.slice").unwrap();
        assert_eq!(hierarchy.delegated(), HashMap::from([(id, user)]));
    }

    #[test]
    fn paths_outside_of_the_tree_have_no_id() {
        let (_root, hierarchy) = tree();
        for path in ["/..", "/../x", "/system.slice/../..", "/not/there"] {
            assert!(hierarchy.id(path).is_err(), "{path}");
        }
    }

    #[test]
    fn the_kernels_root_has_the_id_one() {
        let Ok(Some(hierarchy)) = Hierarchy::find() else {
            println!("SKIPPED: no cgroup2 file system is mounted");
            return;
        };
        // PROC_CGROUP_INIT_INO, include/uapi/linux/nsfs.h: elsewhere the root is another cgroup.
        if fs::read_link("/proc/self/ns/cgroup").unwrap() != Path::new("cgroup:[4026531835]") {
            println!("SKIPPED: inside a cgroup namespace");
            return;
        }
        assert_eq!(hierarchy.id("/").unwrap(), ROOT_ID);
    }
}
