//! One registered service: its endpoints, how long they last, and what may be registered at all.

use std::collections::BTreeMap;

use notation::{Check, Endpoint};

use super::{LEAST_TTL, MOST_ENDPOINTS, MOST_TTL, REMEMBERED, Refused};
use crate::full_name::FullName;

/// A registered service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its name.
    pub service: FullName,
    /// Where it is.
    pub endpoints: Vec<Endpoint>,
    /// How `portolan services monitor` checks its endpoints.
    pub check: Option<Check>,
    /// How long they last; `None` = until it is unregistered.
    pub lease: Option<Lease>,
}

/// How long the endpoints of a service last without being renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Time to live of each, seconds.
    pub ttl: u64,
    /// When each ends, seconds since the Unix epoch.
    pub until: BTreeMap<Endpoint, u64>,
}

// === impl Registration ===

impl Registration {
    /// A name for these endpoints, without a check and until it is unregistered.
    #[must_use]
    pub const fn new(service: FullName, endpoints: Vec<Endpoint>) -> Self {
        Self { service, endpoints, check: None, lease: None }
    }

    /// When an endpoint ends unless it is renewed, seconds since the Unix epoch; `None` = never.
    #[must_use]
    pub fn until(&self, endpoint: &Endpoint) -> Option<u64> {
        // Without a time it has not been renewed.
        self.lease.as_ref().map(|lease| lease.until.get(endpoint).copied().unwrap_or_default())
    }

    /// Whether this endpoint is in force: it has not expired.
    #[must_use]
    pub fn is_in_force(&self, endpoint: &Endpoint, now: u64) -> bool {
        self.until(endpoint).is_none_or(|until| until > now)
    }

    /// Whether an endpoint still has its name: for an hour after it should have been renewed.
    #[must_use]
    pub fn is_remembered(&self, endpoint: &Endpoint, now: u64) -> bool {
        self.named_until(endpoint).is_none_or(|until| until > now)
    }

    pub(super) fn named_until(&self, endpoint: &Endpoint) -> Option<u64> {
        self.until(endpoint).map(|until| until.saturating_add(REMEMBERED))
    }

    /// Sorts its endpoints, and refuses what cannot be registered.
    pub(super) fn check(&mut self) -> Result<(), Refused> {
        let Self { service, endpoints, check, lease } = self;
        endpoints.sort_unstable();
        endpoints.dedup();
        if endpoints.is_empty() {
            return Err(Refused::Nowhere(service.clone()));
        }
        if endpoints.len() > MOST_ENDPOINTS {
            return Err(Refused::TooManyEndpoints(service.clone()));
        }
        if let Some(Lease { ttl, until }) = lease {
            if !(LEAST_TTL..=MOST_TTL).contains(ttl) {
                return Err(Refused::Ttl(service.clone(), *ttl));
            }
            until.retain(|endpoint, _| endpoints.contains(endpoint));
        }
        let unchecked = endpoints.iter().find(|one| check.is_some() && one.socket().is_none());
        match unchecked.copied() {
            Some(endpoint) => Err(Refused::Unchecked { service: service.clone(), endpoint }),
            None => Ok(()),
        }
    }
}

// === impl Lease ===

impl Lease {
    /// One of `ttl` seconds for all of these, from `now` on.
    #[must_use]
    pub fn new(ttl: u64, endpoints: &[Endpoint], now: u64) -> Self {
        let until = now.saturating_add(ttl);
        Self { ttl, until: endpoints.iter().map(|endpoint| (*endpoint, until)).collect() }
    }
}
