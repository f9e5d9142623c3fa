//! `portolan ports`: ports and their holders, bind conflicts, reservations.

mod conflicts;
mod free;
mod list;
mod netns;
mod reservations;
mod reserve;
mod who;

use api_types::{Environment, Protocol};
use clap::{Args, Subcommand};

use crate::Outcome;

pub use self::conflicts::line;

const EXAMPLES: &str = "\
Examples:
  portolan ports                                   ports and the processes that hold them
  portolan ports --url http://node1:10062 --url http://node2:10062
  portolan ports who 5432                          who holds this one, and who failed to bind it
  portolan ports conflicts --since 1h              failed binds of the last hour, the cause and the fix
  portolan ports watch                             stream conflicts as they happen
  portolan ports reserve 5432 --for postgres       reserve a port for a service
  portolan ports free --near 8080                  find a free port
  portolan ports --output json | jq -r '.ports[] | [.port, .holder.service.name] | @tsv'";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_long_help = EXAMPLES)]
pub struct PortsArgs {
    #[command(subcommand)]
    command: Option<PortsCommand>,
    #[command(flatten)]
    list: list::ListArgs,
}

#[derive(Debug, Subcommand)]
enum PortsCommand {
    /// Show who holds a port, and who failed to bind it.
    Who(who::WhoArgs),
    /// List failed binds and listens with cause and fix.
    Conflicts(conflicts::ConflictsArgs),
    /// Stream bind conflicts.
    Watch(conflicts::WatchArgs),
    /// Reserve a port for a service.
    Reserve(reserve::ReserveArgs),
    /// Remove a reservation.
    Release(reserve::ReleaseArgs),
    /// List reservations, who holds the ports, and breaches.
    Reservations(reservations::ReservationsArgs),
    /// Find free ports.
    Free(free::FreeArgs),
}

/// A port from the command line.
fn port(text: &str) -> Result<u16, String> {
    let port = text.parse::<u16>().ok().filter(|port| *port > 0);
    port.ok_or_else(|| format!("\"{text}\" is not a port (1-65535)"))
}

/// The protocol that was written, as the API has it.
const fn protocol(written: notation::Protocol) -> Protocol {
    match written {
        notation::Protocol::Tcp => Protocol::Tcp,
        notation::Protocol::Udp => Protocol::Udp,
    }
}

/// The environment that was written, as the API has it.
const fn environment(written: notation::Environment) -> Environment {
    match written {
        notation::Environment::Dev => Environment::Dev,
        notation::Environment::Prod => Environment::Prod,
    }
}

pub(super) fn run(arguments: &PortsArgs) -> anyhow::Result<Outcome> {
    let done = match &arguments.command {
        Some(PortsCommand::Conflicts(arguments)) => return conflicts::run(arguments),
        None => return list::run(&arguments.list),
        Some(PortsCommand::Who(arguments)) => who::run(arguments),
        Some(PortsCommand::Watch(arguments)) => conflicts::watch(arguments),
        Some(PortsCommand::Reserve(arguments)) => reserve::run(arguments),
        Some(PortsCommand::Release(arguments)) => reserve::release(arguments),
        Some(PortsCommand::Reservations(arguments)) => reservations::run(arguments),
        Some(PortsCommand::Free(arguments)) => free::run(arguments),
    };
    done.map(|()| Outcome::Done)
}
