//! A runtime's daemon in a network namespace of its own, and an image of busybox for it.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{PATIENCE, PAUSE, run, until};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A daemon that makes containers.
pub(super) struct Engine {
    pub(super) socket: PathBuf,
    netns: String,
    child: Child,
    directory: tempfile::TempDir,
}

impl Engine {
    /// A program's name as the agent reports it in the engine's network namespace.
    pub fn full_name(&self, name: &str) -> String {
        format!("{}/{name}", self.scope())
    }

    /// The namespace of programs' names there.
    pub fn scope(&self) -> String {
        format!("netns-{}", self.netns)
    }

    /// Starts `program` with the arguments that `arguments` makes of its directory; it has to
    /// listen on `socket` there.
    pub(super) fn start(
        program: &str,
        socket: &str,
        arguments: impl FnOnce(&Path) -> Vec<String>,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let netns = format!("eng-{:x}-{number:x}", std::process::id() & 0xff_ffff);
        run(Command::new("ip").args(["netns", "add", &netns]));
        run(Command::new("ip").args(["-n", &netns, "link", "set", "lo", "up"]));
        let log = File::create(directory.path().join("log")).expect("a log");
        // Not `ip netns exec`: that hides the cgroups.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{netns}")).arg(program);
        command.args(arguments(directory.path()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("starting a container engine");
        let socket = directory.path().join(socket);
        let mut engine = Self { socket, netns, child, directory };
        until("the engine listens", || {
            let ended = engine.child.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "{program} has ended: {}", engine.log());
            engine.socket.exists()
        });
        engine
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A program in the engine's network namespace.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).arg(program);
        command
    }

    /// The inode of its network namespace.
    pub(super) fn namespace(&self) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        let path = format!("/run/netns/{}", self.netns);
        fs::metadata(path).expect("the namespace is ours").ino()
    }

    pub(super) fn log(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        log.lines().rev().take(20).collect::<Vec<_>>().join("\n")
    }

    /// Stops the daemon and waits.
    pub(super) fn stop(&mut self) {
        let Ok(pid) = i32::try_from(self.child.id()) else { return };
        if matches!(self.child.try_wait(), Ok(None)) {
            // SAFETY: kill touches no memory; the child is ours and was not waited for.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let began = std::time::Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
        // Mounts that containers left below the directory would prevent its removal.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = self.directory.path().to_string_lossy().into_owned();
        for point in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if point.starts_with(&ours) {
                let _ = Command::new("umount").args(["--lazy", point]).status();
            }
        }
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).status();
    }
}

/// A root file system of busybox, as a tar file.
pub(super) fn busybox(directory: &Path) -> PathBuf {
    let root = directory.join("root");
    let bin = root.join("bin");
    fs::create_dir_all(&bin).expect("a directory");
    fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
    for applet in ["sh", "httpd", "wget", "sleep"] {
        symlink("busybox", bin.join(applet)).expect("a link");
    }
    let tar = directory.join("busybox.tar");
    run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg("."));
    tar
}
