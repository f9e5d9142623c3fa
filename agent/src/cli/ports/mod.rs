//! `portolan ports`: who has which port, who wanted one and did not get it, who may have one.

mod conflicts;
mod free;
mod list;
mod netns;
mod reservations;
mod reserve;
mod who;

use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  portolan ports                                   who has which port
  portolan ports who 5432                          who has this one, and who wanted it
  portolan ports conflicts --since 1h              what failed in the last hour, why, and the mend
  portolan ports watch                             tell conflicts as they happen
  portolan ports reserve 5432 --for postgres       keep a port for a service
  portolan ports free --near 8080                  a port that nobody has
  portolan ports --output json | jq -r '.ports[] | [.port, .holder.service.name] | @tsv'";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_long_help = EXAMPLES)]
pub(super) struct PortsArgs {
    #[command(subcommand)]
    command: Option<PortsCommand>,
    #[command(flatten)]
    list: list::ListArgs,
}

#[derive(Debug, Subcommand)]
enum PortsCommand {
    /// Show who has a port, and who wanted it.
    Who(who::WhoArgs),
    /// Show binds and listens that failed, why, and what to do.
    Conflicts(conflicts::ConflictsArgs),
    /// Tell binds and listens that fail, as they do.
    Watch(conflicts::WatchArgs),
    /// Keep a port for a service.
    Reserve(reserve::ReserveArgs),
    /// Keep a port no longer.
    Release(reserve::ReleaseArgs),
    /// Show which ports are kept for whom, who has them, and who took one that is not theirs.
    Reservations(reservations::ReservationsArgs),
    /// Hand out ports that nobody has.
    Free(free::FreeArgs),
}

pub(super) fn run(arguments: &PortsArgs) -> anyhow::Result<()> {
    match &arguments.command {
        None => list::run(&arguments.list),
        Some(PortsCommand::Who(arguments)) => who::run(arguments),
        Some(PortsCommand::Conflicts(arguments)) => conflicts::run(arguments),
        Some(PortsCommand::Watch(arguments)) => conflicts::watch(arguments),
        Some(PortsCommand::Reserve(arguments)) => reserve::run(arguments),
        Some(PortsCommand::Release(arguments)) => reserve::release(arguments),
        Some(PortsCommand::Reservations(arguments)) => reservations::run(arguments),
        Some(PortsCommand::Free(arguments)) => free::run(arguments),
    }
}
