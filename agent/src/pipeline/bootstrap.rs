//! What was there before the agent: its sockets are surveyed and handed to the kernel half.

use std::time::Duration;

use anyhow::Context as _;
use linux::existing::{self, Survey};
use linux::namespaces;
use linux::probes::Probes;
use loader::bootstrap::RunInside;
use loader::load::Kernel;

use crate::config::Config;
use crate::privileges::Privileges;

/// The start waits so long for processes that are slow to show their arguments.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks at what is there before us and hands its sockets to the kernel half, which an adopted one
/// has done already. It takes more privileges than all that follows. The threads of the pool, of
/// which one may hang in a look by now, never have those.
pub(super) fn bootstrap(
    kernel: &mut Kernel,
    privileges: &Privileges,
    config: &Config,
) -> anyhow::Result<(Probes, Survey)> {
    let start = || Probes::start().context("starting the threads that look at processes");
    if kernel.adopted {
        return Ok((privileges.without(config, start)??, existing::places(&[])));
    }
    let found = existing::survey();
    let (probes, survey) = privileges.without(config, || {
        let probes = start()?;
        let survey = found.complete(&probes, PATIENCE);
        anyhow::Ok((probes, survey))
    })??;
    take_over(kernel, &survey);
    Ok((probes, survey))
}

fn take_over(kernel: &mut Kernel, survey: &Survey) {
    for problem in &survey.problems {
        tracing::warn!("{problem}");
    }
    let sockets = survey.sockets.iter().map(|socket| (socket.entry.cookie, socket.known));
    let everywhere = |run: &RunInside<'_>| {
        for namespace in &survey.namespaces {
            if let Err(error) = namespaces::run_in(namespace, run).flatten() {
                tracing::warn!(
                    "connections from before the start are missing in network namespace {}: {error}",
                    namespace.inode
                );
            }
        }
    };
    match kernel.bootstrap(sockets, everywhere) {
        Ok(()) => tracing::info!(
            "{} sockets were there before in {} network namespaces",
            survey.sockets.len(),
            survey.namespaces.len()
        ),
        Err(error) => {
            tracing::warn!(
                "connections and listeners from before the start are missing: {error:#}"
            );
        }
    }
}
