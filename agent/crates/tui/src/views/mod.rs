//! The views: each makes a table of what the agents answered.

mod agent;
mod balance;
mod conflicts;
mod edges;
mod events;
mod ports;
mod problems;
mod segments;
mod services;
mod timeouts;

use clap::ValueEnum;
use notation::filter::{Filter, TextField};

pub(crate) use self::edges::{Side, busy_seconds, follows, is_own, steps_of};
use crate::agents::{Host, Look};
use crate::rows::{Row, Sort, Table, text};

/// A view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum View {
    /// Clients, servers and their traffic.
    #[default]
    Edges,
    /// Services with their health.
    Services,
    /// Ports and their holders.
    Ports,
    /// Failed binds.
    Conflicts,
    /// Load by backend.
    Balance,
    /// Connections between segments.
    Segments,
    /// What went wrong and what changed, latest first.
    Events,
    /// After how long idle connections are closed, and used.
    Timeouts,
    /// Hooks, losses, tables, sources of names.
    Agent,
    /// All findings.
    Problems,
}

/// What a table is to show.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub view: View,
    pub side: Side,
    /// Also what is idle, listeners, and Portolan's own connections.
    pub all: bool,
    pub filter: Filter,
    pub sort: Sort,
}

/// An answer, and which host it is of.
#[derive(Clone, Copy)]
pub(crate) struct Of<'a> {
    pub host: usize,
    pub look: &'a Look,
}

// === impl View ===

impl View {
    /// All with their keys, in the order of keys; `7` is for operations, which no agent has yet.
    pub const KEYS: &[(char, Self)] = &[
        ('1', Self::Edges),
        ('2', Self::Services),
        ('3', Self::Ports),
        ('4', Self::Conflicts),
        ('5', Self::Balance),
        ('6', Self::Segments),
        ('8', Self::Events),
        ('9', Self::Timeouts),
        ('0', Self::Agent),
        ('p', Self::Problems),
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edges => "edges",
            Self::Services => "services",
            Self::Ports => "ports",
            Self::Conflicts => "conflicts",
            Self::Balance => "balance",
            Self::Segments => "segments",
            Self::Events => "events",
            Self::Timeouts => "timeouts",
            Self::Agent => "agent",
            Self::Problems => "problems",
        }
    }

    /// What its columns mean.
    pub const fn help(self) -> &'static [&'static str] {
        match self {
            Self::Edges => edges::HELP,
            Self::Services => services::HELP,
            Self::Ports => ports::HELP,
            Self::Conflicts => conflicts::HELP,
            Self::Balance => balance::HELP,
            Self::Segments => segments::HELP,
            Self::Events => events::HELP,
            Self::Timeouts => timeouts::HELP,
            Self::Agent => agent::HELP,
            Self::Problems => problems::HELP,
        }
    }
}

// === impl Wanted ===

impl Wanted {
    /// The table: rows of all hosts that the filter admits, sorted.
    pub fn table<'a>(&self, hosts: &'a [Host]) -> Table<'a> {
        let looks = hosts
            .iter()
            .enumerate()
            .filter_map(|(host, one)| Some(Of { host, look: one.look.as_deref()? }));
        let looks: Vec<Of<'a>> = looks.collect();
        let mut table = match self.view {
            View::Edges => edges::table(&looks, self),
            View::Services => services::table(&looks, self.all),
            View::Ports => ports::table(&looks, self.all),
            View::Conflicts => conflicts::table(&looks),
            View::Balance => balance::table(&looks),
            View::Segments => segments::table(&looks),
            View::Events => events::table(&looks),
            View::Timeouts => timeouts::table(&looks),
            View::Agent => agent::table(&looks),
            View::Problems => problems::table(&looks),
        };
        for row in &mut table.rows {
            let name = hosts.get(row.host).map_or("", |host| host.name.as_str());
            row.fields = std::mem::take(&mut row.fields).text(TextField::Host, name);
            row.key = format!("{} {}", row.host, row.key);
            if hosts.len() > 1 {
                row.cells.insert(1, name.to_owned());
            }
        }
        if hosts.len() > 1 {
            table.columns.insert(1, text("HOST", 0));
        }
        table.rows.retain(|row: &Row<'_>| self.filter.admits(row));
        if !self.filter.is_empty() {
            table.empty = "Nothing passes the filter (/ to change it, Esc to remove it).";
        }
        self.sort.apply(&mut table.rows);
        table
    }
}
