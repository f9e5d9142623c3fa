//! The text of the state file: JSON with a version, every entry validated.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::checked::ttl_seconds;
use model::port::Port;
use model::registry::{Check, Endpoint, Lease, Registration};
use model::reservations::{Environment, Origin, Reservation};
use model::state::State;
use model::timestamp;
use notation::duration;

/// The version that this agent writes, and the newest that it reads.
pub const VERSION: u64 = 1;

/// Why a text is not a state file: where, and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Not JSON.
    #[error("it is not JSON ({0}); fix it there")]
    Syntax(String),
    /// Not a state file.
    #[error("it has no \"version\"; is it the state file of Portolan?")]
    NoVersion,
    /// Of a newer version.
    #[error(
        "it has version {0}, and this agent reads up to {VERSION}; a newer Portolan wrote it, so start that one"
    )]
    Newer(u64),
    /// An entry.
    #[error("{location}: {problem}; fix or remove this entry")]
    Entry {
        /// `reservations[3]`
        location: String,
        /// The error.
        problem: String,
    },
}

/// The content of the file, and the number of outdated entries.
#[derive(Debug)]
pub struct Read {
    /// The state.
    pub state: State,
    /// Reservations in network namespaces of an earlier boot, which are gone.
    pub outdated: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReservationEntry {
    port: String,
    service: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    environment: Option<Environment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    enforce: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netns: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceEntry {
    name: String,
    addresses: Vec<Endpoint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    check: Option<Check>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    /// When its addresses end.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    until: BTreeMap<Endpoint, String>,
}

#[derive(Serialize)]
struct Whole {
    version: u64,
    /// Network namespaces are numbered anew at every boot; reservations of one go with it.
    boot: String,
    reservations: Vec<ReservationEntry>,
    services: Vec<ServiceEntry>,
}

/// Reads a state file written since or before the boot called `boot`.
pub fn read(text: &str, boot: &str) -> Result<Read, Broken> {
    let whole: Value =
        serde_json::from_str(text).map_err(|error| Broken::Syntax(error.to_string()))?;
    match whole.get("version").and_then(Value::as_u64) {
        None | Some(0) => return Err(Broken::NoVersion),
        Some(version) if version > VERSION => return Err(Broken::Newer(version)),
        Some(_) => {}
    }
    let known = ["version", "boot", "reservations", "services"];
    let keys = whole.as_object().into_iter().flat_map(|object| object.keys());
    if let Some(key) = keys.into_iter().find(|key| !known.contains(&key.as_str())) {
        let problem = format!("unknown key; known are {}", known.join(", "));
        return Err(Broken::Entry { location: key.clone(), problem });
    }
    let same_boot = whole.get("boot").and_then(Value::as_str) == Some(boot);
    let mut read = Read { state: State::default(), outdated: 0 };
    for (location, entry) in entries(&whole, "reservations")? {
        let broken = |problem: String| Broken::Entry { location: location.clone(), problem };
        let reservation = reservation(entry).map_err(broken)?;
        if reservation.netns.is_some() && !same_boot {
            read.outdated += 1;
            continue;
        }
        // At time 0 nothing has expired: the caller, which knows the time, removes expired entries.
        let reserved = read.state.reservations.reserve(reservation, 0);
        reserved.map_err(|refused| broken(refused.to_string()))?;
    }
    for (location, entry) in entries(&whole, "services")? {
        let broken = |problem: String| Broken::Entry { location: location.clone(), problem };
        let registered = read.state.registry.register(registration(entry).map_err(broken)?, 0);
        registered.map_err(|refused| broken(refused.to_string()))?;
    }
    Ok(read)
}

/// Writes what of `state` is not in the configuration.
pub fn write(state: &State, boot: &str) -> String {
    let reservations = state.reservations.iter().filter(|one| one.origin == Origin::State);
    let whole = Whole {
        version: VERSION,
        boot: boot.to_owned(),
        reservations: reservations.map(ReservationEntry::from).collect(),
        services: state.registry.iter().map(ServiceEntry::from).collect(),
    };
    // Strings, numbers and lists of them: JSON can represent all of it.
    let mut text = serde_json::to_string_pretty(&whole).unwrap_or_default();
    text.push('\n');
    text
}

/// The entries of a list, each with its path.
fn entries<'a>(
    whole: &'a Value,
    list: &'static str,
) -> Result<impl Iterator<Item = (String, &'a Value)>, Broken> {
    let entries = match whole.get(list) {
        None => &[][..],
        Some(Value::Array(entries)) => entries,
        Some(_) => {
            let problem = "must be a list".to_owned();
            return Err(Broken::Entry { location: list.to_owned(), problem });
        }
    };
    Ok(entries.iter().enumerate().map(move |(i, entry)| (format!("{list}[{i}]"), entry)))
}

fn reservation(entry: &Value) -> Result<Reservation, String> {
    let entry = ReservationEntry::deserialize(entry).map_err(|error| error.to_string())?;
    let ReservationEntry { port, service, environment, until, enforce, netns } = entry;
    let until = until.map(|text| time(&text));
    Ok(Reservation {
        port: port.parse::<Port>()?,
        netns,
        environment,
        service: service.parse()?,
        until: until.transpose()?,
        enforce,
        origin: Origin::State,
    })
}

fn registration(entry: &Value) -> Result<Registration, String> {
    let ServiceEntry { name, addresses: endpoints, check, ttl, until } =
        ServiceEntry::deserialize(entry).map_err(|error| error.to_string())?;
    let ends = until.iter().map(|(endpoint, text)| Ok((*endpoint, time(text)?)));
    let until = ends.collect::<Result<BTreeMap<_, _>, String>>()?;
    let endless = endpoints.iter().find(|endpoint| !until.contains_key(endpoint));
    if let (Some(_), Some(endpoint)) = (&ttl, endless) {
        return Err(format!("it has \"ttl\", but no time for {endpoint} in \"until\""));
    }
    let lease = match ttl {
        Some(text) => Some(Lease { ttl: ttl_seconds(&text)?, until }),
        None if until.is_empty() => None,
        None => return Err("it has \"until\", but no \"ttl\"".to_owned()),
    };
    Ok(Registration { service: name.parse()?, endpoints, check, lease })
}

fn time(text: &str) -> Result<u64, String> {
    timestamp::absolute(text)
        .ok_or_else(|| format!("\"{text}\" is not a time like 2026-12-01T10:00:00Z"))
}

impl From<&Reservation> for ReservationEntry {
    fn from(reservation: &Reservation) -> Self {
        let Reservation { port, netns, environment, service, until, enforce, origin: _ } =
            reservation;
        Self {
            port: port.to_string(),
            service: service.to_string(),
            environment: *environment,
            until: until.map(timestamp::rfc3339),
            enforce: *enforce,
            netns: *netns,
        }
    }
}

impl From<&Registration> for ServiceEntry {
    fn from(registration: &Registration) -> Self {
        let Registration { service, endpoints, check, lease } = registration;
        let until = lease.iter().flat_map(|lease| &lease.until);
        Self {
            name: service.to_string(),
            addresses: endpoints.clone(),
            check: check.clone(),
            ttl: lease.as_ref().map(|lease| duration::text(Duration::from_secs(lease.ttl))),
            until: until.map(|(endpoint, at)| (*endpoint, timestamp::rfc3339(*at))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_entry_is_reported_with_the_fix() {
        let check = |text: &str, expected: &str| {
            let broken = read(text, "boot").expect_err(text).to_string();
            assert!(broken.contains(expected), "{text}: {broken}");
        };
        check("", "it is not JSON (EOF while parsing a value at line 1 column 0)");
        check("{\"version\": 1", "line 1 column 13");
        check("[]", "no \"version\"");
        check("{\"reservations\": []}", "no \"version\"");
        check("{\"version\": 2}", "start that one");
        check("{\"version\": 1, \"ports\": 1}", "ports: unknown key");
        check("{\"version\": 1, \"services\": {}}", "services: must be a list");
        let reservation = |entry: &str, expected: &str| {
            let good = "{\"port\": \"80\", \"service\": \"web\"}";
            let text = format!("{{\"version\": 1, \"reservations\": [{good}, {entry}]}}");
            check(&text, &format!("reservations[1]: {expected}"));
        };
        reservation("7", "invalid type: integer");
        reservation("{\"port\": \"0\", \"service\": \"x\"}", "\"0\" is not a port");
        reservation("{\"port\": \"81\"}", "missing field `service`");
        reservation("{\"port\": \"81\", \"service\": \"a b\"}", "\"a b\" is not a service name");
        reservation("{\"port\": \"80\", \"service\": \"x\"}", "80/tcp is reserved for web");
        reservation(
            "{\"port\": \"81\", \"service\": \"x\", \"untill\": 1}",
            "unknown field `untill`",
        );
        reservation(
            "{\"port\": \"81\", \"service\": \"x\", \"until\": \"2h\"}",
            "\"2h\" is not a time",
        );
        let service =
            "{\"version\": 1, \"services\": [{\"name\": \"x\", \"addresses\": [\"db\"]}]}";
        check(service, "services[0]: \"db\" is not an endpoint");
        let nowhere = "{\"version\": 1, \"services\": [{\"name\": \"x\", \"addresses\": []}]}";
        check(nowhere, "services[0]: x has no address");
        let service = |more: &str, expected: &str| {
            let entry = format!("{{\"name\": \"x\", \"addresses\": [\"10.0.0.1:80\"], {more}}}");
            let text = format!("{{\"version\": 1, \"services\": [{entry}]}}");
            check(&text, &format!("services[0]: {expected}"));
        };
        service("\"check\": \"icmp\"", "\"icmp\" is not a check; write tcp");
        let ends = "\"until\": {\"10.0.0.1:80\": \"2036-12-01\"}";
        let ttl = |ttl: &str, expected: &str| {
            service(&format!("\"ttl\": \"{ttl}\", {ends}"), expected);
        };
        ttl("soon", "\"soon\" is not a time to live; write a number with a unit");
        ttl("1s", "x cannot have a TTL of 1 s");
        let missing = "it has \"ttl\", but no time for 10.0.0.1:80 in \"until\"";
        service("\"ttl\": \"30s\"", missing);
        service(ends, "it has \"until\", but no \"ttl\"");
        let until = "\"ttl\": \"30s\", \"until\": {\"10.0.0.1:80\": \"never\"}";
        service(until, "\"never\" is not a time like");
    }

    #[test]
    fn reservations_of_a_namespace_end_with_the_boot() {
        let text = "{\"version\": 1, \"boot\": \"a\", \"reservations\": [
            {\"port\": \"80\", \"service\": \"web\", \"netns\": 7},
            {\"port\": \"80\", \"service\": \"web\"}]}";
        let count = |boot| {
            let read = read(text, boot).expect("valid");
            (read.state.reservations.len(), read.outdated)
        };
        assert_eq!(count("a"), (2, 0));
        assert_eq!(count("b"), (1, 1));
    }
}
