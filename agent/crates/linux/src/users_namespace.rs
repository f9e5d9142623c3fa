//! For tests: network namespaces that an unprivileged user makes in a user namespace.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::namespaces::Namespace;

/// One, as long as this is there.
pub(crate) struct UsersNamespace {
    pub(crate) namespace: Namespace,
    pid: u32,
    child: Child,
}

impl UsersNamespace {
    /// Made by the user, and by root in that again for `depth` times more; none, and why, if that is not
    /// possible here.
    pub(crate) fn new(user: u32, depth: usize) -> Option<Self> {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={user}")]).arg("--clear-groups");
        for _ in 0..=depth {
            command.args(["unshare", "--user", "--map-root-user", "--net"]);
        }
        command.args(["sh", "-c", "echo $$; exec sleep 60"]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        let mut pid = String::new();
        BufReader::new(child.stdout.take()?).read_line(&mut pid).ok()?;
        let made =
            pid.trim().parse().ok().and_then(|pid: u32| {
                Some((pid, Namespace::open(format!("/proc/{pid}/ns/net")).ok()?))
            });
        let Some((pid, namespace)) = made else {
            let _ = child.wait();
            println!("SKIPPED: no network namespace of an unprivileged user");
            return None;
        };
        Some(Self { namespace, pid, child })
    }

    /// A process in it.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for UsersNamespace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
