//! Network: what the namespaces of this host are like, read by this command with its caller's rights.
//!
//! Counters are read twice, a second apart: what happened long ago is not a finding.

mod addresses;
mod counters;
mod reading;
mod settings;
mod subnets;

use std::collections::HashMap;

use linux::network::Network;

use super::answers::Answers;
use super::name::Name;
use super::report::Checks;
use super::section::Section;
use crate::human;

pub(super) use self::reading::{Reading, Seen};

/// Looks at what was read; `answers` name the services of namespaces.
pub(super) fn check(seen: &Seen, answers: Option<&Answers>, checks: &mut Checks) {
    if seen.networks.is_empty() {
        let reason = seen.denied.as_deref().unwrap_or("none could be read");
        checks.skip(Section::Network, "network namespaces", reason);
        return;
    }
    if let Some(reason) = &seen.denied {
        checks.skip(Section::Network, "further network namespaces", reason.as_str());
    }
    counters::check(seen, checks);
    settings::check(seen, answers, checks);
    addresses::check(seen, checks);
    subnets::check(seen, checks);
}

// === impl Seen ===

impl Seen {
    /// What a namespace is called in titles.
    pub fn title(&self, network: &Network) -> String {
        self.names
            .get(&network.inode)
            .cloned()
            .unwrap_or_else(|| format!("net:[{}]", network.inode))
    }

    /// Names of namespaces: the host, as `ip netns` has them, else the service there.
    pub fn name_by(&mut self, answers: Option<&Answers>) {
        let mut services: HashMap<u32, Name> = HashMap::new();
        for one in answers.into_iter().flat_map(|answers| &answers.ports.ephemeral_ports) {
            services.entry(one.netns).or_insert_with(|| Name::from(&one.service));
        }
        for network in &self.networks {
            if let (None, Some(name)) =
                (self.names.get(&network.inode), services.get(&network.inode))
            {
                self.names.insert(network.inode, name.to_string());
            }
        }
    }
}

/// So many namespaces.
fn namespaces(n: usize) -> String {
    human::counted(n as u64, "network namespace")
}

#[cfg(test)]
mod tests;
