//! Reads in the memory of processes, which decide how long these take: forever, if they like.
//!
//! So that one user does not have all threads of the agent wait, few reads in processes of the same
//! user may take long at a time; others are refused meanwhile. A user can be many: as the subordinate
//! users of /etc/subuid, within user namespaces (`newuidmap`) and, by a program with the set-user-ID
//! bit that one of them owns, outside. All of these have one share.

use std::fmt;
use std::fs;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::namespaces;

/// Ranges of subordinate users, a line each: owner, first, count (man 5 subuid).
const SUBORDINATES: &str = "/etc/subuid";

/// A read that takes longer waits for the process, or for a disk.
const LONG: Duration = Duration::from_millis(250);
/// Long reads of a user after which others are refused. As many more may have begun by then as there
/// are threads.
const LONG_READS: usize = 2;

/// Those under way: whose, and since when.
static UNDER_WAY: Mutex<Vec<(Holder, Instant)>> = Mutex::new(Vec::new());

/// Held while a process' memory is read.
#[derive(Debug)]
pub(crate) struct MemoryRead {
    of: Holder,
    began: Instant,
}

/// Who has a share of reads.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holder {
    User(u32),
    /// All subordinate users of the one with this name or number.
    SubordinatesOf(String),
}

// === impl MemoryRead ===

impl MemoryRead {
    /// Of the process `tgid`; an error if too many of the same user take long.
    pub(crate) fn of(tgid: u32) -> io::Result<Self> {
        // Below a namespace that root made (userns-remap, LXD) users are those of its mapping.
        let user = match namespaces::user_namespace_maker(tgid) {
            Some(maker) if maker != 0 => maker,
            _ => real_user(tgid)?,
        };
        let subordinates = fs::read_to_string(SUBORDINATES).unwrap_or_default();
        Self::begin(Holder::of(user, &subordinates), Instant::now())
    }

    fn begin(holder: Holder, now: Instant) -> io::Result<Self> {
        let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        let is_long = |(of, began): &&(Holder, Instant)| {
            *of == holder && now.saturating_duration_since(*began) > LONG
        };
        if under_way.iter().filter(is_long).count() >= LONG_READS {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("reads in the memory of processes of {holder} do not end"),
            ));
        }
        under_way.push((holder.clone(), now));
        Ok(Self { of: holder, began: now })
    }
}

impl Drop for MemoryRead {
    fn drop(&mut self) {
        let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        let is_this = |(of, began): &(Holder, Instant)| *of == self.of && *began == self.began;
        if let Some(at) = under_way.iter().position(is_this) {
            under_way.swap_remove(at);
        }
    }
}

// === impl Holder ===

impl Holder {
    /// Of a user, with the text of /etc/subuid.
    fn of(user: u32, subordinates: &str) -> Self {
        let owner = subordinates.lines().find_map(|line| {
            let mut fields = line.trim().split(':');
            let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
            let (first, count): (u32, u32) = (first.parse().ok()?, count.parse().ok()?);
            let is_in = user.checked_sub(first).is_some_and(|offset| offset < count);
            is_in.then(|| owner.to_owned())
        });
        owner.map_or(Self::User(user), Self::SubordinatesOf)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user {user}"),
            Self::SubordinatesOf(owner) => write!(f, "the subordinate users of {owner}"),
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
    use crate::users_namespace::UsersNamespace;

    #[test]
    fn a_user_whose_reads_do_not_end_is_read_no_more_until_one_does() {
        // No process of this host is theirs.
        let (user, other) = (Holder::User(u32::MAX - 7), Holder::User(u32::MAX - 8));
        let now = Instant::now();
        let (soon, late) = (now + LONG / 2, now + LONG * 2);
        let begin = |holder: &Holder, at| MemoryRead::begin(holder.clone(), at);
        let first = begin(&user, now).unwrap();
        let more: Vec<_> = (0..2).map(|_| begin(&user, soon).unwrap()).collect();
        assert!(begin(&user, late).is_err());
        assert!(begin(&other, late).is_ok());
        drop(first);
        assert!(begin(&user, late).is_err(), "two are left");
        drop(more);
        assert!(begin(&user, late).is_ok());
    }

    #[test]
    fn all_subordinate_users_of_a_user_have_one_share() {
        let text = "shop:100000:65536\n\n# words\nbroken:x:y\n1500:300000:1\nshop:400000:10\n\
                    end:4294967290:100\n";
        let shop = Holder::SubordinatesOf("shop".to_owned());
        for (user, holder) in [
            (0, Holder::User(0)),
            (99_999, Holder::User(99_999)),
            (100_000, shop.clone()),
            (165_535, shop.clone()),
            (165_536, Holder::User(165_536)),
            (300_000, Holder::SubordinatesOf("1500".to_owned())),
            (300_001, Holder::User(300_001)),
            (400_009, shop),
            (u32::MAX, Holder::SubordinatesOf("end".to_owned())),
        ] {
            assert_eq!(Holder::of(user, text), holder, "{user}");
        }
    }

    #[test]
    fn the_user_of_a_process_is_the_real_one_or_who_made_its_user_namespace() {
        let own = rustix::process::getuid().as_raw();
        assert_eq!(real_user(std::process::id()).unwrap(), own);
        assert!(MemoryRead::of(std::process::id()).is_ok());
        assert!(real_user(u32::MAX).is_err(), "there is no such process");
        for (user, depth) in [(1500, 0), (1500, 1), (0, 0)] {
            let Some(made) = UsersNamespace::new(user, depth) else { return };
            let reading = MemoryRead::of(made.pid()).unwrap();
            assert_eq!(reading.of, Holder::User(user), "{depth} below that of {user}");
        }
    }
}
