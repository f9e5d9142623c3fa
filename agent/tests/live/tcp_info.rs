//! `TCP_INFO` and the queues of a socket: what the kernel itself says about a connection.

use std::io;
use std::net::TcpStream;
use std::ops::Add;
use std::os::fd::AsRawFd as _;

/// What it says, as far as tests compare it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Microseconds limited by the receive window of the other end.
    pub receive_window_us: u64,
    /// Microseconds limited by the own send buffer.
    pub send_buffer_us: u64,
    /// Segments that the other end received twice.
    pub dsacks: u64,
    /// Retransmission timeouts; 0 on a kernel that does not count them.
    pub timeouts: u64,
}

impl TcpInfo {
    /// Reads it now.
    pub fn of(stream: &TcpStream) -> Self {
        // struct tcp_info (include/uapi/linux/tcp.h), which grows at its end.
        let mut info = [0u8; 512];
        let mut length = info.len() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes, which `info` has.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        let long = |at: usize| u64::from_ne_bytes(info[at..at + 8].try_into().unwrap());
        let word = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().unwrap());
        let half = |at: usize| u16::from_ne_bytes(info[at..at + 2].try_into().unwrap());
        Self {
            receive_window_us: long(176),
            send_buffer_us: long(184),
            dsacks: word(216).into(),
            timeouts: half(240).into(),
        }
    }
}

impl Add for TcpInfo {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            receive_window_us: self.receive_window_us + other.receive_window_us,
            send_buffer_us: self.send_buffer_us + other.send_buffer_us,
            dsacks: self.dsacks + other.dsacks,
            timeouts: self.timeouts + other.timeouts,
        }
    }
}

/// Payload that arrived and was not read.
pub fn unread(stream: &TcpStream) -> u64 {
    queue(stream, libc::FIONREAD)
}

/// Payload, and a FIN, that was written and is not acknowledged.
pub fn unacknowledged(stream: &TcpStream) -> u64 {
    queue(stream, libc::TIOCOUTQ)
}

fn queue(stream: &TcpStream, request: libc::Ioctl) -> u64 {
    let mut length: libc::c_int = 0;
    // SAFETY: both requests write one int.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), request, &raw mut length) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    length as u64
}
