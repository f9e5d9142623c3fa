//! A journal of everything that a run of the demo creates, written before it is created: the next
//! run removes the remains of a killed one by these names and ids, and nothing else.
//!
//! The file is also the lock: there is one shop at a time, because its namespaces have fixed names.

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

/// The open journal of this run. It is dropped last, when everything in it is removed.
pub struct Cleanup(File);

/// Something that has to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A network namespace, with all processes in it.
    Netns(String),
    /// A process of the machine's own namespace, by id and start.
    Process { pid: u32, started: u64 },
    /// A folder.
    Folder(PathBuf),
}

impl Cleanup {
    /// Takes the lock, and removes the remains of the last run.
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
        file.read_to_string(&mut text).context("reading the journal of the last demo")?;
        let resources: Vec<Resource> = text.lines().filter_map(Resource::parse).collect();
        if !resources.is_empty() {
            println!("removing what a killed demo left behind");
            remove(&resources);
        }
        let mut cleanup = Self(file);
        cleanup.clear()?;
        Ok(cleanup)
    }

    /// Records a resource, at once.
    pub fn note(&mut self, resource: &Resource) -> Result<()> {
        writeln!(self.0, "{}", resource.line()).context("writing the cleanup journal")
    }

    /// Records a process that has just been started.
    pub fn note_process(&mut self, pid: u32) -> Result<()> {
        match started(pid) {
            Some(started) => self.note(&Resource::Process { pid, started }),
            // It has ended already.
            None => Ok(()),
        }
    }

    fn clear(&mut self) -> Result<()> {
        self.0.set_len(0).context("emptying the cleanup journal")?;
        self.0.rewind().context("emptying the cleanup journal")
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

impl Resource {
    fn line(&self) -> String {
        match self {
            Self::Netns(name) => format!("netns {name}"),
            Self::Process { pid, started } => format!("process {pid} {started}"),
            Self::Folder(path) => format!("folder {}", path.display()),
        }
    }

    /// A line that was cut short is ignored.
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
fn remove(resources: &[Resource]) {
    for resource in resources {
        match resource {
            Resource::Netns(name) => kill(|| in_netns(name)),
            Resource::Process { pid, started: then } => {
                kill(|| (started(*pid) == Some(*then)).then_some(*pid).into_iter().collect());
            }
            Resource::Folder(_) => {}
        }
    }
    for resource in resources {
        match resource {
            Resource::Netns(name) => {
                shell::probe(Command::new("ip").args(["netns", "del", name]));
            }
            Resource::Folder(path) => {
                let _ = fs::remove_dir_all(path);
            }
            Resource::Process { .. } => {}
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
            // SAFETY: a plain system call; the owner of the pid was looked up just now.
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
    // The command name may contain anything, parentheses as well.
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
    fn what_is_recorded_is_read_back() {
        let resources = [
            Resource::Netns("shop-users".to_owned()),
            Resource::Process { pid: 7, started: 12345 },
            Resource::Folder("/tmp/portolan-demo-x".into()),
        ];
        for resource in resources {
            assert_eq!(Resource::parse(&resource.line()).as_ref(), Some(&resource));
        }
        for cut in ["", "netns", "netns ", "process 7", "process 7 ", "folder tmp", "pid 7 1"] {
            assert_eq!(Resource::parse(cut), None, "{cut}");
        }
    }

    #[test]
    fn only_the_process_that_was_noted_is_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let then = started(child.id()).unwrap();
        remove(&[Resource::Process { pid: child.id(), started: then + 1 }]);
        assert!(child.try_wait().unwrap().is_none());
        remove(&[Resource::Process { pid: child.id(), started: then }]);
        assert!(!child.wait().unwrap().success());
        assert_eq!(started(child.id()), None);
    }

    #[test]
    fn folders_go_with_what_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        remove(&[Resource::Folder(folder.path().join("a"))]);
        assert!(!inner.exists() && folder.path().exists());
    }
}
