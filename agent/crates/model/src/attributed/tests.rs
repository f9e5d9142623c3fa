//! Names and counts under random histories, beside a simple model of the law.

use super::*;
use proptest::prelude::*;

/// A count whose edges know their own part while it is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count(u64);

/// The growth of an edge, and its earlier count if known.
#[derive(Clone, Copy)]
struct More {
    n: u64,
    before: Option<u64>,
}

impl Counts for Count {
    type Growth = More;
    type Left = u64;

    fn grow(&mut self, more: More) {
        self.0 += more.n;
    }

    fn merge(&mut self, other: Self) {
        self.0 += other.0;
    }

    fn split(&mut self, more: &More, left: &mut u64, share: Share) -> Option<Self> {
        let own = more.before? - *left;
        if share == Share::Open {
            *left += own;
            return None;
        }
        self.0 -= own;
        Some(Self(own))
    }
}

impl Name for &'static str {
    fn other(&self) -> Self {
        "other"
    }
}

/// A name, or the one of the overflow row.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Numbered(Option<u32>);

impl Name for Numbered {
    fn other(&self) -> Self {
        Self(None)
    }
}

type Table = Attributed<&'static str, Count>;

fn counted(edge: u32, name: &'static str, n: u64) -> Counted<&'static str, More> {
    let growth = More { n, before: None };
    Counted { edge: EdgeId(edge), name, is_another: false, growth }
}

fn another(edge: u32, name: &'static str, n: u64) -> Counted<&'static str, More> {
    Counted { is_another: true, ..counted(edge, name, n) }
}

/// The same for an edge with a known count.
fn known(edge: u32, name: &'static str, before: u64) -> Counted<&'static str, More> {
    let growth = More { n: 0, before: Some(before) };
    Counted { growth, ..counted(edge, name, 0) }
}

fn rows(table: &Table) -> Vec<(&'static str, u64)> {
    let mut rows: Vec<_> = table.iter().map(|(name, value)| (*name, value.0)).collect();
    rows.sort_unstable();
    rows
}

/// The input of a collection, and the expected rows.
type Drain<'a> = (&'a [Counted<&'static str, More>], &'a [(&'static str, u64)]);

/// Takes in drains a second apart.
fn check(drains: &[Drain<'_>]) {
    let mut table = Table::new(8, 8);
    for (now, (counted, expected)) in drains.iter().enumerate() {
        table.update(now as u64, &[], counted.iter().cloned());
        assert_eq!(rows(&table), *expected, "at {now}");
    }
}

#[test]
fn a_late_name_takes_the_whole_row_along() {
    check(&[
        (&[counted(1, "10.0.0.1", 5)], &[("10.0.0.1", 5)]),
        (&[counted(1, "shop", 2)], &[("shop", 7)]),
    ]);
}

#[test]
fn a_row_that_others_still_have_does_not_go_back() {
    check(&[
        (&[counted(1, "a", 5), counted(2, "a", 3)], &[("a", 8)]),
        (&[counted(1, "b", 1)], &[("a", 8), ("b", 1)]),
        // The last edge takes the rest.
        (&[counted(2, "b", 0)], &[("b", 9)]),
    ]);
}

#[test]
fn of_several_that_leave_a_row_at_once_each_takes_its_own_along_if_it_knows() {
    let first = [counted(1, "a", 5), counted(2, "a", 3), counted(3, "a", 1)];
    let know = [known(1, "b", 5), known(2, "c", 3), known(3, "c", 1)];
    check(&[(&first, &[("a", 9)]), (&know, &[("b", 5), ("c", 4)])]);
    let do_not = [counted(1, "b", 0), counted(2, "c", 0), counted(3, "c", 0)];
    check(&[(&first, &[("a", 9)]), (&do_not, &[("b", 0), ("c", 9)])]);
    // A new edge still has the name.
    let stays = [counted(4, "a", 2), known(1, "b", 5), known(2, "c", 3), known(3, "c", 1)];
    check(&[(&first, &[("a", 9)]), (&stays, &[("a", 11), ("b", 0), ("c", 0)])]);
}

#[test]
fn another_service_takes_nothing_along() {
    let mut table = Table::new(8, 8);
    table.update(0, &[], [counted(1, "a", 5), counted(2, "a", 1)]);
    table.update(0, &[], [another(1, "b", 0), another(2, "b", 0)]);
    assert_eq!(rows(&table), [("a", 6), ("b", 0)]);
    table.update(IDLE_SECONDS - 1, &[], []);
    assert_eq!(rows(&table).len(), 2);
    table.update(IDLE_SECONDS, &[], []);
    assert_eq!(rows(&table), [("b", 0)]);
}

#[test]
fn a_row_ends_with_its_last_edge() {
    let mut table = Table::new(8, 8);
    assert!(table.update(0, &[], [counted(1, "a", 5), counted(2, "a", 3)]));
    assert!(table.update(1, &[EdgeId(1)], []));
    assert_eq!(rows(&table), [("a", 8)]);
    // The slot is reused.
    assert!(table.update(2, &[EdgeId(2)], [counted(2, "b", 1)]));
    assert_eq!(rows(&table), [("a", 8), ("b", 1)]);
    assert!(!table.update(1 + ENDED_SECONDS, &[], []));
    assert!(table.update(2 + ENDED_SECONDS, &[], []));
    assert_eq!(rows(&table), [("b", 1)]);
    assert!(!table.update(3 + ENDED_SECONDS, &[], [counted(2, "b", 1)]));
}

#[test]
fn a_row_whose_edge_comes_back_soon_goes_on() {
    let mut table = Table::new(8, 8);
    table.update(0, &[], [counted(1, "a", 5)]);
    table.update(1, &[EdgeId(1)], []);
    table.update(2, &[], [counted(7, "a", 1)]);
    table.update(2 + 2 * ENDED_SECONDS, &[], []);
    assert_eq!(rows(&table), [("a", 6)]);
    // Also in the very collection in which it would have ended.
    table.update(100, &[EdgeId(7)], []);
    table.update(100 + ENDED_SECONDS, &[], [counted(2, "a", 1)]);
    assert_eq!(rows(&table), [("a", 7)]);
}

#[test]
fn a_full_table_has_no_room_for_rows_without_an_edge() {
    let mut table = Table::new(3, 3);
    table.update(0, &[], [counted(1, "a", 5), counted(2, "b", 3), counted(3, "c", 1)]);
    table.update(1, &[EdgeId(1)], [counted(4, "d", 2)]);
    assert_eq!(rows(&table), [("b", 3), ("c", 1), ("d", 2)]);
    let mut table = Table::new(3, 3);
    table.update(0, &[], [counted(1, "a", 5), counted(2, "b", 3)]);
    table.update(1, &[EdgeId(1)], [counted(3, "c", 1)]);
    table.update(2, &[], [counted(4, "d", 2)]);
    assert_eq!(rows(&table), [("b", 3), ("c", 1), ("d", 2)]);
    assert_eq!(table.folded(), 0);
}

#[test]
fn beyond_the_cap_the_counts_of_rows_without_an_edge_are_kept_in_other() {
    let mut table = Attributed::<Numbered, Count>::new(usize::MAX, 8);
    let one = |edge: u32| {
        let growth = More { n: 1, before: None };
        let name = Numbered(Some(edge));
        Counted { edge: EdgeId(edge), name, is_another: false, growth }
    };
    let count = MAX_ENDED as u32 + 10;
    table.update(0, &[], (0..count).map(one));
    let closed: Vec<_> = (0..count).map(EdgeId).collect();
    table.update(1, &closed, []);
    let other = table.iter().find(|(name, _)| name.0.is_none()).map(|(_, value)| value.0);
    assert_eq!((table.len(), other), (MAX_ENDED + 1, Some(10)));
}

#[test]
fn a_full_table_keeps_totals_exact() {
    let mut table = Table::new(2, 2);
    let five = [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "a")];
    table.update(0, &[], five.map(|(edge, name)| counted(edge, name, 10)));
    assert_eq!(rows(&table), [("a", 20), ("b", 10), ("other", 20)]);
    assert_eq!(table.folded(), 2);
    // A repeated request that was not granted does not count again.
    table.update(1, &[], [counted(3, "c", 1)]);
    assert_eq!((rows(&table)[2], table.folded()), (("other", 21), 2));
}

#[test]
fn rows_without_an_edge_are_bounded() {
    let mut table = Table::new(8, 1);
    table.update(0, &[], [counted(1, "a", 5)]);
    for name in ["b", "c", "d"] {
        table.update(0, &[], [another(1, name, 1)]);
    }
    assert_eq!(rows(&table), [("a", 5), ("d", 1), ("other", 2)]);
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// An edge in a collection: its slot, name and count, whether it is another service, and
/// whether it is gone and its slot reused.
type Step = (u32, usize, u64, bool, bool);

proptest! {
    /// However edges are created, renamed, freed and their slots reused, many at a time: only
    /// the counts of rows whose last edge went are lost, nothing counts twice, and no row
    /// decreases while it exists.
    #[test]
    fn totals_are_conserved_and_rows_only_grow(
        drains in prop::collection::vec(
            (prop::collection::vec((0u32..6, 0usize..5, 0u64..9, any::<bool>(), any::<bool>()), 0..5),
             prop_oneof![Just(1), Just(IDLE_SECONDS)]),
            1..40,
        ),
        (capacity, max_abandoned) in (2usize..6, 0usize..4),
        know in any::<bool>(),
    ) {
        let mut table = Table::new(capacity, max_abandoned);
        let mut totals: HashMap<u32, u64> = HashMap::new();
        let (mut now, mut expected) = (0, 0);
        for (drain, wait) in drains {
            now += wait;
            let mut drain: Vec<Step> = drain;
            drain.sort_unstable_by_key(|step| step.0);
            drain.dedup_by_key(|step| step.0);
            let closed: Vec<_> = drain.iter().filter(|step| step.4).map(|step| EdgeId(step.0)).collect();
            // Rows that end with their last edge or an hour after it, before anything else
            // happens.
            let before = rows(&table);
            table.update(now, &closed, []);
            let after = rows(&table);
            for (name, n) in &before {
                match after.iter().find(|(other, _)| other == name) {
                    Some((_, now)) => prop_assert_eq!(now, n),
                    None => expected -= n,
                }
            }
            for edge in &closed {
                totals.remove(&edge.0);
            }
            let counted = drain.iter().map(|(edge, name, n, is_another, _)| {
                let total = totals.entry(*edge).or_default();
                let growth = More { n: *n, before: know.then_some(*total) };
                (*total, expected) = (*total + n, expected + n);
                Counted { edge: EdgeId(*edge), name: NAMES[*name], is_another: *is_another, growth }
            });
            table.update(now, &[], counted.collect::<Vec<_>>());
            let later = rows(&table);
            prop_assert_eq!(later.iter().map(|(_, n)| n).sum::<u64>(), expected);
            for (name, n) in &after {
                let still = later.iter().find(|(other, _)| other == name);
                prop_assert!(still.is_none_or(|(_, now)| now >= n), "{} went back", name);
            }
            prop_assert!(table.len() <= capacity + 1);
        }
    }
}
