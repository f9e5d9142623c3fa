//! The Debian package, installed with dpkg in a machine whose first process is systemd: the unit
//! runs, confined, notifies systemd, keeps its state over an upgrade and a removal, and leaves nothing
//! in the kernel.
//!
//! The machine's files are this host's, under an overlay that is discarded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::facts::{KernelObjects, patience};

/// The script that runs inside; every result goes into a file.
const SCRIPT: &str = r#"
cd /out
dpkg --install portolan.deb > install.log 2>&1; echo $? > installed
for i in $(seq 1 150); do [ "$(systemctl is-active portolan)" = active ] && break; sleep 0.1; done
systemctl is-active portolan > active
show() { systemctl show --property="$1" --value portolan; }
cat /proc/$(show MainPID)/status > status
show StatusText > text
show WatchdogTimestampMonotonic > watchdog
portolan status > answer 2>&1
portolan ports reserve 4711 --for another > reserved 2>&1
systemctl kill --signal=KILL portolan
for i in $(seq 1 100); do [ "$(show NRestarts)" = 1 ] && [ "$(systemctl is-active portolan)" = active ] && break; sleep 0.1; done
show NRestarts > restarts
portolan ports --output json > ports 2>&1
man --pager=cat portolan-agent > manual 2>&1
before=$(show MainPID)
echo '# edited' >> /etc/portolan/portolan.toml
# The next version, as far as dpkg can tell.
dpkg-deb --raw-extract portolan.deb next && sed -i 's/^Version: .*/Version: 9.9.9-1/' next/DEBIAN/control
dpkg-deb -Znone --build next portolan-next.deb > upgrade.log 2>&1
dpkg --install portolan-next.deb >> upgrade.log 2>&1; echo $? > upgraded
for i in $(seq 1 150); do [ "$(systemctl is-active portolan)" = active ] && [ "$(show MainPID)" != "$before" ] && break; sleep 0.1; done
[ "$(show MainPID)" != "$before" ] && systemctl is-active portolan > active_after
portolan ports --output json > ports_after 2>&1
journalctl --no-pager --unit=portolan > journal
systemctl stop portolan; systemctl is-active portolan > stopped
systemctl start portolan
dpkg --remove portolan > remove.log 2>&1
systemctl is-active portolan > removed
ls -d /usr/bin/portolan /var/lib/portolan/state.json /etc/portolan/portolan.toml > kept 2>/dev/null
dpkg --purge portolan > purge.log 2>&1
ls -d /var/lib/portolan /var/log/portolan /etc/portolan /usr/bin/portolan /usr/share/portolan > remains 2>/dev/null
touch done
"#;

const UNIT: &str =
    "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/sh /out/script\n";
const TARGET: &str = "[Unit]\nDefaultDependencies=no\nWants=portolan-test.service\n";

/// The capabilities of the unit; the machine has no more.
const CAPABILITIES: &str =
    "CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN,CAP_SYS_ADMIN,CAP_SYS_PTRACE,CAP_DAC_READ_SEARCH";

/// CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYS_ADMIN: kept after startup.
const KEPT: u64 = 1 << 2 | 1 << 12 | 1 << 19 | 1 << 21;

const PATIENCE: Duration = Duration::from_mins(2);

/// The output of `cargo xtask package`.
fn deb() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/package/portolan.deb");
    here.is_file().then_some(here)
}

/// A machine that runs the script; it and its files are removed when dropped.
struct Machine {
    folder: tempfile::TempDir,
    child: Child,
}

impl Machine {
    fn boot(deb: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("out")).unwrap();
        fs::create_dir(path("layer")).unwrap();
        fs::copy(deb, path("out/portolan.deb")).unwrap();
        fs::write(path("out/script"), SCRIPT).unwrap();
        mount(&["-t", "tmpfs", "tmpfs"], &path("layer"));
        for name in ["layer/up", "layer/work", "layer/root"] {
            fs::create_dir(path(name)).unwrap();
        }
        let (up, work) = (path("layer/up"), path("layer/work"));
        let layers = format!("lowerdir=/,upperdir={},workdir={}", up.display(), work.display());
        mount(&["-t", "overlay", "-o", &layers, "overlay"], &path("layer/root"));
        let root = path("layer/root");
        // Files of the host that do not fit, and a policy that would keep services from starting.
        for name in ["etc/machine-id", "usr/sbin/policy-rc.d"] {
            let _ = fs::remove_file(root.join(name));
        }
        fs::write(root.join("etc/systemd/system/portolan-test.service"), UNIT).unwrap();
        fs::write(root.join("etc/systemd/system/portolan-test.target"), TARGET).unwrap();
        let mut command = Command::new("systemd-nspawn");
        command.args(["--quiet", "--boot", "--register=no", "--keep-unit", "--private-network"]);
        command.args(["--kill-signal=SIGRTMIN+4", "--system-call-filter=bpf"]);
        command.arg(format!("--capability={CAPABILITIES}"));
        command.arg(format!("--machine=portolan-deb-{}", std::process::id()));
        command.arg(format!("--directory={}", root.display()));
        command.arg(format!("--bind={}:/out", path("out").display()));
        command.args(["systemd.unit=portolan-test.target", "systemd.firstboot=off"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("starting a machine");
        Self { folder, child }
    }

    /// A result of the script.
    fn result(&self, name: &str) -> String {
        let text = fs::read_to_string(self.folder.path().join("out").join(name));
        text.unwrap_or_default().trim().to_owned()
    }

    fn is_done(&self) -> bool {
        self.folder.path().join("out/done").exists()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // SAFETY: kill touches no memory; the child is ours and was not waited for.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed().as_secs() < 15 {
            thread::sleep(Duration::from_millis(100));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for name in ["layer/root", "layer"] {
            let path = self.folder.path().join(name);
            let _ = Command::new("umount").arg("--lazy").arg(path).status();
        }
    }
}

fn mount(arguments: &[&str], at: &Path) {
    let output = Command::new("mount").args(arguments).arg(at).output().expect("starting mount");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_debian_package_runs_under_systemd_and_can_be_purged() {
    needs_kernel!();
    if !Path::new("/usr/bin/dpkg").exists() || !Path::new("/usr/bin/systemd-nspawn").exists() {
        println!("SKIPPED: no dpkg or no systemd-nspawn");
        return;
    }
    let Some(deb) = deb() else {
        println!("SKIPPED: no package; `cargo xtask package` makes it");
        return;
    };
    let before = KernelObjects::now();
    let machine = Machine::boot(&deb);
    let began = Instant::now();
    while !machine.is_done() {
        assert!(began.elapsed() < patience(PATIENCE), "{}", machine.result("install.log"));
        thread::sleep(Duration::from_millis(100));
    }
    let result = |name: &str| machine.result(name);
    assert_eq!(result("installed"), "0", "{}", result("install.log"));
    assert_eq!(result("active"), "active", "{}", result("journal"));
    assert!(result("text").starts_with("listening on http://127.0.0.1:"), "{}", result("text"));
    assert_ne!(result("watchdog"), "0", "the watchdog is fed");

    let status = result("status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_default().to_owned()
    };
    for set in ["CapEff", "CapPrm"] {
        assert_eq!(u64::from_str_radix(&field(set), 16), Ok(KEPT), "{set}: {status}");
    }
    assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"), "{status}");

    assert!(result("answer").contains("inet_sock_set_state"), "{}", result("answer"));
    // Killed, it is restarted, and still has its state.
    assert_eq!(result("restarts"), "1", "{}", result("journal"));
    assert!(result("ports").contains("another"), "{}\n{}", result("reserved"), result("ports"));
    assert!(result("journal").contains("kernel object sha256:"), "{}", result("journal"));
    assert!(result("manual").contains("--web.listen-address"), "{}", result("manual"));
    // An upgrade starts the new agent, with the state and the configuration of the old one.
    assert_eq!(result("upgraded"), "0", "{}", result("upgrade.log"));
    assert_eq!(result("active_after"), "active", "{}", result("journal"));
    assert!(result("ports_after").contains("another"), "{}", result("ports_after"));
    assert_eq!(result("stopped"), "inactive");
    // Removed, it is stopped, and leaves what a new installation goes on with.
    assert_ne!(result("removed"), "active", "{}", result("remove.log"));
    assert_eq!(
        result("kept"),
        "/etc/portolan/portolan.toml\n/var/lib/portolan/state.json",
        "{}",
        result("remove.log")
    );
    assert_eq!(result("remains"), "", "{}", result("purge.log"));
    drop(machine);
    before.nothing_new_stays();
}
