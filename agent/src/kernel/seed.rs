//! Hands the sockets that were there before us to the kernel half: writes what the survey found
//! into a map and runs the seed program in every network namespace.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use agent_common::owner::OwnerKey;
use agent_common::seed::{STRANGERS_TOO, Seed};
use agent_common::wire::Wire as _;
use anyhow::Context as _;

use super::bpf;
use super::load::Kernel;
use crate::sockets::existing::Survey;
use crate::sockets::namespaces::{self, Namespace};

/// Seeds at a time: what the map holds, with room for [`STRANGERS_TOO`].
const BATCH: usize = 60_000;

impl Kernel {
    /// Takes over the sockets of `survey`, then those it did not find (they get no owner);
    /// returns how many it had found.
    pub fn seed(&mut self, survey: &Survey) -> anyhow::Result<usize> {
        let programs = [self.program("seed")?, self.program("seed_udp")?];
        let programs: Vec<_> = programs.into_iter().flatten().collect();
        let run_everywhere = |namespaces: &[Namespace]| {
            for program in &programs {
                run_everywhere(program.as_fd(), namespaces);
            }
        };
        for batch in survey.sockets.chunks(BATCH) {
            for socket in batch {
                self.seeds.insert(&socket.entry.cookie, &socket.seed).context("writing seeds")?;
            }
            run_everywhere(&survey.namespaces);
            for socket in batch {
                self.seeds.remove(&socket.entry.cookie).context("removing seeds")?;
            }
        }
        let nobody = Seed { owner: OwnerKey::zeroed(), ..Seed::zeroed() };
        self.seeds.insert(&STRANGERS_TOO, &nobody).context("writing seeds")?;
        run_everywhere(&survey.namespaces);
        self.seeds.remove(&STRANGERS_TOO).context("removing seeds")?;
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
