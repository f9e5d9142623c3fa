//! Another program that holds sockets: `sleep`, under a name of our choice.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A process that does nothing but hold sockets. Dropping it kills it.
pub struct Holder {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Holder {
    /// A process called `name` that holds `sockets`, and is then the only one that does.
    pub fn new(name: &str, sockets: Vec<OwnedFd>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let program = directory.path().join(name);
        fs::copy(sleep(), &program).expect("copying sleep");
        let descriptors: Vec<i32> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let mut command = Command::new(program);
        command.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let keep = move || {
            for descriptor in &descriptors {
                // SAFETY: fcntl is a plain system call on descriptors that `sockets` holds open
                // until after the start; sound between fork and exec.
                if unsafe { libc::fcntl(*descriptor, libc::F_SETFD, 0) } != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: the closure only makes system calls.
        unsafe { command.pre_exec(keep) };
        let child = command.spawn().expect("starting a copy of sleep");
        drop(sockets);
        Self { child, _directory: directory }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program itself, not a link to it.
fn sleep() -> PathBuf {
    fs::canonicalize("/bin/sleep").expect("every system has sleep")
}
