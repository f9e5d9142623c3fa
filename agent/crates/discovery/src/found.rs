//! Who was found at the other end of an edge.

use super::inventory::Workload;
use super::rules::Rules;
use model::service::{Entity, Service, Source};

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is called.
    pub service: Service,
    /// Who it is.
    pub entity: Entity,
    /// What the client asked for, if another answered.
    pub virtual_service: Option<Service>,
    /// Whether a better name is not to be expected in the next seconds.
    pub stable: bool,
}

impl Found {
    /// Nothing but the name.
    pub fn new(service: Service) -> Self {
        Self { service, entity: Entity::UNKNOWN, virtual_service: None, stable: true }
    }

    /// Somebody whom a source knows, found in this way.
    pub(super) fn workload(workload: &Workload, source: Source, rules: &Rules) -> Self {
        let service = rules.workload(workload).unwrap_or_else(|| workload.service.clone());
        Self { entity: workload.entity, ..Self::new(service.found_by(source)) }
    }
}

/// The one that all of them are, if they are one and every one is known.
pub(super) fn agreed(found: impl Iterator<Item = Option<Found>>) -> Option<Found> {
    let mut one: Option<Found> = None;
    for found in found {
        let found = found?;
        match &one {
            Some(known) if !known.service.is_called_as(&found.service) => return None,
            Some(_) => {}
            None => one = Some(found),
        }
    }
    one
}

/// Of several backends no single one is the bearer of the name.
pub(super) fn found_by(found: &Found, source: Source) -> Found {
    Found::new(found.service.found_by(source))
}
