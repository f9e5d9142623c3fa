//! Reads the notes that clients leave for servers of this host (`agent_common::peer`). Connection
//! tracking knows the ports of a connection but not its program; the note under the client's port
//! does.

use std::io;

use agent_common::peer::{self, Handshake, Note};

use super::bpf::Map;

/// The notes of clients. Shared between threads: every lookup is one system call.
pub struct Peers(pub(super) Map<u32, Note>);

impl Peers {
    /// The owner row of the client of a tracked connection, if its note is still there.
    /// `client_port` is the client's port.
    pub fn owner(&self, client_port: u16, handshake: &Handshake) -> io::Result<Option<u32>> {
        let note = self.0.lookup(&u32::from(client_port))?;
        Ok(note.and_then(|note| peer::owner_at_any_age(note, handshake)))
    }
}
