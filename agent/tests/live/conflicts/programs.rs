//! Real programs that meet on a port: the second PostgreSQL, Redis, nginx and Node, as a user
//! would meet them, each with its own way to fail and its own patience.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::claim::conflict_of;
use crate::agent::Agent;
use crate::namespace::{Namespace, Pair};

const PATIENCE: Duration = Duration::from_secs(30);

/// Returns if a program is not installed, saying so.
macro_rules! needs {
    ($($program:expr),+) => {
        $( if !is_here($program) {
            println!("SKIPPED: {} is not installed", $program);
            return;
        } )+
    };
}

fn is_here(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').any(|folder| Path::new(folder).join(program).is_file())
}

/// A program that runs; killed in the end.
struct Running(Child);

impl Running {
    /// Starts it and waits until it listens.
    fn start(command: &mut Command, namespace: &Namespace, port: u16) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Self(command.spawn().expect("starting a server"));
        let began = Instant::now();
        while !listens(namespace, port) {
            assert_eq!(running.0.try_wait().unwrap(), None, "{command:?} ended at once");
            assert!(began.elapsed() < PATIENCE, "{command:?} does not listen on {port}");
            thread::sleep(Duration::from_millis(20));
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: kill touches no memory; the child was not waited for, so the pid is its own.
        unsafe { libc::kill(i32::try_from(self.0.id()).unwrap_or(0), libc::SIGINT) };
        let began = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && began.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs one that cannot get its port, to its end.
fn fail(command: &mut Command) {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("starting a server");
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(!status.success(), "{command:?} should have failed");
            return;
        }
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} does not give up");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn listens(namespace: &Namespace, port: u16) -> bool {
    let output = namespace.command("ss").args(["-Htln", &format!("sport = :{port}")]).output();
    !output.expect("starting ss").stdout.is_empty()
}

/// The conflict of a program with the next of its kind.
#[track_caller]
fn check(agent: &Agent, name: &str, holder: u32, port: u16, count: u64) {
    let number = port.to_string();
    let labels = [("claimant", name), ("holder", name), ("port", number.as_str())];
    agent.eventually(count, |now| now.sum("portolan_port_conflicts_total", &labels));
    let found = conflict_of(agent, name, port);
    assert_eq!(found["errno"], "EADDRINUSE", "{found:#}");
    assert_eq!(found["holder"]["service"]["name"], name, "{found:#}");
    assert_eq!(found["holder"]["state"], "listening", "{found:#}");
    assert_eq!(found["holder"]["pid"], holder, "{found:#}");
    assert_ne!(found["claimant"]["pid"], holder, "{found:#}");
    assert_eq!(found["count"], count, "{found:#}");
    assert_eq!(found["next_free"], port + 1, "{found:#}");
}

#[test]
fn a_second_redis_is_reported_with_the_holder_of_6379() {
    needs_kernel!();
    needs!("redis-server", "ss");
    let pair = Pair::new();
    let agent = Agent::start();
    let redis = || {
        let mut command = pair.server.command("redis-server");
        command.args(["--save", "", "--bind", "0.0.0.0", "--port", "6379"]);
        command
    };
    let first = Running::start(&mut redis(), &pair.server, 6379);
    fail(&mut redis());
    check(&agent, "redis-server", first.0.id(), 6379, 1);
    agent.stop();
}

#[test]
fn a_second_node_on_3001_and_on_8080_is_named_after_its_script() {
    needs_kernel!();
    needs!("node", "ss");
    let pair = Pair::new();
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    for port in [3001, 8080] {
        let script = folder.path().join(format!("shop-{port}.js"));
        fs::write(&script, format!("require('http').createServer().listen({port})\n")).unwrap();
        let node = || {
            let mut command = pair.server.command("node");
            command.arg(&script);
            command
        };
        let first = Running::start(&mut node(), &pair.server, port);
        fail(&mut node());
        check(&agent, &format!("shop-{port}.js"), first.0.id(), port, 1);
    }
    agent.stop();
}

#[test]
fn a_second_nginx_tries_five_times_and_is_one_conflict() {
    needs_kernel!();
    needs!("nginx", "ss");
    let pair = Pair::new();
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().display();
    let configuration = |name: &str| {
        let text = format!(
            "daemon off; master_process off; pid {root}/{name}.pid; error_log {root}/{name}.log;\n\
             events {{}}\n\
             http {{ access_log off; client_body_temp_path {root}; proxy_temp_path {root};\n\
             fastcgi_temp_path {root}; uwsgi_temp_path {root}; scgi_temp_path {root};\n\
             server {{ listen 0.0.0.0:8080; }} }}\n"
        );
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        let mut command = pair.server.command("nginx");
        command.arg("-c").arg(file).arg("-e").arg(folder.path().join("error"));
        command
    };
    let first = Running::start(&mut configuration("one"), &pair.server, 8080);
    fail(&mut configuration("two"));
    check(&agent, "nginx", first.0.id(), 8080, 5);
    agent.stop();
}

#[test]
fn a_second_postgres_is_reported_with_the_holder_of_5432() {
    needs_kernel!();
    needs!("setpriv", "ss");
    let Some((programs, uid, gid)) = postgres() else {
        println!("SKIPPED: PostgreSQL or its user is not installed");
        return;
    };
    let pair = Pair::new();
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).unwrap();
    let cluster = |command: &mut Command, program: &str, name: &str| {
        command.current_dir("/").arg("--clear-groups");
        command.args([format!("--reuid={uid}"), format!("--regid={gid}")]);
        command.arg(programs.join(program)).arg("-D").arg(folder.path().join(name));
    };
    let server = |name: &str| {
        let mut init = Command::new("setpriv");
        cluster(&mut init, "initdb", name);
        init.args(["--auth=trust", "--no-sync", "--username=postgres"]);
        assert!(init.stdout(Stdio::null()).status().unwrap().success());
        let mut command = pair.server.command("setpriv");
        cluster(&mut command, "postgres", name);
        command.args(["-p", "5432", "-c", "fsync=off", "-c", "listen_addresses=0.0.0.0"]);
        command.args(["-c", "unix_socket_directories="]);
        command
    };
    let first = Running::start(&mut server("one"), &pair.server, 5432);
    fail(&mut server("two"));
    check(&agent, "postgres", first.0.id(), 5432, 1);
    agent.stop();
}

/// Where Debian puts the server's programs, and the user it insists on.
fn postgres() -> Option<(PathBuf, u32, u32)> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let programs = versions.map(|version| version.path().join("bin"));
    let programs = programs.filter(|folder| folder.join("postgres").exists()).max()?;
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let mut words =
        users.lines().find_map(|line| line.strip_prefix("postgres:"))?.split(':').skip(1);
    Some((programs, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}
