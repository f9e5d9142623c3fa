//! Bytes from the kernel's rings → typed events. Total: whatever the bytes, an event or an error.

use std::net::IpAddr;

use crate::address::to_ip;
use crate::edge::{CONNECT_RESULT_NAMES, ROLE_LISTENER};
use crate::events::connect_failed::ConnectFailed;
use crate::events::reset::{NO_REASON, Reset, SENT};
use crate::events::{EventHeader, KIND_CONNECT_FAILED, KIND_RESET};
use crate::reset::CAUSE_NAMES;
use crate::wire::Wire as _;
use thiserror::Error;

pub mod dns;

/// Why a record cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than its kind says.
    #[error("record of {0} bytes is too short")]
    Short(usize),
    /// Not a kind this version knows.
    #[error("record of unknown kind {0}")]
    UnknownKind(u32),
    /// A value outside its set.
    #[error("record with {0} out of range")]
    OutOfRange(&'static str),
}

/// A rare fact worth reporting on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection attempt failed.
    ConnectFailed {
        /// Row of the owner that tried.
        owner: u32,
        /// CLOCK_MONOTONIC nanoseconds.
        time_ns: u64,
        /// Slot of the edge.
        slot: u32,
        /// Where to.
        remote: IpAddr,
        /// The server's port.
        port: u16,
        /// Label value of the result.
        result: &'static str,
        /// The errno; 0 if the program gave up.
        errno: i32,
        /// How long it took, microseconds.
        elapsed_us: u64,
    },
    /// A connection was reset.
    Reset {
        /// Row of the owner on this side.
        owner: u32,
        /// CLOCK_MONOTONIC nanoseconds.
        time_ns: u64,
        /// Slot of the edge, or of the listener.
        slot: u32,
        /// Whether it is a listener's, before there was a connection.
        is_listener: bool,
        /// The other end.
        remote: IpAddr,
        /// The other end's port.
        remote_port: u16,
        /// This end's port.
        local_port: u16,
        /// Whether this host sent it.
        sent: bool,
        /// Label value of the cause.
        cause: &'static str,
        /// The kernel's own number for the reason, if it gave one.
        reason: Option<u8>,
        /// How long the connection had been silent, microseconds, if known.
        idle_us: Option<u64>,
    },
}

/// Reads one record.
pub fn event(bytes: &[u8]) -> Result<Event, DecodeError> {
    let short = DecodeError::Short(bytes.len());
    let Some(header) = EventHeader::from_bytes(bytes) else { return Err(short) };
    match header.kind {
        KIND_CONNECT_FAILED => connect_failed(&ConnectFailed::from_bytes(bytes).ok_or(short)?),
        KIND_RESET => reset(&Reset::from_bytes(bytes).ok_or(short)?),
        other => Err(DecodeError::UnknownKind(other)),
    }
}

fn connect_failed(record: &ConnectFailed) -> Result<Event, DecodeError> {
    let name = CONNECT_RESULT_NAMES.get(usize::from(record.result));
    Ok(Event::ConnectFailed {
        owner: record.header.owner,
        time_ns: record.header.time_ns,
        slot: record.slot,
        remote: to_ip(record.remote),
        port: record.port,
        result: name.ok_or(DecodeError::OutOfRange("result"))?,
        errno: record.errno,
        elapsed_us: record.elapsed_us,
    })
}

fn reset(record: &Reset) -> Result<Event, DecodeError> {
    let name = CAUSE_NAMES.get(usize::from(record.cause));
    Ok(Event::Reset {
        owner: record.header.owner,
        time_ns: record.header.time_ns,
        slot: record.slot,
        remote: to_ip(record.remote),
        remote_port: record.remote_port,
        local_port: record.local_port,
        sent: record.direction == SENT,
        is_listener: record.role == ROLE_LISTENER,
        cause: name.ok_or(DecodeError::OutOfRange("cause"))?,
        reason: (record.reason != NO_REASON).then_some(record.reason),
        idle_us: (record.idle_us != u64::MAX).then_some(record.idle_us),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reset_is_read() {
        let mut record = Reset::zeroed();
        record.header = EventHeader { kind: KIND_RESET, owner: 3, time_ns: 9 };
        record.cause = crate::reset::LINGER;
        record.idle_us = u64::MAX;
        let Ok(Event::Reset { owner, cause, idle_us, sent, .. }) = event(record.as_bytes()) else {
            panic!("not a reset")
        };
        assert_eq!((owner, cause, idle_us, sent), (3, "linger", None, true));
    }

    #[test]
    fn bad_records_are_named() {
        assert_eq!(event(&[1, 0]), Err(DecodeError::Short(2)));
        let mut header = EventHeader::zeroed();
        header.kind = 77;
        assert_eq!(event(header.as_bytes()), Err(DecodeError::UnknownKind(77)));
        let mut record = ConnectFailed::zeroed();
        record.header.kind = KIND_CONNECT_FAILED;
        record.result = 200;
        assert_eq!(event(record.as_bytes()), Err(DecodeError::OutOfRange("result")));
    }

    proptest! {
        #[test]
        fn decoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = event(&bytes);
        }
    }
}
