//! Docker's proxy: the process that holds a published port, and the container it forwards to. With
//! `--userland-proxy=false`, and from Docker 28 on for the bind itself, it is the daemon. With podman
//! it is podman, which leaves the port to the container's monitor, or a proxy of rootless ones.

use std::net::IpAddr;

/// Its command name.
pub const COMMAND: &str = "docker-proxy";

/// Others that bind ports for containers, or hold them.
const OTHERS: [&str; 5] = ["dockerd", "podman", "conmon", "rootlessport", "rootlessport-ch"];

/// Whether a program of this name may bind a port for a container.
pub fn takes_ports(command: &str) -> bool {
    command == COMMAND || OTHERS.contains(&command)
}

/// Its command line is not longer.
pub const LONGEST: u64 = 4096;

/// The container's address and port in a command line (arguments separated by NUL):
/// `docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 5432 -container-ip 172.17.0.2
/// -container-port 5432` (moby, cmd/docker-proxy/main_linux.go).
pub fn target(command_line: &[u8]) -> Option<(IpAddr, u16)> {
    let text = std::str::from_utf8(command_line).ok()?;
    let value = |name: &str| {
        let mut arguments = text.split('\0').skip_while(|argument| *argument != name);
        arguments.nth(1)
    };
    Some((value("-container-ip")?.parse().ok()?, value("-container-port")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_is_in_the_arguments() {
        let line = "/usr/bin/docker-proxy\0-proto\0tcp\0-host-ip\x000.0.0.0\0-host-port\x005432\0\
                    -container-ip\x00172.17.0.2\0-container-port\x005433\0";
        assert_eq!(target(line.as_bytes()), Some(("172.17.0.2".parse().unwrap(), 5433)));
        assert_eq!(target(b"docker-proxy\0-container-ip\0x\0-container-port\x001\0"), None);
        assert_eq!(target(b"docker-proxy\0-container-port"), None);
        assert_eq!(target(&[0xff, 0]), None);
    }
}
