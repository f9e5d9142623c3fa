//! Debian packages: installed ones, available ones, and installation without starting daemons.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Debian runs this script before it starts a service; 101 means no.
const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_SAVED: &str = "/usr/sbin/policy-rc.d.before-portolan";
const POLICY_SCRIPT: &str =
    "#!/bin/sh\n# Portolan's setup installs packages, it starts none.\nexit 101\n";

/// The services that packages of ours bring along and that must not start at the next boot.
const SERVICES: [(&str, &str); 9] = [
    ("containerd", "containerd"),
    ("docker.io", "docker"),
    ("nginx-light", "nginx"),
    ("redis-server", "redis-server"),
    ("podman", "podman.socket"),
    ("podman", "podman-auto-update.timer"),
    ("postgresql", "postgresql"),
    ("prometheus", "prometheus"),
    ("nftables", "nftables"),
];

/// Whether this machine has Debian's package tools.
pub fn is_here() -> bool {
    shell::exists("apt-get") && shell::exists("dpkg-query")
}

/// Those of `packages` that are not installed.
pub fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]).args(packages);
    // dpkg-query fails if it does not know one of them, but lists the others.
    let listed = query.output().map(|output| output.stdout).unwrap_or_default();
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let installed: HashSet<&str> =
        listed.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    packages.iter().copied().filter(|package| !installed.contains(package)).collect()
}

/// Those of `packages` that apt cannot offer, even with fresh lists.
pub fn unknown<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let unknown = without_candidate(packages);
    if unknown.is_empty() || !shell::is_root() {
        return unknown;
    }
    println!("refreshing the package lists");
    if let Err(error) = update() {
        println!("the package lists stay as they are: {error:#}");
    }
    without_candidate(packages)
}

/// Installs packages without removing others and without starting what they contain.
pub fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if !shell::is_root() {
        bail!("installing {} needs root: run the same command as root", packages.join(", "));
    }
    // Each ends by letting services start again: two at once would let those of the other one.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    println!("installing {}", packages.join(" "));
    let policy = NoStarts::begin()?;
    // Old lists name files that the servers no longer have: one retry with fresh lists.
    let done = get(packages).or_else(|_| update().and_then(|()| get(packages)));
    drop(policy);
    done?;
    disable_services(packages);
    Ok(())
}

fn get(packages: &[&str]) -> Result<()> {
    let options = ["install", "--yes", "--quiet", "--no-install-recommends", "--no-remove"];
    shell::quiet(apt_get().args(options).args(packages))
}

fn update() -> Result<()> {
    shell::quiet(apt_get().args(["update", "--quiet"]))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    // Another apt may be running on a fresh machine.
    command.args(["-o", "DPkg::Lock::Timeout=120"]);
    command
}

fn without_candidate<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let mut policy = Command::new("apt-cache");
    let listed = shell::probe(policy.env("LC_ALL", "C").arg("policy").args(packages));
    let offered = candidates(listed.as_deref().unwrap_or_default());
    packages.iter().copied().filter(|package| !offered.contains(*package)).collect()
}

/// The packages of an `apt-cache policy` listing that have a version to install.
fn candidates(policy: &str) -> HashSet<String> {
    let mut package = "";
    let mut offered = HashSet::new();
    for line in policy.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with(' ')) {
            package = name;
        } else if let Some(version) = line.trim_start().strip_prefix("Candidate: ")
            && version != "(none)"
        {
            offered.insert(package.to_owned());
        }
    }
    offered
}

/// Keeps installed services from starting at the next boot.
fn disable_services(packages: &[&str]) {
    let installed = SERVICES.iter().filter(|(package, _)| packages.contains(package));
    let services: Vec<&str> = installed.map(|(_, service)| *service).collect();
    if !services.is_empty() && shell::exists("systemctl") {
        // Nothing is lost where it fails: such a machine has no systemd to start them.
        shell::probe(Command::new("systemctl").args(["disable", "--quiet"]).args(services));
    }
}

/// While this exists, Debian starts no service.
struct NoStarts;

impl NoStarts {
    fn begin() -> Result<Self> {
        // A run that was killed leaves its own script behind: the saved one is the original.
        if !Path::new(POLICY_SAVED).exists() && !is_ours() {
            rename_if_there(POLICY, POLICY_SAVED)
                .context("setting the machine's policy-rc.d aside")?;
        }
        let guard = Self;
        fs::write(POLICY, POLICY_SCRIPT).context("writing policy-rc.d")?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
            .context("making policy-rc.d executable")?;
        Ok(guard)
    }
}

impl Drop for NoStarts {
    fn drop(&mut self) {
        let removed = if is_ours() { fs::remove_file(POLICY) } else { Ok(()) };
        if let Err(error) = removed.and_then(|()| rename_if_there(POLICY_SAVED, POLICY)) {
            eprintln!("{POLICY_SAVED} could not be put back, do it by hand: {error}");
        }
    }
}

fn is_ours() -> bool {
    fs::read_to_string(POLICY).is_ok_and(|script| script == POLICY_SCRIPT)
}

fn rename_if_there(from: &str, to: &str) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_with_a_version_are_candidates() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0\n  Version table:\n\
                      \x20    1.96.0 500\nghost:\n  Installed: (none)\n  Candidate: (none)\n";
        assert_eq!(candidates(policy), HashSet::from(["rustc-web".to_owned()]));
    }
}
