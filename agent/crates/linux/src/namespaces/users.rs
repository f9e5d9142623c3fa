//! User namespaces: which one a namespace belongs to, and the user who made it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::fs::MetadataExt as _;

use agent_common::share::MAX_NESTED;

/// The user who made the outermost user namespace of a process, if that is not the agent's own.
pub(crate) fn user_namespace_maker(tgid: u32) -> Option<u32> {
    outermost_maker(File::open(format!("/proc/{tgid}/ns/user")).ok()?)
}

/// The agent's own user namespace, by inode; `None` on a kernel without user namespaces.
pub(super) fn own_user_namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/user").ok().map(|file| file.ino())
}

/// The user namespace that a namespace belongs to, by inode (man 2 NS_GET_USERNS).
pub(super) fn owner(namespace: &File) -> io::Result<u64> {
    Ok(related(namespace, libc::NS_GET_USERNS)?.metadata()?.ino())
}

/// The user who made the outermost of a user namespace and its ancestors below the agent's own;
/// `None` for the agent's own.
pub(super) fn outermost_maker(mut users: File) -> Option<u32> {
    let own = own_user_namespace()?;
    let mut user = None;
    for _ in 0..=MAX_NESTED {
        if users.metadata().ok()?.ino() == own {
            return user;
        }
        user = maker(&users).ok();
        users = related(&users, libc::NS_GET_PARENT).ok()?;
    }
    None
}

/// The user who made a user namespace.
fn maker(users: &File) -> io::Result<u32> {
    let mut user: libc::uid_t = 0;
    // SAFETY: the request writes one number of a user.
    match unsafe { libc::ioctl(users.as_raw_fd(), libc::NS_GET_OWNER_UID, &raw mut user) } {
        0 => Ok(user),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The user namespace that `NS_GET_USERNS` or `NS_GET_PARENT` leads to.
pub(super) fn related(namespace: &File, request: libc::Ioctl) -> io::Result<File> {
    // SAFETY: these requests take no argument and touch no memory.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), request) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and has no other owner.
    Ok(unsafe { File::from_raw_fd(fd) })
}
