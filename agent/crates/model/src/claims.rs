//! Claims: the kernel half's rows of failed binds, and how they grow.
//!
//! A row that has not grown for long is taken back ([`super::reclaim`]).

use agent_common::attempt::{
    AttemptKey, BOUND_ROW, FAILURE_OVERFLOW, FIRST_FREE_FAILURE, FailureRow,
};
use agent_common::drained::Claim;
use agent_common::slot_table::Reclaim;
use hashbrown::HashMap;

use super::reclaim::{Lifecycle, Patience};

/// Failures since the last collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures {
    /// The kind of bind; all zeros for the overflow row.
    pub key: AttemptKey,
    /// How many.
    pub count: u64,
    /// The process that tried last.
    pub tgid: u32,
    /// When it did, CLOCK_MONOTONIC microseconds.
    pub last_us: u64,
}

/// All rows.
#[derive(Default)]
pub struct Claims {
    rows: HashMap<u32, Known>,
    /// The counts of rows that were freed.
    retired: u64,
}

struct Known {
    born_us: u64,
    count: u64,
    lifecycle: Lifecycle,
}

impl Claims {
    /// Takes in the kernel's rows at `now` (seconds, any epoch); `capacity` is how many there are.
    pub fn update(
        &mut self,
        now: u64,
        claims: &[Claim],
        capacity: u64,
    ) -> (Vec<Failures>, Vec<Reclaim<AttemptKey>>) {
        let patience = Patience::of(capacity, claims.iter().map(|claim| claim.row.tenant));
        let (mut grown, mut reclaim) = (Vec::new(), Vec::new());
        for Claim { slot, row } in claims {
            let known = self.rows.entry(*slot).or_insert_with(|| Known::new(row));
            if known.born_us != row.born_us {
                *known = Known::new(row);
            }
            let count = row.count.saturating_sub(known.count);
            known.count += count;
            if count > 0 && *slot != BOUND_ROW {
                let FailureRow { key, tgid, last_us, .. } = *row;
                grown.push(Failures { key, count, tgid, last_us });
            }
            let in_use = count > 0 || *slot < FIRST_FREE_FAILURE;
            let patience = patience.with(row.tenant);
            reclaim.extend(known.lifecycle.observe(now, patience, in_use, *slot, row.key));
        }
        for step in &reclaim {
            if let Reclaim::Free(slot) = step
                && let Some(known) = self.rows.remove(slot)
            {
                self.retired += known.count;
            }
        }
        (grown, reclaim)
    }

    /// Binds in the rows so far, whatever their result.
    pub fn exported(&self) -> u64 {
        self.retired + self.rows.values().map(|known| known.count).sum::<u64>()
    }

    /// Failures that found no row of their own.
    pub fn failed_without_row(&self) -> u64 {
        self.rows.get(&FAILURE_OVERFLOW).map_or(0, |known| known.count)
    }
}

impl Known {
    fn new(row: &FailureRow) -> Self {
        Self { born_us: row.born_us, count: 0, lifecycle: Lifecycle::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reclaim::IDLE_SECONDS;
    use agent_common::wire::Wire as _;

    fn claim(slot: u32, born_us: u64, count: u64) -> Claim {
        let mut row = FailureRow::zeroed();
        row.key.port = slot as u16;
        (row.born_us, row.count) = (born_us, count);
        Claim { slot, row }
    }

    fn counts(grown: &[Failures]) -> Vec<(u16, u64)> {
        grown.iter().map(|failures| (failures.key.port, failures.count)).collect()
    }

    #[test]
    fn each_failure_is_reported_once_and_successful_binds_are_not() {
        let mut claims = Claims::default();
        let first = [claim(0, 0, 0), claim(1, 0, 5), claim(2, 7, 3)];
        assert_eq!(counts(&claims.update(1, &first, 100).0), [(2, 3)]);
        let then = [claim(0, 0, 1), claim(1, 0, 6), claim(2, 7, 10)];
        assert_eq!(counts(&claims.update(2, &then, 100).0), [(0, 1), (2, 7)]);
        assert_eq!(counts(&claims.update(3, &then, 100).0), []);
        assert_eq!((claims.exported(), claims.failed_without_row()), (17, 1));
    }

    #[test]
    fn an_idle_row_is_given_back_and_its_successor_starts_from_nothing() {
        let mut claims = Claims::default();
        let row = claim(2, 7, 3);
        claims.update(0, &[row], 100);
        let (_, reclaim) = claims.update(IDLE_SECONDS, &[row], 100);
        assert_eq!(reclaim, [Reclaim::Forget(row.row.key)]);
        let (_, reclaim) = claims.update(IDLE_SECONDS + 1, &[row], 100);
        assert_eq!(reclaim, [Reclaim::Free(2)]);
        let (grown, _) = claims.update(IDLE_SECONDS + 2, &[claim(2, 9, 2)], 100);
        assert_eq!((counts(&grown), claims.exported()), (vec![(2, 2)], 5));
    }

    #[test]
    fn a_row_that_grows_after_it_was_forgotten_is_not_freed_before_it_is_read() {
        let mut claims = Claims::default();
        claims.update(0, &[claim(2, 7, 3)], 100);
        claims.update(IDLE_SECONDS, &[claim(2, 7, 3)], 100);
        let (grown, reclaim) = claims.update(IDLE_SECONDS + 1, &[claim(2, 7, 4)], 100);
        assert_eq!((counts(&grown), reclaim), (vec![(2, 1)], vec![]));
        let (_, reclaim) = claims.update(IDLE_SECONDS + 2, &[claim(2, 7, 4)], 100);
        assert_eq!(reclaim, [Reclaim::Free(2)]);
    }
}
