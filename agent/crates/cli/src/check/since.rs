//! Since when a fault lasts, from the agent's events: back to the first that others followed without a
//! pause.

use api_types::{Event, Timestamp};

use super::name::Name;

/// Events further apart are not one fault.
const PAUSE_SECONDS: f64 = 120.0;

/// The begin of the last series of events on edges, with causes and ends that pass.
pub(super) fn of_edges(
    events: &[Event],
    cause: impl Fn(&str) -> bool,
    ends: impl Fn(&Name, &Name, u16) -> bool,
) -> Option<Timestamp> {
    begin(events.iter().filter(|event| {
        let (Some(client), Some(server)) = (&event.client, &event.server) else { return false };
        cause(&event.cause)
            && ends(&Name::from(client), &Name::from(server), event.port.unwrap_or_default())
    }))
}

/// The same of events of a server without its client.
pub(super) fn of_server(
    events: &[Event],
    cause: &str,
    server: &Name,
    port: u16,
) -> Option<Timestamp> {
    begin(events.iter().filter(|event| {
        let is_it = event.server.as_ref().is_some_and(|it| Name::from(it) == *server);
        event.cause == cause && is_it && event.port == Some(port)
    }))
}

fn begin<'a>(events: impl Iterator<Item = &'a Event>) -> Option<Timestamp> {
    let mut events: Vec<&Event> = events.collect();
    events.sort_by_key(|event| std::cmp::Reverse(event.first_seen));
    let mut begin: Option<Timestamp> = None;
    for event in events {
        match begin {
            Some(begin) if begin.seconds_since(event.last_seen) > PAUSE_SECONDS => break,
            _ => begin = Some(event.first_seen),
        }
    }
    begin
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fixture::snapshot;
    use server::convert::{self, EventRange};

    #[test]
    fn a_fault_begins_with_the_first_event_that_others_followed() {
        let range = EventRange { after: None, limit: 100 };
        let answer = convert::events(&snapshot(), range, |_| true);
        let last = answer.events.last().expect("an event").clone();
        let at = |seconds: f64| Timestamp::from_seconds(seconds);
        let event = |first, last_seen| Event {
            first_seen: at(first),
            last_seen: at(last_seen),
            ..last.clone()
        };
        let check = |events: &[Event], expected: Option<f64>| {
            let found =
                of_edges(events, |cause| cause == "connect_refused", |_, _, port| port == 5432);
            assert_eq!(found, expected.map(at));
        };
        check(&[], None);
        check(&[event(1000.0, 1300.0)], Some(1000.0));
        check(&[event(1000.0, 1300.0), event(1310.0, 1400.0)], Some(1000.0));
        check(&[event(1000.0, 1300.0), event(1500.0, 1600.0)], Some(1500.0));
        let other = Event { port: Some(1), ..event(900.0, 1600.0) };
        check(&[other, event(1500.0, 1600.0)], Some(1500.0));
    }
}
