//! `portolan agent`: reads the configuration, sets up the log, and runs the agent.

use clap::Args;
use cli::Output;

use super::overrides::Overrides;
use super::{log, privileges};
use crate::config::Config;

pub(super) const ABOUT: &str = "\
Run the agent in the foreground until SIGTERM or SIGINT.

Requires Linux 5.15 or later with BTF, and root or capabilities: CAP_BPF, CAP_PERFMON and those that
--show-privileges lists. Features that the kernel lacks are disabled and reported: in the log, in
`portolan status` and in portolan_hook_attached. After the start the agent drops the capabilities
that it no longer needs.";

pub(super) const EXAMPLES: &str = "\
Examples:
  portolan agent
  portolan agent --web.listen-address 0.0.0.0:10062
  portolan agent --config /etc/portolan.toml --log.format json
  PORTOLAN_LOG_LEVEL=debug portolan agent --no-requests
  portolan agent --config /etc/portolan.toml --show-privileges

Paths: /metrics /healthz /readyz /api/v1/status /api/v1/edges /api/v1/listeners
/api/v1/conflicts /api/v1/reservations /api/v1/services and a web page at /. Changes are made with
`portolan ports` and `portolan services`, through control.sock in the run directory.";

#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    #[command(flatten)]
    overrides: Overrides,
    /// Show the capabilities that this configuration requires on this host, for how long and why, and exit
    #[arg(long)]
    show_privileges: bool,
    /// Output format of --show-privileges
    #[arg(short, long, value_enum, default_value_t, requires = "show_privileges")]
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
    api_types::set_docs_url(&loaded.config.docs_url);
    start(&loaded.config)
}
