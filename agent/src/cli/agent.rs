//! `portolan agent`: reads the configuration, sets up the log, and hands over.

use std::io::{self, IsTerminal};

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::overrides::Overrides;
use super::{Output, privileges};
use crate::config::{Config, Log, LogFormat};

pub(super) const ABOUT: &str = "\
Run the agent in the foreground until SIGTERM or SIGINT.

Needs root, or CAP_BPF and CAP_PERFMON and more for more (--show-privileges), and a kernel from 5.15
on with BTF. What a kernel lacks is said at the start, in /api/v1/status and in
portolan_hook_attached; the rest works. Once it runs, it gives up what it does not need any more.";

pub(super) const EXAMPLES: &str = "\
Examples:
  portolan agent
  portolan agent --web.listen-address 0.0.0.0:10062
  portolan agent --config /etc/portolan.toml --log.format json
  PORTOLAN_LOG_LEVEL=debug portolan agent --no-requests
  portolan agent --config /etc/portolan.toml --show-privileges

Paths: /metrics /healthz /readyz /api/v1/status /api/v1/edges /api/v1/listeners
/api/v1/conflicts /api/v1/reservations /api/v1/services and a page at /. Changes: control.sock in
the run directory, through portolan ports and portolan services.";

#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    #[command(flatten)]
    overrides: Overrides,
    /// Show which capabilities this configuration takes on this host, for how long and why, and end
    #[arg(long)]
    show_privileges: bool,
    /// How to show them
    #[arg(long, value_enum, default_value_t, requires = "show_privileges")]
    output: Output,
}

pub(super) fn run(
    arguments: &AgentArgs,
    start: impl FnOnce(&Config) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let AgentArgs { overrides, show_privileges, output } = arguments;
    let loaded = overrides.load()?;
    if *show_privileges {
        return privileges::run(&loaded.config, *output);
    }
    start_log(loaded.config.log);
    for warning in loaded.warnings {
        tracing::warn!("{warning}");
    }
    start(&loaded.config)
}

/// Sends the log to standard error: our own lines from the chosen level on, and the libraries'
/// only when something is wrong.
fn start_log(log: Log) {
    let filter = EnvFilter::new(format!("warn,portolan={}", log.level.as_str()));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    match log.format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
