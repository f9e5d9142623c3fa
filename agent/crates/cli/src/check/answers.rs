//! What the agent knows: the answers of its API that checks look at.

use api_types::{
    Balance, Conflicts, Edges, Events, Listeners, Ports, Reservations, Segments, Services, Status,
    Timestamp, WindowChoice,
};
use client::Class;
use serde::de::DeserializeOwned;

use crate::target::Connection;
use crate::window;

/// Events that say since when something lasts: so far back, and so many at most.
const REMEMBERED_SECONDS: f64 = 3600.0;
const EVENTS: u16 = 5000;
const KINDS: &str = "connect,reset,abort,unanswered,listen_drop,violation";

/// The answers.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    pub status: Status,
    pub edges: Edges,
    pub services: Services,
    pub listeners: Listeners,
    pub ports: Ports,
    pub conflicts: Conflicts,
    pub reservations: Reservations,
    /// Nothing if none are declared.
    pub segments: Option<Segments>,
    pub balance: Balance,
    pub events: Events,
}

impl Answers {
    /// Asks the agent.
    pub fn ask(agent: &Connection, choice: WindowChoice) -> anyhow::Result<Self> {
        let window = window::query(choice, &[]);
        let edges: Edges = read(agent, &format!("/api/v1/edges{window}"))?;
        let now = edges.timestamp.seconds();
        let since = edges.window.since;
        let remembered =
            Timestamp::from_seconds((now - REMEMBERED_SECONDS).min(since.seconds()).max(0.0));
        let events = format!("/api/v1/events?since={remembered}&kind={KINDS}&limit={EVENTS}");
        Ok(Self {
            status: read(agent, "/api/v1/status")?,
            services: read(agent, &format!("/api/v1/services{window}"))?,
            listeners: read(agent, "/api/v1/listeners")?,
            ports: read(agent, "/api/v1/ports")?,
            conflicts: read(agent, &format!("/api/v1/conflicts?since={since}"))?,
            reservations: read(agent, "/api/v1/reservations")?,
            segments: declared(read(agent, "/api/v1/segments"))?,
            balance: read(agent, &format!("/api/v1/balance{window}"))?,
            events: read(agent, &events)?,
            edges,
        })
    }

    /// The length of the window, at least a second.
    pub fn seconds(&self) -> f64 {
        self.edges.window.seconds.max(1.0)
    }

    /// So many in the window, as a rate.
    pub fn per_minute(&self, count: u64) -> f64 {
        count as f64 * 60.0 / self.seconds()
    }
}

/// An agent without segments refuses.
fn declared(answer: anyhow::Result<Segments>) -> anyhow::Result<Option<Segments>> {
    match answer {
        Ok(segments) => Ok(Some(segments).filter(|answer| !answer.segments.is_empty())),
        Err(error) if crate::class(&error) == Some(Class::Refused) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read<T: DeserializeOwned>(agent: &Connection, path: &str) -> anyhow::Result<T> {
    Ok(client::read(&agent.text(path)?)?)
}
