//! The name of an end of an edge.

use super::inventory::Workload;
use super::rules::Rules;
use model::service::{Entity, Service, Source};

/// An end of an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub service: Service,
    /// Its identity.
    pub entity: Entity,
    /// The virtual service that the client connected to, if a backend of it answers.
    pub virtual_service: Option<Service>,
    /// Whether no better name is expected in the next seconds.
    pub stable: bool,
}

impl Found {
    /// Only a name.
    pub fn new(service: Service) -> Self {
        Self { service, entity: Entity::UNKNOWN, virtual_service: None, stable: true }
    }

    /// A workload of an inventory, found in this way.
    pub(super) fn workload(workload: &Workload, source: Source, rules: &Rules) -> Self {
        let service = rules.workload(workload).unwrap_or_else(|| workload.service.clone());
        Self { entity: workload.entity, ..Self::new(service.found_by(source)) }
    }
}

/// The service of all of them, if all are known and have the same name. It has an identity if they
/// share one.
pub(super) fn agreed(found: impl Iterator<Item = Option<Found>>) -> Option<Found> {
    let mut one: Option<Found> = None;
    for found in found {
        let found = found?;
        match &mut one {
            Some(known) if !known.service.is_called_as(&found.service) => return None,
            Some(known) => {
                known.stable &= found.stable;
                if known.entity != found.entity {
                    known.entity = Entity::UNKNOWN;
                }
            }
            None => one = Some(found),
        }
    }
    one
}

/// A service with several backends: the name without the identity of one of them.
pub(super) fn found_by(found: &Found, source: Source) -> Found {
    Found { stable: found.stable, ..Found::new(found.service.found_by(source)) }
}

/// A client of this host as a server sees it. Its name is provisional as long as the client's own
/// is: that of a container without a name may come from the address before it comes from here.
pub(super) fn as_client(found: &Found, source: Source) -> Found {
    let Found { service, entity, stable, .. } = found;
    let is_final = *stable && service.source != Source::Container;
    let source = if is_final { source } else { Source::LocalClient };
    Found { entity: *entity, stable: *stable, ..Found::new(service.found_by(source)) }
}
