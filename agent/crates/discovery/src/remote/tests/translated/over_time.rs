//! Names of translated connections while names, addresses and backends change.

use super::super::*;
use super::world::{PAGE, SHOP, SIDECAR, TO, World, end, mesh, own, redirected, route};

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
    // The same service under a better name is not another one.
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
