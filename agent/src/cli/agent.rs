//! `portolan agent`: reads the configuration, sets up the log, and hands over.

use clap::Args;

use super::overrides::Overrides;
use super::{Output, log, privileges};
use crate::config::Config;

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
    log::start(loaded.config.log);
    for warning in loaded.warnings {
        tracing::warn!("{warning}");
    }
    start(&loaded.config)
}
