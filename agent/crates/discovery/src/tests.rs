//! Tests of the order in which names are found.

use super::inventory::Workload;
use super::owners::identity;
use super::*;
use agent_common::owner::OWNER_OVERFLOW;
use agent_common::wire::Wire as _;
use hashbrown::HashSet;
use linux::hierarchy::Hierarchy;
use model::service::{Entity, Kind, Source};
use std::os::unix::fs::MetadataExt as _;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Names over a tree of cgroups that is a folder.
struct Host {
    root: tempfile::TempDir,
    names: Names,
}

impl Host {
    fn new(rules: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let rules = rules.iter().map(|rule| rules::Rule::parse(rule).unwrap()).collect();
        let cgroups = Cgroups::with_hierarchy(Some(Hierarchy::at(root.path())), Probes::inline());
        let names =
            Names::with_cgroups(Rules::new(rules, Vec::new()), true, 10, cgroups, Probes::inline());
        Self { root, names }
    }

    /// An owner of this command name in this cgroup.
    fn row(&self, comm: &str, path: &str) -> OwnerRow {
        let folder = self.root.path().join(path);
        std::fs::create_dir_all(&folder).unwrap();
        let mut row = OwnerRow::zeroed();
        row.key.comm[..comm.len()].copy_from_slice(comm.as_bytes());
        row.key.cgroup = std::fs::metadata(folder).unwrap().ino();
        row.born_us = 1;
        row
    }

    fn list_container(&mut self, name: &str, containers_pending: bool) {
        let mut inventory = Inventory::default();
        let labels = Arc::from([("app".to_owned(), "shop".to_owned())]);
        let service = Service { kind: Kind::Container, ..Service::new(name, Source::Docker) };
        inventory.add_container(
            ID,
            Workload { service, entity: Entity::of(ID), instance: Arc::default(), labels },
        );
        self.names.set_inventories(vec![Arc::new(inventory)], containers_pending);
    }

    fn name(&mut self, row: &OwnerRow, now_us: u64) -> (String, Source, bool) {
        let Found { service, stable, .. } = self.names.owner(7, row, now_us);
        (service.name.to_string(), service.source, stable)
    }
}

fn named(name: &str, source: Source, stable: bool) -> (String, Source, bool) {
    (name.to_owned(), source, stable)
}

#[test]
fn the_surest_source_wins() {
    let mut host = Host::new(&["cgroup:/special* -> decided", "label:app=none -> x"]);
    host.list_container("web", true);
    // All of them at once: the tree is not walked a second time within the pause.
    let container = format!("docker/{ID}");
    for path in ["special/here", &container, "system.slice/front.service", "elsewhere"] {
        host.row("", path);
    }
    let mut check = |path: &str, name: &str, source| {
        let mut row = host.row("nginx", path);
        row.born_us = row.key.cgroup; // Another owner each time.
        host.names.forget_owner(7);
        assert_eq!(host.name(&row, 0), named(name, source, true), "{path}");
    };
    check("special/here", "decided", Source::Rule);
    check(&container, "web", Source::Docker);
    check("system.slice/front.service", "front", Source::Unit);
    check("elsewhere", "nginx", Source::Process);
}

#[test]
fn a_container_is_awaited_while_a_source_may_list_it_and_found_at_once_when_listed() {
    let mut host = Host::new(&[]);
    let row = host.row("nginx", &format!("docker/{ID}"));
    host.names.set_inventories(Vec::new(), true);
    assert_eq!(host.name(&row, 0), named("0123456789ab", Source::Container, false));
    assert!(host.names.take_missing(), "the sources are asked");
    assert_eq!(host.name(&row, 1), named("0123456789ab", Source::Container, false));
    host.list_container("web", true);
    assert_eq!(host.name(&row, 2), named("web", Source::Docker, true));
    // Renamed, then removed: the last name stays.
    host.list_container("web-old", true);
    assert_eq!(host.name(&row, 3), named("web-old", Source::Docker, true));
    host.names.set_inventories(Vec::new(), true);
    assert_eq!(host.name(&row, 4).0, "web-old");
}

#[test]
fn a_container_has_one_identity_whether_it_is_listed_or_not_and_any_other_owner_its_own() {
    let mut host = Host::new(&["cgroup:/special* -> decided"]);
    let found = |host: &mut Host, row: &OwnerRow, now_us| host.names.owner(7, row, now_us).entity;
    let row = host.row("nginx", &format!("docker/{ID}"));
    assert_eq!(found(&mut host, &row, 0), Entity::of(ID));
    host.list_container("web", true);
    assert_eq!(found(&mut host, &row, 1), Entity::of(ID));
    let uid = "1b2c0a8c-1111-2222-3333-444455556666";
    for (path, expected) in [
        (format!("kubepods/burstable/pod{uid}/{ID}"), Some(Entity::of(uid))),
        ("special/here".to_owned(), None),
        ("system.slice/front.service".to_owned(), None),
        ("elsewhere".to_owned(), None),
    ] {
        let mut host = Host::new(&["cgroup:/special* -> decided"]);
        let row = host.row("nginx", &path);
        let expected = expected.unwrap_or_else(|| identity(7, &row));
        assert_eq!(found(&mut host, &row, 0), expected, "{path}");
    }
    // It may be in a container.
    let mut row = host.row("nginx", "nowhere");
    host.names.forget_owner(7);
    row.key.cgroup = u64::MAX;
    assert_eq!(found(&mut host, &row, 2), Entity::UNKNOWN);
}

#[test]
fn without_a_runtime_a_container_is_called_by_its_id_for_good() {
    let mut host = Host::new(&[]);
    let row = host.row("nginx", &format!("docker/{ID}"));
    assert_eq!(host.name(&row, 0), named("0123456789ab", Source::Container, true));
    assert!(!host.names.take_missing());
    // A source that appears later is used too.
    host.list_container("web", true);
    assert_eq!(host.name(&row, 1), named("web", Source::Docker, true));
}

#[test]
fn a_rule_sees_labels_and_ports() {
    let mut host = Host::new(&["label:app=shop -> by-label", "port:9100 -> by-port"]);
    host.list_container("web", true);
    let container = host.row("nginx", &format!("docker/{ID}"));
    assert_eq!(host.name(&container, 0).0, "by-label");
    host.names.forget_owner(7);
    let plain = host.row("exporter", "elsewhere");
    assert_eq!(host.name(&plain, 0).0, "exporter");
    let record = ListenerRecord { owner: 7, port: 9100, ..ListenerRecord::zeroed() };
    host.names.set_ports(&[record]);
    assert_eq!(host.name(&plain, 1).0, "by-port");
}

#[test]
fn a_cgroup_that_cannot_be_found_is_retried_but_not_forever() {
    let mut host = Host::new(&[]);
    let mut row = host.row("nginx", "elsewhere");
    row.key.cgroup = u64::MAX;
    host.names.set_inventories(Vec::new(), true);
    for hour in 0..100 {
        assert_eq!(host.name(&row, hour * 3_600_000_000), named("nginx", Source::Process, false));
    }
    assert_eq!(host.names.owners[&7].retry, None);
}

#[test]
fn overflow_no_program_and_unknown_are_three_names() {
    let mut host = Host::new(&[]);
    let row = host.row("nginx", "elsewhere");
    assert_eq!(host.names.owner(OWNER_OVERFLOW, &row, 0).service, Service::other());
    let no_program = OwnerRow { born_us: 1, ..OwnerRow::zeroed() };
    assert_eq!(&*host.names.owner(1, &no_program, 0).service.name, "none");
    assert_eq!(host.names.unresolved(), 0);
    let unnamed = host.row("", "elsewhere");
    assert_eq!(&*host.names.owner(2, &unnamed, 0).service.name, "unknown");
    assert_eq!(host.names.unresolved(), 1);
    host.names.forget_owner(2);
    assert_eq!(host.names.unresolved(), 0);
}

#[test]
fn an_existing_interpreter_is_named_by_what_it_runs() {
    use agent_common::edge::ROLE_LISTENER;
    use agent_common::owner::OwnerRow;
    use agent_common::wire::Wire as _;
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    let Ok(mut server) = Command::new("python3")
        .args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0"])
        .stdout(Stdio::piped())
        .spawn()
    else {
        println!("SKIPPED: no python3");
        return;
    };
    // The owner has a name once it listens.
    let mut line = String::new();
    let read = BufReader::new(server.stdout.take().unwrap()).read_line(&mut line);
    let probes = Probes::inline();
    let survey = linux::survey().complete(&probes, std::time::Duration::ZERO);
    let listener = survey.sockets.iter().find(|socket| socket.known.tgid == server.id());
    // What bootstrap writes: a row without arguments.
    let mut row = OwnerRow::zeroed();
    row.key = listener.map_or(row.key, |socket| socket.known.owner);
    row.tgid = server.id();
    let name = process::full_name(&row);
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(read.is_ok(), "{line}");
    assert_eq!(listener.map(|socket| socket.known.role), Some(ROLE_LISTENER), "{line}");
    assert_ne!(row.key.app, 0);
    assert!(name.is_some_and(|service| &*service.name == "http.server"));
}

#[test]
fn a_name_from_before_a_probe_has_looked_gives_way_to_what_it_finds() {
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("wait.sh");
    std::fs::write(&script, "read line\n").unwrap();
    let mut child = Command::new("sh").arg(&script).stdin(Stdio::piped()).spawn().unwrap();
    let process = loop {
        // Until the exec has happened the child still is a copy of this process.
        match linux::procfs::Process::read(child.id()) {
            Ok(process) if process.argv.starts_with(b"sh\0") => break process,
            _ => std::thread::yield_now(),
        }
    };
    // As the kernel half fills a row for sockets that existed before the agent: without arguments.
    let mut row = OwnerRow { tgid: child.id(), born_us: u64::MAX, ..OwnerRow::zeroed() };
    (row.key.comm, row.key.app) = (process.comm, process.app());
    let probes = Probes::start().unwrap();
    let cgroups = Cgroups::with_hierarchy(None, probes.clone());
    let mut names =
        Names::with_cgroups(Rules::new(Vec::new(), Vec::new()), false, 10, cgroups, probes);
    let Found { service: first, stable, .. } = names.owner(7, &row, 0);
    let began = std::time::Instant::now();
    let mut last = first.clone();
    while &*last.name != "wait.sh" && began.elapsed().as_secs() < 10 {
        std::thread::yield_now();
        last = names.owner(7, &row, 1).service;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(&*first.name == "wait.sh" || (&*first.name == "sh" && !stable), "{first:?}");
    assert_eq!(&*last.name, "wait.sh");
}

const HOST: u32 = 1;
const BLUE: u32 = 2;
const RED: u32 = 3;

/// What namespaces are called once they are listed.
fn list_namespaces(names: &mut Names, named: &[(u32, &str)]) {
    let named = named.iter().map(|(netns, name)| (*netns, (*name).to_owned())).collect();
    let listed = HashSet::from([HOST, BLUE, RED]);
    let found = Namespaces {
        host: Some(HOST),
        names: Some(&named),
        listed,
        began_us: u64::MAX,
        ..Namespaces::default()
    };
    names.set_namespaces(found);
}

#[test]
fn programs_of_one_name_are_told_apart_by_their_network_namespaces() {
    let mut host = Host::new(&[]);
    let found = |host: &mut Host, netns: u32, path: &str, now_us| {
        let mut row = host.row("nginx", path);
        row.key.netns = netns;
        let Found { service, stable, .. } = host.names.owner(netns, &row, now_us);
        (service.namespace.to_string(), stable)
    };
    for path in ["elsewhere", "lxc.payload.box/init.scope", "system.slice/front.service"] {
        host.row("", path);
    }
    let listed = HashSet::from([HOST]);
    host.names.set_namespaces(Namespaces {
        host: Some(HOST),
        listed,
        began_us: u64::MAX,
        ..Namespaces::default()
    });
    assert_eq!(found(&mut host, HOST, "elsewhere", 0), (String::new(), true));
    // Its namespace is not listed yet.
    assert_eq!(found(&mut host, BLUE, "elsewhere", 0), ("netns-other".to_owned(), false));
    list_namespaces(&mut host.names, &[(BLUE, "blue")]);
    assert_eq!(found(&mut host, BLUE, "elsewhere", 1), ("netns-blue".to_owned(), true));
    assert_eq!(found(&mut host, RED, "elsewhere", 1), ("netns-3".to_owned(), true));
    assert_eq!(found(&mut host, HOST, "elsewhere", 1), (String::new(), true));
    // It gets a name later.
    list_namespaces(&mut host.names, &[(BLUE, "blue"), (RED, "red")]);
    assert_eq!(found(&mut host, RED, "elsewhere", 2), ("netns-red".to_owned(), true));
    // What systemd or a machine makes unique needs no network namespace.
    for (path, namespace) in
        [("lxc.payload.box/init.scope", "box"), ("system.slice/front.service", "")]
    {
        host.names.forget_owner(BLUE);
        assert_eq!(found(&mut host, BLUE, path, 3), (namespace.to_owned(), true), "{path}");
    }
}

#[test]
fn a_loopback_address_without_a_listener_is_a_place_of_the_one_that_connects_there() {
    let mut host = Host::new(&[]);
    host.list_container("web", false);
    list_namespaces(&mut host.names, &[(BLUE, "blue")]);
    let container = format!("docker/{ID}");
    for path in ["elsewhere", &container] {
        host.row("", path);
    }
    let mut check = |netns: u32, path: &str, role: u8, remote: &str, expected: &str| {
        let mut row = host.row("client", path);
        row.key.netns = netns;
        host.names.forget_owner(7);
        host.names.owner(7, &row, 0);
        let remote = address::from_ip(remote.parse().unwrap());
        let key = EdgeKey { owner: 7, port: 80, role, zero: 0, remote };
        let service = host.names.remote(netns, &key, false).service;
        assert_eq!(format!("{}/{}", service.namespace, service.name), expected);
        assert!(service.is_loopback(), "{service:?}");
    };
    let (client, server) = (agent_common::edge::ROLE_CLIENT, agent_common::edge::ROLE_SERVER);
    check(HOST, "elsewhere", client, "127.0.0.1", "/127.0.0.1");
    check(BLUE, "elsewhere", client, "127.0.0.1", "netns-blue/127.0.0.1");
    check(RED, "elsewhere", client, "127.9.9.9", "netns-3/127.9.9.9");
    check(RED, "elsewhere", client, "::1", "netns-3/::1");
    check(RED, "elsewhere", client, "0.0.0.0", "netns-3/0.0.0.0");
    check(BLUE, &container, client, "127.0.0.1", "web/127.0.0.1");
    check(HOST, &container, client, "127.0.0.1", "/127.0.0.1");
    // A client of which nothing but the address is known.
    check(RED, "elsewhere", server, "127.0.0.1", "netns-3/127.0.0.1");
}

#[test]
fn an_address_that_several_namespaces_have_is_another_place_for_each_that_reaches_one() {
    use linux::addresses::{Held, Reach};
    let mut host = Host::new(&[]);
    let address = |text: &str| address::from_ip(text.parse().unwrap());
    let held = |netns, text| Held { netns, address: address(text), reach: Reach::Host };
    host.names.set_addresses(&[
        held(20, "10.84.0.2"),
        held(30, "10.84.0.2"),
        held(30, "10.84.0.3"),
    ]);
    list_namespaces(&mut host.names, &[(BLUE, "blue")]);
    let mut check = |netns: u32, remote: &str, expected: &str| {
        let mut row = host.row("client", "elsewhere");
        row.key.netns = netns;
        host.names.forget_owner(7);
        host.names.owner(7, &row, 0);
        let role = agent_common::edge::ROLE_CLIENT;
        let key = EdgeKey { owner: 7, port: 7709, role, zero: 0, remote: address(remote) };
        let service = host.names.remote(netns, &key, false).service;
        assert_eq!(format!("{}/{}", service.namespace, service.name), expected);
    };
    check(BLUE, "10.84.0.2", "netns-blue/10.84.0.2");
    check(RED, "10.84.0.2", "netns-3/10.84.0.2");
    check(HOST, "10.84.0.2", "/10.84.0.2");
    check(BLUE, "10.84.0.3", "/10.84.0.3");
    check(BLUE, "10.84.0.4", "/10.84.0.4");
}
