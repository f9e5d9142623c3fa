//! Files and directories that only the agent may use. Another user who can write such a directory
//! can replace the agent's files, and any user who can open a lock file can lock it first.

use std::fs::{self, File, Metadata, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use thiserror::Error;

/// Write permission of everybody.
const OTHERS_WRITE: u32 = 0o002;
/// Write permission of the group.
const GROUP_WRITES: u32 = 0o020;
/// Others may add entries, but neither remove nor rename those of the agent.
const STICKY: u32 = 0o1000;
/// Any permission of other users.
const ANY_OF_OTHERS: u32 = 0o077;

/// Why a directory cannot be used.
#[derive(Debug, Error)]
pub enum Exposed {
    /// It is owned by another user.
    #[error(
        "{path} belongs to user {owner}, who could put something else in place of the agent's files; remove it or `chown {own}` it, or choose another directory"
    )]
    Owned {
        /// The directory.
        path: String,
        /// Its owner.
        owner: u32,
        /// The agent's user.
        own: u32,
    },
    /// Its mode lets others write.
    #[error(
        "{path} can be written by others (mode {mode:o}), who could put something else in place of the agent's files; `chmod go-w` it, or choose another directory"
    )]
    Writable {
        /// The directory.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// Something else has its name.
    #[error("{0} is a link or a file where the agent needs a directory of its own; remove it")]
    NotADirectory(String),
    /// It cannot be inspected.
    #[error("{path}: {error}")]
    Unreadable {
        /// The directory.
        path: String,
        /// The system's error.
        error: io::Error,
    },
}

/// Fails unless only root and the agent's user can change what is in this directory.
pub fn check(directory: &Path) -> Result<(), Exposed> {
    let found = inspect(directory, fs::metadata(directory))?;
    owned(directory, &found)?;
    closed(directory, &found)
}

/// The same, and that no link is followed there; for a directory with a name that anybody may
/// have taken first.
pub fn check_no_link(directory: &Path) -> Result<(), Exposed> {
    let found = inspect(directory, fs::symlink_metadata(directory))?;
    if !found.is_dir() {
        return Err(Exposed::NotADirectory(directory.display().to_string()));
    }
    owned(directory, &found)?;
    closed(directory, &found)
}

/// The parent of a directory of ours: others may not remove or rename that one.
pub fn check_parent(directory: &Path) -> Result<(), Exposed> {
    let found = inspect(directory, fs::metadata(directory))?;
    owned(directory, &found)?;
    if found.mode() & STICKY != 0 { Ok(()) } else { closed(directory, &found) }
}

/// Opens and locks a file that only the agent's user can open; `None` if another agent holds it.
///
/// Earlier versions made it readable for everybody, and any user who may read a file may lock it. A lock
/// that another user holds since then is left behind with the old file.
pub fn lock(path: &Path) -> io::Result<Option<File>> {
    let open = || {
        let mut options = File::options();
        options.create(true).truncate(false).write(true).mode(0o600).open(path)
    };
    let file = open()?;
    let was_private = file.metadata()?.mode() & ANY_OF_OTHERS == 0;
    file.set_permissions(Permissions::from_mode(0o600))?;
    if try_lock(&file)? {
        return Ok(Some(file));
    }
    if was_private || is_held_by_an_agent(&file)? {
        return Ok(None);
    }
    tracing::warn!(
        "another user has locked {}; it is replaced by a file that others cannot open",
        path.display()
    );
    fs::remove_file(path)?;
    let file = open()?;
    Ok(try_lock(&file)?.then_some(file))
}

fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether one of the processes that hold a lock on it is root's or the agent's user's. One that
/// cannot be seen is taken for another user's.
fn is_held_by_an_agent(file: &File) -> io::Result<bool> {
    let locks = fs::read_to_string("/proc/locks")?;
    let inode = file.metadata()?.ino();
    Ok(holders(&locks, inode).any(|pid| {
        fs::metadata(format!("/proc/{pid}")).is_ok_and(|process| is_trusted(process.uid()))
    }))
}

/// Processes that hold a lock of flock(2) on this inode (man 5 proc_locks).
fn holders(locks: &str, inode: u64) -> impl Iterator<Item = u32> {
    let end = format!(":{inode}");
    locks.lines().filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (kind, pid, file) = (fields.next()?, fields.nth(2)?, fields.next()?);
        (kind == "FLOCK" && file.ends_with(&end)).then(|| pid.parse().ok())?
    })
}

fn inspect(directory: &Path, found: io::Result<Metadata>) -> Result<Metadata, Exposed> {
    found.map_err(|error| Exposed::Unreadable { path: directory.display().to_string(), error })
}

fn owned(directory: &Path, found: &Metadata) -> Result<(), Exposed> {
    if is_trusted(found.uid()) {
        return Ok(());
    }
    let path = directory.display().to_string();
    Err(Exposed::Owned { path, owner: found.uid(), own: own_user() })
}

fn closed(directory: &Path, found: &Metadata) -> Result<(), Exposed> {
    let mode = found.mode();
    let by_group = mode & GROUP_WRITES != 0 && found.gid() != 0 && found.gid() != own_group();
    if mode & OTHERS_WRITE == 0 && !by_group {
        return Ok(());
    }
    Err(Exposed::Writable { path: directory.display().to_string(), mode: mode & 0o7777 })
}

fn is_trusted(user: u32) -> bool {
    user == 0 || user == own_user()
}

fn own_user() -> u32 {
    // SAFETY: geteuid cannot fail and touches no memory.
    unsafe { libc::geteuid() }
}

fn own_group() -> u32 {
    // SAFETY: getegid cannot fail and touches no memory.
    unsafe { libc::getegid() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};
    use std::process::{Command, Stdio};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_that_others_own_or_can_write_is_refused_with_the_fix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let refusal = |check: fn(&Path) -> Result<(), Exposed>| {
            check(path).err().map(|exposed| exposed.to_string()).unwrap_or_default()
        };
        for (bits, fine, fine_as_parent) in
            [(0o700, true, true), (0o755, true, true), (0o777, false, false), (0o1777, false, true)]
        {
            mode(path, bits);
            assert_eq!(refusal(check).is_empty(), fine, "{bits:o}");
            assert_eq!(refusal(check_no_link).is_empty(), fine, "{bits:o}");
            assert_eq!(refusal(check_parent).is_empty(), fine_as_parent, "{bits:o}");
        }
        let said = refusal(check);
        assert!(said.contains("mode 1777") && said.contains("chmod go-w"), "{said}");
        if own_user() != 0 {
            println!("SKIPPED: giving a directory away needs root");
            return;
        }
        mode(path, 0o775);
        assert_eq!(refusal(check), "", "the group is root's");
        chown(path, None, Some(1500)).unwrap();
        assert!(refusal(check).contains("mode 775"));
        mode(path, 0o700);
        chown(path, Some(1500), Some(1500)).unwrap();
        for check in [check, check_no_link, check_parent] {
            let said = refusal(check);
            assert!(said.contains("belongs to user 1500") && said.contains("chown 0"), "{said}");
        }
    }

    #[test]
    fn a_link_is_no_directory_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink("/", &link).unwrap();
        assert!(check(&link).is_ok());
        assert!(matches!(check_no_link(&link), Err(Exposed::NotADirectory(_))));
    }

    #[test]
    fn holders_of_a_lock_are_found_by_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:1b:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 00:1b:77 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 13 00:1b:77 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 14 fe:00:177 0 EOF\n\
                     4: FLOCK\n";
        assert_eq!(holders(locks, 77).collect::<Vec<_>>(), [12]);
        assert_eq!(holders(locks, 177).collect::<Vec<_>>(), [14]);
    }

    #[test]
    fn a_lock_admits_one_and_nobody_else_can_open_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        fs::write(&path, "").unwrap();
        mode(&path, 0o644);
        let held = lock(&path).unwrap().unwrap();
        assert_eq!(held.metadata().unwrap().mode() & 0o777, 0o600);
        assert!(lock(&path).unwrap().is_none());
        drop(held);
        // One of an earlier version, with a mode for everybody: it is an agent's all the same.
        let held = File::open(&path).unwrap();
        held.lock().unwrap();
        mode(&path, 0o644);
        assert!(lock(&path).unwrap().is_none());
        drop(held);
        assert!(lock(&path).unwrap().is_some());
    }

    #[test]
    fn a_lock_that_another_user_took_while_everybody_could_keeps_no_agent_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        fs::write(&path, "").unwrap();
        mode(&path, 0o644);
        mode(folder.path(), 0o755);
        let mut user = Command::new("setpriv");
        user.args(["--reuid=1500", "--regid=1500", "--clear-groups"]);
        user.args(["flock", "--exclusive"]).arg(&path).args(["sh", "-c", "echo; read line"]);
        let started = user.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut user) = started else {
            println!("SKIPPED: no setpriv");
            return;
        };
        let said = io::Read::read(user.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let taken = lock(&path);
        drop(user.stdin.take());
        user.wait().unwrap();
        if said == 0 {
            println!("SKIPPED: becoming another user needs root");
            return;
        }
        let taken = taken.unwrap().expect("a lock of the agent's own");
        assert_eq!(taken.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
        assert!(lock(&path).unwrap().is_none());
    }
}
