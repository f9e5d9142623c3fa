//! Why a bind or listen failed: the errno, if the kernel did not report it, the reason, and which
//! socket of the namespace is the holder.
//!
//! The rules are those of `__inet_bind` (net/ipv4/af_inet.c), `inet_csk_bind_conflict`
//! (net/ipv4/inet_connection_sock.c) and `udp_lib_lport_inuse` (net/ipv4/udp.c).

mod reason;

use std::net::IpAddr;

pub use self::reason::Reason;
use super::port::{Held, PortState, Protocol};

/// Errnos a bind or listen can end with (include/uapi/asm-generic/errno.h).
pub const EPERM: u16 = 1;
/// See [`EPERM`].
pub const EACCES: u16 = 13;
/// See [`EPERM`].
pub const EINVAL: u16 = 22;
/// See [`EPERM`].
pub const EADDRINUSE: u16 = 98;
/// See [`EPERM`].
pub const EADDRNOTAVAIL: u16 = 99;

/// The requested bind.
#[expect(clippy::struct_excessive_bools, reason = "each is a socket option or a right of its own")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The protocol.
    pub protocol: Protocol,
    /// The address; unspecified = all of the family.
    pub address: IpAddr,
    /// Whether it is an IPv6 socket, also with an IPv4 address.
    pub is_v6: bool,
    /// Whether it refuses IPv4.
    pub v6_only: bool,
    /// The port; 0 = any.
    pub port: u16,
    /// The device the socket is bound to, 0 = none.
    pub device: u32,
    /// User id of the socket.
    pub uid: u32,
    /// Whether `SO_REUSEADDR` was set.
    pub reuse_address: bool,
    /// Whether `SO_REUSEPORT` was set.
    pub reuse_port: bool,
    /// Whether the socket had a port or a connection already.
    pub bound_before: bool,
    /// Whether the caller had CAP_NET_BIND_SERVICE.
    pub may_bind_privileged: bool,
    /// Whether it was listen that failed, not bind.
    pub by_listen: bool,
    /// The errno, if the kernel reported it.
    pub errno: Option<u16>,
}

/// Properties of the namespace, besides its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Ports below this one need CAP_NET_BIND_SERVICE (`ip_unprivileged_port_start`).
    pub unprivileged_from: u16,
    /// Whether the requested address may be bound here.
    pub has_address: bool,
    /// Ports that outgoing connections get (`ip_local_port_range`).
    pub ephemeral: (u16, u16),
}

/// The result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The errno.
    pub errno: u16,
    /// Whether the errno is inferred.
    pub inferred: bool,
    /// The reason.
    pub reason: Reason,
    /// Which of the sockets is in the way.
    pub holder: Option<usize>,
}

/// Finds the reason why `wanted` failed under `conditions`, where `held` are the sockets.
pub fn decide(wanted: &Wanted, conditions: Conditions, held: &[Held]) -> Verdict {
    let holder = in_the_way(wanted, held);
    let errno = wanted.errno.unwrap_or_else(|| infer(wanted, conditions, held));
    let privileged = wanted.port != 0 && wanted.port < conditions.unprivileged_from;
    let reason = match errno {
        EADDRNOTAVAIL => Reason::ForeignAddress,
        EACCES if privileged && !wanted.may_bind_privileged => Reason::Privileged,
        EACCES | EPERM => Reason::Denied,
        EINVAL if wanted.bound_before => Reason::AlreadyBound,
        EADDRINUSE if wanted.by_listen => Reason::ListenLost,
        EADDRINUSE if wanted.port == 0 => Reason::Exhausted,
        EADDRINUSE => holder
            .and_then(|index| held.get(index))
            .map_or(Reason::Gone, |held| reason::between(wanted, conditions, held)),
        _ => Reason::Other,
    };
    let holder = holder.filter(|_| errno == EADDRINUSE);
    Verdict { errno, inferred: wanted.errno.is_none(), reason, holder }
}

/// The checks of the kernel, in its order.
fn infer(wanted: &Wanted, conditions: Conditions, held: &[Held]) -> u16 {
    if wanted.by_listen {
        return EADDRINUSE;
    }
    // A socket with that very address shows that it can be bound (IP_FREEBIND, IP_TRANSPARENT).
    let had = |held: &Held| held.address == wanted.address && held.port == wanted.port;
    if !conditions.has_address && !held.iter().any(had) {
        return EADDRNOTAVAIL;
    }
    if wanted.port != 0 && wanted.port < conditions.unprivileged_from && !wanted.may_bind_privileged
    {
        return EACCES;
    }
    if wanted.bound_before { EINVAL } else { EADDRINUSE }
}

/// The most likely holder: certain before possible, a socket of a process before TIME_WAIT, a
/// specific address before the wildcard.
fn in_the_way(wanted: &Wanted, held: &[Held]) -> Option<usize> {
    let candidates = held.iter().enumerate().filter_map(|(index, held)| {
        let sure = clash(wanted, held)?;
        Some((!sure, held.state, held.address != wanted.address, index))
    });
    candidates.min().map(|(.., index)| index)
}

/// Whether the two conflict: certainly, possibly (`Some(false)`: not everything is known), or not.
fn clash(wanted: &Wanted, held: &Held) -> Option<bool> {
    let devices = (wanted.device, held.device);
    if held.protocol != wanted.protocol
        || held.port != wanted.port
        || wanted.port == 0
        || !held.overlaps(wanted.address, wanted.v6_only)
        || devices.0 != 0 && devices.1 != 0 && devices.0 != devices.1
    {
        return None;
    }
    if wanted.by_listen && held.state != PortState::Listening {
        return None;
    }
    let and = |mine: bool, other: Option<bool>| if mine { other } else { Some(false) };
    let by_address = match (held.protocol, held.state) {
        (Protocol::Tcp, PortState::Listening) => Some(false),
        _ => and(wanted.reuse_address, held.reuse_address),
    };
    let same_user = match held.uid {
        // The user of a TIME_WAIT connection does not matter.
        None => Some(true),
        Some(uid) => Some(uid == wanted.uid),
    };
    let by_port = and(wanted.reuse_port, held.reuse_port);
    let by_port = if same_user == Some(true) { by_port } else { Some(false) };
    match (by_address, by_port) {
        (Some(true), _) | (_, Some(true)) => None,
        (Some(false), Some(false)) => Some(true),
        _ => Some(false),
    }
}

/// The name of an errno, for labels.
pub fn errno_name(errno: u16) -> &'static str {
    match errno {
        EPERM => "EPERM",
        12 => "ENOMEM",
        EACCES => "EACCES",
        19 => "ENODEV",
        EINVAL => "EINVAL",
        97 => "EAFNOSUPPORT",
        EADDRINUSE => "EADDRINUSE",
        EADDRNOTAVAIL => "EADDRNOTAVAIL",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Conditions =
        Conditions { unprivileged_from: 1024, has_address: true, ephemeral: (32_768, 60_999) };

    fn wanted(address: &str) -> Wanted {
        Wanted {
            protocol: Protocol::Tcp,
            address: address.parse().unwrap(),
            is_v6: address.contains(':'),
            v6_only: false,
            port: 5432,
            device: 0,
            uid: 0,
            reuse_address: true,
            reuse_port: false,
            bound_before: false,
            may_bind_privileged: true,
            by_listen: false,
            errno: None,
        }
    }

    fn held(address: &str) -> Held {
        Held {
            protocol: Protocol::Tcp,
            address: address.parse().unwrap(),
            is_v6: address.contains(':'),
            v6_only: false,
            port: 5432,
            device: 0,
            uid: Some(0),
            reuse_address: Some(true),
            reuse_port: Some(false),
            state: PortState::Listening,
            peer: None,
        }
    }

    #[track_caller]
    fn check(
        wanted: Wanted,
        conditions: Conditions,
        held: &[Held],
        expected: (u16, Reason, Option<usize>),
    ) {
        let Verdict { errno, inferred, reason, holder } = decide(&wanted, conditions, held);
        assert_eq!((errno, reason, holder), expected);
        assert_eq!(inferred, wanted.errno.is_none());
    }

    #[test]
    fn addresses_clash_in_four_ways() {
        let check = |want: &str, have: &str, reason| {
            check(wanted(want), USUAL, &[held(have)], (EADDRINUSE, reason, Some(0)));
        };
        check("10.0.0.1", "10.0.0.1", Reason::SameAddress);
        check("0.0.0.0", "0.0.0.0", Reason::SameAddress);
        check("::", "::", Reason::SameAddress);
        check("0.0.0.0", "10.0.0.1", Reason::WildcardOverSpecific);
        check("10.0.0.1", "0.0.0.0", Reason::SpecificUnderWildcard);
        check("::1", "::", Reason::SpecificUnderWildcard);
        check("0.0.0.0", "::", Reason::DualStack);
        check("::", "0.0.0.0", Reason::DualStack);
        check("::", "10.0.0.1", Reason::DualStack);
        check("10.0.0.1", "::", Reason::DualStack);
    }

    #[test]
    fn others_are_not_in_the_way() {
        let gone = (EADDRINUSE, Reason::Gone, None);
        check(wanted("10.0.0.1"), USUAL, &[held("10.0.0.2")], gone);
        check(wanted("10.0.0.1"), USUAL, &[Held { port: 5433, ..held("10.0.0.1") }], gone);
        check(
            wanted("10.0.0.1"),
            USUAL,
            &[Held { protocol: Protocol::Udp, ..held("10.0.0.1") }],
            gone,
        );
        let only = Held { v6_only: true, ..held("::") };
        check(wanted("0.0.0.0"), USUAL, &[only], gone);
        let on = |device| Held { device, ..held("0.0.0.0") };
        let mine = Wanted { device: 2, ..wanted("0.0.0.0") };
        check(mine, USUAL, &[on(3)], gone);
        check(mine, USUAL, &[on(2)], (EADDRINUSE, Reason::SameAddress, Some(0)));
        // A group of SO_REUSEPORT allows its user; the failure must have another reason.
        let group = Held { reuse_port: Some(true), ..held("0.0.0.0") };
        check(Wanted { reuse_port: true, ..wanted("0.0.0.0") }, USUAL, &[group], gone);
        let bound = Held { state: PortState::Bound, ..held("0.0.0.0") };
        check(wanted("0.0.0.0"), USUAL, &[bound], gone);
    }

    #[test]
    fn options_that_are_missing_are_named() {
        let group = Held { reuse_port: Some(true), ..held("0.0.0.0") };
        let (mine, plain) = (Wanted { reuse_port: true, ..wanted("0.0.0.0") }, wanted("0.0.0.0"));
        let is = |reason| (EADDRINUSE, reason, Some(0));
        check(Wanted { uid: 33, ..mine }, USUAL, &[group], is(Reason::ReusePortOtherUser));
        check(plain, USUAL, &[group], is(Reason::ReusePortMissing));
        check(mine, USUAL, &[held("0.0.0.0")], is(Reason::ReusePortMissing));
        let unwilling = Wanted { reuse_address: false, ..plain };
        let memory = Held {
            uid: None,
            reuse_address: None,
            reuse_port: None,
            state: PortState::TimeWait,
            ..held("10.0.0.1")
        };
        check(unwilling, USUAL, &[memory], is(Reason::ReuseAddressMissing));
        let open = Held { state: PortState::Connected, ..held("10.0.0.1") };
        check(unwilling, USUAL, &[open], is(Reason::ReuseAddressMissing));
        let bound = Held { state: PortState::Bound, ..held("0.0.0.0") };
        check(unwilling, USUAL, &[bound], is(Reason::ReuseAddressMissing));
        let both = Held { reuse_address: Some(false), ..bound };
        check(unwilling, USUAL, &[both], is(Reason::SameAddress));
    }

    #[test]
    fn a_port_that_the_kernel_gave_to_a_client_is_named_so() {
        let mine = Wanted { port: 40_000, ..wanted("0.0.0.0") };
        let check = |port: u16, address: &str, peer: (&str, u16), reason| {
            let held = Held {
                port,
                state: PortState::Connected,
                reuse_address: None,
                peer: Some((peer.0.parse().unwrap(), peer.1)),
                ..held(address)
            };
            check(Wanted { port, ..mine }, USUAL, &[held], (EADDRINUSE, reason, Some(0)));
        };
        check(40_000, "127.0.0.1", ("127.0.0.1", 40_000), Reason::SelfConnected);
        check(5432, "127.0.0.1", ("127.0.0.1", 5432), Reason::SelfConnected);
        check(40_000, "10.0.0.1", ("10.0.0.9", 443), Reason::OutgoingConnection);
        // Accepted by a server, which has ended or closed its listener.
        check(40_000, "10.0.0.1", ("10.0.0.9", 51_000), Reason::ReuseAddressMissing);
        check(5432, "10.0.0.1", ("10.0.0.9", 443), Reason::ReuseAddressMissing);
    }

    #[test]
    fn the_surest_holder_is_named() {
        let memory = Held {
            uid: None,
            reuse_address: None,
            reuse_port: None,
            state: PortState::TimeWait,
            ..held("10.0.0.1")
        };
        let all = [memory, held("0.0.0.0"), held("10.0.0.1"), held("10.0.0.2")];
        check(wanted("10.0.0.1"), USUAL, &all, (EADDRINUSE, Reason::SameAddress, Some(2)));
        check(
            Wanted { reuse_address: false, ..wanted("10.0.0.1") },
            USUAL,
            &[memory],
            (EADDRINUSE, Reason::ReuseAddressMissing, Some(0)),
        );
    }

    #[test]
    fn datagram_sockets_share_if_both_want_to() {
        let udp = Held { protocol: Protocol::Udp, state: PortState::Bound, ..held("0.0.0.0") };
        let mine = Wanted { protocol: Protocol::Udp, ..wanted("0.0.0.0") };
        check(mine, USUAL, &[udp], (EADDRINUSE, Reason::Gone, None));
        let unwilling = Wanted { reuse_address: false, ..mine };
        check(unwilling, USUAL, &[udp], (EADDRINUSE, Reason::ReuseAddressMissing, Some(0)));
        let neither = Held { reuse_address: Some(false), ..udp };
        check(unwilling, USUAL, &[neither], (EADDRINUSE, Reason::SameAddress, Some(0)));
    }

    #[test]
    fn the_kernels_other_refusals_have_their_own_reasons() {
        let low = Wanted { port: 80, may_bind_privileged: false, ..wanted("0.0.0.0") };
        check(low, USUAL, &[], (EACCES, Reason::Privileged, None));
        let open = Conditions { unprivileged_from: 80, ..USUAL };
        check(low, open, &[], (EADDRINUSE, Reason::Gone, None));
        let elsewhere = Conditions { has_address: false, ..USUAL };
        check(wanted("192.0.2.1"), elsewhere, &[], (EADDRNOTAVAIL, Reason::ForeignAddress, None));
        // Checked before the port.
        let low = Wanted { address: "192.0.2.1".parse().unwrap(), ..low };
        check(low, elsewhere, &[], (EADDRNOTAVAIL, Reason::ForeignAddress, None));
        let free = held("192.0.2.1");
        check(wanted("192.0.2.1"), elsewhere, &[free], (EADDRINUSE, Reason::SameAddress, Some(0)));
        let twice = Wanted { bound_before: true, ..wanted("0.0.0.0") };
        check(twice, USUAL, &[], (EINVAL, Reason::AlreadyBound, None));
        let any = Wanted { port: 0, ..wanted("0.0.0.0") };
        check(any, USUAL, &[held("0.0.0.0")], (EADDRINUSE, Reason::Exhausted, None));
        let late = Wanted { by_listen: true, ..wanted("0.0.0.0") };
        check(late, USUAL, &[held("0.0.0.0")], (EADDRINUSE, Reason::ListenLost, Some(0)));
    }

    #[test]
    fn an_errno_of_the_kernel_is_not_inferred() {
        let reported = |errno| Wanted { errno: Some(errno), ..wanted("0.0.0.0") };
        check(reported(EPERM), USUAL, &[held("0.0.0.0")], (EPERM, Reason::Denied, None));
        check(reported(EADDRINUSE), USUAL, &[], (EADDRINUSE, Reason::Gone, None));
        check(reported(19), USUAL, &[], (19, Reason::Other, None));
    }
}
