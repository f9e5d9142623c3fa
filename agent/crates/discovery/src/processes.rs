//! What /proc says about the programs of owners, read by probes.
//!
//! Each owner's process is read once, and only where its row is not sufficient.

use agent_common::owner::{OWNER_OVERFLOW, OwnerRow};
use hashbrown::HashMap;

use super::owners::MAX_OWNERS;
use super::{process, rules};
use linux::executable::Executable;
use linux::probes::{Failure, Kind, Pending, Probes};
use model::service::Service;

/// What /proc said about a process.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The name of its program.
    pub name: Option<Service>,
    /// Its executable, if rules match executables.
    pub executable: Option<Executable>,
}

/// The state of a lookup.
#[derive(Clone, Debug)]
pub(super) enum Process {
    /// All that there is.
    Seen(Seen),
    /// A probe is pending.
    Pending,
    /// Its row has to do.
    Unseen,
}

/// Processes of owners.
pub(super) struct Processes {
    probes: Probes,
    with_executables: bool,
    /// By the owner's slot: the `born_us` of the owner, and the state of its lookup.
    known: HashMap<u32, (u64, State)>,
}

enum State {
    Asked(Pending<Seen>),
    Answered(Option<Seen>),
}

// === impl Processes ===

impl Processes {
    /// No lookups yet. `with_executables` is whether rules match executables.
    pub(super) fn new(probes: Probes, with_executables: bool) -> Self {
        Self { probes, with_executables, known: HashMap::new() }
    }

    /// What is known about the process of a row; starts a probe if that can say more than the row.
    pub(super) fn look(&mut self, slot: u32, row: &OwnerRow) -> Process {
        let Self { probes, with_executables, known } = self;
        if !(*with_executables || process::is_worth_reading(row)) {
            return Process::Unseen;
        }
        let is_known = known.get(&slot).is_some_and(|(born_us, _)| *born_us == row.born_us);
        // The overflow row belongs to no owner.
        if slot == OWNER_OVERFLOW || (!is_known && known.len() >= MAX_OWNERS) {
            return Process::Unseen;
        }
        if !is_known {
            let (row, with_executables) = (*row, *with_executables);
            let look = move || Ok(see(&row, with_executables));
            let pending = probes.ask(Kind::Process, look);
            known.insert(slot, (row.born_us, State::Asked(pending)));
        }
        let Some((_, state)) = known.get_mut(&slot) else { return Process::Unseen };
        if let State::Asked(pending) = state {
            match pending.take() {
                None => return Process::Pending,
                // Others were in its way.
                Some(Err(Failure::QueueFull | Failure::NotBegun)) => {
                    known.remove(&slot);
                    return Process::Pending;
                }
                Some(answer) => *state = State::Answered(answer.ok()),
            }
        }
        match state {
            State::Answered(Some(seen)) => Process::Seen(seen.clone()),
            _ => Process::Unseen,
        }
    }

    /// Forgets an owner.
    pub(super) fn forget(&mut self, slot: u32) {
        self.known.remove(&slot);
    }
}

/// Reads /proc, and may block on a program that maps its arguments from a file of its own.
pub fn see(row: &OwnerRow, with_executable: bool) -> Seen {
    Seen {
        name: process::full_name(row),
        executable: with_executable.then(|| rules::executable(row)).flatten(),
    }
}
