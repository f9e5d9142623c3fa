//! Waiting, within tokio, until a descriptor is ready.

use std::io;
use std::os::fd::OwnedFd;

pub use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches `descriptor`; within a tokio runtime.
pub fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd owns its descriptor, which stays open and the same.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest)? })
}
