//! What the agent knows: the answers of its API that checks look at.

use std::thread::{self, ScopedJoinHandle};

use api_types::{
    Balance, Conflicts, Edges, Events, Listeners, Ports, Reservations, Segments, Services, Status,
    Timeouts, Timestamp, WindowChoice,
};
use client::Class;
use serde::de::DeserializeOwned;

use crate::target::Connection;
use crate::window;

/// Events that say since when something lasts: how far back, and how many at most.
const REMEMBERED_SECONDS: f64 = 3600.0;
const EVENTS: u16 = 5000;
const KINDS: &str = "connect,reset,abort,unanswered,response,listen_drop,violation";

/// What is asked for of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// What says since when a fault lasts.
    Faults,
    /// The latest of all kinds, at most this many.
    Latest(u16),
}

/// The answers.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Hooks, losses, sources of names.
    pub status: Status,
    /// Edges in the window.
    pub edges: Edges,
    /// Services, with their health in the window.
    pub services: Services,
    /// Listening sockets.
    pub listeners: Listeners,
    /// Bound ports.
    pub ports: Ports,
    /// Failed binds in the window.
    pub conflicts: Conflicts,
    /// Reservations and breaches.
    pub reservations: Reservations,
    /// Nothing if none are declared.
    pub segments: Option<Segments>,
    /// How load was spread in the window.
    pub balance: Balance,
    /// Events of the last hour, or as they were asked for.
    pub events: Events,
    /// Nothing of an agent that does not know of it.
    pub timeouts: Option<Timeouts>,
}

impl Answers {
    /// Asks the agent.
    pub fn ask(
        agent: &Connection,
        choice: WindowChoice,
        remembered: Remembered,
    ) -> anyhow::Result<Self> {
        let window = window::query(choice, &[]);
        let edges: Edges = read(agent, &format!("/api/v1/edges{window}"))?;
        let now = edges.timestamp.seconds();
        // Failed binds and events have times of their own: of a young agent edges cover less than was asked
        // for.
        let since = match choice {
            WindowChoice::Last(seconds) => {
                edges.window.since.min(Timestamp::from_seconds(now - seconds as f64))
            }
            WindowChoice::Start => edges.window.since,
        };
        let earliest =
            Timestamp::from_seconds((now - REMEMBERED_SECONDS).min(since.seconds()).max(0.0));
        let events = match remembered {
            Remembered::Faults => {
                format!("/api/v1/events?since={earliest}&kind={KINDS}&limit={EVENTS}")
            }
            Remembered::Latest(most) => format!("/api/v1/events?since={earliest}&limit={most}"),
        };
        // Requests at the same time share a collection, so these are of one moment.
        let conflicts = format!("/api/v1/conflicts?since={since}");
        let (services, balance) =
            (format!("/api/v1/services{window}"), format!("/api/v1/balance{window}"));
        thread::scope(|scope| {
            macro_rules! ask {
                ($path:expr) => {{
                    let path: &str = $path;
                    scope.spawn(move || read(agent, path))
                }};
            }
            let status = ask!("/api/v1/status");
            let services = ask!(&services);
            let listeners = ask!("/api/v1/listeners");
            let ports = ask!("/api/v1/ports");
            let conflicts = ask!(&conflicts);
            let reservations = ask!("/api/v1/reservations");
            let segments = ask!("/api/v1/segments");
            let balance = ask!(&balance);
            let events = ask!(&events);
            let timeouts = ask!("/api/v1/timeouts");
            Ok(Self {
                edges,
                status: joined(status)?,
                services: joined(services)?,
                listeners: joined(listeners)?,
                ports: joined(ports)?,
                conflicts: joined(conflicts)?,
                reservations: joined(reservations)?,
                segments: if_offered(joined(segments))?
                    .filter(|answer: &Segments| !answer.segments.is_empty()),
                balance: joined(balance)?,
                events: joined(events)?,
                timeouts: if_offered(joined(timeouts))?,
            })
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

/// Nothing if the agent refuses: without segments, or an older one.
fn if_offered<T>(answer: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if crate::class(&error) == Some(Class::Refused) => Ok(None),
        Err(error) => Err(error),
    }
}

fn joined<T>(thread: ScopedJoinHandle<'_, anyhow::Result<T>>) -> anyhow::Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn read<T: DeserializeOwned>(agent: &Connection, path: &str) -> anyhow::Result<T> {
    Ok(client::read(&agent.text(path)?)?)
}
