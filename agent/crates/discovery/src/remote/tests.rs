//! The remote end of connections: its name, and when it has none.

use super::*;
use crate::inventory::Workload;
use agent_common::wire::Wire;
use hashbrown::HashSet;
use linux::addresses::Reach;
use model::service::{Entity, Source};
use std::net::IpAddr;

const HOST: u32 = 1;
const BLUE: u32 = 2;
const RED: u32 = 3;

mod translated;

use translated::{World, route};

fn ip(text: &str) -> Address {
    address::from_ip(text.parse::<IpAddr>().unwrap())
}

fn process(name: &str) -> Found {
    Found::new(Service::new(name, Source::Process))
}

fn listener(netns: u32, address: &str, port: u16, name: &str) -> (ListenerRecord, Found) {
    let family = if address.contains(':') { 10 } else { 2 };
    let record = ListenerRecord { netns, port, family, address: ip(address), ..Wire::zeroed() };
    (record, process(name))
}

fn client(netns: u32, remote: &str, port: u16, name: &str) -> Client {
    // Its name and namespace stand for its row.
    let owner = Entity::of(name).0 as u32 ^ netns;
    Client { owner, netns, remote: ip(remote), port, found: process(name) }
}

fn key(role: u8, remote: &str, port: u16) -> EdgeKey {
    EdgeKey { owner: 9, port, role, zero: 0, remote: ip(remote) }
}

/// Two containers on a bridge with the host; both have a 172.30.0.1 of their own besides.
fn remotes() -> Remotes {
    let mut remotes = Remotes::new(MAX_ADDRESSES);
    let mut addresses = vec![
        (HOST, ip("10.0.0.5")),
        (HOST, ip("172.17.0.1")),
        (BLUE, ip("172.17.0.2")),
        (BLUE, ip("172.30.0.1")),
        (BLUE, ip("fd00::2")),
        (RED, ip("172.17.0.3")),
        (RED, ip("172.30.0.1")),
    ];
    for netns in [HOST, BLUE, RED] {
        addresses.extend([(netns, ip("127.0.0.1")), (netns, ip("::1"))]);
        addresses.push((netns, ip("fe80::1")));
    }
    remotes.set_addresses(&held(&addresses));
    remotes
}

/// Addresses that everyone can reach.
fn held(addresses: &[(u32, Address)]) -> Vec<Held> {
    let held = |&(netns, address)| Held { netns, address, reach: Reach::Host };
    addresses.iter().map(held).collect()
}

fn name(remotes: &mut Remotes, netns: u32, key: &EdgeKey) -> Service {
    remotes.resolve(netns, key, false, &Rules::default(), &[]).service
}

fn workload(name: &str) -> Workload {
    let service = Service::new(name, Source::Kubernetes);
    Workload { service, entity: Entity::of(name), instance: name.into(), labels: Arc::default() }
}

#[test]
fn a_service_address_is_named_by_the_backends_that_answered() {
    let service = |name: &str| Service::new(name, Source::ServiceAddress);
    let mut inventory = Inventory::default();
    inventory.add_address(ip("10.1.0.2"), &workload("web"));
    inventory.add_address(ip("10.1.0.3"), &workload("web"));
    inventory.add_address(ip("10.1.0.4"), &workload("canary"));
    inventory.add_endpoint(ip("10.9.0.9"), workload("far"));
    let frontend = |name: &str, backends: &[&str]| super::super::inventory::Frontend {
        service: service(name),
        backends: backends.iter().map(|at| ip(at)).collect(),
    };
    inventory.add_frontend(ip("10.96.0.1"), 80, frontend("web-svc", &["10.1.0.2", "10.1.0.3"]));
    inventory.add_frontend(ip("10.96.0.2"), 80, frontend("mixed", &["10.1.0.2", "10.1.0.4"]));
    inventory.add_frontend(ip("10.96.0.3"), 80, frontend("empty", &[]));
    inventory.add_frontend(ip("10.96.0.4"), 80, frontend("remote", &["10.9.0.9"]));
    let mut world = World::new();
    world.connects(9, HOST, "client", &["10.96.0.2:80", "10.0.0.5:80"]);
    let check = |world: &mut World, to: &str, name: &str, source, asked: Option<&str>| {
        let found = world.resolve(HOST, &key(ROLE_CLIENT, to, 80), &inventory);
        let asked_name = found.virtual_service.as_ref().map(|asked| &*asked.name);
        assert_eq!(
            (&*found.service.name, found.service.source, asked_name),
            (name, source, asked),
            "{to}"
        );
    };
    check(&mut world, "10.1.0.3", "web", Source::ContainerAddress, None);
    check(&mut world, "10.96.0.1", "web", Source::ServiceAddress, Some("web-svc"));
    check(&mut world, "10.96.0.2", "mixed", Source::ServiceAddress, None);
    check(&mut world, "10.96.0.3", "empty", Source::ServiceAddress, None);
    check(&mut world, "10.96.0.4", "far", Source::ServiceAddress, Some("remote"));
    assert!(world.remotes.take_missing() && !world.remotes.take_missing());
    world.list(&[
        route(HOST, Some(9), "10.0.0.5", "10.96.0.2:80", "10.1.0.4:8080"),
        route(HOST, Some(9), "10.0.0.5", "10.0.0.5:80", "10.1.0.3:8080"),
    ]);
    check(&mut world, "10.96.0.2", "canary", Source::Conntrack, Some("mixed"));
    check(&mut world, "10.0.0.5", "web", Source::Conntrack, Some("10.0.0.5"));
    world.list(&[route(HOST, Some(9), "10.0.0.5", "10.96.0.2:80", "10.1.0.2:8080")]);
    check(&mut world, "10.96.0.2", "mixed", Source::ServiceAddress, None);
    check(&mut world, "10.0.0.5", "web", Source::Conntrack, Some("10.0.0.5"));
}

#[test]
fn a_published_port_is_the_containers_and_no_proxys() {
    let mut inventory = Inventory::default();
    inventory.publishes_in(HOST);
    inventory.add_published(ip("0.0.0.0"), 8080, workload("web"));
    let inventory = [Arc::new(inventory)];
    let mut remotes = remotes();
    remotes.set_listeners(&[listener(HOST, "0.0.0.0", 8080, "docker-proxy")]);
    let mut found = |netns, to: &str| {
        let found = remotes.resolve(
            netns,
            &key(ROLE_CLIENT, to, 8080),
            false,
            &Rules::default(),
            &inventory,
        );
        (found.service.name.to_string(), found.service.source)
    };
    let web = ("web".to_owned(), Source::PublishedPort);
    assert_eq!(found(HOST, "127.0.0.1"), web);
    assert_eq!(found(BLUE, "172.17.0.1"), web);
    assert_eq!(found(BLUE, "127.0.0.1").1, Source::Address);
}

#[test]
fn only_so_many_ends_are_called_by_their_address() {
    let mut remotes = Remotes::new(2);
    let mut round = |ends: &[&str]| -> Vec<String> {
        remotes.set_clients(&[], true, &[]);
        let name = |end: &&str| {
            let key = key(ROLE_CLIENT, end, 80);
            remotes.resolve(HOST, &key, false, &Rules::default(), &[]).service.name.to_string()
        };
        ends.iter().map(name).collect()
    };
    assert_eq!(
        round(&["8.8.8.8", "10.0.0.1", "9.9.9.9", "10.0.0.2", "100.64.0.1"]),
        ["8.8.8.8", "10.0.0.1", "internet", "other", "other"]
    );
    assert_eq!(round(&["9.9.9.9", "8.8.8.8"]), ["internet", "8.8.8.8"]);
    assert_eq!(round(&["9.9.9.9", "8.8.8.8"]), ["9.9.9.9", "8.8.8.8"], "10.0.0.1 has gone");
}

#[test]
fn a_million_peers_and_ports_stay_within_their_tables() {
    let mut remotes = Remotes::new(MAX_ADDRESSES);
    let mut names = HashSet::new();
    for number in 0..1_000_000_u32 {
        let remote = [0, 0, address::MAPPED, number.wrapping_mul(2_654_435_761) | 1];
        let key = EdgeKey { remote, port: number as u16, ..key(ROLE_CLIENT, "::", 1) };
        names.insert(remotes.resolve(HOST, &key, false, &Rules::default(), &[]).service.name);
    }
    assert!(names.len() <= MAX_ADDRESSES + 2, "{}", names.len());
    assert!(remotes.lookups.len() <= MAX_ENTRIES);
}

#[test]
fn a_client_finds_the_listener_in_the_right_namespace() {
    let mut remotes = remotes();
    let mut only_v6 = listener(BLUE, "::", 9000, "six");
    only_v6.0.v6_only = 1;
    remotes.set_listeners(&[
        listener(HOST, "127.0.0.1", 80, "host-loopback"),
        listener(HOST, "0.0.0.0", 80, "host-all"),
        listener(BLUE, "::", 80, "blue-dual"),
        listener(RED, "0.0.0.0", 80, "red-all"),
        listener(RED, "172.17.0.3", 80, "red-specific"),
        listener(HOST, "::", 81, "dual"),
        listener(HOST, "0.0.0.0", 81, "four"),
        listener(HOST, "0.0.0.0", 82, "b"),
        listener(HOST, "0.0.0.0", 82, "a"),
        only_v6,
    ]);
    let mut check = |netns, remote: &str, port, expected: &str| {
        let found = name(&mut remotes, netns, &key(ROLE_CLIENT, remote, port));
        let source = if expected == remote { Source::Address } else { Source::Listener };
        assert_eq!(found, Service::new(expected, source), "from {netns} to {remote}:{port}");
    };
    check(HOST, "127.0.0.1", 80, "host-loopback");
    check(HOST, "127.0.0.9", 80, "host-all");
    check(HOST, "10.0.0.5", 80, "host-all");
    check(BLUE, "127.0.0.1", 80, "blue-dual");
    check(BLUE, "::1", 80, "blue-dual");
    check(RED, "127.0.0.1", 80, "red-all");
    check(RED, "::1", 80, "::1");
    check(HOST, "172.17.0.2", 80, "blue-dual");
    check(HOST, "fd00::2", 80, "blue-dual");
    check(BLUE, "172.17.0.3", 80, "red-specific");
    check(BLUE, "172.17.0.1", 80, "host-all");
    check(BLUE, "10.0.0.5", 80, "host-all");
    // The own namespace comes first; seen from another one the address is ambiguous.
    check(RED, "172.30.0.1", 80, "red-all");
    check(HOST, "172.30.0.1", 80, "172.30.0.1");
    check(HOST, "fe80::1", 81, "dual");
    check(BLUE, "fe80::99", 80, "fe80::99");
    check(HOST, "10.0.0.5", 81, "four");
    check(HOST, "10.0.0.5", 82, "a");
    check(HOST, "172.17.0.2", 9000, "172.17.0.2");
    check(HOST, "fd00::2", 9000, "six");
    check(HOST, "172.17.0.2", 9999, "172.17.0.2");
    check(HOST, "8.8.8.8", 80, "8.8.8.8");
}

#[test]
fn a_connection_from_before_the_agent_has_the_only_client_that_may_be_its_own() {
    let mut remotes = remotes();
    remotes.set_clients(
        &[
            client(BLUE, "172.17.0.3", 5432, "shop"),
            client(BLUE, "172.17.0.3", 5432, "shop"),
            client(BLUE, "172.17.0.3", 6379, "shop"),
            client(BLUE, "172.17.0.3", 6379, "cart"),
            client(BLUE, "172.17.0.1", 5432, "other-target"),
            client(RED, "127.0.0.1", 5432, "inside"),
            client(RED, "172.17.0.3", 5432, "inside-by-address"),
            client(RED, "::1", 5432, "inside-six"),
            client(HOST, "8.8.8.8", 53, "resolver"),
        ],
        true,
        &[],
    );
    let mut check = |netns, remote: &str, port, expected: &str| {
        let key = key(ROLE_SERVER, remote, port);
        let found = remotes.resolve(netns, &key, true, &Rules::default(), &[]).service;
        let source = if expected == remote { Source::Address } else { Source::LocalClient };
        assert_eq!(found, Service::new(expected, source), "at {netns} from {remote}:{port}");
        // A client that connects while the agent runs leaves a note: it is in another row.
        let new = name(&mut remotes, netns, &key);
        assert_eq!(new, Service::new(remote, Source::Address));
    };
    check(RED, "172.17.0.2", 5432, "shop");
    check(RED, "172.17.0.2", 6379, "172.17.0.2");
    check(HOST, "172.17.0.2", 5432, "other-target");
    check(RED, "127.0.0.1", 5432, "inside");
    check(RED, "172.17.0.3", 5432, "inside-by-address");
    check(RED, "::1", 5432, "inside-six");
    check(RED, "172.17.0.1", 5432, "172.17.0.1");
    check(RED, "8.8.8.8", 53, "8.8.8.8");
}

#[test]
fn collapsed_clients_are_the_internet_and_overflow_is_other() {
    let mut remotes = remotes();
    let mut internet = key(ROLE_SERVER, "::", 80);
    internet.remote = address::INTERNET;
    assert_eq!(name(&mut remotes, HOST, &internet), Service::internet());
    assert_eq!(name(&mut remotes, HOST, &EdgeKey::zeroed()), Service::other());
    assert_eq!(&*name(&mut remotes, HOST, &key(ROLE_LISTENER, "::", 80)).name, "any");
}

#[test]
fn a_full_table_never_makes_a_wrong_name() {
    let mut remotes = remotes();
    let many = |name: &str| client(BLUE, "172.17.0.3", 5432, name);
    let mut clients = vec![many("shop"); MAX_ENTRIES];
    let at = key(ROLE_SERVER, "172.17.0.2", 5432);
    let name = |remotes: &mut Remotes| {
        remotes.resolve(RED, &at, true, &Rules::default(), &[]).service.name.to_string()
    };
    remotes.set_clients(&clients, true, &[]);
    assert_eq!(name(&mut remotes), "shop");
    remotes.set_clients(&clients, false, &[]);
    assert_eq!(name(&mut remotes), "172.17.0.2", "some have no row");
    clients.push(many("cart"));
    remotes.set_clients(&clients, true, &[]);
    assert_eq!(name(&mut remotes), "172.17.0.2");
    assert_eq!(remotes.dropped(), 1);
}
