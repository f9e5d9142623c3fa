//! Both ends of translated connections, next to others that are not, in several namespaces.

mod over_time;
mod world;

use self::world::{PAGE, SHOP, SIDECAR, TO, end, masqueraded, mesh, own, redirected};
use super::*;
use crate::connections::Route;

pub(super) use self::world::{World, route};

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
    // A third program whose connections were all refused, so none was seen: its server is unknown.
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
