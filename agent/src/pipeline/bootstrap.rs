//! Pre-existing sockets: surveyed and passed to the kernel half.

use std::time::Duration;

use anyhow::Context as _;
use linux::existing::{self, Survey};
use linux::namespaces;
use linux::probes::Probes;
use loader::bootstrap::RunInside;
use loader::load::Kernel;

use crate::config::Config;
use crate::privileges::Privileges;

/// How long startup waits for the arguments of slow processes.
const PATIENCE: Duration = Duration::from_secs(1);

/// Surveys the host and passes its sockets to the kernel half, unless that was adopted and has
/// them already. Needs more privileges than everything after it. The probe threads, one of which
/// may be stuck by now, never have those.
pub(super) fn bootstrap(
    kernel: &mut Kernel,
    privileges: &Privileges,
    config: &Config,
) -> anyhow::Result<(Probes, Survey)> {
    let start = || Probes::start().context("starting the probe threads");
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
            "pre-existing sockets: {}, in network namespaces: {}",
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
