//! The process at the other end of a Unix socket (man 7 unix).

use std::io;
use std::os::fd::AsRawFd;

/// The credentials of the process that connected or listens, as the kernel recorded them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process; `None` if it has no pid in the agent's PID namespace.
    pub pid: Option<u32>,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl Peer {
    /// Of a connected socket.
    pub fn of(stream: &impl AsRawFd) -> io::Result<Self> {
        let mut found = [libc::ucred { pid: 0, uid: 0, gid: 0 }];
        match read(stream, libc::SO_PEERCRED, &mut found)? {
            [libc::ucred { pid, uid, gid }] => {
                let pid = u32::try_from(*pid).ok().filter(|pid| *pid != 0);
                Ok(Self { pid, uid: *uid, gid: *gid })
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The supplementary groups of the other end (`SO_PEERGROUPS`, Linux 4.13).
pub fn groups(stream: &impl AsRawFd) -> io::Result<Vec<u32>> {
    /// NGROUPS_MAX, include/uapi/linux/limits.h.
    const MOST: usize = 65_536;
    let mut groups = vec![0; MOST];
    let count = read(stream, libc::SO_PEERGROUPS, &mut groups)?.len();
    groups.truncate(count);
    Ok(groups)
}

/// Reads a socket option that is a list of plain values; returns the values written.
pub(crate) fn read<'a, T: Plain>(
    stream: &impl AsRawFd,
    option: libc::c_int,
    values: &'a mut [T],
) -> io::Result<&'a [T]> {
    let mut bytes = size_of_val(values) as libc::socklen_t;
    // SAFETY: pointer and size are those of a live buffer of values for which every bit pattern is
    // valid; the kernel writes at most that many bytes, and writes back how many.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            values.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(values.get(..bytes as usize / size_of::<T>()).unwrap_or_default())
}

/// Every bit pattern is a value.
pub(crate) trait Plain {}
impl Plain for u32 {}
impl Plain for u64 {}
impl Plain for libc::ucred {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_pair_of_sockets_has_this_process_at_both_ends() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        assert_eq!(peer.pid, Some(std::process::id()));
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        let own: Vec<u32> =
            rustix::process::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        assert_eq!(groups(&one).unwrap(), own);
    }
}
