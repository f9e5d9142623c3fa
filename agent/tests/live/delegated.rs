//! Cgroups that root has given to a user, removed when dropped.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::namespace::Namespace;

/// The user.
pub const USER: u32 = 1500;

/// A cgroup at the first level of the hierarchy.
pub struct Delegated(pub PathBuf);

/// Until its processes are gone.
const WITHIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

// === impl Delegated ===

impl Delegated {
    /// Makes it where the hierarchy is mounted.
    pub fn new(mount: &Path, name: &str) -> Self {
        let folder = mount.join(name);
        fs::create_dir(&folder).expect("a cgroup of ours");
        for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
            chown(folder.join(file), Some(USER), Some(USER)).expect("giving a cgroup away");
        }
        Self(folder)
    }

    /// A shell of the user that begins in it, in a network namespace.
    pub fn shell(&self, namespace: &Namespace, script: &str) -> Command {
        let script = format!(
            "echo $$ >{}/cgroup.procs && exec setpriv --reuid={USER} --regid={USER} \
             --clear-groups sh -c '{script}'",
            self.0.display()
        );
        let mut command = namespace.command("sh");
        command.args(["-c", &script]);
        command
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes a cgroup once its processes are gone.
fn remove(folder: &Path) {
    let children = fs::read_dir(folder).into_iter().flatten().flatten();
    for child in children.filter(|child| child.path().is_dir()) {
        remove(&child.path());
    }
    let began = Instant::now();
    while fs::remove_dir(folder).is_err() && began.elapsed() < WITHIN {
        std::thread::sleep(PAUSE);
    }
}
