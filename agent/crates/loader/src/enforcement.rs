//! Tells the kernel half which ports to refuse to whom.

use std::hash::Hash;
use std::io;

use agent_common::enforced::{Enforced, EnforcedPort, VerdictKey};
use agent_common::wire::Wire;
use hashbrown::HashMap;

use super::bpf::Map;

/// The tables of verdicts, and what is in them.
pub struct Enforcement {
    ports: Map<EnforcedPort, Enforced>,
    verdicts: Map<VerdictKey, u32>,
    written: (Ports, Verdicts),
}

/// Ports that are refused to others.
pub type Ports = HashMap<EnforcedPort, Enforced>;
/// Who is refused and who is not.
pub type Verdicts = HashMap<VerdictKey, u32>;

impl Enforcement {
    /// Begins with what an earlier agent left in pinned tables: that stands until this one knows
    /// better, so that nobody slips in between the two.
    pub fn new(
        ports: Map<EnforcedPort, Enforced>,
        verdicts: Map<VerdictKey, u32>,
    ) -> io::Result<Self> {
        let written = (read(&ports)?, read(&verdicts)?);
        Ok(Self { ports, verdicts, written })
    }

    /// Makes the tables say this. At no moment is a port refused to somebody whose
    /// verdict is not written yet: verdicts come before ports, and go after them.
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

/// Everything in a table that nobody else writes.
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
