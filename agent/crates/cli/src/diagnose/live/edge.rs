//! Which edges of an answer belong to a pair of services.

use api_types::{Edge, Edges, Role, Source};

use super::super::evidence::{Name, Pair};

/// The agent's own traffic, and that of its commands.
const OURSELVES: &str = "portolan";

/// A connection between two services that is not the agent's own, and that no user may have faked.
pub(super) fn is_pair(edge: &Edge) -> bool {
    matches!(edge.role, Role::Client | Role::Server)
        && !(edge.client == "any" && edge.client_source == Source::Unknown)
        && edge.client != OURSELVES
        && edge.port != 0
        && edge.unverified_user.is_none()
}

/// The pair of an edge.
pub(in super::super) fn pair(edge: &Edge) -> Pair {
    Pair {
        client: Some(Name::new(&edge.client_namespace, &edge.client)),
        server: Name::new(&edge.server_namespace, &edge.server),
        port: edge.port,
    }
}

pub(super) fn find<'a>(edges: &'a Edges, pair: &Pair, role: Role) -> Option<&'a Edge> {
    edges.edges.iter().find(|edge| edge.role == role && is_of(edge, pair))
}

pub(super) fn is_of(edge: &Edge, pair: &Pair) -> bool {
    edge.port == pair.port
        && is_server(edge, &pair.server)
        && pair.client.as_ref().is_some_and(|client| is_client(edge, client))
}

pub(super) fn is_server(edge: &Edge, name: &Name) -> bool {
    (&edge.server_namespace, &edge.server) == (&name.namespace, &name.name)
}

pub(super) fn is_client(edge: &Edge, name: &Name) -> bool {
    (&edge.client_namespace, &edge.client) == (&name.namespace, &name.name)
}
