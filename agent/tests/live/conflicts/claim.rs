//! Sockets that bind a port, with their options, and the conflicts that the agent reports for them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::agent::Agent;
use crate::facts::patience;

/// Timeout of a report.
const PATIENCE: Duration = Duration::from_secs(6);

/// A socket that binds a port.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    address: SocketAddr,
    udp: bool,
    reuse_address: bool,
    reuse_port: bool,
    v6_only: Option<bool>,
}

impl Claim {
    /// A TCP socket.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { address, udp: false, reuse_address: false, reuse_port: false, v6_only: None }
    }

    /// A UDP socket.
    pub fn udp(address: SocketAddr) -> Self {
        Self { udp: true, ..Self::tcp(address) }
    }

    /// With `SO_REUSEADDR`.
    pub fn reuse_address(self) -> Self {
        Self { reuse_address: true, ..self }
    }

    /// With `SO_REUSEPORT`.
    pub fn reuse_port(self) -> Self {
        Self { reuse_port: true, ..self }
    }

    /// With `IPV6_V6ONLY` set or not.
    pub fn v6_only(self, only: bool) -> Self {
        Self { v6_only: Some(only), ..self }
    }

    /// A socket with these options, not yet bound.
    pub fn socket(self) -> Socket {
        let domain = Domain::for_address(self.address);
        let (kind, protocol) =
            if self.udp { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
        let socket = Socket::new(domain, kind, Some(protocol)).expect("a socket");
        socket.set_reuse_address(self.reuse_address).expect("setting SO_REUSEADDR");
        socket.set_reuse_port(self.reuse_port).expect("setting SO_REUSEPORT");
        if let Some(only) = self.v6_only {
            socket.set_only_v6(only).expect("setting IPV6_V6ONLY");
        }
        socket
    }

    /// Binds; the error is the errno.
    pub fn bind(self) -> Result<Socket, i32> {
        let socket = self.socket();
        match socket.bind(&self.address.into()) {
            Ok(()) => Ok(socket),
            Err(error) => Err(error.raw_os_error().expect("the kernel's errno")),
        }
    }

    /// Binds and listens; the error is the errno.
    pub fn listen(self) -> Result<Socket, i32> {
        let socket = self.bind()?;
        match socket.listen(16) {
            Ok(()) => Ok(socket),
            Err(error) => Err(error.raw_os_error().expect("the kernel's errno")),
        }
    }
}

/// The conflict of this claimant on this port, from the API.
#[track_caller]
pub fn conflict_of(agent: &Agent, claimant: &str, port: u16) -> Value {
    let began = Instant::now();
    loop {
        let all = agent.json(&format!("/api/v1/conflicts?port={port}"));
        let list = all["conflicts"].as_array().expect("a list of conflicts");
        let found: Vec<_> =
            list.iter().filter(|one| one["claimant"]["service"]["name"] == claimant).collect();
        match found[..] {
            [one] => return one.clone(),
            [] if began.elapsed() < patience(PATIENCE) => {
                std::thread::sleep(Duration::from_millis(50));
            }
            _ => panic!("{} conflicts of {claimant} for {port}: {all:#}", found.len()),
        }
    }
}
