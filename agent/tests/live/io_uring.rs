//! Sockets that are used through io_uring: in the calling thread, in a kernel worker, and by an
//! SQPOLL thread. For the agent a connection is a connection; the reference is the kernel's
//! counters.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, RawFd};

use io_uring::{IoUring, opcode, squeue, types};
use socket2::{SockAddr, Socket};

use crate::agent::Agent;
use crate::facts::Counters;
use crate::namespace::Pair;
use crate::net;

const EXCHANGES: u64 = 3;
const REQUEST: usize = 100;
const RESPONSE: usize = 200;

/// The thread that executes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worker {
    /// The calling thread, and its task work.
    Asker,
    /// A worker thread that the kernel makes.
    Kernel,
    /// A kernel thread that polls for requests.
    Poller,
}

/// A ring of one entry at a time.
struct Ring {
    ring: IoUring,
    worker: Worker,
}

impl Ring {
    fn new(worker: Worker) -> std::io::Result<Self> {
        let mut builder = IoUring::builder();
        if worker == Worker::Poller {
            builder.setup_sqpoll(100);
        }
        Ok(Self { ring: builder.build(8)?, worker })
    }

    /// Does it and waits: what the call would have returned, errors negative.
    ///
    /// # Safety
    /// What the entry points to must live until this returns.
    unsafe fn run(&mut self, entry: squeue::Entry) -> i32 {
        let entry = match self.worker {
            Worker::Kernel => entry.flags(squeue::Flags::ASYNC),
            Worker::Asker | Worker::Poller => entry,
        };
        // SAFETY: the caller's promise; the completion is awaited below.
        unsafe { self.ring.submission().push(&entry) }.expect("room for one entry");
        self.ring.submit_and_wait(1).expect("submitting");
        self.ring.completion().next().expect("a completion").result()
    }

    fn connect(&mut self, socket: &Socket, address: SocketAddr) -> i32 {
        let address = SockAddr::from(address);
        let fd = types::Fd(socket.as_raw_fd());
        // SAFETY: the address lives until the end of this function.
        unsafe {
            self.run(opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build())
        }
    }

    fn accept(&mut self, listener: RawFd) -> TcpStream {
        let none = std::ptr::null_mut();
        // SAFETY: it points to nothing.
        let fd = unsafe {
            self.run(opcode::Accept::new(types::Fd(listener), none, none.cast()).build())
        };
        assert!(fd >= 0, "accepting: {}", std::io::Error::from_raw_os_error(-fd));
        // SAFETY: the kernel just gave us this descriptor.
        unsafe { TcpStream::from_raw_fd(fd) }
    }

    fn send(&mut self, stream: &TcpStream, length: usize) {
        let bytes = vec![b'x'; length];
        let fd = types::Fd(stream.as_raw_fd());
        // SAFETY: the bytes live until the end of this function.
        let sent =
            unsafe { self.run(opcode::Send::new(fd, bytes.as_ptr(), length as u32).build()) };
        assert_eq!(sent, length as i32);
    }

    fn receive(&mut self, stream: &TcpStream, length: usize) {
        let mut left = length;
        while left > 0 {
            let mut bytes = vec![0; left];
            let fd = types::Fd(stream.as_raw_fd());
            let entry = opcode::Recv::new(fd, bytes.as_mut_ptr(), left as u32).build();
            // SAFETY: the bytes live until the end of this turn of the loop.
            let received = unsafe { self.run(entry) };
            assert!(received > 0, "receiving: {received}");
            left -= received as usize;
        }
    }
}

fn connections_are_counted(worker: Worker) {
    let pair = Pair::new();
    if let Err(error) = Ring::new(worker) {
        println!("SKIPPED: this kernel allows no io_uring: {error}");
        return;
    }
    let agent = Agent::with(&[("responses", "true")]);
    let listener = pair.server.listen((pair.server.v4, 0));
    let port = net::port(&listener);
    let address = SocketAddr::from((pair.server.v4, port));
    let before = pair.both().map(Counters::of);
    // Rings are made where they are used: their threads belong to that namespace.
    let (mut here, client) = pair.client.act(|| {
        let (mut ring, socket) = (Ring::new(worker).unwrap(), net::socket_for(&address));
        assert_eq!(ring.connect(&socket, address), 0, "connecting");
        (ring, TcpStream::from(socket))
    });
    let (mut there, server) = pair.server.act(|| {
        let mut ring = Ring::new(worker).unwrap();
        let server = ring.accept(listener.as_raw_fd());
        (ring, server)
    });
    for _ in 0..EXCHANGES {
        here.send(&client, REQUEST);
        there.receive(&server, REQUEST);
        there.send(&server, RESPONSE);
        here.receive(&client, RESPONSE);
    }
    // One that is refused, by the same ring.
    let closed = SocketAddr::from((pair.server.v4, 9));
    let refused = pair.client.act(|| here.connect(&net::socket_for(&closed), closed));
    assert_eq!(refused, -libc::ECONNREFUSED);
    drop((client, server));

    let after = pair.both().map(Counters::of);
    let grown = |end: usize, name| after[end].since(&before[end], name);
    assert_eq!((grown(0, "TcpActiveOpens"), grown(1, "TcpPassiveOpens")), (2, 1));
    assert_eq!(grown(0, "TcpAttemptFails"), 1);
    let (client, server) = (&pair.client.service, &pair.server.service);
    let now = agent.eventually([(1, 0, EXCHANGES); 2], |now| {
        ["client", "server"].map(|role| {
            let edge = now.edge(client, server, port, role);
            (edge.connects("ok"), edge.active(), edge.requests().count)
        })
    });
    let (sent, received) = (EXCHANGES * REQUEST as u64, EXCHANGES * RESPONSE as u64);
    let at_client = now.edge(client, server, port, "client");
    let at_server = now.edge(client, server, port, "server");
    assert_eq!((at_client.sent_bytes(), at_client.received_bytes()), (sent, received));
    assert_eq!((at_server.sent_bytes(), at_server.received_bytes()), (received, sent));
    // Nothing listens there: it is shown once it is known whose address that is.
    agent.eventually((1, 1), |now| {
        let edge = now.edges(&[("client", client), ("port", "9"), ("role", "client")]);
        (edge.connects("refused"), edge.all_connects())
    });
    let now = agent.ledger_adds_up();
    // What a server sends by io_uring is in no buffer of a system call.
    let lost = [("class", "response"), ("reason", "no_buffer")];
    assert_eq!(now.sum("portolan_events_lost_total", &lost), EXCHANGES);
    agent.stop();
}

#[test]
fn a_connection_through_io_uring_is_counted_like_any_other() {
    needs_kernel!();
    connections_are_counted(Worker::Asker);
}

#[test]
fn a_connection_that_a_kernel_worker_makes_is_its_programs() {
    needs_kernel!();
    connections_are_counted(Worker::Kernel);
}

#[test]
fn a_connection_that_a_polling_kernel_thread_makes_is_its_programs() {
    needs_kernel!();
    connections_are_counted(Worker::Poller);
}
