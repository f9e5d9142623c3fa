//! The account: exported events of every class, for the comparison with seen and lost events of the
//! kernel half.

use agent_common::ledger::{BIND, CLASSES, CONNECTION, DNS_ANSWER, EVENT, Ledger, OWNER, SOCKET};

/// Classes that are not exported through the table of edges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elsewhere {
    /// Owners taken in.
    pub owners: u64,
    /// Attempts to connect that are in the tables without a result yet.
    pub waiting_connects: u64,
    /// Details of rare events read from the ring.
    pub events: u64,
    /// Failed binds found in their rows.
    pub binds: u64,
    /// DNS answers read from their ring.
    pub dns_answers: u64,
}

/// Exports of an earlier agent.
#[derive(Debug, Default)]
pub(super) struct Account {
    before: Option<[u64; CLASSES]>,
}

impl Account {
    /// Completes the exports of the tables. After the adoption of pinned maps (`adopted`) the
    /// ledger goes back further than this process: the earlier exports are what was seen and not
    /// lost by then.
    pub(super) fn exported(
        &mut self,
        tables: [u64; CLASSES],
        elsewhere: Elsewhere,
        ledger: &Ledger,
        adopted: bool,
    ) -> [u64; CLASSES] {
        let kept =
            |class: usize| ledger.seen[class].saturating_sub(ledger.lost[class].iter().sum());
        let mut exported = tables;
        exported[OWNER] = elsewhere.owners;
        exported[EVENT] = elsewhere.events;
        exported[BIND] = elsewhere.binds;
        exported[DNS_ANSWER] = elsewhere.dns_answers;
        let before = self.before.get_or_insert_with(|| {
            // Events in the tables without a result yet will be exported by this agent.
            let mut ours = exported;
            ours[CONNECTION] += elsewhere.waiting_connects;
            let missing = |class: usize| {
                if adopted { kept(class).saturating_sub(ours[class]) } else { 0 }
            };
            std::array::from_fn(missing)
        });
        for (exported, before) in exported.iter_mut().zip(before) {
            *exported += *before;
        }
        // Storage has no table to count; it exists or is lost.
        exported[SOCKET] = kept(SOCKET);
        exported
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::wire::Wire as _;

    #[test]
    fn what_an_earlier_agent_exported_is_counted_once() {
        let mut ledger = Ledger::zeroed();
        ledger.seen[BIND] = 10;
        ledger.lost[BIND][0] = 2;
        ledger.seen[SOCKET] = 5;
        let elsewhere =
            |binds| Elsewhere { owners: 0, waiting_connects: 0, events: 0, binds, dns_answers: 0 };
        let mut fresh = Account::default();
        let exported = fresh.exported([0; CLASSES], elsewhere(8), &ledger, false);
        assert_eq!((exported[BIND], exported[SOCKET]), (8, 5));
        let mut adopted = Account::default();
        // Three of the eight are still in the rows; five left with the earlier agent.
        let exported = adopted.exported([0; CLASSES], elsewhere(3), &ledger, true);
        assert_eq!(exported[BIND], 8);
        ledger.seen[BIND] += 1;
        let exported = adopted.exported([0; CLASSES], elsewhere(4), &ledger, true);
        assert_eq!(exported[BIND], 9);
    }
}
