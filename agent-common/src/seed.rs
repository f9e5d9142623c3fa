//! What user space knows of sockets that were there before the agent.

use crate::owner::OwnerKey;

crate::wire! {
    /// Owner and role of one pre-existing socket, keyed by its cookie.
    pub struct Seed: 40 {
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
