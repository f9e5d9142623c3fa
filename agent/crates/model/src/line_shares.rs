//! How many lines of the log one tenant may cause: a share of those of a minute.
//!
//! A tenant that causes very many lines must not suppress those about others. Who has a share is one that
//! cannot multiply itself: a tenant (`agent_common::share`), the address of a client. What is left out
//! is counted, and logged when the minute is over.

use std::hash::Hash;

use agent_common::share::Tenant;
use hashbrown::HashMap;

/// Lines in a minute.
pub const LINES: u64 = 20;
/// Of these, lines of one tenant.
pub const LINES_OF_A_TENANT: u64 = LINES / 4;

/// Lines of one minute.
#[derive(Clone, Debug)]
pub struct LineShares<K = Tenant> {
    /// Of one of them, at most.
    share: u64,
    minute: u64,
    /// By whose they are; as many as lines were written, at most.
    written: HashMap<K, u64>,
    left_out: u64,
}

// === impl LineShares ===

impl Default for LineShares {
    fn default() -> Self {
        Self::of(LINES_OF_A_TENANT)
    }
}

impl<K: Eq + Hash> LineShares<K> {
    /// None yet; one has `share` lines in a minute.
    pub fn of(share: u64) -> Self {
        Self { share, minute: 0, written: HashMap::new(), left_out: 0 }
    }

    /// Begins the minute of `now` (seconds, any epoch); returns how many lines were left out in the
    /// one before, once.
    pub fn turn(&mut self, now: u64) -> u64 {
        let minute = now / 60;
        if minute == self.minute {
            return 0;
        }
        let left_out = self.left_out;
        *self = Self { minute, ..Self::of(self.share) };
        left_out
    }

    /// Whether a line that this one causes is written.
    pub fn admit(&mut self, whose: K) -> bool {
        let all: u64 = self.written.values().sum();
        let own = self.written.get(&whose).copied().unwrap_or_default();
        let is_written = all < LINES && own < self.share;
        if is_written {
            self.written.insert(whose, own + 1);
        } else {
            self.left_out += 1;
        }
        is_written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(origin: u64) -> Tenant {
        Tenant { cgroup: 7, origin }
    }

    #[test]
    fn a_tenant_leaves_others_three_quarters_of_the_lines() {
        let mut lines = LineShares::default();
        assert_eq!(lines.turn(600), 0);
        let written = |lines: &mut LineShares, who, count| {
            (0..count).filter(|_| lines.admit(tenant(who))).count() as u64
        };
        assert_eq!(written(&mut lines, 1, 10_000), LINES_OF_A_TENANT);
        assert_eq!(written(&mut lines, 2, 3), 3);
        let others: u64 = (3..100).map(|who| written(&mut lines, who, 1)).sum();
        assert_eq!(others, LINES - LINES_OF_A_TENANT - 3, "all together");
        assert_eq!(lines.turn(659), 0, "the same minute");
        let left_out = 10_000 - LINES_OF_A_TENANT + 97 - others;
        assert_eq!(lines.turn(660), left_out);
        assert_eq!(lines.turn(660), 0, "once");
        assert!(lines.admit(tenant(1)));
    }
}
