//! Attempts to connect that the kernel refused before a SYN could leave.
//!
//! The kernel half counts them and cannot tell why: the errno is nowhere but in the answer of the
//! system call. So somebody asks the kernel, soon after, whether it would refuse the same again,
//! and what was counted in between goes to that result.

use std::sync::Arc;

use agent_common::edge::{CONNECT_OTHER, CONNECT_RESULTS};
use hashbrown::HashMap;

use super::delta::DrainedId;
use agent_common::drained::Edge;

/// Edges asked about at one time; the others are asked about the next time.
const MOST_QUESTIONS: usize = 64;

/// What was found out so far.
#[derive(Default)]
pub struct Unsent {
    edges: HashMap<DrainedId, Refused>,
    waiting: u64,
}

/// What is known of an edge with refused attempts.
#[derive(Clone, Copy, Default)]
struct Refused {
    /// How many of its attempts have a result.
    judged: u64,
    results: [u64; CONNECT_RESULTS],
}

// === impl Unsent ===

impl Unsent {
    /// Adds the refused attempts in `edges` to their results. `result` says as what a connection
    /// along an edge would end now; what it does not know yet it is asked again the next time.
    pub fn settle(&mut self, edges: &mut [Edge], mut result: impl FnMut(&Edge) -> Option<u8>) {
        let mut known = HashMap::new();
        let mut questions = 0;
        self.waiting = 0;
        for edge in edges.iter_mut().filter(|edge| edge.counters.unsent != 0) {
            let id = DrainedId::from(&*edge);
            let mut refused = self.edges.get(&id).copied().unwrap_or_default();
            let growth = edge.counters.unsent.saturating_sub(refused.judged);
            if growth > 0 && questions < MOST_QUESTIONS {
                // An overflow row does not say where to.
                let is_edge = edge.born_us != 0;
                questions += usize::from(is_edge);
                let result = if is_edge { result(edge) } else { Some(CONNECT_OTHER) };
                let count = result.and_then(|result| refused.results.get_mut(usize::from(result)));
                if let Some(count) = count {
                    *count += growth;
                    refused.judged += growth;
                }
            }
            self.waiting += edge.counters.unsent.saturating_sub(refused.judged);
            let counters = Arc::make_mut(&mut edge.counters);
            for (count, more) in counters.connects.iter_mut().zip(refused.results) {
                *count = count.wrapping_add(more);
            }
            known.insert(id, refused);
        }
        self.edges = known;
    }

    /// Refused attempts that have no result yet.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::address;
    use agent_common::edge::{
        CONNECT_DENIED, CONNECT_OK, CONNECT_UNREACHABLE, EdgeCounters, EdgeKey, ROLE_CLIENT,
    };
    use agent_common::wire::Wire as _;

    fn edge(slot: u32, born_us: u64, ok: u64, unsent: u64) -> Edge {
        let mut counters = EdgeCounters::zeroed();
        counters.connects[usize::from(CONNECT_OK)] = ok;
        counters.unsent = unsent;
        let remote = address::UNSPECIFIED;
        let key = EdgeKey { owner: 1, port: 80, role: ROLE_CLIENT, refused: 0, remote };
        Edge { slot, key, local: remote, remote, born_us, counters: Arc::new(counters) }
    }

    /// Ok, unreachable, denied, other of an edge.
    fn results(edge: &Edge) -> [u64; 4] {
        [CONNECT_OK, CONNECT_UNREACHABLE, CONNECT_DENIED, CONNECT_OTHER]
            .map(|result| edge.counters.connects[usize::from(result)])
    }

    #[test]
    fn what_was_refused_goes_to_the_result_of_its_time() {
        let mut unsent = Unsent::default();
        let mut check = |edge: Edge, result: u8, expected: [u64; 4]| {
            let mut edges = [edge];
            unsent.settle(&mut edges, |_| Some(result));
            assert_eq!(results(&edges[0]), expected);
        };
        check(edge(9, 5, 3, 0), CONNECT_DENIED, [3, 0, 0, 0]);
        check(edge(9, 5, 3, 4), CONNECT_UNREACHABLE, [3, 4, 0, 0]);
        // Nothing new: nobody is asked, and nothing moves.
        check(edge(9, 5, 4, 4), CONNECT_DENIED, [4, 4, 0, 0]);
        check(edge(9, 5, 4, 6), CONNECT_DENIED, [4, 4, 2, 0]);
        // The slot is somebody else's now.
        check(edge(9, 7, 1, 1), CONNECT_UNREACHABLE, [1, 1, 0, 0]);
        // An answer that is late takes what came in between along.
        let mut edges = [edge(9, 7, 1, 3)];
        unsent.settle(&mut edges, |_| None);
        assert_eq!((results(&edges[0]), unsent.waiting()), ([1, 1, 0, 0], 2));
        let mut edges = [edge(9, 7, 1, 4)];
        unsent.settle(&mut edges, |_| Some(CONNECT_DENIED));
        assert_eq!((results(&edges[0]), unsent.waiting()), ([1, 1, 3, 0], 0));
    }

    #[test]
    fn an_overflow_row_needs_no_question_and_too_many_wait() {
        let mut unsent = Unsent::default();
        let mut edges = vec![edge(1, 0, 0, 5)];
        edges.extend((0..MOST_QUESTIONS as u32 + 3).map(|i| edge(10 + i, 1, 0, 1)));
        let fresh = edges.clone();
        let total = |edges: &[Edge]| -> u64 {
            edges.iter().map(|edge| edge.counters.connects.iter().sum::<u64>()).sum()
        };
        let mut asked = 0;
        unsent.settle(&mut edges, |_| {
            asked += 1;
            Some(CONNECT_UNREACHABLE)
        });
        assert_eq!((results(&edges[0]), asked), ([0, 0, 0, 5], MOST_QUESTIONS));
        assert_eq!(total(&edges), 5 + MOST_QUESTIONS as u64);
        let mut edges = fresh;
        unsent.settle(&mut edges, |_| Some(CONNECT_UNREACHABLE));
        assert_eq!(total(&edges), 5 + MOST_QUESTIONS as u64 + 3, "none is lost, none counts twice");
    }
}
