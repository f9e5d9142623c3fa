//! Empty programs on the agent's tracepoints: the cost of the dispatch alone, which is the lower
//! bound for every tool.

use std::io;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};

use crate::bpf::{self, Runs};

/// The tracepoints of the agent's default hooks.
const TRACEPOINTS: [&str; 7] = [
    "inet_sock_set_state",
    "sk_data_ready",
    "sock_send_length",
    "tcp_retransmit_skb",
    "tcp_retransmit_synack",
    "tcp_send_reset",
    "tcp_receive_reset",
];

/// Empty programs, attached while this exists.
pub struct Empty(Vec<Attached>);

struct Attached {
    tracepoint: &'static str,
    program: OwnedFd,
    _link: OwnedFd,
}

impl Empty {
    /// Attaches one to each tracepoint that this kernel has.
    pub fn attach() -> Result<Self> {
        let mut attached = Vec::new();
        for tracepoint in TRACEPOINTS {
            let program = bpf::load_empty().context("loading an empty program")?;
            match bpf::attach(&program, tracepoint) {
                Ok(link) => attached.push(Attached { tracepoint, program, _link: link }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context(format!("attaching to {tracepoint}")),
            }
        }
        Ok(Self(attached))
    }

    /// Runs so far, by tracepoint.
    pub fn runs(&self) -> Result<Vec<(String, Runs)>> {
        let runs = self.0.iter().map(|attached| {
            let runs = bpf::runs(&attached.program).context("reading run-time statistics")?;
            Ok((attached.tracepoint.to_owned(), runs))
        });
        runs.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use loader::hooks::{HOOKS, Kind};

    use super::TRACEPOINTS;

    #[test]
    fn empty_programs_are_on_the_tracepoints_of_the_agents_hooks() {
        let first = HOOKS.iter().filter_map(|hook| hook.ways.first());
        let agents: BTreeSet<&str> =
            first.filter(|way| way.kind == Kind::Tracepoint).map(|way| way.target).collect();
        let ours = BTreeSet::from(TRACEPOINTS);
        let (missing, extra): (Vec<_>, Vec<_>) =
            (agents.difference(&ours).collect(), ours.difference(&agents).collect());
        assert!(
            missing.is_empty() && extra.is_empty(),
            "TRACEPOINTS in xtask/tools/bench/src/empty.rs: add {missing:?}, remove {extra:?}"
        );
    }
}
