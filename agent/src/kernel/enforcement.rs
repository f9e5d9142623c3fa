//! Tells the kernel half which ports to refuse to whom.

use std::hash::Hash;
use std::io;

use agent_common::enforced::{Enforced, EnforcedPort, VerdictKey};
use agent_common::wire::Wire;
use hashbrown::HashMap;

use super::bpf::Map;
use crate::model::enforcement::Verdicts;

/// The tables of verdicts, and what is in them.
pub struct Enforcement {
    ports: Map<EnforcedPort, Enforced>,
    verdicts: Map<VerdictKey, u32>,
    written: Verdicts,
}

impl Enforcement {
    /// Begins with what an earlier agent left in pinned tables: that stands until this one knows
    /// better, so that nobody slips in between the two.
    pub fn new(
        ports: Map<EnforcedPort, Enforced>,
        verdicts: Map<VerdictKey, u32>,
    ) -> io::Result<Self> {
        let written = Verdicts { ports: read(&ports)?, verdicts: read(&verdicts)?, dropped: 0 };
        Ok(Self { ports, verdicts, written })
    }

    /// Makes the tables say what `wanted` does. At no moment is a port refused to somebody whose
    /// verdict is not written yet: verdicts come before ports, and go after them.
    pub fn apply(&mut self, wanted: Verdicts) -> io::Result<()> {
        if wanted == self.written {
            return Ok(());
        }
        for port in self.written.ports.keys().filter(|port| !wanted.ports.contains_key(*port)) {
            self.ports.remove(port)?;
        }
        let gone = self.written.verdicts.keys().filter(|key| !wanted.verdicts.contains_key(*key));
        for key in gone {
            self.verdicts.remove(key)?;
        }
        for (key, verdict) in &wanted.verdicts {
            if self.written.verdicts.get(key) != Some(verdict) {
                self.verdicts.insert(key, verdict)?;
            }
        }
        for (port, enforced) in &wanted.ports {
            if self.written.ports.get(port) != Some(enforced) {
                self.ports.insert(port, enforced)?;
            }
        }
        self.written = wanted;
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
