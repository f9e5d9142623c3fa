//! `portolan ports free`: free ports.

use std::fmt::Write as _;

use clap::Args;
use http::Method;

use super::netns;
use crate::target::Target;
use crate::{Output, print};
use api_types::{AllocatePorts, AllocatedPorts, Protocol};
use notation::{Environment, FullName};

const EXAMPLES: &str = "\
Examples:
  portolan ports free
  portolan ports free --near 8080 --count 3
  PORT=$(portolan ports free --near 3000) node server.js
  portolan ports free --near 8080 --for web --until 2h

A port is free if no process holds it in your network namespace, it is not reserved, it is not an
ephemeral port, and no well-known program uses it by default. It is not handed out again for a
minute; with --for it is reserved, for a day unless --until says otherwise. Ports below 1024 only
with --near below 1024.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct FreeArgs {
    /// Nearest to this port, upwards before downwards [default: 8080].
    #[arg(long, value_name = "PORT")]
    near: Option<u16>,
    /// Number of ports.
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: usize,
    /// UDP ports instead of TCP ports.
    #[arg(long)]
    udp: bool,
    /// Reserve them for this service.
    #[arg(long = "for", value_name = "SERVICE")]
    service: Option<FullName>,
    /// Reserve them only on hosts of this environment.
    #[arg(long, value_name = "dev|prod", requires = "service")]
    env: Option<Environment>,
    /// End of the reservation: 2h, 7d, 2030-12-01, 2030-12-01T10:00:00Z [default: 1d].
    #[arg(long, value_name = "WHEN", requires = "service")]
    until: Option<String>,
    /// Make bind() by other processes fail with EPERM, against accidents: a program that calls
    /// itself like the service gets the port.
    #[arg(long, requires = "service")]
    enforce: bool,
    /// Network namespace: host, a name as `ip netns` lists it, or a path [default: yours].
    #[arg(long, value_name = "NETNS", value_parser = netns::parse)]
    netns: Option<u32>,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &FreeArgs) -> anyhow::Result<()> {
    let FreeArgs { near, count, udp, service, env, until, enforce, netns, target } = arguments;
    let request = AllocatePorts {
        near: *near,
        count: Some(*count),
        protocol: if *udp { Protocol::Udp } else { Protocol::Tcp },
        service: service.as_ref().map(ToString::to_string),
        environment: env.map(super::environment),
        until: until.clone(),
        enforce: *enforce,
        netns: *netns,
    };
    let body = target.change(Method::POST, "/api/v1/ports/free", &request)?;
    match target.output {
        Output::Json => print(&format!("{}\n", body.trim_end())),
        Output::Table => print(&text(&client::read(&body)?)),
    }
}

/// One port a line and nothing else, so that a shell can use it.
fn text(answer: &AllocatedPorts) -> String {
    let mut text = String::new();
    for port in &answer.ports {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{port}");
    }
    text
}
