//! Tables of the kernel half that are full: a line in the log when one becomes full, one when it has
//! room again, and one when a tenant wants more than its share. Who fills a table again and again
//! does not keep back the lines of others.

use agent_common::ledger::{EDGE, Ledger, OVER_SHARE, OWNER};
use model::line_shares::LineShares;
use model::snapshot::MapView;

/// In percent, below which a table that was full has room again.
const ROOM_BELOW: u64 = 80;

/// Lines of one table in a minute.
const LINES_OF_A_TABLE: u64 = 2;

/// A tenant that wants more than its share is logged so often at most, seconds.
const SHARES_EVERY: u64 = 60;

/// The tables that were full at the last look, and what had found no place in a share.
#[derive(Debug)]
pub(super) struct FullTables {
    full: Vec<String>,
    lines: LineShares<String>,
    over_share: [u64; 2],
    logged_seconds: Option<u64>,
}

// === impl FullTables ===

impl Default for FullTables {
    fn default() -> Self {
        let lines = LineShares::of(LINES_OF_A_TABLE);
        Self { full: Vec::new(), lines, over_share: [0; 2], logged_seconds: None }
    }
}

impl FullTables {
    /// Takes in how full the tables are, and logs changes. Returns how many lines it wrote.
    pub(super) fn observe(&mut self, maps: &[MapView], now_seconds: u64) -> usize {
        let Self { full, lines, .. } = self;
        let left_out = lines.turn(now_seconds);
        if left_out > 0 {
            tracing::warn!(
                "tables became full, or had room again, {left_out} more times in an earlier minute; `portolan status` shows them"
            );
        }
        let mut written = 0;
        let mut admit = |name: &String| {
            let is_written = lines.admit(name.clone());
            written += usize::from(is_written);
            is_written
        };
        for map in maps {
            let MapView { name, entries, capacity } = map;
            let known = full.iter().position(|full| full == name);
            match known {
                None if map.is_full() => {
                    if admit(name) {
                        tracing::warn!(
                            "the table {name} is full ({entries} of {capacity} rows): {}",
                            map.consequence()
                        );
                    }
                    full.push(name.clone());
                }
                Some(at) if entries.saturating_mul(100) < capacity.saturating_mul(ROOM_BELOW) => {
                    if admit(name) {
                        tracing::info!(
                            "the table {name} has room again ({entries} of {capacity} rows)"
                        );
                    }
                    full.remove(at);
                }
                _ => {}
            }
        }
        written
    }

    /// Takes in how many edges and owners were beyond their tenant's share so far; returns whether
    /// that was logged.
    pub(super) fn observe_shares(&mut self, ledger: &Ledger, now_seconds: u64) -> bool {
        let over_share = [ledger.lost[EDGE][OVER_SHARE], ledger.lost[OWNER][OVER_SHARE]];
        let is_recent = |at| now_seconds.saturating_sub(at) < SHARES_EVERY;
        if over_share == self.over_share || self.logged_seconds.is_some_and(is_recent) {
            return false;
        }
        let [edges, owners] = over_share;
        let (new_edges, new_owners) =
            (edges.saturating_sub(self.over_share[0]), owners.saturating_sub(self.over_share[1]));
        tracing::warn!(
            "a tenant (a cgroup in a network namespace, or a user) has its share of a nearly full table: {new_edges} new edges and {new_owners} new owners count in `other`; raise limits.edges or limits.owners if that is ordinary load"
        );
        self.over_share = over_share;
        self.logged_seconds = Some(now_seconds);
        true
    }
}

#[cfg(test)]
mod tests {
    use agent_common::wire::Wire as _;

    use super::*;

    #[test]
    fn a_tenant_over_its_share_is_logged_once_a_minute() {
        let mut tables = FullTables::default();
        let mut ledger = Ledger::zeroed();
        assert!(!tables.observe_shares(&ledger, 0));
        ledger.lost[EDGE][OVER_SHARE] = 7;
        assert!(tables.observe_shares(&ledger, 1));
        assert!(!tables.observe_shares(&ledger, 100), "nothing new");
        ledger.lost[OWNER][OVER_SHARE] = 1;
        assert!(tables.observe_shares(&ledger, 101));
        ledger.lost[OWNER][OVER_SHARE] = 2;
        assert!(!tables.observe_shares(&ledger, 150), "within the minute");
        assert!(tables.observe_shares(&ledger, 161));
    }

    #[test]
    fn a_table_is_full_until_a_fifth_is_free() {
        let mut tables = FullTables::default();
        let mut observe = |entries| {
            let maps = [
                MapView { name: "owners".to_owned(), entries, capacity: 100 },
                MapView { name: "edges".to_owned(), entries: 0, capacity: 0 },
            ];
            tables.observe(&maps, 0);
            !tables.full.is_empty()
        };
        let steps = [(94, false), (95, true), (100, true), (80, true), (79, false), (94, false)];
        for (entries, is_full) in steps {
            assert_eq!(observe(entries), is_full, "{entries}");
        }
    }

    #[test]
    fn a_table_that_is_filled_again_and_again_leaves_others_their_lines() {
        let mut tables = FullTables::default();
        let map = |name: &str, entries| MapView { name: name.to_owned(), entries, capacity: 100 };
        let steps = (0..120).map(|second| [map("edges", second % 2 * 100), map("owners", 0)]);
        let written: usize = steps.map(|maps| tables.observe(&maps, 600)).sum();
        assert_eq!(written as u64, LINES_OF_A_TABLE);
        let full = [map("edges", 0), map("owners", 100)];
        assert_eq!(tables.observe(&full, 600), 1, "the other's");
        assert_eq!(
            tables.observe(&[map("edges", 100), map("owners", 0)], 660),
            2,
            "a minute later"
        );
    }
}
