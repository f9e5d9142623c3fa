//! What keeps a program's data from being sent, where it is not the network: a closed set.
//!
//! The kernel times both for each connection (`tcp_chrono_start`, net/ipv4/tcp_output.c).

/// How many limits there are.
pub const LIMITS: usize = 2;

/// The window that the other end offers is full: its program does not read, or not fast enough.
pub const RECEIVE_WINDOW: usize = 0;
/// The program's own send buffer is full, though the network would take more.
pub const SEND_BUFFER: usize = 1;

/// Label values, indexed by limit.
pub const LIMIT_NAMES: [&str; LIMITS] = ["receive_window", "send_buffer"];

/// `TCP_CHRONO_RWND_LIMITED` (include/linux/tcp.h): the connection is in [`RECEIVE_WINDOW`] now.
pub const CHRONO_RECEIVE_WINDOW: u8 = 2;
/// `TCP_CHRONO_SNDBUF_LIMITED`, likewise.
pub const CHRONO_SEND_BUFFER: u8 = 3;
