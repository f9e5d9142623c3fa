//! Connection requests that listeners really dropped.
//!
//! The kernel's drop counter of a listening socket (`sk_drops`) also counts packets that are no
//! lost request: a SYN that came again, the bare ACK of every connection under
//! `TCP_DEFER_ACCEPT`; and it counts an ACK that met a full queue twice. The namespace's counter
//! `ListenDrops` counts exactly the lost requests, but does not say whose. Together they answer it:
//! what a namespace counted is shared out among those of its listeners whose own counter moved.
//! With one such listener that is exact; with several their sum is.
//!
//! The namespace's counter is asked for, and the answer is younger than the question: it is only
//! compared to what listeners had counted by the question.

use std::cmp::Reverse;

use agent_common::listener::ListenerKey;
use hashbrown::{HashMap, HashSet};

use super::completed::{Grown, RowId};

/// What is known of a namespace's `ListenDrops`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// So many since the namespace was made.
    Total(u64),
    /// Ask again later.
    Later,
    /// It cannot be read: the listeners' own counters have to do.
    Never,
}

/// Requests that a listener dropped, besides those known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The listener's row.
    pub id: RowId,
    /// How many.
    pub drops: u64,
}

/// Both kinds of counters, reconciled.
#[derive(Default)]
pub struct ListenDrops {
    namespaces: HashMap<u32, Namespace>,
    shares: Vec<Share>,
}

#[derive(Default)]
struct Namespace {
    /// The owner of one of its listeners, through which it can be found.
    owner: u32,
    reconciled: Reconciled,
    /// What sockets dropped since the last question.
    moved: Vec<Share>,
    /// The same until the question that is under way.
    asked: Option<Vec<Share>>,
}

/// How much of a namespace's total is shared out or from before our time.
#[derive(Clone, Copy, Default)]
enum Reconciled {
    /// Not known yet.
    #[default]
    Unknown,
    /// So much.
    Total(u64),
    /// The total cannot be read.
    Never,
}

// === impl ListenDrops ===

impl ListenDrops {
    /// The namespaces that have listeners, each with the owner of one.
    pub fn set_namespaces(&mut self, present: impl Iterator<Item = (u32, u32)>) {
        let mut before = std::mem::take(&mut self.namespaces);
        for (netns, owner) in present {
            let known = self.namespaces.entry(netns);
            known.or_insert_with(|| before.remove(&netns).unwrap_or_default()).owner = owner;
        }
    }

    /// A listener's socket dropped something.
    pub fn count(&mut self, netns: u32, grown: &Grown<ListenerKey>) {
        let share = Share { id: grown.id, drops: grown.count };
        match self.namespaces.get_mut(&netns) {
            Some(namespace) if !grown.id.is_overflow() => match namespace.reconciled {
                Reconciled::Never => self.shares.push(share),
                _ => namespace.moved.push(share),
            },
            // It stands for listeners of many namespaces.
            _ => self.shares.push(share),
        }
    }

    /// Namespaces whose total is needed now, at most this many, each with the owner of a listener.
    /// Answers go to [`Self::answer`].
    pub fn questions(&mut self, most: usize) -> Vec<(u32, u32)> {
        let is_due = |(_, namespace): &(&u32, &mut Namespace)| {
            let is_unknown = matches!(namespace.reconciled, Reconciled::Unknown);
            let is_readable = !matches!(namespace.reconciled, Reconciled::Never);
            namespace.asked.is_none() && is_readable && (is_unknown || !namespace.moved.is_empty())
        };
        let due = self.namespaces.iter_mut().filter(is_due).take(most);
        due.map(|(netns, namespace)| {
            namespace.asked = Some(std::mem::take(&mut namespace.moved));
            (*netns, namespace.owner)
        })
        .collect()
    }

    /// What a namespace's total is.
    pub fn answer(&mut self, netns: u32, reading: Reading) {
        let Some(namespace) = self.namespaces.get_mut(&netns) else { return };
        let Some(mut asked) = namespace.asked.take() else { return };
        let mut left = match reading {
            Reading::Later => {
                asked.append(&mut namespace.moved);
                namespace.moved = asked;
                return;
            }
            Reading::Never => {
                namespace.reconciled = Reconciled::Never;
                asked.append(&mut namespace.moved);
                u64::MAX
            }
            Reading::Total(total) => {
                let moved: u64 = asked.iter().map(|share| share.drops).sum();
                let before = if let Reconciled::Total(reconciled) = namespace.reconciled {
                    reconciled
                } else {
                    // Of a namespace met for the first time what our listeners saw is ours, also
                    // what they saw since the question: most of it is in the answer.
                    let since: u64 = namespace.moved.iter().map(|share| share.drops).sum();
                    total.saturating_sub(moved.saturating_add(since))
                };
                let before = before.min(total);
                let left = total - before;
                namespace.reconciled = Reconciled::Total(before + moved.min(left));
                left
            }
        };
        // Who moved most first: with a queue that overflows, that is the one.
        asked.sort_by_key(|share| Reverse(share.drops));
        for Share { id, drops } in asked {
            let drops = drops.min(left);
            left -= drops;
            if drops > 0 {
                self.shares.push(Share { id, drops });
            }
        }
    }

    /// Rows whose drops are still to be shared out.
    pub fn waiting(&self) -> HashSet<RowId> {
        let namespaces = self.namespaces.values();
        let shares = namespaces
            .flat_map(|namespace| namespace.moved.iter().chain(namespace.asked.iter().flatten()));
        shares.map(|share| share.id).collect()
    }

    /// What was found out since the last time.
    pub fn take_shares(&mut self) -> Vec<Share> {
        std::mem::take(&mut self.shares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::drained::Row;
    use agent_common::listener::ListenerRow;
    use agent_common::wire::Wire as _;

    const NETNS: u32 = 1;

    fn id(slot: usize) -> RowId {
        let row = ListenerRow { born_us: 1, ..ListenerRow::zeroed() };
        RowId::of(&Row { slot: slot as u32, row })
    }

    /// The sockets of listeners dropped so much more.
    fn count(drops: &mut ListenDrops, more: &[u64]) {
        drops.set_namespaces([(NETNS, 0)].into_iter());
        for (slot, count) in more.iter().enumerate().filter(|(_, count)| **count > 0) {
            drops.count(NETNS, &Grown { id: id(slot), key: ListenerKey::zeroed(), count: *count });
        }
    }

    /// The shares of listeners, by slot.
    fn shares(drops: &mut ListenDrops) -> Vec<(usize, u64)> {
        let mut shares: Vec<_> = drops.take_shares();
        shares.sort_by_key(|share| share.id);
        let slot = |share: &Share| (0..9).find(|slot| id(*slot) == share.id).expect("one of ours");
        shares.iter().map(|share| (slot(share), share.drops)).collect()
    }

    /// The shares when listeners dropped so much more and the namespace's total is that.
    fn share(drops: &mut ListenDrops, more: &[u64], total: Reading) -> Vec<(usize, u64)> {
        count(drops, more);
        for (netns, _) in drops.questions(9) {
            drops.answer(netns, total);
        }
        shares(drops)
    }

    #[test]
    fn packets_that_were_no_lost_request_do_not_count() {
        let mut drops = ListenDrops::default();
        assert_eq!(share(&mut drops, &[0], Reading::Total(100)), []);
        // A thousand bare ACKs of deferred connections.
        assert_eq!(share(&mut drops, &[1000], Reading::Total(100)), []);
        // Three ACKs that met a full queue: two each of the listener's, one of the namespace's.
        assert_eq!(share(&mut drops, &[6], Reading::Total(103)), [(0, 3)]);
        assert_eq!(share(&mut drops, &[0], Reading::Later), []);
    }

    #[test]
    fn listeners_share_what_their_namespace_lost() {
        let mut drops = ListenDrops::default();
        assert_eq!(share(&mut drops, &[0, 0], Reading::Total(0)), []);
        assert_eq!(share(&mut drops, &[2, 5], Reading::Total(6)), [(0, 1), (1, 5)]);
    }

    #[test]
    fn a_total_that_cannot_be_read_yet_is_waited_for() {
        let mut drops = ListenDrops::default();
        assert_eq!(share(&mut drops, &[0], Reading::Total(0)), []);
        assert_eq!(share(&mut drops, &[4], Reading::Later), []);
        assert_eq!(share(&mut drops, &[1], Reading::Total(5)), [(0, 4), (0, 1)]);
    }

    #[test]
    fn without_a_total_the_listeners_own_count_has_to_do() {
        let mut drops = ListenDrops::default();
        assert_eq!(share(&mut drops, &[4], Reading::Never), [(0, 4)]);
        assert_eq!(share(&mut drops, &[3], Reading::Total(0)), [(0, 3)]);
        assert_eq!(drops.questions(9), [], "nobody is asked any more");
    }

    #[test]
    fn a_drop_that_the_iteration_came_too_early_for_is_shared_out_later() {
        let mut drops = ListenDrops::default();
        assert_eq!(share(&mut drops, &[0], Reading::Total(0)), []);
        // The total was read a moment later and has two more.
        assert_eq!(share(&mut drops, &[1], Reading::Total(3)), [(0, 1)]);
        assert_eq!(share(&mut drops, &[2], Reading::Total(3)), [(0, 2)]);
    }

    #[test]
    fn what_moves_after_the_question_is_not_held_against_its_answer() {
        let mut drops = ListenDrops::default();
        assert_eq!(share(&mut drops, &[0], Reading::Total(0)), []);
        count(&mut drops, &[2]);
        assert_eq!(drops.questions(9), [(NETNS, 0)]);
        count(&mut drops, &[5]);
        assert_eq!(drops.questions(9), [], "one is under way");
        drops.answer(NETNS, Reading::Total(2));
        assert_eq!(shares(&mut drops), [(0, 2)]);
        assert_eq!(share(&mut drops, &[0], Reading::Total(6)), [(0, 4)]);
    }

    #[test]
    fn a_namespace_that_drops_from_its_first_moment_on_loses_none() {
        let mut drops = ListenDrops::default();
        count(&mut drops, &[9]);
        assert_eq!(drops.questions(9), [(NETNS, 0)]);
        count(&mut drops, &[17]);
        drops.answer(NETNS, Reading::Total(26));
        assert_eq!(shares(&mut drops), [(0, 9)]);
        assert_eq!(share(&mut drops, &[0], Reading::Total(26)), [(0, 17)]);
        // What was counted before the first listener was seen has no owner.
        let mut late = ListenDrops::default();
        assert_eq!(share(&mut late, &[3], Reading::Total(50)), [(0, 3)]);
        assert_eq!(share(&mut late, &[9], Reading::Total(51)), [(0, 1)]);
    }

    #[test]
    fn the_row_of_all_others_counts_as_its_sockets_do() {
        let mut drops = ListenDrops::default();
        let overflow = RowId::of(&Row { slot: 0, row: ListenerRow::zeroed() });
        drops.count(NETNS, &Grown { id: overflow, key: ListenerKey::zeroed(), count: 3 });
        assert_eq!(drops.take_shares(), [Share { id: overflow, drops: 3 }]);
    }
}
