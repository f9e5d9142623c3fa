//! The executable of a process, and whether its path means the same file on the host.
//!
//! In a mount namespace of its own a program can have any path. So a path counts as the host's only
//! if the process is in the host's mount namespace, or if the host has the same file there, as for
//! services with a private /tmp. Nothing here waits for a file system: the path is looked up in the
//! kernel's cache, where a program that runs keeps it, and attributes are those that are cached.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::foreign_path;

/// The executable of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    /// Its path, as its mount namespace has it.
    pub path: String,
    /// The host has the same file at this path.
    pub is_hosts: bool,
}

/// The executable of a process while it runs.
pub fn of(tgid: u32) -> Option<Executable> {
    let link = fs::read_link(format!("/proc/{tgid}/exe")).ok()?;
    let path = link.to_string_lossy();
    let path = path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned();
    let is_hosts = shares_mounts(tgid) || is_same_file(tgid, Path::new(&path));
    Some(Executable { path, is_hosts })
}

/// A process with the host's root and mount namespace: the first one, if it shows them, else the
/// agent itself.
fn on_host() -> u32 {
    if fs::metadata("/proc/1/ns/mnt").is_ok() { 1 } else { std::process::id() }
}

/// Whether a process is in the host's mount namespace.
fn shares_mounts(tgid: u32) -> bool {
    let inode = |tgid| fs::metadata(format!("/proc/{tgid}/ns/mnt")).map(|file| file.ino());
    matches!((inode(on_host()), inode(tgid)), (Ok(host), Ok(one)) if host == one)
}

/// Whether the host's file at `path` is the one that a process runs.
fn is_same_file(tgid: u32, path: &Path) -> bool {
    let cached = AtFlags::STATX_DONT_SYNC;
    let identity = |stat: rustix::fs::Statx| (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
    let running = statx(CWD, format!("/proc/{tgid}/exe"), cached, StatxFlags::INO);
    let hosts =
        foreign_path::open_root(on_host()).and_then(|root| foreign_path::locate(&root, path));
    let (Ok(running), Ok(hosts)) = (running, hosts) else { return false };
    let hosts = statx(hosts.as_fd(), "", cached | AtFlags::EMPTY_PATH, StatxFlags::INO);
    hosts.is_ok_and(|hosts| identity(hosts) == identity(running))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::process::{Child, Command, Stdio};

    /// A shell that runs this and then goes on as `sleep`; its executable, once it said so.
    fn of_script(script: &str) -> Option<Executable> {
        let mut command = Command::new("unshare");
        command.args(["-Urm", "sh", "-c", &format!("{script} && echo && read x")]);
        let mut child: Child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let ready = child.stdout.take()?.read(&mut [0]).ok()?;
        let found = (ready > 0).then(|| of(child.id())).flatten();
        child.kill().ok()?;
        child.wait().ok()?;
        found
    }

    fn shell() -> String {
        fs::canonicalize("/bin/sh").unwrap().display().to_string()
    }

    #[test]
    fn the_own_executable_is_the_hosts() {
        let own = of(std::process::id()).unwrap();
        assert_eq!(Path::new(&own.path), std::env::current_exe().unwrap());
        assert!(own.is_hosts, "{own:?}");
    }

    #[test]
    fn a_path_of_another_mount_namespace_is_the_hosts_only_if_the_file_is() {
        let Some(same) = of_script("true") else {
            println!("SKIPPED: user namespaces are not allowed here");
            return;
        };
        assert_eq!(same, Executable { path: shell(), is_hosts: true });
        // Another program under the path of one that the host has.
        let hidden = fs::canonicalize("/bin/sleep").unwrap().display().to_string();
        let covered = of_script(&format!(
            "mount --bind {} {hidden} && exec {hidden} -c 'echo; read x; echo'",
            shell()
        ));
        let covered = covered.expect("user namespaces work");
        assert_eq!(covered, Executable { path: hidden, is_hosts: false });
    }
}
