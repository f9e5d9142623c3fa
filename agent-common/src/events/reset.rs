//! A reset sent or received.

use super::EventHeader;

/// `Reset::direction`: this host sent it.
pub const SENT: u8 = 0;
/// `Reset::direction`: this host received it.
pub const RECEIVED: u8 = 1;

/// `Reset::reason` when the kernel named none.
pub const NO_REASON: u8 = 0xff;

crate::wire! {
    /// A reset sent or received.
    pub struct Reset: 56 {
        /// Kind, owner, time.
        pub header: EventHeader,
        /// The other end.
        pub remote: [u32; 4],
        /// How long the connection had been silent, microseconds; `u64::MAX` if unknown.
        pub idle_us: u64,
        /// Slot of the edge.
        pub slot: u32,
        /// The other end's port.
        pub remote_port: u16,
        /// This end's port.
        pub local_port: u16,
        /// [`SENT`] or [`RECEIVED`].
        pub direction: u8,
        /// Cause, see [`crate::reset`].
        pub cause: u8,
        /// `enum sk_rst_reason` as this kernel numbers it, or [`NO_REASON`].
        pub reason: u8,
        /// `ROLE_*` of this end.
        pub role: u8,
        /// TCP state (include/net/tcp_states.h) when it happened.
        pub state: u8,
        /// Always zero.
        pub zero: [u8; 3],
    }
}
