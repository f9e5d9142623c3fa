//! Servers that are programs of their own, so that they can be stopped, limited and killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::namespace::Namespace;

/// Listens on the port of its argument; accepts with the word `accept`, and computes with `burn`.
pub(super) const SERVER: &str = "\
import socket, sys
server = socket.create_server(('0.0.0.0', int(sys.argv[1])))
if sys.argv[2] == 'burn':
    while True: pass
if sys.argv[2] == 'grow':
    server.accept()[0].recv(4)
    hoard = bytearray(300 << 20)
    for at in range(0, len(hoard), 4096): hoard[at] = 1
while True: server.accept()[0].close()";

/// Another program in a namespace. Dropping it kills it.
pub(super) struct Program(pub(super) Child);

impl Program {
    pub(super) fn start(
        namespace: &Namespace,
        program: &str,
        arguments: &[&str],
        folder: &Path,
    ) -> Self {
        let mut command = namespace.command(program);
        command.args(arguments).current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("starting a program"))
    }

    pub(super) fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.0.id()).expect("a pid fits");
        // SAFETY: kill touches no memory; the child was not waited for, so the pid is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cgroup with a limit; removed when dropped.
pub(super) struct Limited(PathBuf);

impl Limited {
    /// Of version 1, if this host has the controller there, else of version 2: the file and the limit
    /// in each. `None` if the controller is not available.
    pub(super) fn new(controller: &str, first: (&str, &str), second: (&str, &str)) -> Option<Self> {
        let name = format!("portolan-diagnose-{}", std::process::id());
        let old = Path::new("/sys/fs/cgroup").join(controller);
        let (parent, (file, limit)) = if old.join("cgroup.procs").exists() {
            (old.as_path(), first)
        } else {
            (Path::new("/sys/fs/cgroup"), second)
        };
        let folder = parent.join(name);
        fs::create_dir(&folder).ok()?;
        let limited = Self(folder);
        fs::write(limited.0.join(file), limit).ok()?;
        Some(limited)
    }

    pub(super) fn take(&self, program: &Program) {
        let pid = program.0.id().to_string();
        fs::write(self.0.join("cgroup.procs"), pid).expect("moving a program");
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The configuration of an authority that signs what it is asked for.
const AUTHORITY: &str = "[ca]\ndefault_ca=d\n[d]\nnew_certs_dir=.\ndatabase=index.txt\nserial=serial\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n";

/// A key and a certificate of shop.example that has expired, in this folder.
pub(super) fn make_expired_certificate(folder: &Path) {
    for (name, text) in [
        ("ca.cnf", AUTHORITY),
        ("index.txt", ""),
        ("serial", "01\n"),
        ("names", "subjectAltName=DNS:shop.example\n"),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    for arguments in [
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=shop -keyout key.pem -out csr.pem",
        "ca -batch -notext -config ca.cnf -selfsign -keyfile key.pem -in csr.pem -startdate 20200101000000Z -enddate 20200102000000Z -extfile names -out cert.pem",
    ] {
        let output =
            Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
        assert!(output.is_ok_and(|output| output.status.success()), "{arguments}");
    }
}
