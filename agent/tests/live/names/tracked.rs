//! Users whose network namespaces track connections: what the agent reads of them takes no time and no
//! room of others.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::until;
use crate::agent::Agent;
use crate::delegated::USER;
use crate::namespace::Pair;

/// Namespaces of the user, and of how many of them connections are listed.
const MADE: usize = 6;
const LISTED: usize = 4;
/// Makes a namespace track connections.
const RULE: &str = "add table ip watched\n\
    add chain ip watched out { type filter hook output priority 0; }\n\
    add rule ip watched out ct state new counter\n";
/// A connection that stays.
const OPEN: &str = "\
import socket, sys
listener = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(listener.getsockname())
print('ready', flush=True)
sys.stdin.read()";

/// A namespace of a user that tracks a connection.
struct Tracking(Child);

impl Tracking {
    /// None if users may not have one here.
    fn start() -> Option<Self> {
        let inside =
            "ip link set lo up && printf %s \"$RULE\" | nft -f - && exec python3 -c \"$OPEN\"";
        let mut user = Command::new("setpriv");
        user.args([format!("--reuid={USER}"), format!("--regid={USER}")]).arg("--clear-groups");
        user.args(["unshare", "--user", "--map-root-user", "--net", "sh", "-c", inside]);
        user.env("RULE", RULE).env("OPEN", OPEN);
        user.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut started = Self(user.spawn().expect("starting setpriv"));
        let mut said = String::new();
        let mut output = BufReader::new(started.0.stdout.take().expect("stdout is piped"));
        output.read_line(&mut said).expect("a line");
        (said == "ready\n").then_some(started)
    }
}

impl Drop for Tracking {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn of_many_namespaces_of_a_user_that_track_connections_few_are_listed() {
    needs_kernel!();
    let net = Pair::new();
    // A user may not load the modules.
    net.client.nft(RULE);
    let users: Option<Vec<_>> = (0..MADE).map(|_| Tracking::start()).collect();
    let Some(users) = users else {
        println!("SKIPPED: no network namespaces of an unprivileged user that track connections");
        return;
    };
    let agent = Agent::with(&[("names.conntrack", "true")]);
    let expected = format!("{} network namespaces that users have made", MADE - LISTED);
    let detail = || {
        let status = agent.json("/api/v1/status");
        let mut sources = status["name_sources"].as_array().expect("a list").iter();
        let source = sources.find(|source| source["name"] == "conntrack").expect("a source");
        source["detail"].as_str().unwrap_or_default().to_owned()
    };
    until(&format!("{expected}, not {}", detail()), || detail().starts_with(&expected));
    drop(users);
    agent.stop();
}
