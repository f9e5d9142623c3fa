//! The latest events. When there are too many, the oldest one of the most frequent cause goes, of the
//! tenant that has most of them: a storm of one cause displaces its own past, not the start of a service
//! an hour ago, and not what happened to others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use agent_common::share::Tenant;
use hashbrown::HashMap;

use super::Event;

/// Events at most. One takes about 400 bytes.
pub const MOST: usize = 10_000;

/// The latest events, by cause.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    causes: BTreeMap<&'static str, OfCause>,
    len: usize,
    /// The largest cursor of an event that was overwritten.
    overwritten: u64,
}

/// Those of one cause.
#[derive(Clone, Debug, Default)]
struct OfCause {
    /// In the order in which they began, which is that of their ids.
    events: VecDeque<Arc<Event>>,
    /// How many of them each tenant has.
    tenants: HashMap<Option<Tenant>, usize>,
}

// === impl Ring ===

impl Ring {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All events after a cursor that are `wanted`, in the order of their cursors.
    pub fn after(&self, cursor: u64, wanted: impl Fn(&Event) -> bool) -> Vec<&Arc<Event>> {
        let events = self.causes.values().flat_map(|of_cause| &of_cause.events);
        let mut found: Vec<_> =
            events.filter(|event| event.cursor > cursor && wanted(event)).collect();
        found.sort_unstable_by_key(|event| event.cursor);
        found
    }

    /// The cursor of the latest event; 0 without any.
    pub fn latest(&self) -> u64 {
        let events = self.causes.values().flat_map(|of_cause| &of_cause.events);
        events.map(|event| event.cursor).max().unwrap_or_default()
    }

    /// Whether events after this cursor were overwritten.
    pub fn has_lost_after(&self, cursor: u64) -> bool {
        self.overwritten > cursor
    }

    /// Adds an event, whose id is larger than all; returns the one that had to go for it.
    pub(super) fn push(&mut self, event: Event) -> Option<Arc<Event>> {
        let gone = if self.len >= MOST { self.pop() } else { None };
        self.causes.entry(event.what.cause).or_default().push(event);
        self.len += 1;
        gone
    }

    /// Changes an event that is still here, and returns it.
    pub(super) fn change(
        &mut self,
        cause: &'static str,
        id: u64,
        change: impl FnOnce(&mut Event),
    ) -> Option<Arc<Event>> {
        let OfCause { events, .. } = self.causes.get_mut(cause)?;
        let at = events.binary_search_by_key(&id, |event| event.id).ok()?;
        let event = events.get_mut(at)?;
        change(Arc::make_mut(event));
        Some(Arc::clone(event))
    }

    /// Removes an event of the most frequent cause.
    fn pop(&mut self) -> Option<Arc<Event>> {
        let most = self.causes.values_mut().max_by_key(|of_cause| of_cause.events.len())?;
        let gone = most.pop()?;
        self.len -= 1;
        self.overwritten = self.overwritten.max(gone.cursor);
        Some(gone)
    }
}

// === impl OfCause ===

impl OfCause {
    fn push(&mut self, event: Event) {
        *self.tenants.entry(event.what.tenant).or_default() += 1;
        self.events.push_back(Arc::new(event));
    }

    /// Removes the oldest event of the tenant that has most; of several with as many, the oldest.
    fn pop(&mut self) -> Option<Arc<Event>> {
        let Self { events, tenants } = self;
        let most = *tenants.values().max()?;
        let has_most = |event: &Arc<Event>| tenants.get(&event.what.tenant) == Some(&most);
        let gone = events.remove(events.iter().position(has_most)?)?;
        if most == 1 {
            tenants.remove(&gone.what.tenant);
        } else {
            tenants.insert(gone.what.tenant, most - 1);
        }
        Some(gone)
    }
}
