//! The cgroup v2 hierarchy as a directory tree: paths to ids and back.
//!
//! The id that `bpf_get_current_cgroup_id` returns is the id of the cgroup's kernfs node, and on
//! 64-bit kernels that is the inode number of its directory (`kernfs_ino`, include/linux/kernfs.h).

use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use super::mounts;

/// Id of the root cgroup: the first node of its tree. Without a mounted hierarchy, and where no
/// process was ever moved, every process is in it.
pub const ROOT_ID: u64 = 1;

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

    /// Visits the directories of the tree, nearest to the root first, with id and path; stops after
    /// `limit` of them and returns whether the whole tree was seen. Directories that vanish
    /// meanwhile are skipped.
    pub fn walk(&self, limit: usize, mut visit: impl FnMut(u64, &str)) -> bool {
        let mut visited = 1;
        if let Ok(root) = fs::metadata(&self.mount) {
            visit(root.ino(), "/");
        }
        let mut folders = std::collections::VecDeque::from([String::new()]);
        while let Some(parent) = folders.pop_front() {
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
                visit(entry.ino(), &path);
                folders.push_back(path);
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
        assert!(hierarchy.walk(100, |id, path| seen.push((id, path.to_owned()))));
        assert_eq!(seen.len(), 5);
        for (id, path) in seen {
            assert_eq!(hierarchy.id(&path).unwrap(), id, "{path}");
        }
    }

    #[test]
    fn a_walk_is_bounded() {
        let (_root, hierarchy) = tree();
        let mut seen = 0;
        assert!(!hierarchy.walk(3, |_, _| seen += 1));
        assert_eq!(seen, 3);
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
