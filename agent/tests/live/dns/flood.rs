//! Programs that send or request far more DNS answers than others.

use std::net::UdpSocket;
use std::time::Duration;

use super::scene::pair;
use super::server::{self, Message, Record};
use crate::namespace::Pair;

/// Two pairs whose clients have budgets of their own, which are by inode number.
pub(super) fn budgets() -> (Pair, Pair) {
    let one = pair();
    let mut others = std::iter::repeat_with(pair);
    let other = others.find(|other| other.client.inode() % 64 != one.client.inode() % 64);
    (one, other.expect("an endless number of them"))
}

/// Sends `wanted` answers to a socket in the client's namespace, each with this many addresses;
/// returns how many arrived.
pub(super) fn flood(pair: &Pair, wanted: u32, addresses: u8) -> u64 {
    let server = pair.server.within(|| UdpSocket::bind((pair.server.v4, 53)).expect("port 53"));
    let client = pair.client.within(|| UdpSocket::bind((pair.client.v4, 0)).expect("a socket"));
    client.connect((pair.server.v4, 53)).expect("connecting a UDP socket");
    client.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let to = client.local_addr().expect("it has an address");
    let question = server::Question::new("flood.portolan.test", server::A);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut arrived = 0;
            while client.recv(&mut [0; 2048]).is_ok() {
                arrived += 1;
            }
            arrived
        });
        for number in 0..wanted {
            let [_, b, c, d] = number.to_be_bytes();
            let record = |n: u8| {
                let address = format!("11.{}.{c}.{d}", b.wrapping_add(n));
                Record::a(&question.name, 60, &address)
            };
            let records: Vec<_> = (0..addresses).map(record).collect();
            server.send_to(&Message::answer(&question, &records).0, to).expect("sending");
            if number % 64 == 0 {
                // Else most of them find no room in the reader's buffer.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        reader.join().expect("the reader ends when nothing comes")
    })
}

/// A user who asks servers of their own, in four user namespaces, for 6000 addresses.
pub(super) const RESOLVE: &str = "
import socket, struct, sys, time
server, client = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
server.bind(('127.0.0.1', 53))
client.connect(('127.0.0.1', 53))
place = int(sys.argv[1])
for number in range(25):
    name = b'\\x05n%04d\\x07example\\0' % number + struct.pack('!HH', 1, 1)
    client.send(struct.pack('!6H', number, 0x0100, 1, 0, 0, 0) + name)
    _, asker = server.recvfrom(512)
    records = b''.join(
        struct.pack('!HHHIH4B', 0xc00c, 1, 1, 600, 4, 11, place, number, host)
        for host in range(1, 61)
    )
    server.sendto(struct.pack('!6H', number, 0x8180, 1, 60, 0, 0) + name + records, asker)
    client.recv(4096)
    time.sleep(0.02)
";
