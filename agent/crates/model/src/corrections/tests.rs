//! Corrections of one edge, over collections.

use agent_common::address::UNSPECIFIED;
use agent_common::edge::{CONNECT_OK, CONNECT_TIMEOUT, EdgeKey, ROLE_CLIENT};
use agent_common::reset::{ABORTED, NO_LISTENER, UNREAD_DATA, UNUSED};
use agent_common::wire::Wire as _;
use proptest::prelude::*;

use super::*;

const SLOT: u32 = 9;

fn edge(born_us: u64, counters: &EdgeCounters) -> Edge {
    let key = EdgeKey { role: ROLE_CLIENT, ..EdgeKey::zeroed() };
    Edge {
        table: Table::Edges,
        slot: SLOT,
        key,
        local: UNSPECIFIED,
        remote: UNSPECIFIED,
        born_us,
        counters: Arc::new(counters.clone()),
    }
}

/// An edge of the kernel half, and what is made of it.
#[derive(Default)]
struct World(Corrections, EdgeCounters);

impl World {
    /// A collection: the counters that readers see.
    fn collect(&mut self, open: Option<u64>, is_stopping: bool) -> EdgeCounters {
        let mut edges = [edge(1, &self.1)];
        let open = open.map(|open| if open > 0 { vec![(SLOT, open)] } else { Vec::new() });
        self.0.apply(&mut edges, open.as_deref(), |_| is_stopping);
        EdgeCounters::clone(&edges[0].counters)
    }
}

fn at(values: &[u64], place: u8) -> u64 {
    values[usize::from(place)]
}

#[test]
fn failures_while_the_server_stops_are_moved_and_those_before_and_after_are_not() {
    let mut world = World::default();
    let fail = |world: &mut World, is_stopping| {
        let counters = &mut world.1;
        counters.connects[usize::from(CONNECT_OK)] += 5;
        counters.connects[usize::from(CONNECT_REFUSED)] += 1;
        counters.connects[usize::from(CONNECT_RESET)] += 1;
        counters.connects[usize::from(CONNECT_TIMEOUT)] += 1;
        counters.resets_received[usize::from(ABORTED)] += 2;
        counters.resets_sent[usize::from(UNREAD_DATA)] += 3;
        counters.resets_received[usize::from(NO_LISTENER)] += 1;
        counters.resets_sent[usize::from(UNUSED)] += 1;
        counters.unanswered += 4;
        world.collect(None, is_stopping)
    };
    for (collection, is_stopping) in [false, true, true, false].into_iter().enumerate() {
        let seen = fail(&mut world, is_stopping);
        let all = collection as u64 + 1;
        let moved = [0, 1, 2, 2][collection];
        let left = all - moved;
        assert_eq!(at(&seen.connects, CONNECT_OK), 5 * all);
        assert_eq!(at(&seen.connects, CONNECT_REFUSED), left);
        assert_eq!(at(&seen.connects, CONNECT_RESET), left);
        assert_eq!(at(&seen.connects, CONNECT_TIMEOUT), all);
        assert_eq!(at(&seen.connects, CONNECT_STOPPING), 2 * moved);
        assert_eq!(at(&seen.resets_received, ABORTED), 2 * left);
        assert_eq!(at(&seen.resets_received, STOPPING), 2 * moved);
        assert_eq!(at(&seen.resets_sent, UNREAD_DATA), 3 * left);
        assert_eq!(at(&seen.resets_sent, STOPPING), 3 * moved);
        assert_eq!(at(&seen.resets_received, NO_LISTENER), all, "a refused connect is one already");
        assert_eq!(at(&seen.resets_sent, UNUSED), all, "a check is one whenever it comes");
        assert_eq!((seen.unanswered, seen.unanswered_stopping), (4 * left, 4 * moved));
    }
    // Another edge in the same slot has none of it.
    let mut another = [edge(2, &world.1)];
    world.0.apply(&mut another, None, |_| false);
    assert_eq!(*another[0].counters, world.1);
}

#[test]
fn idle_connections_that_a_server_closes_because_it_stops_show_no_timeout_of_it() {
    let mut world = World::default();
    let mut expected = EdgeCounters::ZERO;
    for (is_stopping, ms) in [(false, 5_000), (true, 3_900), (true, 700), (false, 5_003)] {
        for counters in [&mut world.1, &mut expected] {
            counters.idle_closed_by_client_ms.observe(ms);
            counters.idle_reuse_ms.observe(ms);
        }
        world.1.idle_closed_by_server_ms.observe(ms);
        if !is_stopping {
            expected.idle_closed_by_server_ms.observe(ms);
        }
        let seen = world.collect(None, is_stopping);
        assert_eq!(seen, expected, "{ms}");
    }
}

#[test]
fn an_edge_without_corrections_is_handed_on_as_it_is() {
    let mut corrections = Corrections::default();
    let mut edges = [edge(1, &EdgeCounters { opened: 3, closed: 1, ..EdgeCounters::ZERO })];
    let before = Arc::clone(&edges[0].counters);
    for _ in 0..9 {
        corrections.apply(&mut edges, Some(&[(SLOT, 2)]), |_| true);
        assert!(Arc::ptr_eq(&before, &edges[0].counters));
    }
}

#[test]
fn an_end_that_no_program_saw_is_made_up_for_at_rest() {
    let mut world = World::default();
    world.1.opened = 5;
    world.1.closed = 2;
    let active = |seen: EdgeCounters| (seen.opened, seen.closed, seen.active());
    // The first collection counts, so three later ones have to agree.
    for _ in 0..AGREEING {
        assert_eq!(active(world.collect(Some(2), false)), (5, 2, 3));
    }
    assert_eq!(active(world.collect(Some(2), false)), (5, 3, 2));
    // What goes on is counted on top of it.
    world.1.closed = 3;
    assert_eq!(active(world.collect(Some(1), false)), (5, 4, 1));
    // Its end was only late: the sockets are right again.
    world.1.closed = 5;
    for _ in 0..=AGREEING {
        world.collect(Some(0), false);
    }
    assert_eq!(active(world.collect(Some(0), false)), (5, 5, 0));
}

#[test]
fn a_start_that_no_program_counted_is_made_up_for_too() {
    let mut world = World::default();
    world.1.opened = 1;
    for _ in 0..=AGREEING {
        world.collect(Some(2), false);
    }
    assert_eq!(world.collect(Some(2), false).active(), 2);
}

#[test]
fn nothing_is_believed_that_changes_or_without_an_iteration() {
    let mut world = World::default();
    world.1.opened = 5;
    for collection in 0..20 {
        // The iteration meets another number each time.
        assert_eq!(world.collect(Some(3 + collection % 2), false).active(), 5);
    }
    for _ in 0..20 {
        // Connections come and go all the time.
        world.1.opened += 1;
        world.1.closed += 1;
        assert_eq!(world.collect(Some(3), false).active(), 5);
    }
    for _ in 0..20 {
        assert_eq!(world.collect(None, false).active(), 5);
    }
}

proptest! {
    /// Whatever was skipped: at rest as many connections are open as there are sockets.
    #[test]
    fn at_rest_the_gauge_is_the_number_of_sockets(
        steps in prop::collection::vec((any::<bool>(), 0u8..4, 0usize..3), 1..60)
    ) {
        let mut world = World::default();
        let mut open = 0u64;
        for (opens, skip, collections) in steps {
            let is_seen = skip != 0;
            if opens {
                open += 1;
                world.1.opened += u64::from(is_seen);
            } else if open > 0 {
                open -= 1;
                world.1.closed += u64::from(is_seen);
            }
            for _ in 0..collections {
                world.collect(Some(open), false);
            }
        }
        for _ in 0..=AGREEING {
            world.collect(Some(open), false);
        }
        prop_assert_eq!(world.collect(Some(open), false).active(), open);
    }
}
