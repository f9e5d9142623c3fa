//! The netlink socket that `sock_diag`, rtnetlink and netfilter share, and the messages on it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use netlink_packet_core::NetlinkBuffer;
use rustix::io::retry_on_intr;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// One dump's datagrams are at most 32 KiB (`netlink_dump`, net/netlink/af_netlink.c).
pub(super) const BUFFER: usize = 256 * 1024;

/// Size of the receive buffer; the kernel pauses a dump that finds no room.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

// Message types and flags every netlink family has (include/uapi/linux).
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const NLMSG_OVERRUN: u16 = 4;

/// Why a dump failed.
#[derive(Debug, thiserror::Error)]
pub enum DiagError {
    /// The netlink socket failed.
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
    /// The kernel refused; ENOENT means that it was built without `tcp_diag`.
    #[error("the kernel refused the list: {0}")]
    Refused(io::Error),
    /// The response was truncated or lost.
    #[error("the kernel's answer was cut short")]
    Truncated,
}

/// One message of a datagram.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

/// A netlink socket in the namespace of the calling thread; without a protocol, of rtnetlink.
pub(super) fn open(protocol: impl Into<Option<Protocol>>) -> io::Result<OwnedFd> {
    let socket = net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        protocol.into(),
    )?;
    // A small buffer is only slower, so failures are ignored.
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER));
    sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}

/// Sends one request.
pub(super) fn send(socket: &OwnedFd, request: &[u8]) -> io::Result<()> {
    net::send(socket, request, SendFlags::empty())?;
    Ok(())
}

/// Receives one datagram.
pub(super) fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> Result<&'a [u8], DiagError> {
    // With MSG_TRUNC the length is the datagram's, even if the buffer cannot hold it.
    let (_, length) = retry_on_intr(|| net::recv(socket, &mut *buffer, RecvFlags::TRUNC))
        .map_err(io::Error::from)?;
    buffer.get(..length).filter(|bytes| !bytes.is_empty()).ok_or(DiagError::Truncated)
}

/// Takes the first message of a datagram off `bytes`; `None` at the end.
pub(super) fn next<'a>(bytes: &mut &'a [u8]) -> Result<Option<Message<'a>>, DiagError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    // A length that is wrong leaves no way to find the next message.
    let message = NetlinkBuffer::new_checked(*bytes).map_err(|_| DiagError::Truncated)?;
    let length = message.length() as usize;
    let payload = bytes.get(16..length).ok_or(DiagError::Truncated)?;
    let (kind, flags) = (message.message_type(), message.flags());
    let sequence = message.sequence_number();
    *bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Ok(Some(Message { kind, flags, sequence, payload }))
}

/// The result at the start of NLMSG_DONE and NLMSG_ERROR: zero or a negative errno. Old kernels
/// end a dump without any.
pub(super) fn finished(payload: &[u8]) -> Result<(), DiagError> {
    match payload.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes)) {
        Some(code) if code < 0 => {
            Err(DiagError::Refused(io::Error::from_raw_os_error(code.saturating_neg())))
        }
        _ => Ok(()),
    }
}
