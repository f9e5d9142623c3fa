//! Tests of the order in which names are found.

use super::inventory::Workload;
use super::owners::identity;
use super::*;
use agent_common::owner::OWNER_OVERFLOW;
use agent_common::wire::Wire as _;
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
