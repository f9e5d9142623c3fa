//! Rows of edges: one for each set of names, with everything counted under them.
//!
//! A row never goes back while it exists: it is a counter. What happens when an edge gets another
//! name is [`attributed`](super::attributed)'s law; an edge knows what it has counted in its row, so
//! of several that leave a row each takes its own along, and open connections always go along. A
//! row whose only edge has counted all of it shares the edge's counters.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use agent_common::counters::EdgeCounters;

use super::attributed::{Attributed, Counted, Counts, Name, Share};
use super::delta::{Delta, EdgeId, Growth};
use super::snapshot::{EdgeLabels, EdgeView};

/// Rows without an edge, at most; beyond it their counts go to the row `other`.
pub const MAX_ABANDONED: usize = 1024;

/// All rows.
pub struct Rows(Attributed<RowName, Total>);

/// Labels, of which only the names distinguish rows ([`EdgeLabels::names`]).
#[derive(Clone, Debug)]
struct RowName(Arc<EdgeLabels>);

/// What a row shows.
#[derive(Default)]
struct Total {
    /// Labels of the edge whose names were found in the surest way.
    labels: Option<Arc<EdgeLabels>>,
    counters: Option<Arc<EdgeCounters>>,
}

// === impl Rows ===

impl Rows {
    /// Takes in a drain at `now` (seconds, any epoch that only grows).
    pub fn update<'a>(
        &mut self,
        now: u64,
        closed: &[EdgeId],
        deltas: impl IntoIterator<Item = &'a Delta>,
    ) {
        let counted = deltas.into_iter().map(|delta| Counted {
            edge: delta.id,
            name: RowName(Arc::clone(&delta.labels)),
            is_another: delta.is_another(),
            growth: (Arc::clone(&delta.labels), delta.grown.clone()),
        });
        self.0.update(now, closed, counted);
    }

    /// Rows in which something was counted, sorted by their labels.
    pub fn view(&self) -> Vec<EdgeView> {
        let mut views = Vec::with_capacity(self.0.len());
        for (name, Total { labels, counters }) in self.0.iter() {
            let counters = counters.as_ref().filter(|all| ***all != EdgeCounters::ZERO);
            if let Some(counters) = counters {
                let labels = Arc::clone(labels.as_ref().unwrap_or(&name.0));
                views.push(EdgeView { labels, counters: Arc::clone(counters), queues: None });
            }
        }
        views.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        views
    }
}

impl Default for Rows {
    fn default() -> Self {
        // As many rows as edges, which the kernel's table bounds, and some whose edges have ended.
        Self(Attributed::new(usize::MAX, MAX_ABANDONED))
    }
}

// === impl RowName ===

impl PartialEq for RowName {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.names() == other.0.names()
    }
}

impl Eq for RowName {}

impl Hash for RowName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.names().hash(state);
    }
}

impl Name for RowName {
    fn other(&self) -> Self {
        let EdgeLabels { role, unverified_user, .. } = *self.0;
        Self(Arc::new(EdgeLabels { unverified_user, ..EdgeLabels::other(role) }))
    }
}

// === impl Total ===

impl Counts for Total {
    type Growth = (Arc<EdgeLabels>, Growth);
    type Left = Option<Box<EdgeCounters>>;

    fn grow(&mut self, (labels, growth): Self::Growth) {
        let is_surer = |shown: &EdgeLabels| {
            let found = |labels: &EdgeLabels| (labels.client.source, labels.server.source);
            found(&labels) <= found(shown)
        };
        if self.labels.as_deref().is_none_or(is_surer) {
            self.labels = Some(labels);
        }
        let difference = || growth.difference();
        match (&mut self.counters, &growth.before, &growth.now) {
            _ if growth.is_empty() => {}
            (None, None, Some(now)) => self.counters = Some(Arc::clone(now)),
            (Some(total), Some(before), Some(now)) if Arc::ptr_eq(total, before) => {
                *total = Arc::clone(now);
            }
            (None, ..) => self.counters = Some(Arc::new(difference())),
            (Some(total), ..) => Arc::make_mut(total).merge(&difference()),
        }
    }

    fn merge(&mut self, other: Self) {
        match (&mut self.counters, other.counters) {
            (Some(total), Some(other)) => Arc::make_mut(total).merge(&other),
            (none, other) => *none = none.take().or(other),
        }
    }

    fn split(
        &mut self,
        (_, growth): &Self::Growth,
        left: &mut Self::Left,
        share: Share,
    ) -> Option<Self> {
        // What it counted under whichever names, without what it has left elsewhere.
        let mut own = EdgeCounters::clone(growth.before.as_ref()?);
        if let Some(left) = left {
            own.separate(left);
        }
        let mut along = own.clone();
        if share == Share::Open {
            // An end whose beginning was not seen yet goes along, too: the kernel goes on counting
            // while it is read, and the beginning belongs to what comes.
            let whole = own.opened.min(own.closed);
            along = EdgeCounters {
                opened: own.opened - whole,
                closed: own.closed - whole,
                ..EdgeCounters::ZERO
            };
            own.separate(&along);
            left.get_or_insert_with(|| Box::new(EdgeCounters::ZERO)).merge(&own);
        }
        if along == EdgeCounters::ZERO {
            return None;
        }
        if let Some(total) = &mut self.counters {
            Arc::make_mut(total).separate(&along);
        }
        Some(Self { labels: None, counters: Some(Arc::new(along)) })
    }
}
