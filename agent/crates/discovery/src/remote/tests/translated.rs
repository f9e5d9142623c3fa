//! Both ends of translated connections, next to others that are not, in several namespaces.

use super::*;
use crate::connections::{Route, Routes};
use linux::conntrack::End;
use std::net::SocketAddr;

/// Rows of owners.
const PAGE: u32 = 9;
const SIDECAR: u32 = 10;
const SHOP: u32 = 11;

/// What the core knows, from collection to collection.
pub(super) struct World {
    pub remotes: Remotes,
    clients: Vec<Client>,
    lists: u64,
    routes: Vec<Route>,
}

fn end(text: &str) -> End {
    let address: SocketAddr = text.parse().unwrap();
    (address::from_ip(address.ip()), address.port())
}

/// Connections from an address, which the backend sees too.
pub(super) fn route(
    netns: u32,
    owner: Option<u32>,
    from: &str,
    requested: &str,
    backend: &str,
) -> Route {
    Route {
        netns,
        owner,
        client: ip(from),
        requested: end(requested),
        backend: end(backend),
        backend_netns: netns,
        seen_as: ip(from),
    }
}

fn masqueraded(seen_as: &str, route: Route) -> Route {
    Route { seen_as: ip(seen_as), ..route }
}

impl World {
    pub(super) fn new() -> Self {
        Self { remotes: remotes(), clients: Vec::new(), lists: 0, routes: Vec::new() }
    }

    /// An owner that connects to these.
    pub(super) fn connects(&mut self, owner: u32, netns: u32, name: &str, to: &[&str]) {
        self.clients.extend(to.iter().map(|to| {
            let ((remote, port), found) = (end(to), process(name));
            Client { owner, netns, remote, port, found }
        }));
    }

    /// A new list of connections.
    pub(super) fn list(&mut self, routes: &[Route]) {
        self.lists += 1;
        self.routes = routes.to_vec();
        self.collect();
    }

    /// A collection without one.
    fn collect(&mut self) {
        self.collect_of(true);
    }

    fn collect_of(&mut self, is_complete: bool) {
        let (routes, number) = (self.routes.clone(), self.lists);
        let routes = Routes { number, tracking: true, routes, dropped: 0 };
        let inventories = [Arc::new(Inventory::of_routes(routes))];
        self.remotes.set_clients(&self.clients, is_complete, &inventories);
    }

    pub(super) fn resolve(&mut self, netns: u32, key: &EdgeKey, inventory: &Inventory) -> Found {
        let inventory = [Arc::new(inventory.clone())];
        self.remotes.resolve(netns, key, false, &Rules::default(), &inventory)
    }

    /// The name of the server of an owner's edge, or of the client at a server's.
    fn name(&mut self, netns: u32, owner: u32, role: u8, to: &str) -> String {
        let (remote, port) = end(to);
        let key = EdgeKey { owner, remote, port, ..key(role, "::", 0) };
        self.resolve(netns, &key, &Inventory::default()).service.name.to_string()
    }

    #[track_caller]
    fn server(&mut self, (netns, owner): (u32, u32), to: &str, expected: &str) {
        assert_eq!(self.name(netns, owner, ROLE_CLIENT, to), expected, "{owner} to {to}");
    }

    #[track_caller]
    fn client(&mut self, netns: u32, from: &str, expected: &str) {
        assert_eq!(self.name(netns, 99, ROLE_SERVER, from), expected, "in {netns} from {from}");
    }
}

/// A sidecar in BLUE to which all connections of BLUE are redirected, except its own; a server in
/// RED.
fn mesh() -> World {
    let mut world = World::new();
    world.remotes.set_listeners(&[
        listener(BLUE, "127.0.0.1", 15001, "sidecar"),
        listener(RED, "0.0.0.0", 9080, "reviews"),
        listener(RED, "0.0.0.0", 9999, "ratings"),
        listener(RED, "::", 9081, "six"),
    ]);
    world.connects(PAGE, BLUE, "page", &["172.17.0.3:9080"]);
    world.connects(SIDECAR, BLUE, "sidecar", &["172.17.0.3:9080"]);
    world
}

const TO: &str = "172.17.0.3:9080";

fn redirected(owner: Option<u32>) -> Route {
    route(BLUE, owner, "172.17.0.2", TO, "127.0.0.1:15001")
}

fn own(owner: Option<u32>) -> Route {
    route(BLUE, owner, "172.17.0.2", TO, TO)
}

#[test]
fn a_redirected_connection_and_the_sidecars_own_have_each_their_server() {
    let mut world = mesh();
    for _ in 0..10 {
        world.list(&[redirected(Some(PAGE)), own(Some(SIDECAR))]);
        world.server((BLUE, PAGE), TO, "sidecar");
        world.server((BLUE, SIDECAR), TO, "reviews");
        world.client(BLUE, "172.17.0.2:15001", "page");
    }
    // The connections are gone from the list; their edges are not.
    for _ in 0..10 {
        world.list(&[]);
        world.server((BLUE, PAGE), TO, "sidecar");
        world.server((BLUE, SIDECAR), TO, "reviews");
        world.client(BLUE, "172.17.0.2:15001", "page");
    }
    // A third program of which no connection was seen, as all were refused: to whom, who knows.
    world.connects(SHOP, BLUE, "shop", &[TO]);
    world.list(&[]);
    world.server((BLUE, SHOP), TO, "172.17.0.3");
    // Nor does another namespace care.
    world.server((HOST, SHOP), TO, "reviews");
}

#[test]
fn an_edge_that_led_to_two_is_named_after_neither() {
    let mut world = mesh();
    world.list(&[redirected(Some(PAGE)), own(Some(SIDECAR))]);
    world.server((BLUE, PAGE), TO, "sidecar");
    world.list(&[own(Some(PAGE)), own(Some(SIDECAR))]);
    world.server((BLUE, PAGE), TO, "172.17.0.3");
    world.server((BLUE, SIDECAR), TO, "reviews");
    world.list(&[]);
    world.server((BLUE, PAGE), TO, "172.17.0.3");
    let (remote, port) = end(TO);
    let key = EdgeKey { owner: PAGE, remote, port, ..key(ROLE_CLIENT, "::", 0) };
    let found = world.resolve(BLUE, &key, &Inventory::default());
    assert_eq!(found.entity, Entity::SEVERAL, "so that its former name goes");
}

#[test]
fn a_connection_without_a_known_client_is_that_of_one_who_was_seen_to_go_there_or_of_anybody() {
    let check = |routes: &[Route], page: &str, sidecar: &str| {
        let mut world = mesh();
        world.list(routes);
        world.server((BLUE, PAGE), TO, page);
        world.server((BLUE, SIDECAR), TO, sidecar);
    };
    let known = [redirected(Some(PAGE)), own(Some(SIDECAR))];
    check(&[known[0], known[1], redirected(None), own(None)], "sidecar", "reviews");
    check(&[known[0], own(None)], "172.17.0.3", "172.17.0.3");
    check(&[redirected(None)], "sidecar", "sidecar");
    check(&[redirected(None), own(None)], "172.17.0.3", "172.17.0.3");
    check(&[known[0]], "sidecar", "172.17.0.3");
    // Both say the same.
    check(&[redirected(Some(PAGE)), redirected(None)], "sidecar", "sidecar");
}

#[test]
fn the_only_client_that_connects_there_is_the_client_of_an_unknown_connection() {
    let mut world = mesh();
    world.clients.retain(|client| client.owner != SIDECAR);
    world.list(&[redirected(None)]);
    world.server((BLUE, PAGE), TO, "sidecar");
    world.client(BLUE, "172.17.0.2:15001", "page");
    // Unless there may be others that have no row.
    let mut world = mesh();
    world.clients.retain(|client| client.owner != SIDECAR);
    (world.lists, world.routes) = (1, vec![redirected(None)]);
    world.collect_of(false);
    world.client(BLUE, "172.17.0.2:15001", "172.17.0.2");
}

#[test]
fn connections_from_before_the_agent_are_explained_by_those_that_come_later() {
    let mut world = mesh();
    let clients = std::mem::take(&mut world.clients);
    let before = [redirected(None), own(None)];
    world.list(&before);
    world.clients = clients;
    world.list(&before);
    world.client(BLUE, "172.17.0.2:15001", "172.17.0.2");
    world.server((BLUE, PAGE), TO, "172.17.0.3");
    // Of one it is not known yet where it goes.
    world.list(&[before[0], before[1], redirected(Some(PAGE))]);
    world.client(BLUE, "172.17.0.2:15001", "172.17.0.2");
    world.list(&[before[0], before[1], redirected(Some(PAGE)), own(Some(SIDECAR))]);
    world.client(BLUE, "172.17.0.2:15001", "page");
    world.server((BLUE, PAGE), TO, "sidecar");
    world.server((BLUE, SIDECAR), TO, "reviews");
    world.list(&[]);
    world.client(BLUE, "172.17.0.2:15001", "page");
}

#[test]
fn a_virtual_address_is_another_in_every_namespace() {
    let vip = "10.96.0.10:80";
    let mut world = mesh();
    world.connects(PAGE, BLUE, "page", &[vip]);
    world.connects(SHOP, RED, "shop", &[vip]);
    world.list(&[route(BLUE, Some(PAGE), "172.17.0.2", vip, TO)]);
    world.server((BLUE, PAGE), vip, "reviews");
    // All of its connections were refused, which leaves no trace.
    world.server((RED, SHOP), vip, "10.96.0.10");
    world.list(&[
        route(BLUE, Some(PAGE), "172.17.0.2", vip, TO),
        route(RED, Some(SHOP), "172.17.0.3", vip, "172.17.0.3:9999"),
    ]);
    world.server((BLUE, PAGE), vip, "reviews");
    world.server((RED, SHOP), vip, "ratings");
    // And over IPv6.
    let vip = "[fd00:96::a]:80";
    world.remotes.set_addresses(&held(&[(BLUE, ip("fd00::2")), (RED, ip("fd00::3"))]));
    world.connects(PAGE, BLUE, "page", &[vip]);
    world.connects(SHOP, RED, "shop", &[vip]);
    world.list(&[route(BLUE, Some(PAGE), "fd00::2", vip, "[fd00::3]:9081")]);
    world.server((BLUE, PAGE), vip, "six");
    world.server((RED, SHOP), vip, "fd00:96::a");
}

#[test]
fn a_translated_client_is_named_at_the_server_and_no_bystander_is() {
    // docker-proxy in HOST connects to RED; so do a program of HOST and one of BLUE, translated.
    let published = "10.0.0.5:8080";
    let mut world = mesh();
    world.connects(SIDECAR, HOST, "docker-proxy", &[TO]);
    world.connects(SHOP, HOST, "curl", &[published]);
    world.connects(PAGE, BLUE, "page", &["172.17.0.1:8080"]);
    world.collect();
    world.client(RED, "172.17.0.1:9080", "172.17.0.1");
    let of_host = masqueraded("172.17.0.1", route(HOST, Some(SHOP), "10.0.0.5", published, TO));
    world.list(&[of_host]);
    world.client(RED, "172.17.0.1:9080", "curl");
    let of_blue = route(HOST, Some(PAGE), "172.17.0.2", "172.17.0.1:8080", TO);
    world.list(&[of_host, of_blue]);
    world.client(RED, "172.17.0.1:9080", "curl");
    world.client(RED, "172.17.0.2:9080", "page");
    world.server((BLUE, PAGE), "172.17.0.1:8080", "reviews");
    // Behind the same address now, too.
    world.list(&[of_host, masqueraded("172.17.0.1", of_blue)]);
    world.client(RED, "172.17.0.1:9080", "172.17.0.1");
    world.client(RED, "172.17.0.2:9080", "page");
}

#[test]
fn a_client_whose_own_name_may_change_has_a_provisional_name_at_the_server() {
    let mut world = mesh();
    let check = |world: &mut World, own: Found, expected: (&str, Source, bool)| {
        for client in world.clients.iter_mut().filter(|client| client.owner == PAGE) {
            client.found = own.clone();
        }
        world.list(&[redirected(Some(PAGE))]);
        let key = key(ROLE_SERVER, "172.17.0.2", 15001);
        let found = world.resolve(BLUE, &key, &Inventory::default());
        assert_eq!(found.entity, own.entity);
        assert_eq!((&*found.service.name, found.service.source, found.stable), expected);
    };
    let own = |name: &str, source, stable| Found {
        entity: Entity(7),
        stable,
        ..Found::new(Service::new(name, source))
    };
    // Its runtime has not listed it yet; there is none; it has.
    let id = own("0123456789ab", Source::Container, false);
    check(&mut world, id, ("0123456789ab", Source::LocalClient, false));
    let id = own("0123456789ab", Source::Container, true);
    check(&mut world, id, ("0123456789ab", Source::LocalClient, true));
    check(&mut world, own("page", Source::Docker, true), ("page", Source::Conntrack, true));
    // Its edge is gone, and the last name stays.
    world.clients.retain(|client| client.owner != PAGE);
    world.list(&[]);
    world.client(BLUE, "172.17.0.2:15001", "page");
}

#[test]
fn a_container_that_is_started_again_does_not_take_the_name_from_those_who_connect_to_it() {
    let mut world = mesh();
    let vip = "10.96.0.10:80";
    world.connects(PAGE, BLUE, "page", &[vip]);
    let to = [route(BLUE, Some(PAGE), "172.17.0.2", vip, TO)];
    let listening = |world: &mut World, owner: u32, name: &str, stable: bool| {
        let (mut record, found) = listener(RED, "0.0.0.0", 9080, name);
        record.owner = owner;
        world.remotes.set_listeners(&[(record, Found { stable, ..found })]);
    };
    listening(&mut world, 1, "0123456789ab", false);
    world.list(&to);
    let (remote, port) = end(vip);
    let key = EdgeKey { owner: PAGE, remote, port, ..key(ROLE_CLIENT, "::", 0) };
    let found = world.resolve(BLUE, &key, &Inventory::default());
    assert_eq!((&*found.service.name, found.stable), ("0123456789ab", false));
    listening(&mut world, 1, "reviews", true);
    world.list(&[]);
    world.server((BLUE, PAGE), vip, "reviews");
    // The next container has the same address; its runtime has not listed it yet.
    listening(&mut world, 2, "fedcba987654", false);
    world.list(&to);
    world.server((BLUE, PAGE), vip, "reviews");
    listening(&mut world, 2, "reviews", true);
    world.list(&to);
    world.server((BLUE, PAGE), vip, "reviews");
}

#[test]
fn a_client_of_another_host_behind_the_same_address_is_not_taken_for_one_of_this_host() {
    let mut world = mesh();
    world.connects(SHOP, HOST, "curl", &["10.0.0.5:8080"]);
    let ours = route(HOST, Some(SHOP), "10.0.0.5", "10.0.0.5:8080", TO);
    let theirs = route(HOST, None, "192.0.2.7", "10.0.0.5:8080", TO);
    world.list(&[masqueraded("172.17.0.1", theirs)]);
    world.list(&[masqueraded("172.17.0.1", ours)]);
    world.client(RED, "172.17.0.1:9080", "172.17.0.1");
    world.list(&[theirs]);
    world.client(RED, "192.0.2.7:9080", "192.0.2.7");
}

#[test]
fn a_backend_that_was_replaced_by_another_service_names_nobody_any_more() {
    let mut world = mesh();
    let vip = "10.96.0.10:80";
    world.connects(PAGE, BLUE, "page", &[vip]);
    let listening = |world: &mut World, owner: u32, name: &str| {
        let (mut record, found) = listener(RED, "0.0.0.0", 9080, name);
        record.owner = owner;
        world.remotes.set_listeners(&[(record, found)]);
    };
    let to = [route(BLUE, Some(PAGE), "172.17.0.2", vip, TO)];
    listening(&mut world, 1, "reviews");
    world.list(&to);
    world.server((BLUE, PAGE), vip, "reviews");
    // Another takes its port, but no connection of this client has reached it yet.
    listening(&mut world, 2, "ratings");
    world.list(&[]);
    world.server((BLUE, PAGE), vip, "reviews");
    world.list(&to);
    world.server((BLUE, PAGE), vip, "10.96.0.10");
    // The same under a better name is no other.
    let mut world = mesh();
    world.connects(PAGE, BLUE, "page", &[vip]);
    listening(&mut world, 1, "python3");
    world.list(&to);
    world.server((BLUE, PAGE), vip, "python3");
    listening(&mut world, 1, "reviews");
    world.list(&to);
    world.server((BLUE, PAGE), vip, "reviews");
}

#[test]
fn a_row_that_was_given_back_says_nothing_of_its_next_owner() {
    let mut world = mesh();
    world.list(&[redirected(Some(PAGE)), own(Some(SIDECAR))]);
    world.remotes.forget_owner(PAGE);
    world.collect();
    world.server((BLUE, PAGE), TO, "reviews");
    world.client(BLUE, "172.17.0.2:15001", "172.17.0.2");
}

#[test]
fn a_new_edge_waits_for_a_list_that_was_begun_after_it_was_met() {
    let mut world = mesh();
    let stable = |world: &mut World| {
        world.collect();
        let (remote, port) = end(TO);
        let key = EdgeKey { owner: PAGE, remote, port, ..key(ROLE_CLIENT, "::", 0) };
        let stable = world.resolve(BLUE, &key, &Inventory::default()).stable;
        assert_eq!(world.remotes.awaits_connections(), !stable);
        stable
    };
    world.list(&[]);
    assert!(stable(&mut world), "connections are not listed");
    // The second list is under way.
    world.remotes.set_connection_lists(Some(2));
    assert!(!stable(&mut world));
    world.list(&[]);
    assert!(!stable(&mut world));
    world.list(&[]);
    assert!(stable(&mut world));
    // A source that fails is not waited for.
    world.remotes.forget_owner(PAGE);
    world.remotes.set_connection_lists(Some(3));
    assert!(!stable(&mut world));
    world.remotes.set_connection_lists(None);
    assert!(stable(&mut world));
}

#[test]
fn a_list_that_was_taken_in_before_the_addresses_were_known_is_not_the_last_word() {
    let mut world = mesh();
    world.remotes.set_addresses(&[]);
    world.remotes.set_unknown_namespaces(true);
    let all = [redirected(Some(PAGE)), redirected(None), own(Some(SIDECAR))];
    let (remote, port) = end(TO);
    let key = EdgeKey { owner: PAGE, remote, port, ..key(ROLE_CLIENT, "::", 0) };
    for lists in 1..=2 {
        world.remotes.set_connection_lists(Some(lists));
        world.list(&all);
        assert!(!world.resolve(BLUE, &key, &Inventory::default()).stable);
        world.client(BLUE, "172.17.0.2:15001", "172.17.0.2");
    }
    // They are looked up; the next list has the client.
    world.remotes.set_addresses(&held(&[(BLUE, ip("172.17.0.2")), (RED, ip("172.17.0.3"))]));
    world.remotes.set_unknown_namespaces(false);
    world.list(&all);
    world.resolve(BLUE, &key, &Inventory::default());
    world.remotes.set_unknown_namespaces(true);
    let found = world.resolve(BLUE, &key, &Inventory::default());
    assert_eq!((&*found.service.name, found.stable), ("sidecar", true));
    world.client(BLUE, "172.17.0.2:15001", "page");
}

#[test]
fn one_namespace_fills_its_own_share_only_and_is_told_addresses_then() {
    use crate::translated::MAX_OF_NAMESPACE;
    let mut world = mesh();
    let vip = |n: usize| format!("10.97.{}.{}:80", n >> 8, n & 255);
    let all: Vec<_> = (0..=MAX_OF_NAMESPACE)
        .map(|n| route(BLUE, Some(PAGE), "172.17.0.2", &vip(n), "8.8.8.8:80"))
        .chain([route(RED, Some(SHOP), "172.17.0.3", "10.98.0.1:80", "172.17.0.3:9999")])
        .collect();
    world.connects(SHOP, RED, "shop", &["10.98.0.1:80"]);
    world.list(&all);
    assert_eq!(world.remotes.dropped_connections(), 1);
    world.server((RED, SHOP), "10.98.0.1:80", "ratings");
    world.collect();
    assert_eq!(world.remotes.dropped_connections(), 1, "still the same list");
}

#[test]
fn a_service_that_changes_its_pods_for_ever_keeps_its_name_and_a_bounded_memory() {
    let mut world = mesh();
    let vip = "10.96.0.10:80";
    world.connects(PAGE, BLUE, "page", &[vip]);
    for n in 0..300 {
        let pod = format!("10.1.{}.{}", n >> 8, n & 255);
        let mut inventory = Inventory::default();
        inventory.add_address(ip(&pod), &workload("web"));
        world.list(&[route(BLUE, Some(PAGE), "172.17.0.2", vip, &format!("{pod}:80"))]);
        let (remote, port) = end(vip);
        let key = EdgeKey { owner: PAGE, remote, port, ..key(ROLE_CLIENT, "::", 0) };
        assert_eq!(&*world.resolve(BLUE, &key, &inventory).service.name, "web", "{pod}");
        let ways = world.remotes.translated.ways(BLUE, (remote, port)).len();
        assert!(ways <= 2, "{ways} after {n}");
    }
}
