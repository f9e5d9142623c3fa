//! `portolan ports free`: ports that nobody has.

use std::fmt::Write as _;

use clap::Args;

use super::super::control::{self, Control};
use super::super::{Output, print};
use api_types::{AllocatePorts, AllocatedPorts, Protocol};
use model::full_name::FullName;
use model::reservations::Environment;
use server::convert::ToApi as _;

const EXAMPLES: &str = "\
Examples:
  portolan ports free
  portolan ports free --near 8080 --count 3
  PORT=$(portolan ports free --near 3000) node server.js
  portolan ports free --near 8080 --for web --until 2h

A port is handed out if nobody has it in your network namespace, nobody reserved it, the kernel
does not give it to outgoing connections, and no well-known program expects to find it free. Nobody
else is given it for a minute; with --for it is reserved, for a day unless --until says otherwise.
Ports below 1024 only with --near below 1024.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(in crate::cli) struct FreeArgs {
    /// The nearest to this port first, upwards before downwards (default: 8080).
    #[arg(long, value_name = "PORT")]
    near: Option<u16>,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: usize,
    /// Ports of UDP, not of TCP.
    #[arg(long)]
    udp: bool,
    /// Reserve them for this service.
    #[arg(long = "for", value_name = "SERVICE")]
    service: Option<FullName>,
    /// Reserve them only on hosts that are for this.
    #[arg(long, value_name = "dev|prod", requires = "service")]
    env: Option<Environment>,
    /// Reserve them until: 2h, 7d, 2030-12-01, 2030-12-01T10:00:00Z (default: a day).
    #[arg(long, value_name = "WHEN", requires = "service")]
    until: Option<String>,
    /// Refuse them to others.
    #[arg(long, requires = "service")]
    enforce: bool,
    /// In this network namespace, not in yours: host, a name as `ip netns` lists it, or a path.
    #[arg(long, value_name = "NETNS", value_parser = control::netns)]
    netns: Option<u32>,
    #[command(flatten)]
    control: Control,
}

pub(super) fn run(arguments: &FreeArgs) -> anyhow::Result<()> {
    let FreeArgs { near, count, udp, service, env, until, enforce, netns, control } = arguments;
    let request = AllocatePorts {
        near: *near,
        count: Some(*count),
        protocol: if *udp { Protocol::Udp } else { Protocol::Tcp },
        service: service.as_ref().map(ToString::to_string),
        environment: env.map(|env| env.to_api()),
        until: until.clone(),
        enforce: *enforce,
        netns: *netns,
    };
    let body = control.ask("POST", "/api/v1/ports/free", &request)?;
    match control.output {
        Output::Json => print(&format!("{}\n", body.trim_end())),
        Output::Table => print(&text(&serde_json::from_str(&body)?)),
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
