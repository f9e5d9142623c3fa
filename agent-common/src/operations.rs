//! Operations of an edge, as user space has them: how they ended, and how long they took. Few edges have
//! any, so they take memory from the first one on.

use std::sync::Arc;

use crate::histogram::{BUCKETS, Histogram};
use crate::on_demand::OnDemand;
use crate::protocol::http1::detect::METHODS;
use crate::protocol::http1::{CLASS_NAMES, METHOD_NAMES, NUMBERS, UNANSWERED, method_of, number};

/// Protocol label of all of them.
pub const PROTOCOL: &str = "http";

/// Operations, or nothing as long as there was none. Copies share them until one changes.
#[derive(Clone, Debug, Default)]
pub struct Operations(Option<Arc<Counted>>);

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// How they ended: numbers of [`crate::protocol::http1`].
    pub ended: [u64; NUMBERS],
    /// How long those took that were answered, by method.
    pub durations: [OnDemand; METHODS],
}

static NONE: Counted = Counted::ZERO;

// === impl Counted ===

impl Counted {
    /// Nothing.
    pub const ZERO: Self = Self { ended: [0; NUMBERS], durations: [OnDemand::EMPTY; METHODS] };
}

// === impl Operations ===

impl Operations {
    /// None.
    pub const EMPTY: Self = Self(None);

    /// What was counted by now; the very same as `before` if nothing came since.
    pub fn after(before: &Self, ended: &[u64], durations: &[Option<Histogram>; METHODS]) -> Self {
        let mut now = Counted::ZERO;
        now.ended.iter_mut().zip(ended).for_each(|(number, ended)| *number = *ended);
        if now.ended.iter().all(|number| *number == 0) {
            return Self::EMPTY;
        }
        let earlier = &before.counted().durations;
        for (duration, (earlier, now)) in
            now.durations.iter_mut().zip(earlier.iter().zip(durations))
        {
            *duration = OnDemand::after(Some(earlier), now.as_ref());
        }
        if *before.counted() == now { before.clone() } else { Self(Some(Arc::new(now))) }
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How often each method ended with each class of status, as labels; combinations that never occurred
    /// are left out.
    pub fn answered(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let ended = self.counted().ended;
        let methods = METHOD_NAMES.iter().enumerate();
        methods.flat_map(move |(method, name)| {
            CLASS_NAMES.iter().zip(1..).filter_map(move |(class_name, class)| {
                let at = number(method as u32, class) as usize;
                let count = ended.get(at).copied().unwrap_or_default();
                (count > 0).then_some((*name, *class_name, count))
            })
        })
    }

    /// How many got no response before their connection ended.
    pub fn unanswered(&self) -> u64 {
        self.counted().ended[UNANSWERED as usize]
    }

    /// How long those of each method took that were answered; methods without any are left out.
    pub fn durations(&self) -> impl Iterator<Item = (&'static str, &OnDemand)> {
        let durations = METHOD_NAMES.iter().zip(&self.counted().durations);
        durations.filter(|(_, durations)| durations.count() > 0).map(|(name, one)| (*name, one))
    }

    /// How many have ended.
    pub fn total(&self) -> u64 {
        self.counted().ended.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// Counts one that was answered, for tests and examples.
    pub fn observe(&mut self, method: u32, class: u32, elapsed_us: u64) {
        let number = number(method, class);
        let counted = self.to_mut();
        if let Some(count) = counted.ended.get_mut(number as usize) {
            *count += 1;
        }
        if let Some(durations) = counted.durations.get_mut(method_of(number) as usize) {
            durations.observe(elapsed_us);
        }
    }

    /// Counts one that was not answered, for tests and examples.
    pub fn observe_unanswered(&mut self) {
        self.to_mut().ended[UNANSWERED as usize] += 1;
    }

    /// Adds `other` to these.
    pub fn merge(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (_, None) => {}
            (none @ None, some) => none.clone_from(some),
            (Some(_), Some(_)) => self.combine(other, u64::wrapping_add, OnDemand::merge),
        }
    }

    /// Takes `other` away again, which had been added to these.
    pub fn separate(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        self.combine(other, u64::wrapping_sub, OnDemand::separate);
        if *self.counted() == NONE {
            self.0 = None;
        }
    }

    /// All numbers in a fixed order: none, or always as many.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &[u64]> {
        self.0.iter().flat_map(|counted| {
            let durations = counted.durations.iter().flat_map(|durations| {
                [std::slice::from_ref(&durations.sum_us), &durations.buckets[..]]
            });
            std::iter::once(&counted.ended[..]).chain(durations)
        })
    }

    /// Adds `n` to the number with this index in the order of [`Self::lists`]; an index that no number has
    /// is ignored.
    pub(crate) fn add_at(&mut self, index: usize, n: u64) {
        let Some(behind) = index.checked_sub(NUMBERS) else {
            if let Some(number) = self.to_mut().ended.get_mut(index) {
                *number = number.wrapping_add(n);
            }
            return;
        };
        if behind / (BUCKETS + 1) < METHODS
            && let Some(durations) = self.to_mut().durations.get_mut(behind / (BUCKETS + 1))
        {
            durations.add_at(behind % (BUCKETS + 1), n);
        }
    }

    fn combine(
        &mut self,
        other: &Self,
        with: fn(u64, u64) -> u64,
        durations: fn(&mut OnDemand, &OnDemand),
    ) {
        let (mine, theirs) = (self.to_mut(), other.counted());
        for (mine, theirs) in mine.ended.iter_mut().zip(theirs.ended) {
            *mine = with(*mine, theirs);
        }
        for (mine, theirs) in mine.durations.iter_mut().zip(&theirs.durations) {
            durations(mine, theirs);
        }
    }

    fn counted(&self) -> &Counted {
        self.0.as_deref().unwrap_or(&NONE)
    }

    fn to_mut(&mut self) -> &mut Counted {
        Arc::make_mut(self.0.get_or_insert_with(|| Arc::new(Counted::ZERO)))
    }
}

impl PartialEq for Operations {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(mine), Some(theirs)) => Arc::ptr_eq(mine, theirs) || mine == theirs,
            _ => self.counted() == other.counted(),
        }
    }
}

impl Eq for Operations {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(list: &[(u32, u32, u64)]) -> Operations {
        let mut all = Operations::EMPTY;
        for (method, class, elapsed_us) in list {
            all.observe(*method, *class, *elapsed_us);
        }
        all
    }

    #[test]
    fn what_has_not_changed_is_shared_and_labels_are_those_of_what_occurred() {
        let mut before = of(&[(0, 2, 7), (2, 5, 9), (2, 5, 9)]);
        before.observe_unanswered();
        let mut durations = [None; METHODS];
        durations[0] = Some(**before.durations().next().expect("one").1);
        durations[2] = Some(**before.durations().nth(1).expect("two").1);
        let after = Operations::after(&before, &before.counted().ended, &durations);
        assert!(Arc::ptr_eq(before.0.as_ref().expect("some"), after.0.as_ref().expect("some")));
        let answered: Vec<_> = after.answered().collect();
        assert_eq!(answered, [("GET", "2xx", 1), ("POST", "5xx", 2)]);
        assert_eq!((after.unanswered(), after.total()), (1, 4));
        assert!(Operations::after(&before, &[0; NUMBERS], &[None; METHODS]).is_empty());
    }

    proptest! {
        #[test]
        fn they_add_take_away_and_are_rebuilt_number_by_number(
            a in prop::collection::vec((0u32..10, 1u32..6, 0u64..1 << 30), 0..9),
            b in prop::collection::vec((0u32..10, 1u32..6, 0u64..1 << 30), 0..9)
        ) {
            let mut both = of(&a);
            both.merge(&of(&b));
            prop_assert_eq!(&both, &of(&[a.clone(), b.clone()].concat()));
            let mut rebuilt = Operations::EMPTY;
            for (index, number) in both.lists().flatten().enumerate().filter(|(_, number)| **number != 0) {
                rebuilt.add_at(index, *number);
            }
            rebuilt.add_at(usize::from(u16::MAX), 1);
            prop_assert_eq!(&rebuilt, &both);
            both.separate(&of(&b));
            prop_assert_eq!(&both, &of(&a));
            both.separate(&both.clone());
            prop_assert!(both.is_empty());
        }
    }
}
