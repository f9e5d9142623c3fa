//! `portolan ports who`: who holds a port, and who failed to bind it.

use std::fmt::Write as _;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::{conflicts, list, reserve};
use crate::target::Target;
use crate::{Output, print, table};
use api_types::{Conflicts, Ports};

#[derive(Debug, Args)]
pub(super) struct WhoArgs {
    /// The port.
    #[arg(value_parser = super::port)]
    port: u16,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &WhoArgs) -> anyhow::Result<()> {
    let WhoArgs { port, target } = arguments;
    let ports = target.text(&format!("/api/v1/ports?port={port}"))?;
    let conflicts = target.text(&format!("/api/v1/conflicts?port={port}"))?;
    let (ports, conflicts): (Ports, Conflicts) = (client::read(&ports)?, client::read(&conflicts)?);
    match target.output {
        Output::Json => {
            let both = json!({
                "timestamp": conflicts.timestamp,
                "host_netns": ports.host_netns,
                "ports": ports.ports,
                "unused_reservations": ports.unused_reservations,
                "conflicts": conflicts.conflicts,
            });
            let text = serde_json::to_string(&both).context("writing JSON")?;
            print(&format!("{text}\n"))
        }
        Output::Text => print(&text(*port, &ports, &conflicts, table::room())),
    }
}

fn text(port: u16, ports: &Ports, conflicts: &Conflicts, room: Option<usize>) -> String {
    let mut text = String::new();
    if ports.ports.is_empty() {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "No process holds port {port}.");
        for one in &ports.unused_reservations {
            let _ = writeln!(text, "{}", reserve::summary(one, true));
        }
    } else {
        text.push_str(&list::text(ports, room));
    }
    if !conflicts.conflicts.is_empty() {
        text.push('\n');
        text.push_str(&conflicts::text(conflicts));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::Timestamp;
    use model::reservations::Reservation;
    use server::convert::ToApi as _;

    #[test]
    fn a_free_port_is_printed_with_its_reservation() {
        let reserved = Reservation::from_config("5432 postgres enforce").expect("valid");
        let mut ports = Ports {
            timestamp: Timestamp::from_seconds(1.0),
            host_netns: Some(1),
            ports: Vec::new(),
            unused_reservations: Vec::new(),
            ephemeral_ports: Vec::new(),
        };
        let conflicts =
            Conflicts { timestamp: ports.timestamp, host_netns: Some(1), conflicts: Vec::new() };
        assert_eq!(text(5432, &ports, &conflicts, None), "No process holds port 5432.\n");
        ports.unused_reservations = vec![reserved.to_api()];
        assert_eq!(
            text(5432, &ports, &conflicts, None),
            "No process holds port 5432.\n5432/tcp is reserved for postgres, and enforced\n"
        );
    }
}
