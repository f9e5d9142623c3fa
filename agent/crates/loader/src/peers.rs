//! Reads the notes that clients leave for servers of this host (`agent_common::peer`). Connection
//! tracking knows the ends of a connection but not its program; the client's note does.

use std::io;

use agent_common::peer::{Handshake, Notes};

use super::bpf::Map;

/// The notes of clients. Shared between threads: every lookup is one system call.
pub struct Peers(pub(super) Map<u32, Notes>);

impl Peers {
    /// The owner row of the client of a tracked connection, if its note is still there.
    pub fn owner(&self, handshake: &Handshake) -> io::Result<Option<u32>> {
        let digest = handshake.digest();
        let notes = self.0.lookup(&digest.set())?;
        let mut notes = notes.iter().flat_map(|notes| notes.ways);
        Ok(notes.find_map(|note| digest.owner_at_any_age(note)))
    }
}
