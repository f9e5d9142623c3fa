//! The commands for a running agent: `portolan edges`, `ports`, `services` and so on.
//!
//! They send requests of `api-types` through `client`, and print the response as a table or as JSON.
//! `diagnose` also looks at this host by itself, through `linux`. Package agent adds [`Command`] to the command line of the
//! `portolan` binary.

#![forbid(unsafe_code)]

mod balance;
mod bounded;
mod check;
mod compare;
mod diagnose;
mod edges;
mod events;
mod explain;
mod fleet;
mod human;
mod known;
mod map;
mod operations;
mod outcome;
mod past;
mod policy;
mod ports;
mod quote;
mod segments;
mod services;
mod snapshot;
mod state;
mod status;
mod table;
mod target;
mod timeouts;
mod watch;
mod window;

/// What `portolan check` thinks of an agent's answers, for screens that show the same.
pub mod judgement {
    pub use crate::check::{Answers, Found, Name, Remembered, findings, host_name, segments};
}

/// Numbers, names and causes in the words of the commands' tables, for screens that show the same.
pub mod words {
    pub use crate::edges::{
        aborts, client, connected, error_ratio, error_responses, failed, is_busy,
        is_without_client, resets, urgency, why,
    };
    pub use crate::events::line as event;
    pub use crate::human::{
        bytes, count, counted, duration, endpoint, full_name, percent, quantile, rate, readable,
        span,
    };
    pub use crate::ports::line as conflict;
    pub use crate::services::{kind, places, shown_name, state};
    pub use crate::window::{covered, parse as window};
}

/// Readers of files that anybody can have written, for tests with arbitrary bytes.
pub mod readers {
    pub use crate::snapshot::answers as snapshot;
}

/// How tables fit into a terminal, and whether it has colours.
pub mod fit {
    pub use crate::table::{Column, GAP, fitted, has_colours, room, shortened};
}

use std::fmt;
use std::io::{self, Write};

use clap::{Subcommand, ValueEnum};

pub use self::diagnose::between as diagnose;
pub use self::fleet::{Connections, at_once, names};
pub use self::outcome::Outcome;
pub use self::policy::{SegmentEnd, SegmentFile, SegmentVerdicts};
pub use self::target::Connection;
pub use client::Class;

/// A command for a running agent.
// The doc comment of a variant is its help.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List connections between services: how often, how fast, what fails.
    Edges(edges::EdgesArgs),
    /// Show what went wrong and what changed, one by one; follow it.
    Events(events::EventsArgs),
    /// List ports and bind conflicts; reserve ports.
    Ports(ports::PortsArgs),
    /// List services with ports and health; register names by hand.
    Services(services::ServicesArgs),
    /// Draw the graph of services.
    Map(map::MapArgs),
    /// Is load spread evenly over backends? Generate, deploy and test load balancers.
    Balance(Box<balance::BalanceArgs>),
    /// Will a keep-alive mismatch reset requests? How long idle connections last, and are used.
    Timeouts(timeouts::TimeoutsArgs),
    /// Which protocols do services speak, in plain text or TLS, and how do their requests end?
    Operations(operations::OperationsArgs),
    /// Show connections between network segments, and which are allowed.
    Segments(segments::SegmentsArgs),
    /// Generate network policies from what was observed; test what a policy would cut.
    Policy(policy::PolicyArgs),
    /// Export, import and back up reservations and registered services.
    State(state::StateArgs),
    /// Find what is wrong: connections, performance, ports, network, security, DNS, coverage.
    Check(Box<check::CheckArgs>),
    /// Show what the agent sees, what it cannot see and why, and what it dropped.
    Status(status::StatusArgs),
    /// Find out what is wrong between two services: name, route, port, TCP, TLS, HTTP, program, host.
    Diagnose(Box<diagnose::DiagnoseArgs>),
    /// Write all that the agent shows into one file, which other commands read with --from.
    Snapshot(snapshot::SnapshotArgs),
    /// Print the page of a finding, an alert or a metric. Needs no agent.
    Explain(explain::ExplainArgs),
}

/// Output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Readable text.
    #[default]
    #[value(alias = "table")]
    Text,
    /// JSON for programs.
    Json,
}

// === impl Command ===

impl Command {
    /// Runs the command, and writes the result to standard output. `segments` reads the segments of a
    /// configuration file.
    pub fn run(&self, segments: SegmentFile) -> anyhow::Result<Outcome> {
        match self {
            Self::Edges(arguments) => edges::run(arguments),
            Self::Events(arguments) => events::run(arguments),
            Self::Ports(arguments) => ports::run(arguments),
            Self::Services(arguments) => services::run(arguments),
            Self::Map(arguments) => map::run(arguments),
            Self::Balance(arguments) => balance::run(arguments),
            Self::Timeouts(arguments) => timeouts::run(arguments),
            Self::Operations(arguments) => operations::run(arguments),
            Self::Segments(arguments) => segments::run(arguments),
            Self::Policy(arguments) => policy::run(arguments, segments),
            Self::State(arguments) => state::run(arguments),
            Self::Check(arguments) => check::run(arguments),
            Self::Status(arguments) => status::run(arguments),
            Self::Diagnose(arguments) => diagnose::run(arguments),
            Self::Snapshot(arguments) => snapshot::run(arguments).map(|()| Outcome::Done),
            Self::Explain(arguments) => explain::run(arguments).map(|()| Outcome::Done),
        }
    }
}

/// What was written on the command line means nothing here.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Whose fault an error is; `None` if neither the command line's nor the agent's.
pub fn class(error: &anyhow::Error) -> Option<Class> {
    if error.is::<Usage>() {
        return Some(Class::Usage);
    }
    error.downcast_ref::<client::Error>().map(client::Error::class)
}

/// A line on standard error, beside the result on standard output.
fn note(text: &str) {
    #[cfg(test)]
    if printed::take(text, true) {
        return;
    }
    // If standard error is closed nobody reads it.
    let _ = writeln!(io::stderr(), "portolan: {text}");
}

/// Writes to standard output. A closed pipe (`| head`) is not an error.
pub fn print(text: &str) -> anyhow::Result<()> {
    print_on(text).map(|_| ())
}

/// The same, for output that goes on: whether anybody still reads.
pub fn print_on(text: &str) -> anyhow::Result<bool> {
    #[cfg(test)]
    if printed::take(text, false) {
        return Ok(true);
    }
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(anyhow::Error::new(error).context("writing to standard output")),
    }
}

/// What commands print, for tests that compare it.
#[cfg(test)]
mod printed {
    use std::cell::RefCell;

    /// On standard output, and on standard error.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Printed {
        pub out: String,
        pub notes: String,
    }

    thread_local! {
        static KEPT: RefCell<Option<Printed>> = const { RefCell::new(None) };
    }

    /// What this thread prints during `work`, and its result.
    pub(crate) fn during<T>(work: impl FnOnce() -> T) -> (Printed, T) {
        KEPT.with_borrow_mut(|kept| *kept = Some(Printed::default()));
        let done = work();
        (KEPT.take().unwrap_or_default(), done)
    }

    /// Keeps a text; whether somebody wants it.
    pub(super) fn take(text: &str, is_note: bool) -> bool {
        KEPT.with_borrow_mut(|kept| {
            let Some(Printed { out, notes }) = kept else { return false };
            (if is_note { notes } else { out }).push_str(text);
            true
        })
    }
}
