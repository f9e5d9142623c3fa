//! A histogram that takes memory from its first observation on.

use std::ops::Deref;
use std::sync::Arc;

use crate::histogram::Histogram;

/// A histogram, or nothing as long as nothing was observed. Copies share it until one changes.
#[derive(Clone, Debug, Default)]
pub struct OnDemand(Option<Arc<Histogram>>);

// === impl OnDemand ===

impl OnDemand {
    /// Nothing observed.
    pub const EMPTY: Self = Self(None);

    /// What was observed by now; the very same as `before` if nothing came since.
    pub fn after(before: Option<&Self>, now: Option<&Histogram>) -> Self {
        let Some(now) = now.filter(|now| **now != Histogram::EMPTY) else { return Self::EMPTY };
        match before {
            Some(before @ Self(Some(same))) if **same == *now => before.clone(),
            _ => Self(Some(Arc::new(*now))),
        }
    }

    /// Counts one value.
    pub fn observe(&mut self, value_us: u64) {
        self.to_mut().observe(value_us);
    }

    /// Adds `other` to this histogram.
    pub fn merge(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (_, None) => {}
            (none @ None, some) => none.clone_from(some),
            (Some(_), Some(other)) => self.to_mut().merge(other),
        }
    }

    /// Takes `other` away again, which had been added to this histogram.
    pub fn separate(&mut self, other: &Self) {
        let Some(theirs) = &other.0 else { return };
        if self.0.as_ref().is_some_and(|mine| Arc::ptr_eq(mine, theirs)) {
            self.0 = None;
            return;
        }
        let mine = self.to_mut();
        mine.combine(theirs, u64::wrapping_sub);
        if *mine == Histogram::EMPTY {
            self.0 = None;
        }
    }

    /// Adds `n` to the sum (index 0) or to a bucket (the others); an index that no number has
    /// is ignored.
    pub(crate) fn add_at(&mut self, index: usize, n: u64) {
        let Histogram { sum_us, buckets } = self.to_mut();
        let number = match index.checked_sub(1) {
            None => Some(sum_us),
            Some(bucket) => buckets.get_mut(bucket),
        };
        if let Some(number) = number {
            *number = number.wrapping_add(n);
        }
    }

    fn to_mut(&mut self) -> &mut Histogram {
        Arc::make_mut(self.0.get_or_insert_with(|| Arc::new(Histogram::EMPTY)))
    }
}

impl Deref for OnDemand {
    type Target = Histogram;

    fn deref(&self) -> &Histogram {
        self.0.as_deref().unwrap_or(&Histogram::EMPTY)
    }
}

impl PartialEq for OnDemand {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(mine), Some(theirs)) => Arc::ptr_eq(mine, theirs) || mine == theirs,
            _ => **self == **other,
        }
    }
}

impl Eq for OnDemand {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> OnDemand {
        let mut all = OnDemand::EMPTY;
        for value in values {
            all.observe(*value);
        }
        all
    }

    #[test]
    fn what_has_not_changed_is_shared() {
        let before = of(&[7]);
        let after = OnDemand::after(Some(&before), Some(&before));
        assert!(Arc::ptr_eq(before.0.as_ref().expect("one"), after.0.as_ref().expect("one")));
        assert!(OnDemand::after(Some(&before), None).0.is_none());
        assert!(OnDemand::after(None, Some(&Histogram::EMPTY)).0.is_none());
        assert_eq!(OnDemand::after(Some(&before), Some(&of(&[7, 8]))), of(&[7, 8]));
    }

    proptest! {
        #[test]
        fn it_adds_and_takes_away_as_a_histogram_does(
            a in prop::collection::vec(0u64..1 << 40, 0..9), b in prop::collection::vec(0u64..1 << 40, 0..9)
        ) {
            let mut both = of(&a);
            both.merge(&of(&b));
            prop_assert_eq!(&both, &of(&[a.clone(), b.clone()].concat()));
            both.separate(&of(&b));
            prop_assert_eq!(&both, &of(&a));
            both.separate(&both.clone());
            prop_assert!(both.0.is_none());
        }
    }
}
