//! Opens mounted namespaces below the root directory of another process.
//!
//! What lies there is the choice of that process: in a user namespace of its own anyone can mount
//! anything anywhere. A path that was a namespace when /proc/PID/mountinfo was read may be a FIFO
//! by now, or a link to one, or lead through a FUSE file system that never answers; `open` would
//! wait for ever. So nothing is opened before it is known to be a namespace:
//!
//! 1. `openat2` looks the path up within the process's root without following links, in what the
//!    kernel has cached (`RESOLVE_CACHED`): no file system is called. `O_PATH` opens nothing.
//! 2. The descriptor's `fdinfo` says which mount it is on. From here on the descriptor keeps that
//!    mount, so its id cannot become another mount's.
//! 3. The mount table, read again, says what a mount with this id is: a file system `nsfs` whose
//!    root is the namespace. Only then the descriptor is opened, which calls no file system either.
//!
//! What is left: the kernel revalidates the root directory itself, and the root of a mount at the end
//! of the path, if its file system requires that (`d_weak_revalidate`: NFS, 9p, AFS, overlayfs
//! above them). Only root can mount these, but if the server is dead, even this waits for it.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

use crate::mounts::{self, Mount};

/// Attempts to resolve a path: the kernel also returns EAGAIN if anything was mounted or renamed
/// meanwhile, on the whole host.
const LOOKUPS: usize = 4;

/// The file system of namespaces.
const NSFS: &str = "nsfs";

/// Whether a namespace is mounted there.
pub fn is_namespace(mount: &Mount) -> bool {
    mount.kind == NSFS
}

/// Opens the namespaces at `wanted`, mounts of process `tgid`: each as a file or the error, in the
/// same order. Looks for them in the first `limit` bytes of its mount table. Never waits for the
/// process or for a file system that it mounted.
pub fn open_namespaces(
    tgid: u32,
    wanted: &[&Mount],
    limit: u64,
) -> io::Result<Vec<io::Result<File>>> {
    let root = open_root(tgid)?;
    let located: Vec<_> = wanted.iter().map(|mount| locate(&root, &mount.point)).collect();
    let now = mounts::list(&tgid.to_string(), limit, is_namespace)?.mounts;
    let open = |(located, wanted): (io::Result<OwnedFd>, &&Mount)| {
        let located = located?;
        let id = mount_id(&located)?;
        let is_it = |mount: &Mount| {
            (mount.id, &mount.kind, &mount.root) == (id, &wanted.kind, &wanted.root)
        };
        if !is_namespace(wanted) || !now.iter().any(is_it) {
            return Err(io::Error::other("hidden by something else"));
        }
        File::open(format!("/proc/self/fd/{}", located.as_raw_fd()))
    };
    Ok(located.into_iter().zip(wanted).map(open).collect())
}

/// The first `limit` bytes of a regular file that a process would open at `path`, links within its
/// root included.
///
/// Unlike all else here this asks the file system, which the process may have mounted and which may
/// never answer: for a command that a user runs and can interrupt, not for the agent. A FIFO or a
/// device is not opened.
pub fn read_file(tgid: u32, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let root = open_root(tgid)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    if FileType::from_raw_mode(fstat(file.as_fd())?.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    let opened = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    opened.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The root directory of a process as a starting point; the directory is not opened.
pub(crate) fn open_root(tgid: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, format!("/proc/{tgid}/root"), flags, Mode::empty())?)
}

/// Resolves `path` below `root` without opening it; EAGAIN if it is not cached.
pub(crate) fn locate(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::CACHED;
    let lookup = || Ok(openat2(root, path, flags, Mode::empty(), resolve)?);
    let is_final = |found: &io::Result<OwnedFd>| {
        !found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    };
    let not_cached = || Err(io::Error::from(io::ErrorKind::WouldBlock));
    (0..LOOKUPS).map(|_| lookup()).find(is_final).unwrap_or_else(not_cached)
}

/// Which mount a descriptor is on: `mnt_id` in /proc/self/fdinfo (man 5 proc_pid_fdinfo).
pub(crate) fn mount_id(located: &OwnedFd) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", located.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use rustix::fs::{FileType, mknodat};

    /// The mount that `path` is on, as if a namespace were mounted at `path`.
    fn pretended(path: &Path) -> Mount {
        let root = open_root(std::process::id()).unwrap();
        let folder = locate(&root, path.parent().unwrap()).unwrap();
        Mount {
            id: mount_id(&folder).unwrap(),
            root: "net:[4026531840]".into(),
            point: path.to_owned(),
            kind: NSFS.into(),
        }
    }

    /// Opens on another thread, so that a call that blocks fails the test.
    fn open_at_once(mount: Mount) -> io::Result<File> {
        let (send, receive) = mpsc::channel();
        thread::spawn(move || {
            let opened = open_namespaces(std::process::id(), &[&mount], u64::MAX);
            let _ = send.send(opened.unwrap().pop().unwrap());
        });
        receive.recv_timeout(Duration::from_secs(5)).expect("an answer at once")
    }

    #[test]
    fn a_path_that_is_not_a_mounted_namespace_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        make_fifo(&at("fifo"));
        fs::write(at("file"), "").unwrap();
        fs::create_dir(at("folder")).unwrap();
        symlink(at("fifo"), at("link to fifo")).unwrap();
        symlink("/proc/self/ns/net", at("link to namespace")).unwrap();
        symlink(folder.path(), at("link to folder")).unwrap();
        let check = |path: &Path, expected: Option<i32>| {
            let error = open_at_once(pretended(path)).expect_err(&format!("{path:?}"));
            assert_eq!(error.raw_os_error(), expected, "{path:?}: {error}");
        };
        check(&at("fifo"), None);
        check(&at("file"), None);
        check(&at("folder"), None);
        check(&at("link to fifo"), Some(libc::ELOOP));
        check(&at("link to namespace"), Some(libc::ELOOP));
        check(Path::new("/dev/null"), None);
        check(Path::new("/proc/self"), Some(libc::ELOOP));
        let through_link = Mount { point: at("link to folder/fifo"), ..pretended(&at("fifo")) };
        let error = open_at_once(through_link).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{error}");
    }

    #[test]
    fn links_of_procfs_are_not_followed() {
        let namespace = Path::new("/proc/self/ns/net");
        let inode = fs::metadata(namespace).unwrap().ino();
        let mount =
            Mount { root: format!("net:[{inode}]").into(), ..pretended(Path::new("/proc")) };
        let point = format!("/proc/{}/ns/net", std::process::id());
        let error = open_at_once(Mount { point: point.into(), ..mount }).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{error}");
    }

    #[test]
    fn paths_end_at_the_root_of_the_process() {
        let root = open_root(std::process::id()).unwrap();
        let here = |path: &str| mount_id(&locate(&root, Path::new(path)).unwrap()).unwrap();
        assert_eq!(here("/../../.."), here("/"));
        assert_eq!(
            locate(&root, Path::new("/no\0pe")).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn a_file_is_read_through_links_and_nothing_else_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
        symlink("resolv.conf", at("link")).unwrap();
        make_fifo(&at("fifo"));
        let own = std::process::id();
        let check = |name: &str, limit, expected: &[u8]| {
            assert_eq!(read_file(own, &at(name), limit).unwrap(), expected, "{name}");
        };
        check("resolv.conf", 1000, b"nameserver 192.0.2.1\n");
        check("link", 10, b"nameserver");
        for name in ["fifo", "missing", "."] {
            assert!(read_file(own, &at(name), 10).is_err(), "{name}");
        }
        assert!(read_file(own, Path::new("/proc/self/exe"), 10).is_err());
    }

    fn make_fifo(path: &Path) {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }
}
