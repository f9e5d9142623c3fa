//! An unprivileged user makes namespaces and mounts with paths that block forever when they are
//! opened. The agent inspects these namespaces as root, and must not open the paths.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::facts::{KernelObjects, patience};
use crate::namespace::{self, Pair};
use crate::net;

/// A user id without any rights.
const USER: u32 = 1500;
/// Timeout for the agent to stop.
const END_WITHIN: Duration = Duration::from_secs(2);
/// A network namespace is mounted at `$D/in/ns`. What is there then, and how it is laid.
const TRAPS: [(&str, &str); 5] = [
    ("a FIFO", "mount -t tmpfs t $D/in && mkfifo $D/in/ns"),
    ("a link", "mount -t tmpfs t $D/in && mkfifo $D/in/fifo && ln -s fifo $D/in/ns"),
    ("a link to the host's files", "mount -t tmpfs t $D/in && ln -s $D-fifo $D/in/ns"),
    ("a mounted FIFO", "mount --bind $D-fifo $D/in/ns"),
    ("below a link", "mount -t tmpfs t $D && mkdir $D/a && mkfifo $D/a/ns && ln -s a $D/in"),
];

/// A process of that user, in user, mount and network namespaces of its own.
struct Tenant {
    process: Child,
    _folder: tempfile::TempDir,
}

impl Tenant {
    /// Mounts a namespace and lays the trap over it; the reason if namespaces are not to be had.
    fn lay(trap: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("tenant");
        fs::create_dir(&path).expect("a directory in one of ours");
        for of_tenant in [folder.path(), &path] {
            chown(of_tenant, Some(USER), Some(USER)).expect("giving a directory of ours away");
        }
        let script = format!(
            "mkfifo $D-fifo && mkdir $D/in && touch $D/in/ns && \
             mount --bind /proc/self/ns/net $D/in/ns && {trap} && \
             exec unshare --net sh -c 'echo laid; exec sleep infinity'"
        );
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={USER}"), format!("--regid={USER}")])
            .args(["--clear-groups", "unshare", "--user", "--map-root-user", "--net", "--mount"])
            .args(["--propagation", "private", "sh", "-c", &script])
            .env("D", &path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process =
            command.spawn().map_err(|error| format!("starting {command:?}: {error}"))?;
        let mut said = String::new();
        let output = process.stdout.take().expect("stdout is piped");
        BufReader::new(output).read_line(&mut said).expect("what it says is UTF-8");
        if said.trim() == "laid" {
            return Ok(Self { process, _folder: folder });
        }
        let output = process.wait_with_output().expect("waiting for a program we started");
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A network namespace that no process is in, as `ip netns add` leaves it.
struct Named(String);

impl Named {
    fn new(name: String) -> Self {
        let made = Command::new("ip").args(["netns", "add", &name]).status();
        assert!(made.is_ok_and(|status| status.success()), "ip netns add {name}");
        Self(name)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Whether users may make namespaces here.
fn user_namespaces() -> bool {
    match Tenant::lay("true") {
        Ok(_) => true,
        Err(why) => {
            println!("SKIPPED: a user cannot make namespaces here: {why}");
            false
        }
    }
}

fn lay_all() -> Vec<Tenant> {
    let lay = |(what, trap)| Tenant::lay(trap).unwrap_or_else(|why| panic!("{what}: {why}"));
    TRAPS.into_iter().map(lay).collect()
}

#[test]
fn namespaces_hidden_behind_fifos_and_links_delay_nothing() {
    needs_kernel!();
    if !user_namespaces() {
        return;
    }
    let kernel = KernelObjects::now();
    let before = lay_all();
    let service = format!("trap-{:x}", std::process::id() & 0xff_ffff);
    let mounted = Named::new(service.clone());
    let listen = || namespace::within_named(&mounted.0, || TcpListener::bind("127.0.0.1:0"));
    let listener = namespace::called(&service, listen).unwrap().unwrap();
    let port = net::port(&listener);
    let settings = [("names.conntrack", "true")];
    let agent = namespace::called(&service, || Agent::with(&settings));
    // A namespace held only by an honest mount is found all the same.
    let port = port.to_string();
    let labels = [("service", service.as_str()), ("port", &port)];
    agent.eventually(1, |now| now.sum("portolan_port_listeners", &labels));

    let meanwhile = lay_all();
    // Its addresses are known after the next search of namespaces.
    let pair = Pair::new();
    let connection = pair.connection();
    let (client, server) = (&pair.client.service, &pair.server.service);
    agent.eventually(1, |now| now.edge(client, server, connection.port, "client").connects("ok"));

    let began = Instant::now();
    agent.stop();
    assert!(began.elapsed() < patience(END_WITHIN), "it took {:?} to end", began.elapsed());
    kernel.nothing_new_stays();
    drop((before, meanwhile, listener));
}
