//! Hands the sockets that were there before us to the kernel half: writes what the survey found
//! into a map and runs the seed program in every network namespace.

use std::io::Read as _;
use std::os::fd::AsFd as _;

use anyhow::Context as _;

use super::bpf;
use super::load::Kernel;
use crate::sockets::existing::Survey;
use crate::sockets::namespaces;

/// Seeds at a time: the size of the map.
const BATCH: usize = 60_000;

impl Kernel {
    /// Takes over the sockets of `survey`; returns how many were offered.
    pub fn seed(&mut self, survey: &Survey) -> anyhow::Result<u64> {
        let Some(program) = self.program("seed")? else { return Ok(0) };
        let mut offered = 0;
        for batch in survey.sockets.chunks(BATCH) {
            for socket in batch {
                self.seeds.insert(&socket.entry.cookie, &socket.seed).context("writing seeds")?;
                offered += 1;
            }
            for namespace in &survey.namespaces {
                let run = || -> anyhow::Result<()> {
                    let link = bpf::link_iterator(program.as_fd(), None)?;
                    let mut file = bpf::open_iterator(link.as_fd())?;
                    // The program writes nothing; reading runs it over every socket.
                    file.read_to_end(&mut Vec::new())?;
                    Ok(())
                };
                if let Err(error) = namespaces::run_in(namespace, run).map_err(Into::into).flatten()
                {
                    tracing::warn!(
                        "connections from before the start are missing in network namespace {}: {error:#}",
                        namespace.inode
                    );
                }
            }
            for socket in batch {
                self.seeds.remove(&socket.entry.cookie).context("removing seeds")?;
            }
        }
        Ok(offered)
    }
}
