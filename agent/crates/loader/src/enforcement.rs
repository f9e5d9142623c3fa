//! Writes the verdicts of enforced reservations into the kernel half.

use std::hash::Hash;
use std::io;

use agent_common::enforced::{Enforced, EnforcedPort, VerdictKey};
use agent_common::wire::Wire;
use hashbrown::HashMap;

use super::bpf::Map;

/// The tables of verdicts, and their content.
pub struct Enforcement {
    ports: Map<EnforcedPort, Enforced>,
    verdicts: Map<VerdictKey, u32>,
    written: (Ports, Verdicts),
}

/// Enforced ports.
pub type Ports = HashMap<EnforcedPort, Enforced>;
/// Denied and allowed workloads.
pub type Verdicts = HashMap<VerdictKey, u32>;

impl Enforcement {
    /// Starts with the content that an earlier agent left in pinned tables, which stays in force
    /// until this agent knows better.
    pub fn new(
        ports: Map<EnforcedPort, Enforced>,
        verdicts: Map<VerdictKey, u32>,
    ) -> io::Result<Self> {
        let written = (read(&ports)?, read(&verdicts)?);
        Ok(Self { ports, verdicts, written })
    }

    /// Makes the tables equal to `verdicts`. An owner is never denied because its verdict is not
    /// written yet: verdicts are written before ports, and removed after them.
    pub fn apply(&mut self, ports: Ports, verdicts: Verdicts) -> io::Result<()> {
        let (old_ports, old_verdicts) = &self.written;
        for port in old_ports.keys().filter(|port| !ports.contains_key(*port)) {
            self.ports.remove(port)?;
        }
        for key in old_verdicts.keys().filter(|key| !verdicts.contains_key(*key)) {
            self.verdicts.remove(key)?;
        }
        for (key, verdict) in &verdicts {
            if old_verdicts.get(key) != Some(verdict) {
                self.verdicts.insert(key, verdict)?;
            }
        }
        for (port, enforced) in &ports {
            if old_ports.get(port) != Some(enforced) {
                self.ports.insert(port, enforced)?;
            }
        }
        self.written = (ports, verdicts);
        Ok(())
    }
}

/// All entries of a table without other writers.
fn read<K: Wire + Eq + Hash, V: Wire>(map: &Map<K, V>) -> io::Result<HashMap<K, V>> {
    let mut found = HashMap::new();
    let mut next = map.next_key(None)?;
    while let Some(key) = next {
        if let Some(value) = map.lookup(&key)? {
            found.insert(key, value);
        }
        next = map.next_key(Some(&key))?;
    }
    Ok(found)
}
