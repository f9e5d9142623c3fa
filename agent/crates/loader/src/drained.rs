//! What one drain found, as it came from the kernel's tables.

use agent_common::bound::BoundRecord;
use agent_common::decode::Event;
use agent_common::decode::dns::Answer;
use agent_common::drained::{Claim, Edge, Row, Table};
use agent_common::ledger::Ledger;
use agent_common::listener::{ListenerRecord, ListenerRow};
use agent_common::owner::OwnerRow;
use agent_common::queues::Queues;
use agent_common::unsent::UnsentRow;

/// What one drain found.
#[derive(Default)]
pub struct Drained {
    /// Owner rows that are new since the last drain.
    pub owners: Vec<(u32, OwnerRow)>,
    /// Every edge in use.
    pub edges: Vec<Edge>,
    /// What waits in the connections of slots where anything does; `None` if the socket iteration
    /// could not run.
    pub queues: Option<Vec<(u32, Queues)>>,
    /// What is counted of listeners, those that are no more among them.
    pub listener_rows: Vec<Row<ListenerRow>>,
    /// Connects that were refused before a SYN.
    pub unsent: Vec<Row<UnsentRow>>,
    /// Every listener; `None` if the socket iteration could not run.
    pub listeners: Option<Vec<ListenerRecord>>,
    /// Failed binds, and how many did not fail.
    pub bind_failures: Vec<Claim>,
    /// Every socket that holds a port, as far as the hooks know; `None` if they do not know.
    pub bound: Option<Vec<BoundRecord>>,
    /// The kernel's part of the ledger.
    pub ledger: Ledger,
    /// Records from the ring.
    pub events: Vec<Event>,
    /// Records that could not be read.
    pub malformed_events: u64,
    /// Answers of DNS servers to programs.
    pub answers: Vec<Answer>,
    /// Answers that could not be read.
    pub malformed_answers: u64,
}

impl Drained {
    /// Rows of the table of edges that are taken.
    pub fn edges_in_use(&self) -> usize {
        let is_taken = |edge: &&Edge| edge.table == Table::Edges && !edge.is_reserved();
        self.edges.iter().filter(is_taken).count()
    }
}
