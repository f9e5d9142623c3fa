//! Ports in use, and binds and listens that failed.

use std::sync::Arc;

use api_types::{
    Conflict, Destination, EphemeralPorts, Finding, Holder, Port, Ports, Process, Severity,
    SystemCall, Timestamp, code,
};
use model::clash::Reason;
use model::conflicts::{self, Party};
use model::ephemeral::{Ephemeral, EphemeralView};
use model::full_name::FullName;
use model::messages;
use model::port::{self, PortView, Protocol};
use model::reservations::Reservation;
use model::snapshot::{ListenerView, Snapshot};
use std::net::SocketAddr;

use super::{ToApi, time};

/// A filter of ports; all conditions must hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct PortFilter {
    /// This number.
    pub port: Option<u16>,
    /// This protocol.
    pub protocol: Option<Protocol>,
}

/// The ports that `snapshot` shows.
pub fn ports(snapshot: &Snapshot, filter: PortFilter) -> Ports {
    let reservations = &snapshot.reservations;
    let now = snapshot.taken_seconds.max(0.0) as u64;
    let ports = snapshot.ports.iter().filter(|view| filter.admits(view.port, view.protocol));
    let is_unused = |one: &&Reservation| {
        let port::Port { number, protocol } = one.port;
        let socket = reservations.netns_of(one).map(|netns| (number, protocol, netns));
        let has = |view: &PortView| socket == Some((view.port, view.protocol, view.netns));
        // Listeners are known even where the kernel half cannot list bound sockets.
        let listens = |listener: &ListenerView| {
            socket == Some((listener.port, Protocol::Tcp, listener.netns))
        };
        filter.admits(number, protocol)
            && one.in_force(now, reservations.environment)
            && !snapshot.ports.iter().any(has)
            && !snapshot.listeners.iter().any(listens)
    };
    let unused = reservations.state.reservations.iter().filter(is_unused);
    Ports {
        timestamp: Timestamp::from_seconds(snapshot.taken_seconds),
        host_netns: reservations.host_netns,
        ports: ports.map(|view| in_use(view, snapshot)).collect(),
        unused_reservations: unused.map(ToApi::to_api).collect(),
        ephemeral_ports: snapshot.ephemeral.iter().map(ToApi::to_api).collect(),
    }
}

fn in_use(view: &PortView, snapshot: &Snapshot) -> Port {
    let socket = (view.port, view.protocol, view.netns);
    let about = |conflict: &&Arc<conflicts::Conflict>| {
        (conflict.port, conflict.protocol, conflict.netns) == socket
    };
    let last = snapshot.conflicts.iter().rev().find(about);
    let number = port::Port { number: view.port, protocol: view.protocol };
    let now = snapshot.taken_seconds.max(0.0) as u64;
    let reservation = snapshot.reservations.reservation(view.netns, number, now);
    Port {
        port: view.port,
        protocol: view.protocol.to_api(),
        address: view.address,
        v6_only: view.v6_only,
        netns: view.netns,
        state: view.state.to_api(),
        holder: view.holder.to_api(),
        uid: view.uid,
        since: time(view.since_seconds),
        sockets: view.sockets,
        backlog: view.backlog,
        max_backlog: view.max_backlog,
        reserved_for: reservation.map(|one| one.service.to_string()),
        last_conflict: last.map(|conflict| Timestamp::from_seconds(conflict.last_seconds)),
    }
}

/// A conflict as a finding.
fn finding(conflict: &conflicts::Conflict) -> Finding {
    let code = match conflict.reason {
        Reason::SameAddress
        | Reason::WildcardOverSpecific
        | Reason::SpecificUnderWildcard
        | Reason::DualStack
        | Reason::ReuseAddressMissing
        | Reason::SelfConnected
        | Reason::OutgoingConnection
        | Reason::Allocated
        | Reason::ReusePortMissing
        | Reason::ReusePortOtherUser
        | Reason::ListenLost => code::PORT_IN_USE,
        Reason::Privileged => code::PORT_PRIVILEGED,
        Reason::ForeignAddress => code::ADDRESS_NOT_LOCAL,
        Reason::AlreadyBound => code::ALREADY_BOUND,
        Reason::Exhausted => code::EPHEMERAL_EXHAUSTED,
        Reason::Denied => code::BIND_DENIED,
        Reason::Gone | Reason::Other => code::BIND_FAILED,
    };
    let subject = FullName::from(&conflict.claimant.service).to_string();
    let title = messages::summary(conflict);
    // What a user may have made up is for information.
    let severity =
        if conflict.unverified_user.is_none() { Severity::Error } else { Severity::Info };
    let mut finding = Finding::new(code, severity, &subject, title)
        .with("attempts", conflict.count)
        .with("errno", conflict.errno.as_str());
    if let Some(holder) = &conflict.holder {
        finding = finding.with("held_by", FullName::from(&holder.party.service).to_string());
    }
    finding.remediation = Some(messages::fix(conflict));
    finding.since = Some(Timestamp::from_seconds(conflict.first_seconds));
    finding
}

// === impl PortFilter ===

impl PortFilter {
    fn admits(self, port: u16, protocol: Protocol) -> bool {
        self.port.is_none_or(|wanted| wanted == port)
            && self.protocol.is_none_or(|wanted| wanted == protocol)
    }
}

impl ToApi for Party {
    type Shape = Process;

    fn to_api(&self) -> Process {
        let Self { service, pid, command } = self;
        Process { service: service.to_api(), pid: *pid, command: command.clone() }
    }
}

impl ToApi for EphemeralView {
    type Shape = EphemeralPorts;

    fn to_api(&self) -> EphemeralPorts {
        let Self { netns, netns_of, unverified_user: _, ephemeral } = self;
        let Ephemeral { first, last, used_tcp, used_udp, most, most_to, time_wait } = *ephemeral;
        EphemeralPorts {
            netns: *netns,
            service: netns_of.to_api(),
            first,
            last,
            used_tcp,
            used_udp,
            busiest_destination: most_to.map(|(address, port)| Destination {
                address: SocketAddr::new(address, port),
                used: most,
            }),
            time_wait,
        }
    }
}

impl ToApi for conflicts::Holder {
    type Shape = Holder;

    fn to_api(&self) -> Holder {
        let Self { party: Party { service, pid, command }, address, state, since_seconds } = self;
        Holder {
            service: service.to_api(),
            pid: *pid,
            command: command.clone(),
            address: *address,
            state: state.to_api(),
            since: time(*since_seconds),
        }
    }
}

impl ToApi for conflicts::Conflict {
    type Shape = Conflict;

    fn to_api(&self) -> Conflict {
        Conflict {
            first_seen: Timestamp::from_seconds(self.first_seconds),
            last_seen: Timestamp::from_seconds(self.last_seconds),
            count: self.count,
            claimant: self.claimant.to_api(),
            port: self.port,
            protocol: self.protocol.to_api(),
            address: self.address,
            netns: self.netns,
            system_call: if self.by_listen { SystemCall::Listen } else { SystemCall::Bind },
            errno: self.errno.clone(),
            inferred: self.inferred,
            reason: self.reason.to_api(),
            holder: self.holder.as_ref().map(ToApi::to_api),
            next_free: self.next_free,
            unverified_user: self.unverified_user,
            finding: finding(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::conflicts::Party;
    use model::fixture::snapshot;
    use model::port::PortState;
    use model::service::{Service, Source};

    #[test]
    fn a_port_shows_its_reservation_and_a_reservation_without_a_socket_is_unused() {
        let mut snapshot = snapshot();
        let over = Reservation::from_config("9999 gone until=2001-01-01").expect("valid");
        Arc::make_mut(&mut snapshot.reservations.state)
            .reservations
            .configure(&[over])
            .expect("no clash");
        let host = snapshot.reservations.host_netns.expect("known");
        let view = |port, protocol, netns| PortView {
            port,
            protocol,
            address: "0.0.0.0".parse().unwrap(),
            v6_only: false,
            netns,
            state: PortState::Listening,
            holder: Party {
                service: Service::new("python3", Source::Process),
                pid: 0,
                command: "python3".to_owned(),
            },
            uid: 0,
            since_seconds: None,
            sockets: 1,
            backlog: 0,
            max_backlog: 1,
            unverified_user: None,
        };
        // 5432/tcp of the host is reserved for postgres, 3001/tcp for prod/shop.
        snapshot.ports = vec![
            view(3001, Protocol::Udp, host),
            view(3001, Protocol::Tcp, host + 1),
            view(5432, Protocol::Tcp, host),
        ];
        let check = |filter: PortFilter, reserved: &[Option<&str>], unused: &[u16]| {
            let found = ports(&snapshot, filter);
            let names: Vec<_> = found.ports.iter().map(|one| one.reserved_for.clone()).collect();
            assert_eq!(
                names.iter().map(Option::as_deref).collect::<Vec<_>>(),
                reserved,
                "{filter:?}"
            );
            let empty: Vec<_> = found.unused_reservations.iter().map(|one| one.port).collect();
            assert_eq!(empty, unused, "{filter:?}");
        };
        let all = || PortFilter { port: None, protocol: None };
        check(all(), &[None, None, Some("postgres")], &[3001]);
        check(PortFilter { port: Some(5432), ..all() }, &[Some("postgres")], &[]);
        check(PortFilter { port: Some(3001), ..all() }, &[None, None], &[3001]);
        check(PortFilter { protocol: Some(Protocol::Udp), ..all() }, &[None], &[]);
        // A listener is enough, where the kernel half cannot list bound sockets.
        snapshot.ports.clear();
        assert_eq!(snapshot.listeners[0].port, 5432);
        let unused = ports(&snapshot, all()).unused_reservations;
        assert_eq!(unused.iter().map(|one| one.port).collect::<Vec<_>>(), [3001]);
    }
}
