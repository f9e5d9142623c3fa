//! The kernel half of the simulated world: its tables as a collection reads them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use agent_common::address;
use agent_common::attempt::AttemptKey;
use agent_common::drained::{Edge, Table};
use agent_common::edge::EdgeKey;
use agent_common::listener::ListenerKey;
use agent_common::owner::{OwnerKey, OwnerRow};
use agent_common::slot_table::Reclaim;
use agent_common::unsent::UnsentKey;
use hashbrown::HashMap;
use loader::attacher::Attachment;
use loader::drain::Drained;
use model::enforcement::Verdicts;
use model::snapshot::{Disabled, HookView, MapView};

use super::Fake;
use super::slots::rows;
use super::world::{EdgeSlot, World};
use crate::pipeline::kernel::Kernel;

impl Kernel for Fake {
    fn drain(&mut self, _now_ns: u64) -> anyhow::Result<Drained> {
        let mut world = self.world();
        let World { owners, reported, edges, listener_rows, unsent, bind_failures, .. } =
            &mut *world;
        let is_new = |(index, row): &(&u32, &OwnerRow)| {
            reported.insert(**index, row.born_us) != Some(row.born_us)
        };
        Ok(Drained {
            owners: owners.rows.iter().filter(is_new).map(|(i, row)| (*i, *row)).collect(),
            edges: edges
                .rows
                .iter()
                .map(|(slot, EdgeSlot { key, born_us, counters, .. })| Edge {
                    table: Table::Edges,
                    slot: *slot,
                    key: *key,
                    local: address::UNSPECIFIED,
                    remote: key.remote,
                    born_us: *born_us,
                    counters: Arc::new(counters.clone()),
                })
                .collect(),
            listener_rows: rows(listener_rows),
            unsent: rows(unsent),
            bind_failures: rows(bind_failures),
            queues: Some(edges.rows.iter().map(|(slot, row)| (*slot, row.queues())).collect()),
            listeners: Some(world.listeners.clone()),
            ledger: world.ledger,
            events: std::mem::take(&mut world.ring),
            answers: std::mem::take(&mut world.dns),
            ..Drained::default()
        })
    }

    fn reclaim_edge(&mut self, step: &Reclaim<EdgeKey>) -> io::Result<()> {
        let mut world = self.world();
        if let Some(row) = world.edges.reclaim(step) {
            world.free_histograms += u32::from(row.has_histogram);
            world.has_freed = true;
        }
        Ok(())
    }

    fn reclaim_listener(&mut self, step: &Reclaim<ListenerKey>) -> io::Result<()> {
        let mut world = self.world();
        world.has_freed |= world.listener_rows.reclaim(step).is_some();
        Ok(())
    }

    fn reclaim_unsent(&mut self, step: &Reclaim<UnsentKey>) -> io::Result<()> {
        let mut world = self.world();
        world.has_freed |= world.unsent.reclaim(step).is_some();
        Ok(())
    }

    fn reclaim_owner(&mut self, step: &Reclaim<OwnerKey>) -> io::Result<()> {
        let mut world = self.world();
        if let Reclaim::Free(owner) = step {
            assert!(!world.uses(*owner), "an owner is freed while a row is its");
            world.reported.remove(owner);
        }
        world.owners.reclaim(step);
        Ok(())
    }

    fn reclaim_bind_failure(&mut self, step: &Reclaim<AttemptKey>) -> io::Result<()> {
        let mut world = self.world();
        world.has_freed |= world.bind_failures.reclaim(step).is_some();
        Ok(())
    }

    fn edge_capacity(&self) -> u64 {
        self.world().edges.capacity()
    }

    fn owner_capacity(&self) -> u64 {
        self.world().owners.capacity()
    }

    fn held_edges(&self) -> u64 {
        0
    }

    fn offer_edges(&mut self, _in_use: usize, wanted: Option<u64>) -> io::Result<()> {
        assert_eq!(wanted, None, "memory has no limit");
        Ok(())
    }

    fn listener_capacity(&self) -> u64 {
        self.world().listener_rows.capacity()
    }

    fn unsent_capacity(&self) -> u64 {
        self.world().unsent.capacity()
    }

    fn bind_failure_capacity(&self) -> u64 {
        self.world().bind_failures.capacity()
    }

    fn set_delegated(&mut self, cgroups: &HashMap<u64, u32>) -> io::Result<()> {
        assert!(cgroups.is_empty(), "nothing is given away");
        Ok(())
    }

    fn enforce(&mut self, verdicts: Verdicts) -> io::Result<()> {
        assert!(verdicts.verdicts.is_empty(), "nothing is reserved");
        Ok(())
    }

    fn hooks(&self) -> Vec<HookView> {
        Vec::new()
    }

    fn maps(&self, _drained: &Drained) -> Vec<MapView> {
        Vec::new()
    }

    fn disabled(&self) -> Vec<Disabled> {
        Vec::new()
    }

    fn is_adopted(&self) -> bool {
        self.is_adopted
    }

    fn reads_dns(&self) -> bool {
        true
    }

    fn walk(&self, _folder: &File, _path: &Path) -> Result<Vec<Attachment>, String> {
        Ok(Vec::new())
    }

    fn calls(&self) -> io::Result<OwnedFd> {
        // Nobody ever writes there.
        let (calls, silence) = io::pipe()?;
        self.world().silence.push(silence);
        Ok(calls.into())
    }
}
