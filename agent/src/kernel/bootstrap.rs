//! Hands the sockets that were there before us to the kernel half: writes what the survey found
//! into a map and runs the bootstrap programs in every network namespace.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use agent_common::owner::OwnerKey;
use agent_common::preexisting::{Preexisting, UNKNOWN_TOO};
use agent_common::wire::Wire as _;
use anyhow::Context as _;

use super::bpf;
use super::load::Kernel;
use crate::sockets::existing::Survey;
use crate::sockets::namespaces::{self, Namespace};

/// Sockets at a time: what the map holds, with room for [`UNKNOWN_TOO`].
const BATCH: usize = 60_000;

impl Kernel {
    /// Takes over the sockets of `survey`, then those it did not find (they get no owner);
    /// returns how many it had found.
    pub fn bootstrap(&mut self, survey: &Survey) -> anyhow::Result<usize> {
        let programs = [self.program("bootstrap_tcp")?, self.program("bootstrap_udp")?];
        let programs: Vec<_> = programs.into_iter().flatten().collect();
        let run_everywhere = |namespaces: &[Namespace]| {
            for program in &programs {
                run_everywhere(program.as_fd(), namespaces);
            }
        };
        for batch in survey.sockets.chunks(BATCH) {
            for socket in batch {
                self.preexisting
                    .insert(&socket.entry.cookie, &socket.known)
                    .context("writing sockets from before")?;
            }
            run_everywhere(&survey.namespaces);
            for socket in batch {
                self.preexisting
                    .remove(&socket.entry.cookie)
                    .context("removing sockets from before")?;
            }
        }
        let nobody = Preexisting { owner: OwnerKey::zeroed(), ..Preexisting::zeroed() };
        self.preexisting.insert(&UNKNOWN_TOO, &nobody).context("writing sockets from before")?;
        run_everywhere(&survey.namespaces);
        self.preexisting.remove(&UNKNOWN_TOO).context("removing sockets from before")?;
        Ok(survey.sockets.len())
    }
}

fn run_everywhere(program: BorrowedFd<'_>, namespaces: &[Namespace]) {
    for namespace in namespaces {
        let run = || -> io::Result<()> {
            let link = bpf::link_iterator(program, None)?;
            // The program writes nothing; reading runs it over every socket.
            bpf::open_iterator(link.as_fd())?.read_to_end(&mut Vec::new())?;
            Ok(())
        };
        if let Err(error) = namespaces::run_in(namespace, run).flatten() {
            tracing::warn!(
                "connections from before the start are missing in network namespace {}: {error}",
                namespace.inode
            );
        }
    }
}
