//! Listening sockets: what is counted of each before a connection exists, and what the socket
//! iteration reports of them.
//!
//! The rows have no shards. Drops are read off the socket once per collection. A SYN-ACK is sent
//! again at most a few times for each entry of a bounded queue. What a flood can repeat is a reset
//! per packet; the kernel makes a packet for each and looks up a route, beside which an addition that
//! CPUs contend for is small, and it counts dropped requests in one word per socket itself
//! (`sk_drops`).

use crate::ledger::{EDGE, NO_SLOT};
use crate::reset::HOT_CAUSES;
use crate::share::Tenant;
use crate::slot_table::LISTENERS;

/// Row 0 takes listeners that found no row of their own.
pub const LISTENER_OVERFLOW: u32 = 0;
/// The first row that is not reserved.
pub const FIRST_FREE_LISTENER: u32 = 1;

crate::wire! {
    /// What makes a listener's row: sockets of one owner on one address share it.
    pub struct ListenerKey: 24 {
        /// Row of the owner of the socket.
        pub owner: u32,
        /// The port, host byte order.
        pub port: u16,
        /// Always zero.
        pub zero: u16,
        /// Address listened on; unspecified = all.
        pub address: [u32; 4],
    }

    /// What is counted of a listener. `born_us` is written last: a row without it is not in use.
    pub struct ListenerRow: 224 {
        /// Which listener; all zeros in the overflow row.
        pub key: ListenerKey,
        /// When the row was taken, CLOCK_MONOTONIC microseconds; 0 = free.
        pub born_us: u64,
        /// Whose share the slot counts against.
        pub tenant: Tenant,
        /// Connection requests the sockets dropped (`sk_drops`), mostly a full accept queue.
        pub drops: u64,
        /// SYN-ACKs that had to be sent again.
        pub synack_retransmits: u64,
        /// Resets sent, by cause.
        pub resets_sent: [u64; HOT_CAUSES],
        /// Resets received before a connection existed, by cause.
        pub resets_received: [u64; HOT_CAUSES],
    }

    /// One listening socket as the socket iteration found it.
    pub struct ListenerRecord: 48 {
        /// Row of the owner.
        pub owner: u32,
        /// Network namespace inode.
        pub netns: u32,
        /// Connections waiting to be accepted.
        pub backlog: u32,
        /// How many may wait.
        pub max_backlog: u32,
        /// Address listened on; unspecified = all.
        pub address: [u32; 4],
        /// Socket cookie (0 if it never got one).
        pub cookie: u64,
        /// Port, host byte order.
        pub port: u16,
        /// 1 if an unspecified address means IPv6 only.
        pub v6_only: u8,
        /// Address family: 2 = AF_INET, 10 = AF_INET6.
        pub family: u8,
        /// Always zero.
        pub zero: u32,
    }
}

crate::slot_row! { ListenerRow {
    key: ListenerKey, table: LISTENERS, reserved: FIRST_FREE_LISTENER, ledger: Some((EDGE, NO_SLOT))
} }
