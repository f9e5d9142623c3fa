//! Connections and requests on the loopback of a network namespace, both ends in the calling
//! thread: nothing is scheduled, and no other CPU takes part.

use std::hint::black_box;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};
use std::{fs, mem};

use anyhow::{Context as _, Result, bail};

use crate::load;

/// Connections that are open at any time.
pub const OPEN: usize = 64;
const PORT: u16 = 8080;
/// Bytes of a request, and of its response.
const MESSAGE: usize = 64;
/// With what they begin, so that the status of a response is read as well.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
const CACHE_LINE: usize = 64;
/// The niceness of a thread that is rarely interrupted.
const NICENESS: libc::c_int = -20;

/// An operation that is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Connect, accept, and the close of the oldest connection.
    Connection,
    /// A small request and its response on an open connection, round robin.
    Request,
}

/// A buffer to walk through between operations, so that caches hold nothing of the last one.
pub struct Cold(Vec<u8>);

/// A listener and its connections, all opened and closed while one variant is attached.
pub struct Traffic<'a> {
    operation: Operation,
    cold: Option<&'a Cold>,
    listener: OwnedFd,
    address: libc::sockaddr_in,
    open: Vec<Pair>,
    /// The oldest connection, or the next one.
    next: usize,
}

struct Pair {
    client: OwnedFd,
    server: OwnedFd,
}

impl Operation {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Request => "request",
        }
    }
}

impl Cold {
    pub fn of(kib: usize) -> Self {
        // Not zeros: pages of zeros would all be the same page.
        Self(vec![1; kib << 10])
    }

    fn walk(&self) {
        let sum: u64 = self.0.iter().step_by(CACHE_LINE).map(|byte| u64::from(*byte)).sum();
        black_box(sum);
    }
}

/// Gives the calling thread a processor of its own, a high priority and an empty network.
pub fn isolate(processor: usize) -> Result<()> {
    // SAFETY: zeros are an empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    if processor >= libc::CPU_SETSIZE as usize {
        bail!("there is no processor {processor}");
    }
    // SAFETY: the number is within the set.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: pointer and size are those of `set`, which is only read; 0 is the calling thread.
    succeeded(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) })
        .with_context(|| format!("binding a thread to processor {processor}"))?;
    // SAFETY: touches no memory; 0 is the calling thread.
    succeeded(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) })
        .context("raising the priority of a thread")?;
    // SAFETY: touches no memory; only the calling thread moves.
    succeeded(unsafe { libc::unshare(libc::CLONE_NEWNET) })
        .context("making a network namespace")?;
    bring_up_loopback().context("bringing the loopback up")?;
    // TIME_WAIT would take the ports away one by one, and the search for a free one would be a
    // growing part of every figure. Without room for it a connection that was closed in order is
    // gone at once.
    fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0")
        .context("limiting TIME_WAIT in the network namespace")
}

/// The last CPU that this process may run on: the first has most interrupts.
pub fn last_processor() -> Result<usize> {
    // SAFETY: zeros are an empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: pointer and size are those of `set`; 0 is the calling thread.
    succeeded(unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) })
        .context("asking for the processors of this process")?;
    // SAFETY: the numbers are within the set.
    let last = (0..libc::CPU_SETSIZE as usize).rfind(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) });
    last.context("this process may run on no processor")
}

/// Resets that were sent in the calling thread's network namespace so far.
pub fn resets() -> Result<u64> {
    let snmp = fs::read_to_string("/proc/thread-self/net/snmp").context("reading net/snmp")?;
    load::tcp_counter(&snmp, "OutRsts").context("net/snmp does not count resets")
}

impl<'a> Traffic<'a> {
    /// Listens, and opens the first connections.
    pub fn open(operation: Operation, cold: Option<&'a Cold>) -> Result<Self> {
        let address = loopback();
        let listener = listen(&address).context("listening on the loopback")?;
        let mut traffic =
            Self { operation, cold, listener, address, open: Vec::with_capacity(OPEN), next: 0 };
        for _ in 0..OPEN {
            let pair = traffic.connect()?;
            traffic.open.push(pair);
        }
        Ok(traffic)
    }

    /// Runs this many operations and returns their duration, without the walks between them.
    pub fn run(&mut self, operations: u32) -> Result<Duration> {
        let Some(cold) = self.cold else {
            let began = Instant::now();
            for _ in 0..operations {
                self.once()?;
            }
            return Ok(began.elapsed());
        };
        let mut taken = Duration::ZERO;
        for _ in 0..operations {
            cold.walk();
            let began = Instant::now();
            self.once()?;
            taken += began.elapsed();
        }
        Ok(taken)
    }

    /// Closes all connections, without a reset.
    pub fn close(self) -> Result<()> {
        self.open.into_iter().try_for_each(Pair::close)
    }

    fn once(&mut self) -> Result<()> {
        let next = self.next;
        self.next = (next + 1) % OPEN;
        match self.operation {
            Operation::Connection => {
                let pair = self.connect()?;
                mem::replace(&mut self.open[next], pair).close()
            }
            Operation::Request => self.open[next].exchange(),
        }
    }

    fn connect(&self) -> Result<Pair> {
        let client = stream_socket().context("making a socket")?;
        let (pointer, size) = (&raw const self.address, size_of_val(&self.address));
        // SAFETY: pointer and size are those of the address, which is only read.
        succeeded(unsafe {
            libc::connect(client.as_raw_fd(), pointer.cast(), size as libc::socklen_t)
        })
        .context("connecting")?;
        // SAFETY: without an address to write to, no memory is touched.
        let server = owned(unsafe {
            libc::accept4(
                self.listener.as_raw_fd(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                libc::SOCK_CLOEXEC,
            )
        })
        .context("accepting")?;
        Ok(Pair { client, server })
    }
}

impl Pair {
    /// Closes both ends, each after it has seen the other's FIN, which the kernel may deliver later
    /// than at once. The client only shuts down at first: a socket that was closed while its peer
    /// is open needs TIME_WAIT, or the peer's FIN is answered with a reset.
    fn close(self) -> Result<()> {
        let Self { client, server } = self;
        // SAFETY: touches no memory.
        succeeded(unsafe { libc::shutdown(client.as_raw_fd(), libc::SHUT_WR) })
            .context("closing a connection")?;
        wait_for_end(&server).context("the end of a client's stream")?;
        drop(server);
        wait_for_end(&client).context("the end of a server's stream")
    }

    fn exchange(&self) -> Result<()> {
        send(&self.client, &self.server).context("a request")?;
        send(&self.server, &self.client).context("a response")
    }
}

/// Sends a message from one end and receives it at the other.
fn send(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let mut message = [b'x'; MESSAGE];
    for (byte, head) in message.iter_mut().zip(HEAD) {
        *byte = *head;
    }
    // SAFETY: pointer and size are those of `message`, which is only read.
    let sent = unsafe {
        libc::send(from.as_raw_fd(), message.as_ptr().cast(), MESSAGE, libc::MSG_NOSIGNAL)
    };
    // SAFETY: pointer and size are those of `message`.
    let received = unsafe {
        libc::recv(to.as_raw_fd(), message.as_mut_ptr().cast(), MESSAGE, libc::MSG_WAITALL)
    };
    if [sent, received] != [MESSAGE as isize; 2] {
        bail!("{sent} bytes were sent and {received} received of {MESSAGE}");
    }
    Ok(())
}

fn wait_for_end(of: &OwnedFd) -> Result<()> {
    let mut byte = 0_u8;
    // SAFETY: room for the one byte that is asked for.
    let received = unsafe { libc::recv(of.as_raw_fd(), (&raw mut byte).cast(), 1, 0) };
    if received != 0 {
        let error = io::Error::last_os_error();
        bail!("recv returned {received} instead of 0 ({error})");
    }
    Ok(())
}

fn listen(address: &libc::sockaddr_in) -> io::Result<OwnedFd> {
    let socket = stream_socket()?;
    let size = size_of_val(address) as libc::socklen_t;
    // SAFETY: pointer and size are those of the address, which is only read.
    succeeded(unsafe { libc::bind(socket.as_raw_fd(), (&raw const *address).cast(), size) })?;
    // SAFETY: touches no memory.
    succeeded(unsafe { libc::listen(socket.as_raw_fd(), OPEN as libc::c_int) })?;
    Ok(socket)
}

fn stream_socket() -> io::Result<OwnedFd> {
    // SAFETY: touches no memory.
    owned(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })
}

fn loopback() -> libc::sockaddr_in {
    // SAFETY: zeros are a valid address.
    let mut address: libc::sockaddr_in = unsafe { mem::zeroed() };
    address.sin_family = libc::AF_INET as libc::sa_family_t;
    address.sin_port = PORT.to_be();
    address.sin_addr.s_addr = u32::from_ne_bytes(Ipv4Addr::LOCALHOST.octets());
    address
}

/// Sets the flag IFF_UP of `lo`.
fn bring_up_loopback() -> io::Result<()> {
    let socket = stream_socket()?;
    // SAFETY: zeros are a valid request.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: a request as SIOCSIFFLAGS demands it, which is only read.
    succeeded(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
}

fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    succeeded(result)?;
    // SAFETY: the kernel just gave us this descriptor, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

fn succeeded(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_send_no_reset_and_leave_no_port_taken() {
        if !portolan_kit::shell::is_root() {
            println!("SKIPPED: making network namespaces needs root");
            return;
        }
        // In a thread of its own, which alone is moved into another network.
        let thread = std::thread::spawn(|| {
            isolate(last_processor().unwrap()).unwrap();
            for operation in [Operation::Connection, Operation::Request] {
                for cold in [None, Some(Cold::of(64))] {
                    let mut traffic = Traffic::open(operation, cold.as_ref()).unwrap();
                    let taken = traffic.run(500).unwrap();
                    assert!(taken > Duration::ZERO);
                    traffic.close().unwrap();
                }
            }
            let snmp = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
            let counter = |name| load::tcp_counter(&snmp, name).unwrap();
            // Two loads of connections, two of requests, with their first connections each.
            assert_eq!(counter("ActiveOpens"), 2 * 500 + 4 * OPEN as u64);
            assert_eq!(counter("PassiveOpens"), counter("ActiveOpens"));
            assert_eq!((counter("OutRsts"), counter("EstabResets")), (0, 0));
            assert_eq!((counter("AttemptFails"), counter("CurrEstab")), (0, 0));
            let sockets = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
            assert_eq!(sockets.lines().count(), 1, "{sockets}");
        });
        thread.join().unwrap();
    }
}
