//! What a run of the demo has made, written down before it is made, so that the next run can
//! remove what one that was killed has left: by these names and ids, and nothing else.
//!
//! The file is also the lock: there is one shop at a time, because its namespaces have names.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use portolan_kit::shell;

/// Only root can write there, and a boot empties it.
const FILE: &str = "/run/portolan-demo";
const PATIENCE: Duration = Duration::from_secs(5);

/// The open file of this run. When it is dropped, everything in it is gone.
pub struct Left(File);

/// Something that has to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    /// A network namespace, with all processes in it.
    Netns(String),
    /// A process of the machine's own namespace, by id and start.
    Process { pid: u32, started: u64 },
    /// A folder.
    Folder(PathBuf),
}

impl Left {
    /// Takes the lock, and removes what the last run has left.
    pub fn open() -> Result<Self> {
        let mut file = File::options()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(FILE)
            .context("making sure that no other demo runs")?;
        if file.try_lock().is_err() {
            bail!("another demo runs or is cleaning up: stop it, or wait");
        }
        let mut text = String::new();
        file.read_to_string(&mut text).context("reading what the last demo has left")?;
        let things: Vec<Thing> = text.lines().filter_map(Thing::parse).collect();
        if !things.is_empty() {
            println!("removing what a demo that was killed has left");
            remove(&things);
        }
        let mut left = Self(file);
        left.clear()?;
        Ok(left)
    }

    /// Writes something down, at once.
    pub fn note(&mut self, thing: &Thing) -> Result<()> {
        writeln!(self.0, "{}", thing.line()).context("writing down what has to be removed")
    }

    /// Writes a process down that has just been started.
    pub fn note_process(&mut self, pid: u32) -> Result<()> {
        match started(pid) {
            Some(started) => self.note(&Thing::Process { pid, started }),
            // It has ended already.
            None => Ok(()),
        }
    }

    fn clear(&mut self) -> Result<()> {
        self.0.set_len(0).context("forgetting what is gone")?;
        self.0.rewind().context("forgetting what is gone")
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

impl Thing {
    fn line(&self) -> String {
        match self {
            Self::Netns(name) => format!("netns {name}"),
            Self::Process { pid, started } => format!("process {pid} {started}"),
            Self::Folder(path) => format!("folder {}", path.display()),
        }
    }

    /// A line that was cut short says nothing.
    fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "netns" if !rest.is_empty() => Some(Self::Netns(rest.to_owned())),
            "process" => {
                let (pid, started) = rest.split_once(' ')?;
                Some(Self::Process { pid: pid.parse().ok()?, started: started.parse().ok()? })
            }
            "folder" if Path::new(rest).is_absolute() => Some(Self::Folder(rest.into())),
            _ => None,
        }
    }
}

/// Programs first, then the namespaces and folders that they are in.
fn remove(things: &[Thing]) {
    for thing in things {
        match thing {
            Thing::Netns(name) => kill(|| in_netns(name)),
            Thing::Process { pid, started: then } => {
                kill(|| (started(*pid) == Some(*then)).then_some(*pid).into_iter().collect());
            }
            Thing::Folder(_) => {}
        }
    }
    for thing in things {
        match thing {
            Thing::Netns(name) => {
                shell::probe(Command::new("ip").args(["netns", "del", name]));
            }
            Thing::Folder(path) => {
                let _ = fs::remove_dir_all(path);
            }
            Thing::Process { .. } => {}
        }
    }
}

/// Kills until none of them is there.
fn kill(those: impl Fn() -> Vec<u32>) {
    let began = Instant::now();
    loop {
        let pids = those();
        if pids.is_empty() || began.elapsed() > PATIENCE {
            return;
        }
        for pid in pids {
            // SAFETY: a plain system call; whose process that is was looked up just now.
            unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The processes in a network namespace.
fn in_netns(name: &str) -> Vec<u32> {
    let listed = shell::probe(Command::new("ip").args(["netns", "pids", name])).unwrap_or_default();
    listed.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// When a process started, in ticks since the boot; none for one that has ended, waited for or not.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold anything, parentheses as well.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_again() {
        let things = [
            Thing::Netns("shop-users".to_owned()),
            Thing::Process { pid: 7, started: 12345 },
            Thing::Folder("/tmp/portolan-demo-x".into()),
        ];
        for thing in things {
            assert_eq!(Thing::parse(&thing.line()).as_ref(), Some(&thing));
        }
        for cut in ["", "netns", "netns ", "process 7", "process 7 ", "folder tmp", "pid 7 1"] {
            assert_eq!(Thing::parse(cut), None, "{cut}");
        }
    }

    #[test]
    fn only_the_process_that_was_noted_is_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let then = started(child.id()).unwrap();
        remove(&[Thing::Process { pid: child.id(), started: then + 1 }]);
        assert!(child.try_wait().unwrap().is_none());
        remove(&[Thing::Process { pid: child.id(), started: then }]);
        assert!(!child.wait().unwrap().success());
        assert_eq!(started(child.id()), None);
    }

    #[test]
    fn folders_go_with_what_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        remove(&[Thing::Folder(folder.path().join("a"))]);
        assert!(!inner.exists() && folder.path().exists());
    }
}
