//! `portolan balance`: how load spreads over backends, and the load balancers that spread it.
//!
//! [`spread`] shows what is observed, [`status`] what follows from it. [`generate`], [`deploy`] and
//! [`trial`] (`balance test`) make, install and prove the configuration of a balancer: an
//! [`intent`] comes from a [`source`] and is written by [`render`] in the language of the target.

mod checked;
mod counts;
mod deploy;
mod generate;
mod intent;
mod observe;
mod render;
mod source;
mod spec;
mod spread;
mod status;
mod trial;

use clap::{Args, Subcommand};

use super::Outcome;

const EXAMPLES: &str = "\
Examples:
  portolan balance
  portolan balance api --window 1m
  portolan balance status --exit-code
  portolan balance generate --service api --for nginx --listen 0.0.0.0:8080
  portolan balance deploy --spec balance.toml --for nginx --to /etc/nginx/conf.d/api.conf --dry-run
  portolan balance test --spec balance.toml --for nginx --requests 1000
  portolan balance --output json | jq '.groups[] | select(.requests.verdict == \"unbalanced\")'

The share of a backend is its part of what the client sent to all backends of that server and port.
Load is balanced if every share is within 5 percentage points of the expected one, which is equal
for all or set by balance.weights. With too few samples there is no verdict.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct BalanceArgs {
    #[command(subcommand)]
    command: Option<BalanceCommand>,
    #[command(flatten)]
    spread: spread::SpreadArgs,
}

#[derive(Debug, Subcommand)]
enum BalanceCommand {
    /// Show shares, the health of each backend, and single points of failure.
    Status(spread::SpreadArgs),
    /// Write the configuration of a load balancer, from what is observed or from a file.
    Generate(Box<generate::GenerateArgs>),
    /// Put a configuration in place, watch what it does, and roll it back if it does harm.
    Deploy(Box<deploy::DeployArgs>),
    /// Put the version before the last deployment back.
    Rollback(deploy::RollbackArgs),
    /// Send requests through a load balancer, and compare with what arrived.
    Test(Box<trial::TestArgs>),
}

pub(super) fn run(arguments: &BalanceArgs) -> anyhow::Result<Outcome> {
    match &arguments.command {
        None => spread::run(&arguments.spread),
        Some(BalanceCommand::Status(arguments)) => status::run(arguments),
        Some(BalanceCommand::Generate(arguments)) => generate::run(arguments),
        Some(BalanceCommand::Deploy(arguments)) => deploy::run(arguments),
        Some(BalanceCommand::Rollback(arguments)) => deploy::roll_back(arguments),
        Some(BalanceCommand::Test(arguments)) => trial::run(arguments),
    }
}
