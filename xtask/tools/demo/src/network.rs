//! The shop's network: a namespace per host, a bridge per segment, and a router between them.
//!
//! The machine's own network is not changed; dropping a [`Network`] removes everything.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use portolan_kit::shell;

use crate::cleanup::{Cleanup, Resource};

/// The prefix of our namespaces.
const PREFIX: &str = "shop-";
const ROUTER: &str = "shop-router";
/// Second octets of the segments: frontend, backend, database, monitoring.
const SEGMENTS: [u8; 4] = [20, 21, 22, 23];

/// A host: the name of its namespace, and its address as 172.segment.0.host.
pub struct Host {
    pub name: &'static str,
    pub segment: u8,
    pub number: u8,
}

pub const HOSTS: [Host; 10] = [
    Host { name: "users", segment: 20, number: 3 },
    Host { name: "gateway", segment: 20, number: 2 },
    Host { name: "auth", segment: 21, number: 2 },
    Host { name: "catalog", segment: 21, number: 3 },
    Host { name: "orders-lb", segment: 21, number: 4 },
    Host { name: "orders-1", segment: 21, number: 5 },
    Host { name: "orders-2", segment: 21, number: 6 },
    Host { name: "orders-3", segment: 21, number: 7 },
    Host { name: "orders-db", segment: 22, number: 2 },
    Host { name: "cache", segment: 22, number: 3 },
];

/// All namespaces of the shop.
pub struct Network(());

impl Network {
    /// Creates it. An existing namespace with one of these names is not touched.
    pub fn new(cleanup: &mut Cleanup) -> Result<Self> {
        let listed = shell::output(Command::new("ip").args(["netns", "list"]))?;
        let there: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
        for name in names() {
            if there.contains(&name.as_str()) {
                bail!(
                    "there is a network namespace {name} already, not made by this demo: \
                     remove it with `ip netns del {name}`"
                );
            }
            cleanup.note(&Resource::Netns(name))?;
        }
        let network = Self(());
        let mut batch = format!("netns add {ROUTER}\n");
        for Host { name, .. } in &HOSTS {
            let _ = writeln!(batch, "netns add {PREFIX}{name}");
        }
        ip(&[], &batch).context("making network namespaces")?;
        let mut router = String::from("link set lo up\n");
        for segment in SEGMENTS {
            let _ = write!(
                router,
                "link add br{segment} type bridge\naddr add 172.{segment}.0.1/16 dev br{segment}\n\
                 link set br{segment} up\n"
            );
        }
        for (index, Host { name, segment, .. }) in HOSTS.iter().enumerate() {
            let _ = write!(
                router,
                "link add v{index} type veth peer name eth0 netns {PREFIX}{name}\n\
                 link set v{index} master br{segment} up\n"
            );
        }
        ip(&["-n", ROUTER], &router).context("joining the segments")?;
        for Host { name, segment, number } in &HOSTS {
            let inside = format!(
                "link set lo up\naddr add 172.{segment}.0.{number}/16 dev eth0\nlink set eth0 up\n\
                 route add default via 172.{segment}.0.1\n"
            );
            ip(&["-n", &format!("{PREFIX}{name}")], &inside)
                .context("giving a host its address")?;
        }
        run_in("router", "sysctl", &["-q", "-w", "net.ipv4.ip_forward=1"])?;
        Ok(network)
    }
}

impl Drop for Network {
    /// Links and bridges go with the namespaces.
    fn drop(&mut self) {
        for name in names() {
            shell::probe(Command::new("ip").args(["netns", "del", &name]));
        }
    }
}

/// A program to be started at a host.
pub fn command(host: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &format!("{PREFIX}{host}"), program]);
    command
}

/// Runs a program at a host to its end.
pub fn run_in(host: &str, program: &str, arguments: &[&str]) -> Result<()> {
    shell::quiet(command(host, program).args(arguments))
}

fn ip(options: &[&str], batch: &str) -> Result<()> {
    feed(Command::new("ip").args(options).args(["-batch", "-"]), batch)
}

/// Runs a program that reads `input`.
pub fn feed(command: &mut Command, input: &str) -> Result<()> {
    use std::io::Write as _;
    let name = shell::name_of(command);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting `{name}`"))?;
    let mut stdin = child.stdin.take().context("no pipe to a program")?;
    stdin.write_all(input.as_bytes()).with_context(|| format!("talking to `{name}`"))?;
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("waiting for `{name}`"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "`{name}` failed: {}", stderr.trim());
    Ok(())
}

/// The namespaces' names.
fn names() -> impl Iterator<Item = String> {
    let hosts = HOSTS.iter().map(|host| format!("{PREFIX}{}", host.name));
    std::iter::once(ROUTER.to_owned()).chain(hosts)
}
