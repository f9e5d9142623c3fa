//! Sockets that the kernel opens for itself, for an interface or a file server: no process has them,
//! and the command that set them up (`ip link add`, `rpc.nfsd`) has ended long ago.

use super::conflicts::Party;
use super::port::{Protocol, Protocol::Tcp, Protocol::Udp};
use super::service::{Service, Source};

/// What uses these ports if the kernel does.
const USERS: &[(Protocol, u16, &str)] = &[
    (Tcp, 445, "ksmbd"),
    (Tcp, 2049, "nfs"),
    (Tcp, 3260, "iscsi"),
    (Tcp, 4420, "nvmet"),
    (Udp, 1701, "l2tp"),
    (Udp, 2049, "nfs"),
    (Udp, 2152, "gtp"),
    (Udp, 4789, "vxlan"),
    (Udp, 4791, "rxe"),
    (Udp, 6081, "geneve"),
    (Udp, 8472, "vxlan"),
    (Udp, 51_820, "wireguard"),
];

/// The kernel as the holder of a port.
pub fn holder(protocol: Protocol, port: u16) -> Party {
    let user = USERS.iter().find(|(of, number, _)| (*of, *number) == (protocol, port));
    let command = user.map_or_else(String::new, |(.., name)| (*name).to_owned());
    Party { service: Service::new("kernel", Source::Unknown), pid: 0, command }
}

/// Whether it is the kernel that holds a port.
pub fn is_holder(party: &Party) -> bool {
    party.service == Service::new("kernel", Source::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_no_program_and_what_it_does_is_known_by_the_port() {
        let check = |protocol, port, expected: &str| {
            let party = holder(protocol, port);
            assert!(is_holder(&party) && party.pid == 0, "{party:?}");
            assert_eq!(party.command, expected, "{port}");
        };
        check(Udp, 4789, "vxlan");
        check(Udp, 8472, "vxlan");
        check(Tcp, 2049, "nfs");
        check(Tcp, 4789, "");
        let program = Party { service: Service::new("kernel", Source::Process), ..holder(Udp, 1) };
        assert!(!is_holder(&program));
    }
}
