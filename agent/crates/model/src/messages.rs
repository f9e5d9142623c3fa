//! The messages of a conflict: what happened, and what to do about it.

use std::fmt::Write as _;
use std::net::IpAddr;

use notation::duration::ago;

use super::clash::Reason;
use super::conflicts::{self, Conflict, Holder, Party};
use super::kernel_sockets;
use super::port::{PortState, Protocol};

/// What happened, as it was then.
pub fn summary(conflict: &Conflict) -> String {
    let claimant = party(&conflict.claimant);
    let socket = socket(conflict.address, conflict.port, conflict.protocol);
    let times =
        if conflict.count > 1 { format!(" {} times", conflict.count) } else { String::new() };
    let failed = if conflict.reason == Reason::Allocated {
        format!("{claimant} could not be started{times} with {socket} published")
    } else if conflict.by_listen {
        format!("{claimant} failed{times} to listen on {socket}, which it has bound")
    } else if conflict.port == 0 {
        format!("{claimant} failed{times} to bind any port of {}", conflict.address)
    } else {
        format!("{claimant} failed{times} to bind {socket}")
    };
    let why = match conflict.reason {
        Reason::Privileged => "ports that low need CAP_NET_BIND_SERVICE".to_owned(),
        Reason::ForeignAddress => "this host does not have that address".to_owned(),
        Reason::AlreadyBound => "the socket is bound already".to_owned(),
        Reason::Exhausted => "no ephemeral port is free".to_owned(),
        Reason::Denied => "a policy denied it".to_owned(),
        Reason::Gone => "the process that held it has ended".to_owned(),
        Reason::Other => format!("the kernel returned {}", conflict.errno),
        _ => conflict.holder.as_ref().map_or_else(
            || "another process holds it".to_owned(),
            |holder| has(holder, conflict.reason, conflict.last_seconds),
        ),
    };
    format!("{failed}: {why}")
}

/// What to do about it.
pub fn fix(conflict: &Conflict) -> String {
    let next = |text: &str| {
        let mut text = text.to_owned();
        if let Some(port) = conflict.next_free {
            // Writing into a String cannot fail.
            let _ = write!(text, ", or use {port} (free)");
        }
        text
    };
    let is_kernels = |holder: &Holder| kernel_sockets::is_holder(&holder.party);
    if conflict.holder.as_ref().is_some_and(is_kernels) {
        return next(
            "remove what the kernel uses it for, an interface (ip -d link) or a file server (rpc.nfsd 0)",
        );
    }
    match conflict.reason {
        Reason::Allocated => next("publish another port, or remove the other container"),
        Reason::SameAddress | Reason::WildcardOverSpecific | Reason::SpecificUnderWildcard => {
            next("stop one")
        }
        Reason::DualStack => {
            next("set IPV6_V6ONLY on the IPv6 socket, which takes IPv4 too, or stop one")
        }
        Reason::ReuseAddressMissing => {
            next("set SO_REUSEADDR on both sockets, or wait until the other one is gone")
        }
        Reason::ReusePortMissing => next("set SO_REUSEPORT on both to share the port, or stop one"),
        Reason::ReusePortOtherUser => next(
            "run both as the same user, as SO_REUSEPORT shares a port only among sockets of one user",
        ),
        Reason::SelfConnected | Reason::OutgoingConnection => next(&format!(
            "end that connection, and keep the port from outgoing ones: sysctl -w net.ipv4.ip_local_reserved_ports={}",
            conflict.port
        )),
        Reason::ListenLost => next("stop one, as SO_REUSEADDR lets both bind but only one listen"),
        Reason::Privileged => next(
            "give it CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=), or lower net.ipv4.ip_unprivileged_port_start",
        ),
        Reason::ForeignAddress => {
            "check the address; if it comes later, set net.ipv4.ip_nonlocal_bind or IP_FREEBIND"
                .to_owned()
        }
        Reason::AlreadyBound => "fix the program: it binds a socket twice".to_owned(),
        Reason::Exhausted => {
            "widen net.ipv4.ip_local_port_range, reuse connections, or spread over addresses"
                .to_owned()
        }
        Reason::Denied => {
            "check reservations (portolan ports reservations) and security modules".to_owned()
        }
        Reason::Gone => "try again".to_owned(),
        Reason::Other => "see man 2 bind for this errno".to_owned(),
    }
}

/// Who had the port at `now`, how and for how long.
fn has(holder: &Holder, reason: Reason, now: f64) -> String {
    let Holder { party: who, address, state, since_seconds } = holder;
    // With a time span it is "has held it for", without one it is just so.
    let lasts = since_seconds.is_some();
    let how = match state {
        PortState::Listening if lasts => "has held it",
        PortState::Listening => "holds it",
        PortState::Bound if lasts => "has had it bound",
        PortState::Bound => "has it bound",
        PortState::Connected if lasts => "has had a connection on it",
        PortState::Connected => "has a connection on it",
        PortState::TimeWait => {
            return format!("a closed connection of {address} is in TIME_WAIT there");
        }
        PortState::Reserved => "has reserved it",
    };
    let how = match reason {
        Reason::SelfConnected if lasts => "has been connected to itself from it",
        Reason::SelfConnected => "is connected to itself from it",
        Reason::OutgoingConnection if lasts => "has had an outgoing connection from it",
        Reason::OutgoingConnection => "has an outgoing connection from it",
        _ => how,
    };
    let mut text = format!("{} {how}", party(who));
    if matches!(
        reason,
        Reason::WildcardOverSpecific | Reason::SpecificUnderWildcard | Reason::DualStack
    ) {
        let _ = write!(text, " on {address}");
    }
    match reason {
        Reason::ReusePortOtherUser => text.push_str(" as another user"),
        Reason::ReusePortMissing => text.push_str("; only one of them sets SO_REUSEPORT"),
        _ => {}
    }
    if let Some(since) = since_seconds {
        let _ = write!(text, " for {}", ago(now - since));
    }
    text
}

/// A process by service, command and number.
fn party(party: &Party) -> String {
    let Party { service, pid, command } = party;
    if *service == conflicts::nobody() {
        return "an unknown process".to_owned();
    }
    let mut text = if service.namespace.is_empty() {
        service.name.to_string()
    } else {
        format!("{} of {}", service.name, service.namespace)
    };
    let named = command.is_empty() || *command == *service.name;
    match (named, *pid) {
        (true, 0) => {}
        (true, pid) => {
            let _ = write!(text, " (pid {pid})");
        }
        (false, 0) => {
            let _ = write!(text, " ({command})");
        }
        (false, pid) => {
            let _ = write!(text, " ({command}, pid {pid})");
        }
    }
    text
}

fn socket(address: IpAddr, port: u16, protocol: Protocol) -> String {
    let socket = std::net::SocketAddr::new(address, port);
    match protocol {
        Protocol::Tcp => socket.to_string(),
        Protocol::Udp => format!("{socket}/udp"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Service, Source};

    fn conflict(reason: Reason) -> Conflict {
        let party = |name: &str, pid, command: &str| Party {
            service: Service::new(name, Source::Process),
            pid,
            command: command.to_owned(),
        };
        let mut claimant = party("postgres", 4711, "postgres");
        claimant.service.namespace = "shop".into();
        Conflict {
            first_seconds: 1e6,
            last_seconds: 1e6,
            count: 1,
            claimant,
            port: 5432,
            protocol: Protocol::Tcp,
            address: "0.0.0.0".parse().unwrap(),
            netns: 1,
            by_listen: false,
            errno: "EADDRINUSE".to_owned(),
            inferred: true,
            reason,
            holder: Some(Holder {
                party: party("postgresql.service", 811, "postgres"),
                address: "127.0.0.1".parse().unwrap(),
                state: PortState::Listening,
                since_seconds: Some(1e6 - 2.5 * 86_400.0),
            }),
            next_free: Some(5433),
            unverified_user: None,
        }
    }

    #[test]
    fn the_summary_names_the_process_that_failed_and_the_holder() {
        let shown = |conflict: &Conflict| format!("{}. Fix: {}", summary(conflict), fix(conflict));
        assert_eq!(
            shown(&conflict(Reason::SameAddress)),
            "postgres of shop (pid 4711) failed to bind 0.0.0.0:5432: postgresql.service (postgres, pid 811) has held it for 2 days. Fix: stop one, or use 5433 (free)"
        );
        assert_eq!(
            shown(&Conflict { count: 3, ..conflict(Reason::WildcardOverSpecific) }),
            "postgres of shop (pid 4711) failed 3 times to bind 0.0.0.0:5432: postgresql.service (postgres, pid 811) has held it on 127.0.0.1 for 2 days. Fix: stop one, or use 5433 (free)"
        );
        let low = Conflict {
            port: 80,
            holder: None,
            next_free: Some(1024),
            ..conflict(Reason::Privileged)
        };
        assert_eq!(
            summary(&low),
            "postgres of shop (pid 4711) failed to bind 0.0.0.0:80: ports that low need CAP_NET_BIND_SERVICE"
        );
        let any =
            Conflict { port: 0, holder: None, next_free: None, ..conflict(Reason::Exhausted) };
        assert_eq!(
            summary(&any),
            "postgres of shop (pid 4711) failed to bind any port of 0.0.0.0: no ephemeral port is free"
        );
        let mut unknown = conflict(Reason::SameAddress);
        let party = Party { service: conflicts::nobody(), pid: 0, command: String::new() };
        unknown.holder = unknown.holder.map(|holder| Holder { party, ..holder });
        assert_eq!(
            summary(&unknown),
            "postgres of shop (pid 4711) failed to bind 0.0.0.0:5432: an unknown process has held it for 2 days"
        );
        let mut kernel = conflict(Reason::SameAddress);
        let party = kernel_sockets::holder(Protocol::Udp, 4789);
        kernel.holder = kernel.holder.map(|holder| Holder { party, ..holder });
        assert_eq!(
            shown(&kernel),
            "postgres of shop (pid 4711) failed to bind 0.0.0.0:5432: kernel (vxlan) has held it for 2 days. Fix: remove what the kernel uses it for, an interface (ip -d link) or a file server (rpc.nfsd 0), or use 5433 (free)"
        );
        let itself = Conflict { next_free: None, ..conflict(Reason::SelfConnected) };
        assert_eq!(
            shown(&itself),
            "postgres of shop (pid 4711) failed to bind 0.0.0.0:5432: postgresql.service (postgres, pid 811) has been connected to itself from it for 2 days. Fix: end that connection, and keep the port from outgoing ones: sysctl -w net.ipv4.ip_local_reserved_ports=5432"
        );
        assert_eq!(
            shown(&conflict(Reason::Allocated)),
            "postgres of shop (pid 4711) could not be started with 0.0.0.0:5432 published: postgresql.service (postgres, pid 811) has held it for 2 days. Fix: publish another port, or remove the other container, or use 5433 (free)"
        );
    }
}
