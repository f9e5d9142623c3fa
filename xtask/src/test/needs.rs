//! The programs that tests use: real servers, load generators, and tools that inspect the kernel.

use anyhow::Result;
use portolan_kit::{apt, shell, tracefs};

const PACKAGES: [&str; 30] = [
    "bpftool",
    "bpftrace",
    "busybox-static",
    "chromium",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "dnsmasq-base",
    "docker-compose",
    "docker.io",
    "haproxy",
    "iperf3",
    "iproute2",
    "iptables",
    "jq",
    "libbpf-tools",
    "nftables",
    "nginx-light",
    "openssl",
    "podman",
    "postgresql",
    "procps",
    "prometheus",
    "redis-server",
    "redis-tools",
    "runc",
    "systemd-container",
    "tcpdump",
    "tshark",
    "wrk",
];

/// Installs missing programs, or prints what the tests will lack.
pub fn install() -> Result<()> {
    if shell::is_root()
        && let Err(error) = tracefs::mount()
    {
        println!("tests that compare with bpftrace are skipped: {error:#}");
    }
    if !apt::is_here() {
        println!("not a Debian system: tests skip what they find no program for");
        return Ok(());
    }
    let mut missing = apt::missing(&PACKAGES);
    // Node.js often comes from elsewhere, and any version will do.
    if !shell::exists("node") {
        missing.push("nodejs");
    }
    if !shell::exists("npm") {
        missing.push("npm");
    }
    if missing.is_empty() {
        return Ok(());
    }
    if !shell::is_root() {
        println!("without root these are not installed: {}", missing.join(" "));
        return Ok(());
    }
    let unknown = apt::unknown(&missing);
    if !unknown.is_empty() {
        println!("this release does not offer {}: their tests are skipped", unknown.join(", "));
    }
    missing.retain(|package| !unknown.contains(package));
    apt::install(&missing)
}
