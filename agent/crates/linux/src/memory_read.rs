//! Reads in the memory of processes, which decide how long these take: forever, if they like.
//!
//! So that one user does not have all threads of the agent wait, few reads in processes of the same
//! user may take long at a time; others are refused meanwhile.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

/// A read that takes longer waits for the process, or for a disk.
const LONG: Duration = Duration::from_millis(250);
/// Long reads of a user after which others are refused. As many more may have begun by then as there
/// are threads.
const LONG_READS: usize = 2;

/// Those under way: the user, and since when.
static UNDER_WAY: Mutex<Vec<(u32, Instant)>> = Mutex::new(Vec::new());

/// Held while a process' memory is read.
#[derive(Debug)]
pub(crate) struct MemoryRead {
    user: u32,
    began: Instant,
}

// === impl MemoryRead ===

impl MemoryRead {
    /// Of the process `tgid`; an error if too many of the same user take long.
    pub(crate) fn of(tgid: u32) -> io::Result<Self> {
        Self::begin(real_user(tgid)?, Instant::now())
    }

    fn begin(user: u32, now: Instant) -> io::Result<Self> {
        let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        let is_long = |(of, began): &&(u32, Instant)| {
            *of == user && now.saturating_duration_since(*began) > LONG
        };
        if under_way.iter().filter(is_long).count() >= LONG_READS {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("reads in the memory of processes of user {user} do not end"),
            ));
        }
        under_way.push((user, now));
        Ok(Self { user, began: now })
    }
}

impl Drop for MemoryRead {
    fn drop(&mut self) {
        let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = under_way.iter().position(|read| *read == (self.user, self.began)) {
            under_way.swap_remove(at);
        }
    }
}

/// The real user of a process: not the one that a program with the set-user-ID bit becomes.
fn real_user(tgid: u32) -> io::Result<u32> {
    let status = fs::read(format!("/proc/{tgid}/status"))?;
    let status = String::from_utf8_lossy(&status);
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let real = users.and_then(|users| users.split_ascii_whitespace().next()?.parse().ok());
    real.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_whose_reads_do_not_end_is_read_no_more_until_one_does() {
        // No process of this host is theirs.
        let (user, other) = (u32::MAX - 7, u32::MAX - 8);
        let now = Instant::now();
        let (soon, late) = (now + LONG / 2, now + LONG * 2);
        let first = MemoryRead::begin(user, now).unwrap();
        let more: Vec<_> = (0..2).map(|_| MemoryRead::begin(user, soon).unwrap()).collect();
        assert!(MemoryRead::begin(user, late).is_err());
        assert!(MemoryRead::begin(other, late).is_ok());
        drop(first);
        assert!(MemoryRead::begin(user, late).is_err(), "two are left");
        drop(more);
        assert!(MemoryRead::begin(user, late).is_ok());
    }

    #[test]
    fn the_user_of_a_process_is_the_real_one() {
        let own = rustix::process::getuid().as_raw();
        assert_eq!(real_user(std::process::id()).unwrap(), own);
        assert!(MemoryRead::of(std::process::id()).is_ok());
        assert!(real_user(u32::MAX).is_err(), "there is no such process");
    }
}
