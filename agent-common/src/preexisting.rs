//! What user space knows of sockets that were there before the agent.

use crate::owner::OwnerKey;

/// While this key is in the map (no socket has cookie 0 after a survey), the bootstrap program also
/// takes over sockets that the survey did not find, without an owner.
pub const UNKNOWN_TOO: u64 = 0;

crate::wire! {
    /// Owner and role of one pre-existing socket, keyed by its cookie.
    pub struct Preexisting: 40 {
        /// Its owner.
        pub owner: OwnerKey,
        /// The process it was found in, 0 if none.
        pub tgid: u32,
        /// `ROLE_*`.
        pub role: u8,
        /// Always zero.
        pub zero: [u8; 3],
    }
}
