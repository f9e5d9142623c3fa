//! Who is at the other end, if that is on this host: the client's side writes a note, and the server's
//! side reads it; see [`agent_common::peer`].

use agent_common::peer::{Handshake, Note, WAYS};

use crate::maps;
use crate::sock::{Sock, Tcp};

/// A client leaves its name for the server, if that is on this host.
#[inline(always)]
pub fn leave(sk: Sock, tcp: Tcp, owner: u32) {
    let (client, server) = sk.addresses();
    let handshake = Handshake {
        client,
        client_port: sk.local_port(),
        server,
        port: sk.remote_port(),
        netns: sk.netns(),
    };
    let digest = handshake.digest();
    let Some(note) = digest.note(tcp.first_sequence(), tcp.now_us(), owner) else { return };
    let Some(ways) = maps::notes(digest.set()) else { return };
    let (mut preference, mut way) = (0, 0);
    while way < WAYS {
        // SAFETY: within a valid map value; volatile makes of it one load.
        let word = unsafe { core::ptr::read_volatile(&raw const (*ways.add(way)).word) };
        preference = note.preference(word, way as u32).max(preference);
        way += 1;
    }
    // SAFETY: the chosen way is within the value; volatile makes of each one store.
    unsafe {
        let row = ways.add(note.chosen(preference));
        core::ptr::write_volatile(&raw mut (*row).rest, note.rest);
        core::ptr::write_volatile(&raw mut (*row).sequence, note.sequence);
        core::ptr::write_volatile(&raw mut (*row).word, note.word);
    }
}

/// What the client of this server's side wrote.
#[inline(always)]
pub fn read(sk: Sock) -> Option<u32> {
    let (server, client) = sk.addresses();
    let handshake = Handshake {
        client,
        client_port: sk.remote_port(),
        server,
        port: sk.local_port(),
        netns: sk.netns(),
    };
    let digest = handshake.digest();
    let ways = maps::notes(digest.set())?;
    let tcp = sk.tcp()?;
    let (sequence, now_us) = (tcp.peers_first_sequence(), tcp.now_us());
    // One comparison for each way, and one way on from here, or the verifier walks the rest for each.
    let (mut found, mut way) = (Note::default(), 0);
    while way < WAYS {
        // SAFETY: within a valid map value; volatile makes of each one load.
        let note = unsafe {
            let row = ways.add(way);
            let word = core::ptr::read_volatile(&raw const (*row).word);
            let sequence = core::ptr::read_volatile(&raw const (*row).sequence);
            let rest = core::ptr::read_volatile(&raw const (*row).rest);
            Note { word, sequence, rest }
        };
        if digest.difference(note, sequence) == 0 {
            found.word = note.word;
        }
        way += 1;
    }
    digest.fresh_owner(found.word, now_us)
}
