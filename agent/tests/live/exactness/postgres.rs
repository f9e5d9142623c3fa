//! PostgreSQL: a known number of transactions, over kept connections and over one connection each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::programs::{Server, free_port_in};
use super::{Between, Books, Load, Watcher, equal, equal_bytes, missing};
use crate::agent::Agent;
use crate::namespace::{Namespace, Pair};

const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(10);

/// A cluster of its own, as the user postgres, which the server insists on.
pub(super) struct Postgres {
    /// Where it listens.
    pub(super) port: u16,
    programs: PathBuf,
    _server: Server,
    _directory: TempDir,
}

/// Where Debian puts the server's programs.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut folders: Vec<_> = versions.flatten().map(|entry| entry.path().join("bin")).collect();
    folders.retain(|folder| folder.join("postgres").exists() && folder.join("pgbench").exists());
    folders.sort();
    folders.pop()
}

/// Why it cannot run here, if so.
pub(super) fn cannot_run() -> Option<String> {
    if programs().is_none() {
        return Some("not installed: postgresql".to_owned());
    }
    if user().is_none() {
        return Some("user postgres does not exist".to_owned());
    }
    missing(&["setpriv"])
}

/// User and group id of postgres.
fn user() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let mut words =
        users.lines().find_map(|line| line.strip_prefix("postgres:"))?.split(':').skip(1);
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

impl Postgres {
    pub(super) fn start(namespace: &Namespace) -> Self {
        let programs = programs().expect("looked for before");
        let (uid, gid) = user().expect("looked for before");
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid)).expect("giving it away");
        let data = directory.path().join("data");
        // The user changes after the namespace, which takes root.
        let as_postgres = |command: &mut Command, program: &str| {
            command.current_dir("/").arg("--clear-groups");
            command.args([format!("--reuid={uid}"), format!("--regid={gid}")]);
            command.arg(programs.join(program)).arg("-D").arg(&data);
        };
        let mut command = Command::new("setpriv");
        as_postgres(&mut command, "initdb");
        command.args(["--auth=trust", "--no-sync", "--username=postgres", "--no-instructions"]);
        Load::run(&mut command);
        let rule = "host all all 0.0.0.0/0 trust\n";
        append(&data.join("pg_hba.conf"), rule);
        let port = free_port_in(namespace);
        let mut command = namespace.command("setpriv");
        as_postgres(&mut command, "postgres");
        command.args(["-p", &port.to_string(), "-c", "fsync=off"]);
        command.args(["-c", &format!("listen_addresses={}", namespace.v4)]);
        command.args(["-c", "unix_socket_directories="]);
        let server = Server::start(&mut command, namespace, port, libc::SIGINT);
        // It listens before it is ready, and writes to its lock file when it is.
        let began = Instant::now();
        let is_ready = || {
            let lock = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            lock.lines().nth(7).is_some_and(|status| status.trim() == "ready")
        };
        while !is_ready() {
            assert!(began.elapsed() < PATIENCE, "PostgreSQL does not get ready");
            thread::sleep(PAUSE);
        }
        Self { port, programs, _server: server, _directory: directory }
    }

    /// pgbench from `client`, one round trip per connection start.
    pub(super) fn pgbench(&self, client: &Namespace, server: &Namespace, options: &str) -> Load {
        let mut command = client.command(&self.programs.join("pgbench").to_string_lossy());
        command.env("PGSSLMODE", "disable").env("PGGSSENCMODE", "disable");
        command.args(["-h", &server.v4.to_string(), "-p", &self.port.to_string()]);
        command.args(["-U", "postgres"]).args(options.split(' ')).arg("postgres");
        Load::run(&mut command)
    }
}

fn append(file: &Path, text: &str) {
    let before = fs::read_to_string(file).expect("a file of the cluster");
    fs::write(file, before + text).expect("writing a file of the cluster");
}

#[test]
fn every_transaction_of_pgbench_is_one_request() {
    needs_kernel!();
    if let Some(why) = cannot_run() {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let agent = Agent::start();
    let postgres = Postgres::start(&pair.server);
    let between = Between { client: "pgbench", server: "postgres", port: postgres.port };
    let books = Books::open(&pair, &agent);
    postgres.pgbench(&pair.client, &pair.server, "-i -q -s 1");
    let filled = books.close(&pair, &agent, between);
    both_sides_agree(filled.client_sent, filled.server_received, filled.slack);

    // Kept connections: one that checks the tables with two queries, then one per client.
    let bench = |options: &str| postgres.pgbench(&pair.client, &pair.server, options);
    let pgbench = Watcher::during(&agent, || bench("-S -n -c 4 -j 2 -t 1000"));
    let done = pgbench.number("number of transactions actually processed:");
    assert_eq!(done, 4000);
    let kept = books.close(&pair, &agent, between);
    let (connections, slack) = (5, kept.slack);
    equal("connections", kept.connects - filled.connects, connections, slack);
    let requests = connections + 2 + done;
    equal("client", kept.client_requests - filled.client_requests, requests, slack);
    equal("server", kept.server_requests - filled.server_requests, requests, slack);

    // -C: a connection per transaction.
    let pgbench = Watcher::during(&agent, || bench("-S -n -C -c 4 -t 40"));
    let done = pgbench.number("number of transactions actually processed:");
    assert_eq!(done, 160);
    let each = books.close(&pair, &agent, between);
    let (connections, slack) = (1 + done, each.slack);
    equal("connections", each.connects - kept.connects, connections, slack);
    let requests = connections + 2 + done;
    equal("client", each.client_requests - kept.client_requests, requests, slack);
    equal("server", each.server_requests - kept.server_requests, requests, slack);
    both_sides_agree(each.client_sent, each.server_received, slack);
    both_sides_agree(each.server_sent, each.client_received, slack);
    agent.stop();
}

/// PostgreSQL does not count bytes; each side received what the other sent.
#[track_caller]
fn both_sides_agree(sent: u64, received: u64, slack: u64) {
    let (less, more) = (sent.min(received), sent.max(received));
    equal_bytes("bytes of either side", less, more, slack);
}
