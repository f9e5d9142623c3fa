//! Shares: a tenant that fills a table harms only itself; others keep their own rows and names.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use linux::hierarchy::{Hierarchy, ROOT_ID};

use crate::agent::Agent;
use crate::delegated::Delegated;
use crate::facts;
use crate::namespace::Pair;
use crate::net;

/// The table of edges, large enough to be shared out.
const EDGES: &str = "2048";
/// Idle rows of who fills a table are free again within so long.
const TAKEN_BACK_WITHIN: Duration = Duration::from_secs(10);
/// Ports that are scanned, and one at which no packet is answered.
const SCANNED: std::ops::Range<u16> = 1000..4000;
const SILENT: u16 = 900;
/// When the kernel has sent a SYN for the fourth time; the next one follows eight seconds later.
const FOURTH_SYN: Duration = Duration::from_millis(7300);
/// An unprivileged user.
const USER: u32 = 1500;
/// Network namespaces that the user makes, each with so many connects.
const NAMESPACES: usize = 30;
const CONNECTS: usize = 100;

/// Connects from many cgroups, one after the other.
const CGROUPS: &str = "
import os, socket, sys
for number in range(30):
    folder = \"%s/%d\" % (sys.argv[1], number)
    os.mkdir(folder)
    open(folder + \"/cgroup.procs\", \"w\").write(str(os.getpid()))
    for port in range(1, 101):
        with socket.socket() as s:
            s.connect_ex((sys.argv[2], port))
";

/// Connections of a service that nobody has seen yet: each counts, with both names.
fn a_newcomer_has_rows_of_its_own(agent: &Agent) {
    const CONNECTIONS: u64 = 50;
    let pair = Pair::new();
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    for _ in 0..CONNECTIONS {
        let client = pair.client.connect((pair.server.v4, port)).expect("a listener is there");
        drop((net::accept(&listener), client));
    }
    let (client, server) = (&pair.client.service, &pair.server.service);
    agent.eventually((CONNECTIONS, CONNECTIONS), |now| {
        let edge = |role| now.edge(client, server, port, role).connects("ok");
        (edge("client"), edge("server"))
    });
}

#[track_caller]
fn has_lost(agent: &Agent, class: &str) {
    let now = agent.ledger_adds_up();
    let labels = [("class", class), ("reason", "over_share")];
    assert!(now.sum("portolan_events_lost_total", &labels) > 0, "nobody had more than his share");
    let full = [("class", class), ("reason", "no_slot")];
    assert_eq!(now.sum("portolan_events_lost_total", &full), 0, "the table was full");
}

#[test]
fn a_port_scan_costs_only_who_scans_and_its_rows_come_back() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::with(&[("limits.edges", EDGES)]);
    pair.server.nft_input(&format!("tcp dport {SILENT} drop"));
    let connecting = pair.client.begin_connect((pair.server.v4, SILENT).into());
    thread::sleep(FOURTH_SYN);
    pair.client.act(|| {
        for port in SCANNED {
            TcpStream::connect((pair.server.v4, port)).unwrap_err();
        }
    });
    let began = Instant::now();
    a_newcomer_has_rows_of_its_own(&agent);
    has_lost(&agent, "edge");
    // What found no row is counted, in `other`.
    agent.eventually(SCANNED.len() as u64, |now| {
        let refused = |client: &str| {
            let labels = [("client", client), ("result", "refused")];
            now.sum("portolan_tcp_connects_total", &labels)
        };
        refused(&pair.client.service) + refused("other")
    });
    let rows = || agent.scrape().sum("portolan_map_entries", &[("map", "edges")]);
    while rows() > 500 {
        assert!(began.elapsed() < facts::patience(TAKEN_BACK_WITHIN), "still {} rows", rows());
        thread::sleep(Duration::from_millis(500));
    }
    println!("rows of the scan were free after {:?}", began.elapsed());
    // A connection that waits for the answer to its SYN still has its row.
    drop(connecting);
    agent.eventually(1, |now| {
        let edge = now.edge(&pair.client.service, &pair.server.v4.to_string(), SILENT, "client");
        edge.connects("aborted")
    });
    // Their slots count for nobody any more.
    let refused = |agent: &Agent| {
        let now = agent.scrape();
        now.sum("portolan_events_lost_total", &[("class", "edge"), ("reason", "over_share")])
    };
    let before = refused(&agent);
    pair.client.act(|| {
        for port in 5000..5500 {
            TcpStream::connect((pair.server.v4, port)).unwrap_err();
        }
    });
    agent.ledger_adds_up();
    assert_eq!(refused(&agent), before, "there is room again");
    agent.stop();
}

/// An unprivileged user with many network namespaces; all end with this.
struct User(Child);

impl User {
    /// Once each namespace has its connects; the reason if user namespaces are not to be had.
    fn with_namespaces() -> Result<Self, String> {
        let inside = format!(
            "ip link set lo up; for p in $(seq {CONNECTS}); do : < /dev/tcp/127.0.0.1/$p; done \
             2>/dev/null; echo done; exec sleep 300"
        );
        let script = format!(
            "for n in $(seq {NAMESPACES}); do unshare --user --map-root-user --net bash -c \
             '{inside}' & done; wait"
        );
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={USER}"), format!("--regid={USER}")])
            .args(["--clear-groups", "bash", "-c", &script])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut user = Self(command.spawn().map_err(|error| format!("setpriv: {error}"))?);
        let output = user.0.stdout.take().expect("stdout is piped");
        let done = BufReader::new(output).lines().take(NAMESPACES).count();
        if done == NAMESPACES { Ok(user) } else { Err(format!("{done} user namespaces")) }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).expect("a pid fits");
        // SAFETY: kill touches no memory; the group is that of our child, which was not waited for.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        let _ = self.0.wait();
    }
}

#[test]
fn all_network_namespaces_of_a_user_have_one_share() {
    needs_kernel!();
    let agent = Agent::with(&[("limits.edges", EDGES)]);
    let user = match User::with_namespaces() {
        Ok(user) => user,
        Err(why) => {
            println!("SKIPPED: no namespaces of an unprivileged user: {why}");
            return;
        }
    };
    a_newcomer_has_rows_of_its_own(&agent);
    has_lost(&agent, "edge");
    // What found no row is in one of this user's own, and as doubtful as the rest.
    let all = (NAMESPACES * CONNECTS) as u64;
    let began = Instant::now();
    loop {
        let answer = agent.json("/api/v1/edges?window=start");
        let edges = answer["edges"].as_array().expect("edges");
        let theirs = edges.iter().filter(|edge| edge["unverified_user"] == USER);
        let refused = |edge: &serde_json::Value| edge["connects"]["refused"].as_u64().unwrap_or(0);
        let sum: u64 = theirs.clone().map(refused).sum();
        let others = theirs.filter(|edge| edge["client"] == "other");
        let others: Vec<_> = others.map(|edge| &edge["client_namespace"]).collect();
        let own = format!("user-{USER}");
        if sum == all && others.contains(&&serde_json::Value::from(own)) {
            break;
        }
        let is_late = began.elapsed() > facts::patience(TAKEN_BACK_WITHIN);
        assert!(!is_late, "{sum} of {all} connects; rows `other` of {others:?}");
        thread::sleep(Duration::from_millis(200));
    }
    drop(user);
    agent.stop();
}

#[test]
fn all_cgroups_below_one_that_root_gave_to_a_user_have_one_share() {
    needs_kernel!();
    let Ok(Some(hierarchy)) = Hierarchy::find() else {
        println!("SKIPPED: no cgroup2 file system is mounted");
        return;
    };
    if hierarchy.id("/").ok() != Some(ROOT_ID) {
        println!("SKIPPED: inside a cgroup namespace no directory is at the first level");
        return;
    }
    let pair = Pair::new();
    let given = Delegated::new(hierarchy.mount(), &format!("shares-{}", std::process::id()));
    let agent = Agent::with(&[("limits.edges", EDGES)]);
    let script = format!("exec python3 -c \"$CGROUPS\" {} {}", given.0.display(), pair.server.v4);
    let mut command = given.shell(&pair.client, &script);
    let status = command.env("CGROUPS", CGROUPS).status().expect("a shell");
    assert!(status.success(), "{status}");
    a_newcomer_has_rows_of_its_own(&agent);
    has_lost(&agent, "edge");
    agent.stop();
}

#[test]
fn a_flood_of_owners_leaves_others_their_names() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::with(&[("limits.owners", "1024")]);
    for number in 0..2000 {
        pair.client.act_as(&format!("o{number}"), || {
            TcpStream::connect((pair.server.v4, 9)).unwrap_err();
        });
    }
    a_newcomer_has_rows_of_its_own(&agent);
    has_lost(&agent, "owner");
    agent.stop();
}
