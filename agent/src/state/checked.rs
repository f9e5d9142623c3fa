//! Values of requests: checked on the way in, shown on the way out.

use super::failure::Failure;
use api_types::Registered;
use model::full_name::FullName;
use model::port::{Port, Protocol};
use model::registry::Registration;
use model::timestamp;

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
    let Registration { service, endpoints } = registration;
    Registered {
        service: service.to_string(),
        addresses: endpoints.iter().map(ToString::to_string).collect(),
    }
}
