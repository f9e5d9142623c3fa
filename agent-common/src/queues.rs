//! What waits in the connections of an edge: gauges, as the last socket iteration found them.
//!
//! Rows have no shards: only the iteration adds to them, and user space empties a row when it has
//! read it.

/// A connection counts in [`Queues::close_wait`] from this age on, microseconds.
pub const CLOSE_WAIT_US: u64 = 60_000_000;

crate::wire! {
    /// Sums over the connections of an edge.
    pub struct Queues: 40 {
        /// Payload bytes that arrived and that the program has not read.
        pub receive_bytes: u64,
        /// Payload bytes that the program wrote and the peer has not acknowledged, sent or not.
        pub send_bytes: u64,
        /// Connections that the peer closed at least [`CLOSE_WAIT_US`] ago and the program did not.
        pub close_wait: u64,
        /// Open connections that the iteration has met.
        pub open: u64,
        /// Connections whose SYN has no answer yet. They hold the number of the row, in which nothing
        /// may move for a minute.
        pub connecting: u64,
    }
}

// === impl Queues ===

impl Queues {
    /// Nothing waits.
    pub const NONE: Self =
        Self { receive_bytes: 0, send_bytes: 0, close_wait: 0, open: 0, connecting: 0 };

    /// Adds those of another edge.
    pub fn merge(&mut self, other: &Self) {
        let Self { receive_bytes, send_bytes, close_wait, open, connecting } = self;
        *receive_bytes = receive_bytes.saturating_add(other.receive_bytes);
        *send_bytes = send_bytes.saturating_add(other.send_bytes);
        *close_wait = close_wait.saturating_add(other.close_wait);
        *open = open.saturating_add(other.open);
        *connecting = connecting.saturating_add(other.connecting);
    }
}
