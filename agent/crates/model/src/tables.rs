//! The table of edges as all readers see it: the [delta stage](super::delta) and, behind it, the
//! [rows](super::rows) with their totals.

use agent_common::address::Address;
use agent_common::drained::{Edge, Table};

use super::delta::{Deltas, Stage};
use super::reclaim::Room;
use super::rows::Rows;
use super::slot::Naming;
use super::snapshot::{EdgeLabels, EdgeView};

/// All edges.
#[derive(Default)]
pub struct Tables {
    stage: Stage,
    rows: Rows,
}

/// What an update yields.
pub struct Updated {
    /// Rows, sorted by their labels.
    pub edges: Vec<EdgeView>,
    /// What happened since the last one.
    pub deltas: Deltas,
}

impl Tables {
    /// Addresses of this host.
    pub fn set_addresses(&mut self, own: impl IntoIterator<Item = Address>) {
        self.stage.set_addresses(own);
    }

    /// Takes in a drain: [`Stage::take`].
    pub fn update<N: Into<Naming>>(
        &mut self,
        now: u64,
        edges: &[Edge],
        room: Room<'_>,
        name: impl FnMut(&Edge) -> N,
    ) -> Updated {
        let deltas = self.stage.take(now, edges, room, name);
        self.rows.update(now, &deltas.closed, &deltas.edges);
        Updated { edges: self.rows.view(), deltas }
    }

    /// The labels of a slot, for code that has its number from the kernel.
    pub fn labels(&self, table: Table, slot: u32) -> Option<&EdgeLabels> {
        self.stage.labels(table, slot)
    }
}

#[cfg(test)]
mod tests;
