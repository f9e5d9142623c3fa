//! Who is at the other end of a connection that stays in one network namespace.
//!
//! Its clients share one address, so the address names nobody. The client's side is established
//! first; it leaves its owner here, and the server's side picks it up.

crate::wire! {
    /// A connection within one network namespace, as both of its sides know it.
    pub struct PeerKey: 8 {
        /// Network namespace inode.
        pub netns: u32,
        /// The client's port, host byte order.
        pub client_port: u16,
        /// The server's port, host byte order.
        pub server_port: u16,
    }

    /// Its client.
    pub struct Peer: 16 {
        /// Row of the client's owner.
        pub owner: u32,
        /// Always zero.
        pub zero: u32,
        /// When it was left, CLOCK_MONOTONIC microseconds.
        pub since_us: u64,
    }
}

/// What nobody picked up for so long is removed (µs): the server never established.
pub const STALE_US: u64 = 10_000_000;
