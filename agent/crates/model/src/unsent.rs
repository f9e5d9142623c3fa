//! Attempts to connect that the kernel refused before a SYN could leave.
//!
//! The kernel half counts them and cannot know why: the errno is nowhere but in the answer of the
//! system call. So user space asks the kernel, soon after, whether it would refuse the same again,
//! and what was counted in between goes to that result.

use std::collections::BTreeMap;

use agent_common::edge::CONNECT_OTHER;
use agent_common::unsent::UnsentKey;

use super::completed::{Grown, RowId};

/// Kinds of attempts asked about at one time; the others are asked about the next time.
const MOST_QUESTIONS: usize = 64;

/// Attempts without a result.
#[derive(Default)]
pub struct Unsent {
    waiting: BTreeMap<RowId, Waiting>,
}

struct Waiting {
    key: UnsentKey,
    count: u64,
}

/// Attempts that have a result now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Their row.
    pub id: RowId,
    /// `CONNECT_*`.
    pub result: u8,
    /// How many.
    pub count: u64,
}

// === impl Unsent ===

impl Unsent {
    /// Attempts were refused.
    pub fn count(&mut self, grown: &Grown<UnsentKey>) {
        let Grown { id, key, count } = *grown;
        self.waiting.entry(id).or_insert(Waiting { key, count: 0 }).count += count;
    }

    /// Attempts whose result is known now. `result` says as what a connection would end now; what it
    /// does not know yet it is asked again the next time.
    pub fn ended(&mut self, mut result: impl FnMut(RowId, &UnsentKey) -> Option<u8>) -> Vec<Ended> {
        let (mut ended, mut questions) = (Vec::new(), 0);
        self.waiting.retain(|id, Waiting { key, count }| {
            // The overflow row does not say where to.
            let result = if id.is_overflow() {
                Some(CONNECT_OTHER)
            } else if questions < MOST_QUESTIONS {
                questions += 1;
                result(*id, key)
            } else {
                None
            };
            ended.extend(result.map(|result| Ended { id: *id, result, count: *count }));
            result.is_none()
        });
        ended
    }

    /// Whether attempts of this row have no result yet.
    pub fn is_waiting(&self, id: RowId) -> bool {
        self.waiting.contains_key(&id)
    }

    /// How many have no result yet.
    pub fn waiting(&self) -> u64 {
        self.waiting.values().map(|waiting| waiting.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::drained::Row;
    use agent_common::edge::{CONNECT_DENIED, CONNECT_UNREACHABLE};
    use agent_common::unsent::UnsentRow;
    use agent_common::wire::Wire as _;

    fn grown(slot: u32, born_us: u64, count: u64) -> Grown<UnsentKey> {
        let row = UnsentRow { born_us, ..UnsentRow::zeroed() };
        Grown { id: RowId::of(&Row { slot, row }), key: row.key, count }
    }

    #[test]
    fn what_was_refused_goes_to_the_result_of_its_time() {
        let mut unsent = Unsent::default();
        let mut check = |more: &[Grown<UnsentKey>], result: Option<u8>, expected: &[Ended]| {
            for grown in more {
                unsent.count(grown);
            }
            assert_eq!(unsent.ended(|_, _| result), expected);
            unsent.waiting()
        };
        let id = grown(9, 5, 0).id;
        let ended = |id, result, count| Ended { id, result, count };
        check(&[], Some(CONNECT_DENIED), &[]);
        let first = [ended(id, CONNECT_UNREACHABLE, 4)];
        assert_eq!(check(&[grown(9, 5, 4)], Some(CONNECT_UNREACHABLE), &first), 0);
        // An answer that is late takes what came in between along.
        assert_eq!(check(&[grown(9, 5, 2)], None, &[]), 2);
        let late = [ended(id, CONNECT_DENIED, 3)];
        assert_eq!(check(&[grown(9, 5, 1)], Some(CONNECT_DENIED), &late), 0);
        // The slot is another edge's now.
        let other = grown(9, 7, 1);
        check(&[other], Some(CONNECT_DENIED), &[ended(other.id, CONNECT_DENIED, 1)]);
    }

    #[test]
    fn the_row_of_all_others_needs_no_question_and_too_many_wait() {
        let mut unsent = Unsent::default();
        unsent.count(&grown(0, 0, 5));
        let rows = MOST_QUESTIONS as u32 + 3;
        (0..rows).for_each(|i| unsent.count(&grown(10 + i, 1, 1)));
        let mut asked = 0;
        let mut ended = |unsent: &mut Unsent| -> u64 {
            let ended = unsent.ended(|_, _| {
                asked += 1;
                Some(CONNECT_UNREACHABLE)
            });
            ended.iter().map(|ended| ended.count).sum()
        };
        assert_eq!(ended(&mut unsent), 5 + MOST_QUESTIONS as u64);
        assert_eq!(unsent.waiting(), 3);
        assert_eq!(ended(&mut unsent), 3, "none is lost, none counts twice");
        assert_eq!(asked, rows);
    }
}
