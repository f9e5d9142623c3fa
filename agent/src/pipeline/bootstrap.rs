//! Pre-existing sockets: surveyed and passed to the kernel half.

use linux::existing::{self, Survey};
use linux::namespaces;
use loader::bootstrap::RunInside;
use loader::load::Kernel;

/// Surveys the host and passes its sockets to the kernel half, unless that was adopted and has them
/// already. Needs more privileges than everything after it.
pub(super) fn bootstrap(kernel: &mut Kernel) -> Survey {
    if kernel.adopted {
        return existing::places(&[]);
    }
    let survey = existing::survey();
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
    survey
}
