//! Why two sockets cannot share a port, and every other reason of a bind or listen that failed.

use serde::{Deserialize, Serialize};

use super::{Conditions, Wanted};
use crate::port::{Held, PortState, Protocol};

/// Why a bind or listen failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Both request the same address and port.
    SameAddress,
    /// The wildcard address is requested, and a socket holds a specific one.
    WildcardOverSpecific,
    /// A specific address is requested, and a socket holds the wildcard.
    SpecificUnderWildcard,
    /// An IPv6 socket that takes IPv4 too meets an IPv4 socket.
    DualStack,
    /// `SO_REUSEADDR` is missing on one side or on both.
    ReuseAddressMissing,
    /// `SO_REUSEPORT` is set on one side only.
    ReusePortMissing,
    /// `SO_REUSEPORT` is set on both sides, but the sockets belong to different users.
    ReusePortOtherUser,
    /// A client got the port that it connects to as its own, and is connected to itself.
    SelfConnected,
    /// An outgoing connection got the port.
    OutgoingConnection,
    /// A container engine has given the port to another container, and did not try to bind it.
    Allocated,
    /// Both could bind; the other one listened first.
    ListenLost,
    /// The port needs CAP_NET_BIND_SERVICE.
    Privileged,
    /// The address is not on this host.
    ForeignAddress,
    /// The socket had a port already.
    AlreadyBound,
    /// No ephemeral port was left.
    Exhausted,
    /// A policy denied it.
    Denied,
    /// The socket that held the port is closed.
    Gone,
    /// Anything else.
    Other,
}

impl Reason {
    /// The name used in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SameAddress => "same_address",
            Self::WildcardOverSpecific => "wildcard_over_specific",
            Self::SpecificUnderWildcard => "specific_under_wildcard",
            Self::DualStack => "dual_stack",
            Self::ReuseAddressMissing => "reuse_address_missing",
            Self::ReusePortMissing => "reuse_port_missing",
            Self::ReusePortOtherUser => "reuse_port_other_user",
            Self::SelfConnected => "self_connected",
            Self::OutgoingConnection => "outgoing_connection",
            Self::Allocated => "allocated",
            Self::ListenLost => "listen_lost",
            Self::Privileged => "privileged",
            Self::ForeignAddress => "foreign_address",
            Self::AlreadyBound => "already_bound",
            Self::Exhausted => "exhausted",
            Self::Denied => "denied",
            Self::Gone => "gone",
            Self::Other => "other",
        }
    }
}

/// The reason of a conflict between these two.
pub(super) fn between(wanted: &Wanted, conditions: Conditions, held: &Held) -> Reason {
    if let Some(taken) = taken_by_a_client(conditions, held) {
        return taken;
    }
    let other_user = held.uid.is_some_and(|uid| uid != wanted.uid);
    if wanted.reuse_port && held.reuse_port == Some(true) && other_user {
        return Reason::ReusePortOtherUser;
    }
    if held.reuse_port.is_some_and(|theirs| theirs != wanted.reuse_port) {
        return Reason::ReusePortMissing;
    }
    let only_one = held.reuse_address.is_some_and(|theirs| theirs != wanted.reuse_address);
    let would_help = match held.state {
        PortState::TimeWait | PortState::Connected => held.protocol == Protocol::Tcp,
        PortState::Bound => only_one,
        PortState::Listening | PortState::Reserved => false,
    };
    if would_help {
        Reason::ReuseAddressMissing
    } else if wanted.is_v6 != held.is_v6 {
        Reason::DualStack
    } else if wanted.address == held.address {
        Reason::SameAddress
    } else if wanted.address.is_unspecified() {
        Reason::WildcardOverSpecific
    } else {
        Reason::SpecificUnderWildcard
    }
}

/// Whether the kernel gave the port to a client, and to which kind. A connection that was accepted
/// has a peer whose port is an ephemeral one.
fn taken_by_a_client(conditions: Conditions, held: &Held) -> Option<Reason> {
    let is_connection = held.protocol == Protocol::Tcp && held.state == PortState::Connected;
    let (address, port) = held.peer.filter(|_| is_connection)?;
    if (address, port) == (held.address, held.port) {
        return Some(Reason::SelfConnected);
    }
    let is_ephemeral =
        |port: u16| (conditions.ephemeral.0..=conditions.ephemeral.1).contains(&port);
    (is_ephemeral(held.port) && !is_ephemeral(port)).then_some(Reason::OutgoingConnection)
}
