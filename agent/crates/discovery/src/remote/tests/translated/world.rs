//! Clients, listeners and lists of connections in several namespaces, from collection to collection.

use std::net::SocketAddr;

use super::super::*;
use crate::connections::{Route, Routes};
use linux::conntrack::End;

/// Rows of owners.
pub(in crate::remote) const PAGE: u32 = 9;
pub(in crate::remote) const SIDECAR: u32 = 10;
pub(in crate::remote) const SHOP: u32 = 11;

pub(in crate::remote) const TO: &str = "172.17.0.3:9080";

/// What the core knows, from collection to collection.
pub(in crate::remote) struct World {
    pub remotes: Remotes,
    pub(super) clients: Vec<Client>,
    pub(super) lists: u64,
    pub(super) routes: Vec<Route>,
}

impl World {
    pub(in crate::remote) fn new() -> Self {
        Self { remotes: remotes(), clients: Vec::new(), lists: 0, routes: Vec::new() }
    }

    /// An owner that connects to these.
    pub(in crate::remote) fn connects(&mut self, owner: u32, netns: u32, name: &str, to: &[&str]) {
        self.clients.extend(to.iter().map(|to| {
            let ((remote, port), found) = (end(to), process(name));
            Client { owner, netns, remote, port, found }
        }));
    }

    /// A new list of connections.
    pub(in crate::remote) fn list(&mut self, routes: &[Route]) {
        self.lists += 1;
        self.routes = routes.to_vec();
        self.collect();
    }

    /// A collection without one.
    pub(in crate::remote) fn collect(&mut self) {
        self.collect_of(true);
    }

    pub(in crate::remote) fn collect_of(&mut self, is_complete: bool) {
        let (routes, number) = (self.routes.clone(), self.lists);
        let routes = Routes { number, tracking: true, routes, dropped: 0 };
        let inventories = [Arc::new(Inventory::of_routes(routes))];
        self.remotes.set_clients(&self.clients, is_complete, &inventories);
    }

    pub(in crate::remote) fn resolve(
        &mut self,
        netns: u32,
        key: &EdgeKey,
        inventory: &Inventory,
    ) -> Found {
        let inventory = [Arc::new(inventory.clone())];
        self.remotes.resolve(netns, key, false, &Rules::default(), &inventory)
    }

    /// The name of the server of an owner's edge, or of the client at a server's.
    pub(in crate::remote) fn name(&mut self, netns: u32, owner: u32, role: u8, to: &str) -> String {
        let (remote, port) = end(to);
        let key = EdgeKey { owner, remote, port, ..key(role, "::", 0) };
        self.resolve(netns, &key, &Inventory::default()).service.name.to_string()
    }

    #[track_caller]
    pub(in crate::remote) fn server(
        &mut self,
        (netns, owner): (u32, u32),
        to: &str,
        expected: &str,
    ) {
        assert_eq!(self.name(netns, owner, ROLE_CLIENT, to), expected, "{owner} to {to}");
    }

    #[track_caller]
    pub(in crate::remote) fn client(&mut self, netns: u32, from: &str, expected: &str) {
        assert_eq!(self.name(netns, 99, ROLE_SERVER, from), expected, "in {netns} from {from}");
    }
}

/// A sidecar in BLUE to which all connections of BLUE are redirected, except its own; a server in
/// RED.
pub(in crate::remote) fn mesh() -> World {
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

pub(in crate::remote) fn end(text: &str) -> End {
    let address: SocketAddr = text.parse().unwrap();
    (address::from_ip(address.ip()), address.port())
}

/// Connections from an address, which the backend sees too.
pub(in crate::remote) fn route(
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

pub(in crate::remote) fn masqueraded(seen_as: &str, route: Route) -> Route {
    Route { seen_as: ip(seen_as), ..route }
}

pub(in crate::remote) fn redirected(owner: Option<u32>) -> Route {
    route(BLUE, owner, "172.17.0.2", TO, "127.0.0.1:15001")
}

pub(in crate::remote) fn own(owner: Option<u32>) -> Route {
    route(BLUE, owner, "172.17.0.2", TO, TO)
}
