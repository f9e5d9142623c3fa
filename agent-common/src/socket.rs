//! Per-socket state: lies in the table of sockets ([`crate::socket_table`]), or in the kernel's
//! socket-local storage, and ends with the socket.

/// The socket is not established (yet, or any more).
pub const STAGE_NEW: u8 = 0;
/// A SYN is out.
pub const STAGE_CONNECTING: u8 = 1;
/// Established and counted in `opened`.
pub const STAGE_OPEN: u8 = 2;
/// Ended and counted in `closed`.
pub const STAGE_CLOSED: u8 = 3;

crate::wire! {
    /// State of one socket. A child of `accept` inherits its listener's copy.
    ///
    /// A state begins eight bytes into a cache line, in either place: what changes with every request
    /// comes after the first 56 bytes. The two sides of a connection run on different CPUs, and a
    /// program that only asks who a socket is would otherwise wait for a line that another CPU
    /// has just written.
    pub struct SocketState: 120 {
        /// Row of the owner.
        pub owner: u32,
        /// Slot of the edge (overflow slots are below `FIRST_FREE_SLOT`); of a listener in its table.
        pub slot: u32,
        /// `ROLE_*`.
        pub role: u8,
        /// `STAGE_*`.
        pub stage: u8,
        /// Until established: the port that the program had bound before it connected, 0 if none.
        /// Since then: how the connection began to end, [`crate::unanswered::DUE`] and its kin.
        pub port_or_end: u16,
        /// `tcp_sock.rtt_seq` marker of the last round trip sample; see the hook `iterate_sockets`.
        pub rtt_mark: u32,
        /// When the connect began, CLOCK_MONOTONIC microseconds. Of an open connection: when the
        /// socket iteration first found that the peer had closed it (CLOSE_WAIT); 0 until then. Of one
        /// that has ended: when it did, jiffies.
        pub start_us: u64,
        /// Client: when the first segment of a retransmitted request was first sent; 0 without loss.
        /// Server: the chain of long exchanges; see [`crate::wait`].
        pub first_sent_us: u64,
        /// `sent_bytes` already counted in the slot.
        pub sent_bytes: u64,
        /// `received_bytes` already counted in the slot.
        pub received_bytes: u64,
        /// Retransmits (connection) or drops (listener) already counted in the slot.
        pub retransmits: u64,
        /// Server: the open request; see [`crate::exchange`].
        /// Client: the chain of long exchanges; see [`crate::wait`].
        pub exchange: u64,
        /// When data last arrived.
        pub last_received_us: u64,
        /// Since when the connection is idle, and how long it was before; see [`crate::idle`].
        pub idle: u64,
        /// Client: `write_seq` up to which requests have been answered.
        /// Server: pauses in the open request; see [`crate::unanswered::paused`].
        pub answered_seq: u32,
        /// Low bits of the bytes received when data last arrived: a FIN wakes like data.
        pub received_mark: u32,
        /// Retransmission timeouts in the upper half of the lower word, DSACKs in the upper word,
        /// as far as they are counted in the slot.
        pub recoveries: u64,
        /// Jiffies in which sending was limited by the receive window, and in the upper word by the
        /// send buffer, as far as they are counted in the slot.
        pub limited: u64,
        /// Both ports; see [`crate::socket_table::ports`]. In the table only.
        pub ports: u32,
        /// Since when the socket looks like another one; see [`crate::socket_table::suspect`].
        pub suspect: u32,
        /// Server: what responses have said of the protocol; see [`crate::response`].
        pub protocol: u64,
    }
}

/// See [`SocketState`].
const _: () = assert!(core::mem::offset_of!(SocketState, exchange) == 56);
