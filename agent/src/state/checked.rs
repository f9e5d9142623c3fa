//! Values of requests: checked on the way in, shown on the way out.

use super::failure::Failure;
use std::time::Duration;

use api_types::Registered;
use model::full_name::FullName;
use model::port::{Port, Protocol};
use model::registry::Registration;
use model::timestamp;
use notation::duration;

pub(super) fn checked(number: u16, protocol: Protocol) -> Result<Port, Failure> {
    match number {
        0 => Err(Failure::Wrong("0 is not a port (1-65535)".to_owned())),
        _ => Ok(Port { number, protocol }),
    }
}

pub(super) fn until_when(text: Option<&str>, now: u64) -> Result<Option<u64>, Failure> {
    text.map(|text| timestamp::parse(text, now)).transpose().map_err(Failure::Wrong)
}

pub(super) fn named(service: &str) -> Result<FullName, Failure> {
    service.parse().map_err(Failure::Wrong)
}

pub(super) fn shown(registration: &Registration) -> Registered {
    let Registration { service, endpoints, check, lease } = registration;
    Registered {
        service: service.to_string(),
        addresses: endpoints.iter().map(ToString::to_string).collect(),
        check: check.as_ref().map(ToString::to_string),
        ttl: lease.as_ref().map(|lease| duration::text(Duration::from_secs(lease.ttl))),
    }
}

/// Seconds of a time to live like `30s`.
pub(super) fn ttl_seconds(text: &str) -> Result<u64, String> {
    let ttl = duration::parse(text).filter(|ttl| ttl.subsec_nanos() == 0);
    ttl.map(|ttl| ttl.as_secs()).ok_or_else(|| {
        format!("\"{text}\" is not a time to live; write a number with a unit, like 30s or 15m")
    })
}
