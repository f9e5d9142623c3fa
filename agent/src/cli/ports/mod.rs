//! `portolan ports`: ports and who may have them.

mod free;
mod reservations;
mod reserve;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum PortsCommand {
    /// Keep a port for a service.
    Reserve(reserve::ReserveArgs),
    /// Keep a port no longer.
    Release(reserve::ReleaseArgs),
    /// Show which ports are kept for whom, who has them, and who took one that is not theirs.
    Reservations(reservations::ReservationsArgs),
    /// Hand out ports that nobody has.
    Free(free::FreeArgs),
}

pub(super) fn run(command: &PortsCommand) -> anyhow::Result<()> {
    match command {
        PortsCommand::Reserve(arguments) => reserve::run(arguments),
        PortsCommand::Release(arguments) => reserve::release(arguments),
        PortsCommand::Reservations(arguments) => reservations::run(arguments),
        PortsCommand::Free(arguments) => free::run(arguments),
    }
}
