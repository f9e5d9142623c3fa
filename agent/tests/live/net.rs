//! Sockets with the options that faults need, on top of the standard library.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Longer than any test waits for a peer on purpose.
const PATIENCE: Duration = Duration::from_secs(10);

/// The port a listener has.
pub fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("a listener has an address").port()
}

/// The next connection, within reason.
pub fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().expect("accepting");
    patient(&stream);
    stream
}

/// Makes reads and writes fail rather than hang.
pub fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(crate::facts::patience(PATIENCE))).expect("setting a timeout");
    stream.set_write_timeout(Some(crate::facts::patience(PATIENCE))).expect("setting a timeout");
}

/// A TCP socket that is neither bound nor connected, of the family of `address`.
pub fn socket_for(address: &SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP));
    socket.expect("a TCP socket")
}

/// Begins to connect and does not wait.
pub fn begin_connect(socket: &Socket, address: SocketAddr) {
    socket.set_nonblocking(true).expect("setting non-blocking");
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS), "connecting: {error}");
        }
    }
}

/// Closes with a reset instead of a FIN.
pub fn close_with_reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("setting linger");
    drop(stream);
}

/// Reads exactly `length` bytes and forgets them.
pub fn read_exactly(stream: &mut impl Read, length: usize) -> io::Result<()> {
    let read = io::copy(&mut stream.take(length as u64), &mut io::sink())?;
    if read == length as u64 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Reads to the end; returns how much there was.
pub fn read_to_end(stream: &mut impl Read) -> io::Result<u64> {
    io::copy(stream, &mut io::sink())
}

/// Answers requests of `request` bytes with `response` bytes each after a delay, until the client
/// closes. Returns their number.
pub fn answer(
    stream: &mut TcpStream,
    request: usize,
    response: usize,
    delay: Duration,
) -> io::Result<u64> {
    let body = vec![b'x'; response];
    let mut answered = 0;
    loop {
        match read_exactly(stream, request) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(answered),
            Err(error) => return Err(error),
        }
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        stream.write_all(&body)?;
        answered += 1;
    }
}

/// One exchange of a client: writes `request` bytes, reads `response` bytes.
pub fn ask(stream: &mut TcpStream, request: usize, response: usize) -> io::Result<()> {
    stream.write_all(&vec![b'q'; request])?;
    read_exactly(stream, response)
}
