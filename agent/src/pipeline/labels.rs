//! Labels: which names an edge of the kernel half gets.

use agent_common::address::{UNSPECIFIED, owner_of, to_ip};
use agent_common::edge::{EdgeKey, ROLE_CLIENT, ROLE_LISTENER, ROLE_SERVER};

use agent_common::drained::Edge;
use agent_common::listener::ListenerRecord;
use agent_common::share::Tenant;
use discovery::{Acceptor, Found, Names};
use model::owners::Owners;
use model::registry::At;
use model::service::{Service, Source};
use model::slot::Naming;
use model::snapshot::{EdgeLabels, Role};
use model::unverified::Proven;

/// Whose a network namespace is: `host` if it is the agent's `own`, else the service that was seen
/// there first, else `other`.
pub(super) fn namespace_of(
    names: &mut Names,
    owners: &Owners,
    netns: u32,
    own: u32,
    now_us: u64,
) -> Service {
    if netns == own {
        return Service::new("host", Source::Unknown);
    }
    let first = owners.in_namespace(netns).filter(|row| !names.is_past(*row)).min();
    first.map_or_else(Service::other, |row| local_name(names, owners, row, now_us).0)
}

/// The user who made a network namespace and can fake what happens there, if that is neither root nor
/// trusted.
pub(super) fn user_of_namespace(names: &Names, owners: &Owners, netns: u32) -> Option<u32> {
    let mut rows = owners.in_namespace(netns).filter(|row| !names.is_past(*row));
    rows.find_map(|row| owners.user(row))
}

/// Names both ends of an edge.
pub(super) fn naming(
    names: &mut Names,
    owners: &Owners,
    registry: At<'_>,
    proven: &Proven,
    edge: &Edge,
    now_us: u64,
) -> Naming {
    let EdgeKey { owner, port, role, .. } = edge.key;
    if let Some(tenant) = edge.others() {
        return others(names, owners, tenant, role, now_us);
    }
    if edge.is_overflow() {
        return EdgeLabels::other(role_of(role)).into();
    }
    let (mut local, local_stable) = local_name(names, owners, owner, now_us);
    let netns = owners.netns(owner);
    let is_past = names.is_past(owner);
    let preexisting = edge.counters.preexisting > 0;
    let far = match role {
        ROLE_SERVER if edge.key.remote != UNSPECIFIED => match owner_of(&edge.key.remote) {
            Some(client) => {
                let found = self::local(names, owners, client, now_us);
                Found { entity: names.namespace_of(client), ..found }
            }
            None => registered(registry, names.remote(netns, &edge.key, preexisting), &edge.key),
        },
        ROLE_CLIENT => registered(registry, names.remote(netns, &edge.key, preexisting), &edge.key),
        _ => Found::new(Service::any()),
    };
    let mut stable = local_stable && far.stable;
    let (client, server) = if role == ROLE_CLIENT {
        (local, far.service)
    } else {
        let place = owner_of(&edge.key.remote).unwrap_or(owner);
        match names.acceptor(owner, port).cloned() {
            Some(Acceptor::Service(service)) => local = service,
            Some(acceptor) if role == ROLE_SERVER => {
                local = names.at_address(netns, place, edge.local);
                stable &= acceptor != Acceptor::Unknown { is_final: false };
            }
            _ => {}
        }
        // A process that listens on a published port does so for the container.
        if let Some(container) = names.published(netns, port).filter(|_| !is_past) {
            local = container;
        }
        // Accepted before its listener was known: while the agent started.
        let unowned = role == ROLE_SERVER && local.source == Source::Unknown && !is_past;
        if let Some(service) = unowned.then(|| names.listening(netns, port)).flatten() {
            local = service;
        } else if unowned && names.openers(port).any(|opener| owners.netns(opener) == netns) {
            local = names.at_address(netns, place, edge.local);
        }
        (far.service, local)
    };
    let labels = EdgeLabels {
        virtual_service: far.virtual_service,
        unverified_user: proven.doubt(edge, owners),
        ..EdgeLabels::new(client, server, port, role_of(role))
    };
    // Who an owner is never changes, as the slot is this owner's, except that its program may act in
    // another network namespace that has the number of one that has ended.
    let (near, far) = (names.namespace_of(owner), far.entity);
    let (client, server) = if role == ROLE_CLIENT { (near, far) } else { (far, near) };
    let keeps_far = is_past && owner_of(&edge.key.remote).is_none();
    Naming { labels, client, server, stable, keeps_far }
}

/// Edges of a tenant that found no row of their own: the near end says whose they are.
fn others(names: &mut Names, owners: &Owners, tenant: Tenant, role: u8, now_us: u64) -> Naming {
    let Found { service, stable, .. } = names.others(tenant, now_us);
    let other = EdgeLabels::other(role_of(role));
    let labels = EdgeLabels { unverified_user: owners.user_of(tenant), ..other };
    let labels = match role {
        ROLE_CLIENT => EdgeLabels { client: service, ..labels },
        _ => EdgeLabels { server: service, ..labels },
    };
    Naming { stable, ..labels.into() }
}

/// Where nothing surer is known of an address: what somebody registered for it. A client's port
/// is not in the key, so a client is found only by a registration of an address alone.
fn registered(registry: At<'_>, found: Found, key: &EdgeKey) -> Found {
    if !matches!(found.service.source, Source::Network | Source::Dns | Source::Address) {
        return found;
    }
    // What is registered for a loopback address is on the host's, and that of an address that others
    // have as well is what the host reaches there.
    if found.service.source == Source::Address && !found.service.namespace.is_empty() {
        return found;
    }
    let port = if key.role == ROLE_CLIENT { key.port } else { 0 };
    match registry.name(to_ip(key.remote), port) {
        Some(service) => Found { service: service.clone(), ..found },
        None => found,
    }
}

/// The name of an owner of this host, and whether it is stable.
pub(super) fn local_name(
    names: &mut Names,
    owners: &Owners,
    index: u32,
    now_us: u64,
) -> (Service, bool) {
    let Found { service, stable, .. } = local(names, owners, index, now_us);
    (service, stable)
}

/// Who accepts the connections of a listener; none if it was opened for a service that is not known.
pub(super) fn accepting(
    names: &mut Names,
    owners: &Owners,
    record: &ListenerRecord,
    now_us: u64,
) -> Option<Found> {
    match names.acceptor(record.owner, record.port) {
        Some(Acceptor::Service(service)) => Some(Found::new(service.clone())),
        Some(Acceptor::Several | Acceptor::Unknown { .. }) => None,
        None => Some(local(names, owners, record.owner, now_us)),
    }
}

/// An owner of this host as an end of edges.
pub(super) fn local(names: &mut Names, owners: &Owners, index: u32, now_us: u64) -> Found {
    let row = owners.row(index);
    row.map_or_else(|| Found::new(Service::other()), |row| names.owner(index, row, now_us))
}

fn role_of(role: u8) -> Role {
    match role {
        ROLE_CLIENT => Role::Client,
        ROLE_SERVER => Role::Server,
        ROLE_LISTENER => Role::Listener,
        _ => Role::Unknown,
    }
}
