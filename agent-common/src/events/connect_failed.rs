//! A connection attempt that failed.

use super::EventHeader;

crate::wire! {
    /// A connection attempt that failed.
    pub struct ConnectFailed: 56 {
        /// Kind, owner, time.
        pub header: EventHeader,
        /// Where to.
        pub remote: [u32; 4],
        /// How long it took, microseconds.
        pub elapsed_us: u64,
        /// `sk_err`: 0 if the program gave up.
        pub errno: i32,
        /// The server's port.
        pub port: u16,
        /// `CONNECT_*`.
        pub result: u8,
        /// Always zero.
        pub zero: u8,
        /// Slot of the edge.
        pub slot: u32,
        /// Always zero.
        pub zero2: u32,
    }
}
