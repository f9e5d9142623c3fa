//! Which events: the parameters of `/api/v1/events`, shared by the server and the reader of snapshots.

use super::{Event, Service, Timestamp};

/// Which events; all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// That happened at this time or later.
    pub since: Option<Timestamp>,
    /// About this service.
    pub service: Option<String>,
    /// With this client.
    pub client: Option<String>,
    /// With this server.
    pub server: Option<String>,
    /// With this port.
    pub port: Option<u16>,
    /// Of one of these kinds, separated by commas.
    pub kind: Option<String>,
    /// Of one of these causes, separated by commas.
    pub cause: Option<String>,
}

/// What a filter looks at. A service is its namespace and its name.
#[derive(Clone, Copy, Debug)]
pub struct EventFacts<'a> {
    /// When it was noticed last.
    pub last_seen: Timestamp,
    /// The service that connects.
    pub client: Option<(&'a str, &'a str)>,
    /// The service that is connected to, that failed to bind a port, or that changed.
    pub server: Option<(&'a str, &'a str)>,
    /// The service that has the port, of a failed bind.
    pub holder: Option<(&'a str, &'a str)>,
    /// The port.
    pub port: Option<u16>,
    /// What kind of event it is.
    pub kind: &'a str,
    /// The cause.
    pub cause: &'a str,
}

/// Whether a service has this name: NAME, or NAMESPACE/NAME.
pub fn is_called((namespace, name): (&str, &str), wanted: &str) -> bool {
    name == wanted || wanted.split_once('/').is_some_and(|full| full == (namespace, name))
}

// === impl EventFilter ===

impl EventFilter {
    /// Whether an event is wanted.
    pub fn admits(&self, event: &EventFacts<'_>) -> bool {
        let Self { since, service, client, server, port, kind, cause } = self;
        let is_among = |words: &Option<String>, word: &str| {
            words.as_ref().is_none_or(|words| words.split(',').any(|one| one == word))
        };
        let is = |wanted: &Option<String>, ends: &[Option<(&str, &str)>]| {
            wanted.as_ref().is_none_or(|name| {
                let mut ends = ends.iter().copied().flatten();
                ends.any(|end| is_called(end, name))
            })
        };
        since.is_none_or(|since| event.last_seen >= since)
            && is(service, &[event.client, event.server, event.holder])
            && is(client, &[event.client])
            && is(server, &[event.server])
            && port.is_none_or(|port| event.port == Some(port))
            && is_among(kind, event.kind)
            && is_among(cause, event.cause)
    }
}

// === impl Event ===

impl Event {
    /// What a filter looks at.
    pub fn facts(&self) -> EventFacts<'_> {
        fn name(service: &Service) -> (&str, &str) {
            (&service.namespace, &service.name)
        }
        EventFacts {
            last_seen: self.last_seen,
            client: self.client.as_ref().map(name),
            server: self.server.as_ref().map(name),
            holder: self.holder.as_ref().map(name),
            port: self.port,
            kind: self.kind.as_str(),
            cause: &self.cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_must_hold_and_a_service_may_have_a_namespace() {
        let event = EventFacts {
            last_seen: Timestamp::from_seconds(100.0),
            client: Some(("shop", "web")),
            server: Some(("", "db")),
            holder: None,
            port: Some(5432),
            kind: "connect",
            cause: "connect_refused",
        };
        let text = |text: &str| Some(text.to_owned());
        let none = EventFilter::default;
        let check = |filter: EventFilter, expected: bool| {
            assert_eq!(filter.admits(&event), expected, "{filter:?}");
        };
        check(none(), true);
        check(EventFilter { since: Some(Timestamp::from_seconds(100.0)), ..none() }, true);
        check(EventFilter { since: Some(Timestamp::from_seconds(100.5)), ..none() }, false);
        for (name, expected) in
            [("web", true), ("shop/web", true), ("db", true), ("other/web", false), ("we", false)]
        {
            check(EventFilter { service: text(name), ..none() }, expected);
        }
        check(EventFilter { client: text("db"), ..none() }, false);
        check(EventFilter { server: text("db"), port: Some(5432), ..none() }, true);
        check(EventFilter { server: text("db"), port: Some(80), ..none() }, false);
        check(EventFilter { kind: text("reset,connect"), ..none() }, true);
        check(EventFilter { kind: text("reset"), ..none() }, false);
        check(EventFilter { cause: text("connect_refused"), ..none() }, true);
        check(EventFilter { cause: text("connect"), ..none() }, false);
    }
}
