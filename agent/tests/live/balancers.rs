//! `portolan balance generate | deploy | test` with real balancers: installed under load without a
//! failed request, rolled back if they do harm, and never half-written.
//!
//! The balancer and the load are in the client's namespace, nginx as two backends in the server's.
//! The command runs where the balancer does, and reads the agent at its Unix socket.

mod haproxy;
mod load;
mod nginx;
mod others;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::agent::{Agent, binary, forget_our_variables};
use crate::balance::Backends;
use crate::exactness::free_port_in;
use crate::namespace::Pair;

/// A machine that runs tests may be slow at any moment, which must not cause a rollback here.
const PATIENT: &[&str] = &["--max-latency", "1000"];

/// Two backends, a place for a balancer, and an agent.
struct Stage {
    agent: Agent,
    backends: Backends,
    /// Where the balancer listens.
    port: u16,
    directory: TempDir,
    pair: Pair,
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

// === impl Stage ===

impl Stage {
    fn new() -> Self {
        let pair = Pair::new();
        let backends = Backends::start(&pair.server, 2);
        let agent = Agent::start();
        let port = free_port_in(&pair.client);
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { agent, backends, port, directory, pair }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("writing");
        path
    }

    /// A specification with these weights, and further backends that nobody serves.
    fn spec(&self, name: &str, weights: [u32; 2], dead: &[u16]) -> PathBuf {
        let Self { port, backends, pair, .. } = self;
        let mut text = format!("name = \"api\"\nlisten = \"{}:{port}\"\n", pair.client.v4);
        let mut add = |address: Ipv4Addr, port: u16, weight: u32| {
            // Writing into a String cannot fail.
            let _ =
                writeln!(text, "[[backends]]\naddress = \"{address}:{port}\"\nweight = {weight}");
        };
        for (address, weight) in backends.addresses.iter().zip(weights) {
            add(*address, backends.port, weight);
        }
        for port in dead {
            add(backends.addresses[0], *port, 1);
        }
        self.write(name, &text)
    }

    /// A command that reads the agent at its Unix socket, ready to start.
    fn portolan(&self, arguments: &[&str]) -> Command {
        let mut command = self.pair.client.command(&binary().display().to_string());
        forget_our_variables(&mut command);
        let socket = self.agent.run_directory().join("control.sock");
        command.args(arguments).arg("--socket").arg(socket);
        command
    }

    /// `portolan balance …` to its end.
    fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(&mut self.portolan(&[&["balance"], arguments].concat()))
    }

    /// Runs it until it has said `step`, and kills it (SIGKILL).
    fn kill_after(&self, arguments: &[&str], step: &str) {
        let mut command = self.portolan(&[&["balance"], arguments].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("starting portolan");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let said = lines.map_while(Result::ok).find(|line| line.starts_with(step));
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
        assert!(said.is_some(), "it did not say {step:?}");
    }

    /// What `test` says of so many requests, and that the backends' access logs say the same.
    fn test_agrees_with_access_logs(&self, balancer: &str, spec: &Path, expected: [f64; 2]) {
        const REQUESTS: u64 = 400;
        let before = self.backends.requests();
        let spec = spec.display().to_string();
        let requests = REQUESTS.to_string();
        let test = ["test", "--spec", &spec, "--for", balancer, "--output", "json"];
        let ended = self.run(&[&test[..], &["--requests", &requests, "--rate", "2000"]].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let said: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
        assert_eq!((&said["ok"], &said["failed"]), (&REQUESTS.into(), &0.into()), "{said}");
        let after = self.backends.requests();
        for (i, share) in expected.into_iter().enumerate() {
            let address = format!("{}:{}", self.backends.addresses[i], self.backends.port);
            let backends = said["backends"].as_array().expect("a list");
            let one = backends.iter().find(|one| one["backend"] == *address).expect("a backend");
            let logged = after[i] - before[i];
            assert_eq!(one["received"], logged, "{address}: {said}");
            assert!((logged as f64 / REQUESTS as f64 - share).abs() < 0.05, "{address}: {logged}");
        }
    }
}

// === impl Ended ===

impl Ended {
    /// Runs a command to its end.
    fn of(command: &mut Command) -> Self {
        let output = command.output().expect("starting portolan");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        let ended = Self { code: output.status.code(), stdout, stderr };
        println!("{command:?}: {ended:?}");
        ended
    }
}
