//! systemd units: a real systemd boots in a machine of its own, with two units that talk.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{Edge, edge, expect, lacking};
use crate::agent::Agent;

const WEB: &str =
    "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/busybox httpd -f -p 8080\n";
const SHOP: &str = "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sh -c 'while :; do /bin/busybox wget -q -O /dev/null http://127.0.0.1:8080/; sleep 0.1; done'\n";
const TARGET: &str =
    "[Unit]\nDefaultDependencies=no\nWants=portolan-web.service portolan-shop.service\n";

/// A machine with only `/usr` of this host; it ends when dropped.
pub(super) struct Machine(Child);

impl Machine {
    /// With two services that talk.
    pub(super) fn boot(folder: &Path) -> Self {
        Self::with(
            folder,
            &[
                ("portolan-web.service", WEB),
                ("portolan-shop.service", SHOP),
                ("portolan.target", TARGET),
            ],
        )
    }

    /// With these files among its units, of which `portolan.target` says what to start.
    pub(super) fn with(folder: &Path, units: &[(&str, &str)]) -> Self {
        let mut command = Command::new("systemd-nspawn");
        command.args(["--quiet", "--directory=/", "--volatile=yes", "--boot", "--register=no"]);
        command.args(["--keep-unit", "--private-network", "--kill-signal=SIGRTMIN+4"]);
        command.arg(format!("--machine=portolan-{}", std::process::id()));
        for (name, text) in units {
            let path = folder.join(name);
            fs::write(&path, text).expect("writing a unit");
            command.arg(format!("--bind-ro={}:/etc/systemd/system/{name}", path.display()));
        }
        // No unit that this host would start.
        command.args(["systemd.unit=portolan.target", "systemd.firstboot=off"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("starting a machine"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            // Asks it to power off; the second time would be at once.
            // SAFETY: kill touches no memory; the child is ours and was not waited for.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let began = std::time::Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && began.elapsed().as_secs() < 10 {
            std::thread::sleep(super::PAUSE);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Missing programs.
pub(super) fn missing() -> Option<&'static str> {
    let systemd = Path::new("/lib/systemd/systemd").exists();
    lacking(&["systemd-nspawn", "busybox"]).or((!systemd).then_some("systemd"))
}

pub(super) fn expected() -> Vec<Edge> {
    vec![
        edge("/portolan-shop", "/portolan-web", 8080, "client", ("unit", "listener")),
        edge("/portolan-shop", "/portolan-web", 8080, "server", ("unit", "unit")),
    ]
}

pub(super) fn of_units(name: &str) -> bool {
    name.contains("/portolan-")
}

#[test]
fn what_runs_in_a_unit_is_called_by_the_unit() {
    needs_kernel!();
    if let Some(program) = missing() {
        println!("SKIPPED: {program} is not installed");
        return;
    }
    let agent = Agent::with(&[("names.units", "true")]);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let _machine = Machine::boot(folder.path());
    let all = expect(&agent, &expected(), of_units);
    let ours = all.iter().filter(|row| super::end(row, "client") == "/portolan-shop");
    assert!(ours.into_iter().all(|row| row["server_kind"] == "unit"));
    agent.stop();
}
