//! The initramfs of the machine: busybox, the programs that tests use with their libraries, the
//! agent, the live tests, kernel modules, and an init script.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use portolan_kit::shell;

use crate::architecture::Architecture;
use crate::cpio::Archive;
use crate::modules;
use crate::userland::Userland;

/// Programs that are included if they are installed; a test whose program is absent prints that it
/// is skipped. The tests need the real programs, not those of busybox.
const PROGRAMS: [&str; 15] = [
    "bash", "bpftool", "curl", "dnsmasq", "ip", "nft", "nsenter", "openssl", "prlimit", "setpriv",
    "sleep", "ss", "tc", "tcpdump", "unshare",
];

/// Files that those programs need, with source and destination.
const FILES: [(&str, &str); 1] = [("/etc/ssl/openssl.cnf", "/usr/lib/ssl/openssl.cnf")];

/// Where the agent and its tests lie inside.
const AGENT: &str = "/proof/portolan";
const TESTS: &str = "/proof/live";
/// The environment of the tests: where the agent is, and how much slower things are here.
const TEST_VARIABLES: &str = "PORTOLAN_BIN=/proof/portolan PORTOLAN_TEST_SLOWNESS=10";

/// Printed on the console when all is done.
pub const DONE: &str = "proof: done with ";

/// The work inside the machine.
#[derive(Clone, Copy, Debug)]
pub enum Task<'a> {
    /// The live tests whose names contain one of these; all of them if there are none.
    Tests(&'a [String]),
    /// One live test, by its whole name.
    Test(&'a str),
    /// A script of the user; agent and tests are in `/proof`.
    Script(&'a str),
    /// The agent, which is expected to refuse.
    Refusal,
}

/// The initramfs for a kernel of an architecture.
pub fn build(
    architecture: &Architecture,
    kernel: &Path,
    agent: &Path,
    tests: &Path,
    task: Task<'_>,
) -> Result<Vec<u8>> {
    let userland = Userland::of(architecture)?;
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "root", "var/lib"] {
        archive.folder(folder);
    }
    // Until devtmpfs is mounted, init itself needs a console.
    archive.device("/dev/console", 5, 1);
    archive.device("/dev/null", 1, 3);
    archive.file("/etc/passwd", b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n");
    archive.file("/etc/resolv.conf", b"");
    archive.file("/etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n");
    archive.file("/etc/group", b"root:x:0:\nnogroup:x:65534:\n");
    let mut libraries = BTreeSet::new();
    for (from, to) in [(agent, AGENT), (tests, TESTS)] {
        archive.file(to, &stripped(architecture, from)?);
        libraries.extend(userland.libraries(from)?);
    }
    let busybox = userland.program("busybox").context("busybox is not installed")?;
    archive.file("/bin/busybox", &read(&busybox)?);
    libraries.extend(userland.libraries(&busybox)?);
    for name in PROGRAMS {
        let Some(program) = userland.program(name) else { continue };
        archive.file(&format!("/bin/{name}"), &read(&program)?);
        libraries.extend(userland.libraries(&program)?);
    }
    for (from, to) in FILES {
        if let Ok(content) = fs::read(userland.file(from)) {
            archive.file(to, &content);
        }
    }
    for (from, to) in libraries {
        archive.file(&to, &read(&from)?);
    }
    for (number, module) in modules::in_order(kernel)?.into_iter().enumerate() {
        archive.file(&format!("/modules/{number:03}-{}.ko", module.name), &module.bytes);
    }
    archive.file("/init", init(task).as_bytes());
    Ok(archive.finish())
}

/// The first process.
fn init(task: Task<'_>) -> String {
    let tests = format!("{TEST_VARIABLES} {TESTS} --test-threads=1 --show-output");
    let task = match task {
        Task::Tests(filter) => {
            let filter: Vec<String> = filter.iter().map(|word| quoted(word)).collect();
            format!("{tests} {}", filter.join(" "))
        }
        Task::Test(name) => format!("{tests} --exact {}", quoted(name)),
        Task::Script(script) => format!("sh -c {}", quoted(script)),
        Task::Refusal => format!("{AGENT} agent"),
    };
    // Only emergencies may appear between the lines of the tests (dmesg -n 1).
    format!(
        "#!/bin/busybox sh
export PATH=/bin HOME=/root TERM=dumb
/bin/busybox --install -s /bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
dmesg -n 1
ip link set lo up
ulimit -n 65536
for module in /modules/*.ko; do insmod $module || echo \"proof: no module $module\"; done
# The firmware leaves its console in the middle of a line.
echo
echo \"proof: kernel $(uname -r)\"
{task} 2>&1
echo \"{DONE}$?\"
sync
poweroff -f
"
    )
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// A program without debug information: the machine has little memory.
fn stripped(architecture: &Architecture, program: &Path) -> Result<Vec<u8>> {
    let place = tempfile::tempdir().context("making a temporary folder")?;
    let small = place.path().join("small");
    let mut strip = Command::new(architecture.strip);
    match shell::probe(strip.arg("--strip-debug").arg("-o").arg(&small).arg(program)) {
        Some(_) => read(&small),
        None => read(program),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_cannot_become_a_command() {
        let filter = ["a'; poweroff".to_owned()];
        assert!(init(Task::Tests(&filter)).contains(r"'a'\''; poweroff'"));
    }
}
