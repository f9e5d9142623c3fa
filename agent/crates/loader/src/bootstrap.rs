//! Passes pre-existing sockets to the kernel half: writes them into a map and runs the bootstrap
//! programs in every network namespace.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use agent_common::owner::OwnerKey;
use agent_common::preexisting::{Preexisting, UNKNOWN_TOO};
use agent_common::wire::Wire as _;
use anyhow::Context as _;

use super::bpf;
use super::load::Kernel;

/// Sockets per batch: the size of the map, with room for [`UNKNOWN_TOO`].
const BATCH: usize = 60_000;

impl Kernel {
    /// Adopts `sockets`, each with its cookie, then all others (without an owner). `everywhere`
    /// runs a closure inside every network namespace.
    pub fn bootstrap(
        &mut self,
        sockets: impl IntoIterator<Item = (u64, Preexisting)>,
        everywhere: impl Fn(&RunInside<'_>),
    ) -> anyhow::Result<()> {
        let programs = [self.program("bootstrap_tcp")?, self.program("bootstrap_udp")?];
        let programs: Vec<_> = programs.into_iter().flatten().collect();
        let run = || {
            for program in &programs {
                everywhere(&|| run(program.as_fd()));
            }
        };
        let mut sockets = sockets.into_iter();
        loop {
            let batch: Vec<_> = sockets.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            for (cookie, known) in &batch {
                self.preexisting.insert(cookie, known).context("writing sockets from before")?;
            }
            run();
            for (cookie, _) in &batch {
                self.preexisting.remove(cookie).context("removing sockets from before")?;
            }
        }
        let nobody = Preexisting { owner: OwnerKey::zeroed(), ..Preexisting::zeroed() };
        self.preexisting.insert(&UNKNOWN_TOO, &nobody).context("writing sockets from before")?;
        run();
        self.preexisting.remove(&UNKNOWN_TOO).context("removing sockets from before")?;
        Ok(())
    }
}

/// Runs inside a network namespace; the error is that of the namespace's sockets.
pub type RunInside<'a> = dyn Fn() -> io::Result<()> + Sync + 'a;

/// Runs an iterator over every socket of the calling thread's network namespace.
fn run(program: BorrowedFd<'_>) -> io::Result<()> {
    let link = bpf::link_iterator(program, None)?;
    // The program writes nothing; reading runs it.
    bpf::open_iterator(link.as_fd())?.read_to_end(&mut Vec::new())?;
    Ok(())
}
