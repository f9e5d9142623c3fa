//! `/api/v1/status`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Finding, Timestamp};

/// What the agent observes, what it cannot observe and why, and its losses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Release of the kernel.
    pub kernel: String,
    /// When the numbers were read.
    pub timestamp: Timestamp,
    /// Hooks, attached or not.
    pub hooks: Vec<Hook>,
    /// Problems that need attention, mainly what is not observed on this host, and why.
    pub findings: Vec<Finding>,
    /// Events by class: seen, exported, lost.
    pub ledger: Vec<LedgerEntry>,
    /// Runs of programs that the kernel skipped because they were running on that CPU already.
    pub recursion_misses: u64,
    /// Kernel tables and how full they are.
    pub tables: Vec<Table>,
    /// The agent's own memory.
    pub memory: Memory,
    /// Number of edges.
    pub edges: u64,
    /// Number of listening sockets.
    pub listeners: u64,
    /// Processes with sockets that have no name.
    pub unidentified_processes: u64,
    /// Sources of names.
    pub name_sources: Vec<NameSource>,
    /// Pre-existing sockets that the agent has adopted.
    pub preexisting_sockets: u64,
    /// How often the kernel's tables were collected.
    pub collections: u64,
    /// Time spent collecting.
    pub collection_seconds: f64,
    /// Findings that `portolan check` leaves out, as `check.skip` of the agent's configuration has
    /// them: `PO301`, or `PO301=legacy.js`.
    #[serde(default)]
    pub check_skip: Vec<String>,
}

/// A hook in the kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Hook {
    /// Its name: the tracepoint, function or cgroup hook.
    pub name: String,
    /// Whether it is attached.
    pub attached: bool,
    /// Why it is not attached.
    pub reason: Option<String>,
    /// What is not observed without it.
    pub observes: String,
    /// Runs so far, if the kernel's run-time statistics are on.
    pub runs: u64,
    /// Time spent in it, if the kernel's run-time statistics are on.
    pub run_seconds: f64,
    /// Runs that the kernel skipped.
    pub misses: u64,
}

/// A source of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NameSource {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: NameSourceState,
    /// Why it is in that state, or what it does not provide.
    pub detail: Option<String>,
    /// Names and addresses that it has provided.
    pub entries: u64,
    /// Entries that found no room in its table.
    pub dropped: u64,
    /// Queries so far.
    pub queries: u64,
    /// Queries that failed.
    pub errors: u64,
}

/// The state of a source of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NameSourceState {
    /// It has not answered yet.
    Starting,
    /// It works.
    Up,
    /// Not found on this host; the agent keeps looking for it.
    Absent,
    /// Failing and retried; its last inventory stays valid.
    Down,
}

/// The agent's own memory and its limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Memory {
    /// Memory that counts against the nearest limit; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub used_bytes: Option<u64>,
    /// That limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub limit_bytes: Option<u64>,
    /// Whether new edges are counted in the rows `other`.
    pub overflow_mode: bool,
    /// Free rows that are not handed out because memory is short.
    pub withheld_rows: u64,
}

/// One class of events: seen = exported + lost when nothing is in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerEntry {
    /// The class.
    pub class: String,
    /// Seen by the kernel programs.
    pub seen: u64,
    /// Found in the tables.
    pub exported: u64,
    /// Lost by reason; a reason that is absent never occurred.
    pub lost: BTreeMap<String, u64>,
}

/// A kernel table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Rows in use.
    pub entries: u64,
    /// Rows that it can hold.
    pub capacity: u64,
}

// === impl NameSourceState ===

impl NameSourceState {
    /// The value in JSON and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Absent => "absent",
            Self::Down => "down",
        }
    }
}
