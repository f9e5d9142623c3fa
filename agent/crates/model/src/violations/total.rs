//! A number of connections of an edge, and how many of them were counted as violations.

/// Connections so far.
#[derive(Default)]
pub(super) struct Total {
    /// By the last evaluation.
    pub(super) seen: u64,
    /// Counted as violations, or not to be held against it.
    counted: u64,
}

impl Total {
    /// Takes in what there is now. If the edge is another service's, what there was is not its own.
    pub(super) fn see(&mut self, all: u64, is_another: bool) {
        if is_another {
            self.counted = self.counted.max(self.seen);
        }
        self.seen = all;
    }

    /// What was not counted yet, and is now.
    pub(super) fn count(&mut self) -> u64 {
        let new = self.seen.saturating_sub(self.counted);
        self.counted = self.seen;
        new
    }
}
