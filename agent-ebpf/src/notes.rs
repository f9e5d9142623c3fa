//! Who is at the other end, if that is on this host: the client's side writes a note under its port,
//! and the server's side reads it; see [`agent_common::peer`].

use agent_common::peer::{self, Handshake, Note};

use crate::maps;
use crate::sock::{Sock, Tcp};

/// A client leaves its name for the server, if that is on this host.
#[inline(always)]
pub fn leave(sk: Sock, tcp: Tcp, owner: u32) {
    let (client, server) = sk.addresses();
    let handshake = Handshake { client, server, port: sk.remote_port(), netns: sk.netns() };
    if let Some(note) = peer::note(&handshake, tcp.first_sequence(), tcp.now_us(), owner)
        && let Some(row) = maps::peer(sk.local_port())
    {
        // SAFETY: a valid map value; volatile makes of each one store.
        unsafe {
            core::ptr::write_volatile(&raw mut (*row).sequence, note.sequence);
            core::ptr::write_volatile(&raw mut (*row).word, note.word);
        }
    }
}

/// What the client of this server's side wrote.
#[inline(always)]
pub fn read(sk: Sock) -> Option<u32> {
    let row = maps::peer(sk.remote_port())?;
    // SAFETY: a valid map value; volatile makes of each one load.
    let note = unsafe {
        let word = core::ptr::read_volatile(&raw const (*row).word);
        let sequence = core::ptr::read_volatile(&raw const (*row).sequence);
        Note { word, sequence, zero: 0 }
    };
    let (server, client) = sk.addresses();
    let handshake = Handshake { client, server, port: sk.local_port(), netns: sk.netns() };
    let tcp = sk.tcp()?;
    peer::owner(note, &handshake, tcp.peers_first_sequence(), tcp.now_us())
}
