//! Ephemeral ports of a network namespace, as its sockets use them now.

use std::fs;

use super::diag::{self, SocketEntry, TIME_WAIT};
use crate::model::ephemeral::{Ephemeral, Use};

/// A namespace with more TCP sockets than this is not looked at: listing them would cost more than
/// the answer is worth.
const MOST_SOCKETS: u64 = 200_000;

/// The range of the calling thread's namespace; the kernel's own default if it cannot be read.
pub fn range() -> (u16, u16) {
    let read = || {
        let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
        let mut numbers = text.split_whitespace().map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    read().unwrap_or((32_768, 60_999))
}

/// What the sockets of the calling thread's namespace use; `None` if there are too many, or they
/// cannot be listed.
pub fn here() -> Option<Ephemeral> {
    let sockets = fs::read_to_string("/proc/thread-self/net/sockstat").unwrap_or_default();
    if tcp_sockets(&sockets) > MOST_SOCKETS {
        return None;
    }
    let dump = diag::dump_ports().ok()?;
    Some(of(range(), &dump.entries))
}

/// What these sockets use of a range.
pub fn of(range: (u16, u16), sockets: &[SocketEntry]) -> Ephemeral {
    let uses = sockets.iter().map(|entry| Use {
        protocol: entry.protocol,
        local_port: entry.local_port,
        remote: (entry.remote, entry.remote_port),
        is_time_wait: entry.state == TIME_WAIT,
    });
    Ephemeral::count(range, uses)
}

/// `TCP: inuse 5 orphan 0 tw 3 …`: those in use and those that are only remembered.
fn tcp_sockets(sockstat: &str) -> u64 {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
    let words: Vec<_> = line.split_whitespace().collect();
    let value = |name: &str| {
        let pair = words.chunks_exact(2).find(|pair| pair.first() == Some(&name));
        pair.and_then(|pair| pair.get(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    value("inuse") + value("tw")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn an_own_connection_uses_a_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let used = here().unwrap();
        assert!(used.used_tcp >= 1 && used.most >= 1, "{used:?}");
        assert!(used.first < used.last);
    }

    #[test]
    fn the_number_of_sockets_is_read_by_name() {
        let text =
            "sockets: used 9\nTCP: inuse 5 orphan 0 tw 3 alloc 7 mem 1\nUDP: inuse 1 mem 0\n";
        assert_eq!(tcp_sockets(text), 8);
        assert_eq!(tcp_sockets(""), 0);
    }
}
