//! Connections of the last five minutes between segments, and those of them that violate: what a
//! window shows.
//!
//! They are kept in steps of ten seconds. A window begins where its first step does, and says how long
//! it really is. Memory is bounded: a matrix has few cells, and a step has [`MAX_ROWS`] rows of
//! violations; those that find none of their own are `other`.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::Between;
use crate::attributed::Name as _;
use crate::segments::Segment;

/// Length of a step, seconds.
const STEP_SECONDS: u64 = 10;
/// The longest window, seconds.
const LONGEST_SECONDS: u64 = 300;
/// Rows of violations of a step, besides `other`.
const MAX_ROWS: usize = 256;

/// A pair of segments: the client's and the server's.
pub type Cell = (Segment, Segment);

/// The steps of the last minutes, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    /// When the first collection was, and when the last one was, seconds since the Unix epoch.
    began: Option<f64>,
    now: f64,
    kept: VecDeque<Arc<Step>>,
}

#[derive(Clone, Debug, Default)]
struct Step {
    /// Its begin, in steps since the Unix epoch.
    number: u64,
    cells: HashMap<Cell, u64>,
    rows: HashMap<Between, u64>,
}

/// What a window has, sorted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InWindow {
    /// Connections by pair of segments.
    pub cells: Vec<(Cell, u64)>,
    /// Violations by their ends.
    pub rows: Vec<(Between, u64)>,
    /// How long the window is, seconds.
    pub seconds: f64,
}

// === impl Steps ===

impl Steps {
    /// A collection at `now`, seconds since the Unix epoch.
    pub(super) fn turn(&mut self, now: f64) {
        // A clock that was put back starts no step in the past.
        self.now = now.max(self.now);
        self.began.get_or_insert(now);
        let oldest = number(self.now - LONGEST_SECONDS as f64);
        while self.kept.front().is_some_and(|step| step.number < oldest) {
            self.kept.pop_front();
        }
    }

    /// An edge was evaluated: its cell, if this side evaluates it, and all its connections, before and
    /// now. `is_another`: what was before belongs to the former service.
    pub(super) fn evaluated(
        &mut self,
        (former, before): (Option<Cell>, u64),
        (cell, all): (Option<Cell>, u64),
        is_another: bool,
    ) {
        if let Some(from) = former.filter(|_| former != cell && !is_another) {
            self.moved(from, cell, before);
        }
        let known = if former.is_some() { before } else { 0 };
        if let Some(cell) = cell {
            self.connected(cell, all.saturating_sub(known));
        }
    }

    /// New connections between two segments.
    fn connected(&mut self, cell: Cell, connections: u64) {
        if connections > 0 {
            *self.current().cells.entry(cell).or_default() += connections;
        }
    }

    /// So many connections, the latest of `from`, belong to `to`, for a better name is known; or are
    /// counted by the other side.
    fn moved(&mut self, from: Cell, to: Option<Cell>, connections: u64) {
        let mut left = connections;
        for step in self.kept.iter_mut().rev().filter(|step| step.cells.contains_key(&from)) {
            if left == 0 {
                return;
            }
            let step = Arc::make_mut(step);
            let there = step.cells.entry(from).or_default();
            let moving = left.min(*there);
            *there -= moving;
            left -= moving;
            if let Some(to) = to {
                *step.cells.entry(to).or_default() += moving;
            }
        }
    }

    /// New connections that violate.
    pub(super) fn violated(&mut self, between: &Between, connections: u64) {
        let rows = &mut self.current().rows;
        let has_room = rows.len() < MAX_ROWS || rows.contains_key(between);
        let name = if has_room { between.clone() } else { between.other() };
        *rows.entry(name).or_default() += connections;
    }

    /// The last `seconds`, at least.
    pub fn last(&self, seconds: u64) -> InWindow {
        let first = number(self.now - seconds.min(LONGEST_SECONDS) as f64);
        let since = ((first * STEP_SECONDS) as f64).max(self.began.unwrap_or(self.now));
        let (mut cells, mut rows) = (HashMap::new(), HashMap::new());
        for step in self.kept.iter().filter(|step| step.number >= first) {
            for (cell, connections) in &step.cells {
                *cells.entry(*cell).or_default() += connections;
            }
            for (between, connections) in &step.rows {
                *rows.entry(between.clone()).or_default() += connections;
            }
        }
        let mut cells: Vec<_> =
            cells.into_iter().filter(|(_, connections)| *connections > 0).collect();
        let mut rows: Vec<_> = rows.into_iter().collect();
        cells.sort_unstable();
        rows.sort_unstable();
        InWindow { cells, rows, seconds: (self.now - since).max(0.0) }
    }

    fn current(&mut self) -> &mut Step {
        let number = number(self.now);
        if self.kept.back().is_none_or(|last| last.number < number) {
            self.kept.push_back(Arc::new(Step { number, ..Step::default() }));
        }
        let last = self.kept.back_mut().expect("there is one");
        Arc::make_mut(last)
    }

    /// With these in its only step, ten seconds after the start.
    #[cfg(any(test, feature = "fixture"))]
    pub(crate) fn fixture(now: f64, cells: &[(Cell, u64)], rows: &[(Between, u64)]) -> Self {
        let mut all = Self::default();
        all.turn(now - STEP_SECONDS as f64);
        all.turn(now);
        for (cell, connections) in cells {
            all.connected(*cell, *connections);
        }
        for (between, connections) in rows {
            all.violated(between, *connections);
        }
        all
    }
}

/// The step that a time is in.
fn number(seconds: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let seconds = seconds as u64;
    seconds / STEP_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relations::Ends;
    use crate::segments::Reason;

    const START: f64 = 1e9;
    const CELL: Cell = (Some(0), Some(1));
    const OTHER: Cell = (Some(0), None);

    fn between(port: u16) -> Between {
        let name =
            |name: &str| crate::relations::ServiceName { namespace: "".into(), name: name.into() };
        Between {
            reason: Reason::NotAllowed,
            client_segment: "frontend".into(),
            server_segment: "database".into(),
            ends: Ends::new(name("web"), name("db"), port),
        }
    }

    #[test]
    fn a_window_has_what_happened_in_it_and_says_how_long_it_is() {
        let mut steps = Steps::default();
        for second in 0..400 {
            steps.turn(START + f64::from(second));
            steps.connected(CELL, 1);
            if second == 100 {
                steps.violated(&between(80), 3);
            }
        }
        let check = |seconds, cells: u64, covered: f64, rows: &[(Between, u64)]| {
            let found = steps.last(seconds);
            assert_eq!((found.cells, found.seconds), (vec![(CELL, cells)], covered), "{seconds}");
            assert_eq!(found.rows, rows, "{seconds}");
        };
        check(1, 10, 9.0, &[]);
        check(10, 20, 19.0, &[]);
        check(60, 70, 69.0, &[]);
        check(300, 310, 309.0, &[(between(80), 3)]);
        check(9000, 310, 309.0, &[(between(80), 3)]);
        // And later nothing is left of it.
        steps.turn(START + 1000.0);
        assert_eq!(steps.last(300).cells, []);
        assert!(steps.kept.is_empty());
    }

    #[test]
    fn a_window_does_not_begin_before_the_agent() {
        let mut steps = Steps::default();
        assert_eq!(steps.last(60), InWindow::default());
        steps.turn(START + 5.0);
        steps.connected(CELL, 2);
        steps.turn(START + 8.0);
        let found = steps.last(60);
        assert_eq!((found.cells, found.seconds), (vec![(CELL, 2)], 3.0));
    }

    #[test]
    fn connections_that_get_a_better_name_move_within_their_steps() {
        let mut steps = Steps::default();
        steps.turn(START);
        steps.connected(CELL, 5);
        steps.turn(START + 100.0);
        steps.connected(CELL, 2);
        steps.evaluated((Some(CELL), 4), (Some(OTHER), 4), false);
        assert_eq!(steps.last(60).cells, [(OTHER, 2)]);
        assert_eq!(steps.last(300).cells, [(OTHER, 4), (CELL, 3)]);
        // More than there are: what is older than the steps. And two new ones.
        steps.evaluated((Some(CELL), 9), (Some(OTHER), 11), false);
        assert_eq!(steps.last(300).cells, [(OTHER, 9)]);
        // Another service goes on in the same row, and then the other side counts it.
        steps.evaluated((Some(OTHER), 11), (Some(CELL), 12), true);
        assert_eq!(steps.last(300).cells, [(OTHER, 9), (CELL, 1)]);
        steps.evaluated((Some(CELL), 12), (None, 12), false);
        assert_eq!(steps.last(300).cells, [(OTHER, 9)]);
    }

    #[test]
    fn violations_of_a_step_are_bounded_and_none_is_lost() {
        let mut steps = Steps::default();
        steps.turn(START);
        for port in 0..=u16::MAX {
            steps.violated(&between(port), 1);
        }
        let rows = steps.last(60).rows;
        assert_eq!(rows.len(), MAX_ROWS + 1);
        assert_eq!(rows.iter().map(|(_, n)| n).sum::<u64>(), 65_536);
    }
}
