//! Reads a small file beside a program of another process, such as `package.json`.
//!
//! The directory is found as in [`foreign_path`]: without following links, in what the kernel has
//! cached, within the process's root. Only below a directory that is on a file system of the kernel's
//! own (ext4, XFS and the like, by the process's mount table) a file is looked up, on that very
//! mount, and only a regular file is opened. So no FUSE or network file system is asked, and no FIFO
//! is waited for.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

use crate::foreign_path::{locate, mount_id, open_root};
use crate::mounts;

/// File systems that answer without asking anyone.
const LOCAL: [&str; 8] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "zfs"];
/// How much of a mount table is read.
const MOUNTS: u64 = 256 << 10;
/// Directories that are searched, the program's own and those above it.
const LEVELS: usize = 3;
/// A file is not longer.
const LONGEST: u64 = 64 << 10;

/// The first of the files called `name` in `folder` (a path from the process's root) and the
/// directories above it. Not of the root directory: a file there belongs to the system.
pub fn read(tgid: u32, folder: &Path, name: &str) -> Option<Vec<u8>> {
    let root = open_root(tgid).ok()?;
    let mounts = mounts::list(&tgid.to_string(), MOUNTS, |mount| LOCAL.contains(&&*mount.kind));
    let local = mounts.ok()?.mounts;
    let folders = folder.ancestors().filter(|folder| folder.parent().is_some());
    folders.take(LEVELS).find_map(|folder| {
        let located = locate(&root, folder).ok()?;
        let id = mount_id(&located).ok()?;
        let is_local = local.iter().any(|mount| mount.id == id);
        is_local.then(|| beside(&located, name).ok()).flatten()
    })
}

/// The directory that a path of a process means: of a relative one, below its working directory.
pub fn folder(tgid: u32, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let folder = if path.is_absolute() {
        path.to_owned()
    } else {
        std::fs::read_link(format!("/proc/{tgid}/cwd")).ok()?.join(path)
    };
    let mut plain = PathBuf::from("/");
    for part in folder.components() {
        match part {
            std::path::Component::Normal(name) => plain.push(name),
            std::path::Component::ParentDir => drop(plain.pop()),
            _ => {}
        }
    }
    Some(plain)
}

fn beside(folder: &OwnedFd, name: &str) -> io::Result<Vec<u8>> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_XDEV
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(folder, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    if FileType::from_raw_mode(fstat(file.as_fd())?.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // The very file that was looked at.
    let file = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_next_file_above_a_program_is_read_and_nothing_but_files() {
        let project = tempfile::tempdir().unwrap();
        let at = |path: &str| project.path().join(path);
        fs::create_dir_all(at("src/deep")).unwrap();
        fs::write(at("package.json"), "above").unwrap();
        let read = |folder: &str| read(std::process::id(), &at(folder), "package.json");
        let is_local = read("src").is_some();
        if !is_local {
            println!("SKIPPED: the temporary folder is on another file system");
            return;
        }
        assert_eq!(read("src/deep").as_deref(), Some(&b"above"[..]));
        fs::write(at("src/package.json"), "near").unwrap();
        assert_eq!(read("src/deep").as_deref(), Some(&b"near"[..]));
        // A link may lead anywhere, and a FIFO never answers.
        fs::remove_file(at("package.json")).unwrap();
        fs::remove_file(at("src/package.json")).unwrap();
        fs::write(at("secret"), "no").unwrap();
        symlink(at("secret"), at("src/package.json")).unwrap();
        let status = std::process::Command::new("mkfifo").arg(at("package.json")).status();
        assert!(status.unwrap().success());
        assert_eq!(read("src/deep"), None);
        fs::remove_file(at("src/package.json")).unwrap();
        fs::write(at("src/package.json"), "x".repeat(2 * LONGEST as usize)).unwrap();
        assert_eq!(read("src/deep").map(|text| text.len() as u64), Some(LONGEST));
    }

    #[test]
    fn paths_are_those_of_the_process() {
        let own = std::process::id();
        let here = std::env::current_dir().unwrap();
        assert_eq!(folder(own, "/srv/./app/../shop/"), Some("/srv/shop".into()));
        assert_eq!(folder(own, ""), Some(here.clone()));
        assert_eq!(folder(own, "src/"), Some(here.join("src")));
        assert_eq!(folder(own, "/../.."), Some("/".into()));
        assert_eq!(folder(u32::MAX, "src/"), None);
        // A file of the root directory names no project.
        assert_eq!(read(own, Path::new("/"), "etc"), None);
    }
}
