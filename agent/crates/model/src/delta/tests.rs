//! What the stage says of slots that are quiet, grow, are renamed, freed and used again.

use super::*;
use crate::reclaim::{self, IDLE_SECONDS_OF_GREEDY, IDLE_SECONDS_UNDER_PRESSURE, Room};
use crate::service::{Entity, Service, Source};
use crate::snapshot::Role;
use agent_common::address::{self, UNSPECIFIED};
use agent_common::edge::{ROLE_CLIENT, ROLE_SERVER};
use agent_common::queues::Queues;
use agent_common::share::Tenant;
use agent_common::wire::Wire as _;
use hashbrown::{HashMap, HashSet};
use proptest::prelude::*;
use std::net::IpAddr;

fn ip(text: &str) -> Address {
    address::from_ip(text.parse::<IpAddr>().expect("an address"))
}

fn edge(slot: u32, born_us: u64, opened: u64) -> Edge {
    let counters = EdgeCounters { opened, ..counters(opened) };
    let key = EdgeKey { port: slot as u16, role: ROLE_CLIENT, ..EdgeKey::zeroed() };
    let (local, remote) = (UNSPECIFIED, UNSPECIFIED);
    Edge { table: Table::Edges, slot, key, local, remote, born_us, counters: Arc::new(counters) }
}

fn counters(ok: u64) -> EdgeCounters {
    let mut counters = EdgeCounters::ZERO;
    counters.connects[0] = ok;
    counters
}

fn naming(server: &str, source: Source, entity: u64, stable: bool) -> Naming {
    let shop = Service::new("shop", Source::Process);
    let labels = EdgeLabels::new(shop, Service::new(server, source), 80, Role::Client);
    Naming { server: Entity(entity), stable, ..labels.into() }
}

fn take(stage: &mut Stage, now: u64, edges: &[Edge], server: &str) -> Deltas {
    stage.take(now, edges, Room::of(100), |_| naming(server, Source::Container, 1, true))
}

#[test]
fn a_quiet_edge_has_no_delta() {
    let mut stage = Stage::default();
    let edges = [edge(4, 1, 0), edge(5, 1, 0)];
    assert_eq!(take(&mut stage, 1, &edges, "db").edges.len(), 2);
    assert!(take(&mut stage, 2, &edges, "db").edges.is_empty());
    // The same values read anew are nothing new either.
    let again = [edge(4, 1, 0), edge(5, 1, 3)];
    let deltas = take(&mut stage, 3, &again, "db");
    let grown: Vec<_> = deltas.edges.iter().map(|delta| (delta.id, delta.opened())).collect();
    assert_eq!(grown, [(EdgeId(5), 3)]);
}

#[test]
fn what_grows_while_the_name_changes_belongs_to_the_new_one() {
    let mut stage = Stage::default();
    let named = |server: &'static str, entity| {
        move |_: &Edge| naming(server, Source::ContainerAddress, entity, true)
    };
    stage.take(1, &[edge(4, 1, 7)], Room::of(100), named("one", 1));
    let another = stage.take(2, &[edge(4, 1, 9)], Room::of(100), named("two", 2));
    let delta = &another.edges[0];
    assert!(delta.is_another() && !delta.is_new);
    let from = delta.renamed.as_ref().map(|renamed| renamed.from.server.name.to_string());
    assert_eq!((from.as_deref(), &*delta.labels.server.name), (Some("one"), "two"));
    assert_eq!(delta.grown.difference().opened, 2);
    let better = stage.take(3, &[edge(4, 1, 9)], Room::of(100), named("two-b", 2));
    let delta = &better.edges[0];
    assert!(delta.renamed.is_some() && !delta.is_another() && delta.grown.is_empty());
}

/// A table that one tenant has filled.
fn full() -> Vec<Edge> {
    (4..1200).map(|slot| edge(slot, 1, 0)).collect()
}

#[test]
fn a_slot_in_a_full_table_comes_back_soon_but_not_while_a_syn_waits_for_its_answer() {
    let mut stage = Stage::default();
    let edges = full();
    let waits = [(5, Queues { connecting: 1, ..Queues::NONE })];
    let mut take = |now, met: &[(u32, Queues)]| {
        let room = Room::of(1200).met(Some(met));
        let name = |_: &Edge| naming("db", Source::Container, 1, true);
        let freed = stage.take(now, &edges, room, name).reclaim;
        freed.iter().filter(|step| matches!(step, Reclaim::Free(_))).count()
    };
    assert_eq!(take(0, &waits), 0);
    assert_eq!(take(IDLE_SECONDS_OF_GREEDY, &waits), 0);
    assert_eq!(take(1 + IDLE_SECONDS_OF_GREEDY, &waits), edges.len() - 1);
}

#[test]
fn idle_edges_of_who_has_filled_the_table_of_owners_go_soon_too() {
    let mut stage = Stage::default();
    let edges = [edge(4, 1, 0)];
    let greedy = HashSet::from([Tenant::OTHERS]);
    let name = |_: &Edge| naming("db", Source::Container, 1, true);
    let mut take = |now| {
        let room = Room::of(1200).met(Some(&[])).pressed_by(&greedy);
        stage.take(now, &edges, room, name).reclaim.len()
    };
    assert_eq!((take(0), take(IDLE_SECONDS_OF_GREEDY)), (0, 1));
}

#[test]
fn who_cannot_see_connections_under_way_waits_for_the_longest_pause_between_two_syns() {
    let mut stage = Stage::default();
    let edges = full();
    let name = |_: &Edge| naming("db", Source::Container, 1, true);
    let mut take = |now| stage.take(now, &edges, Room::of(1200), name).reclaim.len();
    assert_eq!(take(0), 0);
    assert_eq!(take(IDLE_SECONDS_UNDER_PRESSURE - 1), 0);
    assert_eq!(take(IDLE_SECONDS_UNDER_PRESSURE), edges.len());
}

#[test]
fn what_waits_for_a_name_is_reported_before_its_slot_is_free() {
    let mut stage = Stage::default();
    let edges = full();
    let mut take = |now| {
        let room = Room::of(1200).met(Some(&[]));
        let name = |_: &Edge| naming("db", Source::Address, 1, false);
        let deltas = stage.take(now, &edges, room, name);
        let freed = deltas.reclaim.iter().any(|step| matches!(step, Reclaim::Free(_)));
        (deltas.edges.iter().filter(|delta| !delta.grown.is_empty()).count(), freed)
    };
    // Collections are late, so all of it falls due at once.
    assert_eq!(take(0), (0, false));
    let reported = take(IDLE_SECONDS_OF_GREEDY);
    assert_eq!(reported, (edges.len(), false));
    assert_eq!(take(1 + IDLE_SECONDS_OF_GREEDY), (0, true));
}

#[test]
fn a_slot_that_is_used_again_is_closed_first_and_begins_anew() {
    let mut stage = Stage::default();
    take(&mut stage, 1, &[edge(4, 1, 7), edge(5, 1, 1)], "db");
    let deltas = take(&mut stage, 2, &[edge(4, 9, 2), edge(5, 1, 1)], "db");
    assert_eq!(deltas.closed, [EdgeId(4)]);
    let new: Vec<_> = deltas.edges.iter().filter(|delta| delta.is_new).collect();
    assert_eq!((new.len(), new[0].id, new[0].grown.difference().opened), (1, EdgeId(4), 2));
    assert_eq!((deltas.exported[CONNECTION], deltas.exported[EDGE]), (10, 3));
    let deltas = take(&mut stage, 3, &[edge(4, 9, 2)], "db");
    assert_eq!(deltas.closed, [EdgeId(5)]);
    assert_eq!(deltas.exported[CONNECTION], 10, "what is gone was exported");
}

#[test]
fn a_side_is_chosen_once_both_may_be_there_and_again_when_the_other_one_comes() {
    let mut stage = Stage::default();
    let side = |slot, role, local: &str, remote: &str| {
        let edge = edge(slot, 1, 1);
        let key = EdgeKey { port: 80, role, remote: ip(remote), ..edge.key };
        Edge { key, local: ip(local), remote: ip(remote), ..edge }
    };
    let server = side(4, ROLE_SERVER, "172.22.0.2", "172.20.0.2");
    let client = side(5, ROLE_CLIENT, "172.20.0.2", "172.22.0.2");
    let mut check = |edges: &[Edge], expected: &[(u32, bool, Option<bool>)]| {
        let deltas = take(&mut stage, 1, edges, "db");
        let sides = deltas.edges.iter().map(|delta| (delta.id.0, delta.counts, delta.evaluates));
        assert_eq!(sides.collect::<Vec<_>>(), expected);
    };
    check(std::slice::from_ref(&server), &[(4, true, None)]);
    check(std::slice::from_ref(&server), &[(4, true, Some(true))]);
    let both = [server, client];
    check(&both, &[(4, false, Some(false)), (5, true, None)]);
    check(&both, &[(5, true, Some(true))]);
    check(&both, &[]);
}

/// What happens to a slot in a drain: which, how much it counts, its name, the entity behind it,
/// whether that is stable, whether the slot is given to another edge before, and how long it lasts.
type Step = (u32, u64, usize, u64, bool, bool, u64);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![0u64..4, Just(reclaim::IDLE_SECONDS)];
    prop::collection::vec(
        (4u32..8, 0u64..9, 0usize..4, 0u64..3, any::<bool>(), any::<bool>(), wait),
        1..60,
    )
}

proptest! {
    /// However slots are taken, renamed, freed, used again and made to wait for a name: what the
    /// kernel counted is exported at once, and reported in deltas once; it may wait for a name, but
    /// a slot that the stage gives back has nothing that waits.
    #[test]
    fn what_was_seen_is_exported_and_reported_once(steps in steps()) {
        let mut stage = Stage::default();
        let mut kernel: HashMap<u32, (Edge, Naming)> = HashMap::new();
        let mut live: HashMap<EdgeId, u64> = HashMap::new();
        let (mut now, mut seen, mut reported, mut births, mut lost) = (0, 0, 0, 0, 0);
        for (slot, more, name, entity, stable, is_reused, wait) in steps {
            now += wait;
            let source = [Source::Address, Source::Container, Source::Listener][name % 3];
            let naming = naming(["w", "x", "y", "z"][name], source, entity, stable);
            if is_reused && let Some((edge, _)) = kernel.remove(&slot) {
                // Only the stage gives slots back, but if another part did:
                lost += edge.counters.connects[0] - live.get(&EdgeId(slot)).copied().unwrap_or(0);
            }
            let known = kernel.entry(slot).or_insert_with(|| {
                births += 1;
                (edge(slot, births, 0), naming.clone())
            });
            Arc::make_mut(&mut known.0.counters).connects[0] += more;
            (known.1, seen) = (naming, seen + more);
            let mut edges: Vec<_> = kernel.values().map(|(edge, _)| edge.clone()).collect();
            edges.sort_by_key(|edge| edge.slot);
            let deltas = stage.take(now, &edges, Room::of(100), |edge| kernel[&edge.slot].1.clone());
            for id in &deltas.closed {
                prop_assert!(live.remove(id).is_some(), "closed without being open");
            }
            for delta in &deltas.edges {
                prop_assert_eq!(delta.is_new, !live.contains_key(&delta.id));
                let grown = delta.grown.difference().connects[0];
                *live.entry(delta.id).or_default() += grown;
                reported += grown;
            }
            prop_assert_eq!((deltas.exported[CONNECTION], deltas.exported[EDGE]), (seen, births));
            let waiting = |(slot, (edge, _)): (&u32, &(Edge, Naming))| {
                edge.counters.connects[0] - live.get(&EdgeId(*slot)).copied().unwrap_or(0)
            };
            prop_assert_eq!(reported + kernel.iter().map(waiting).sum::<u64>() + lost, seen);
            for step in deltas.reclaim {
                if let Reclaim::Free(slot) = step {
                    prop_assert_eq!(kernel.get_key_value(&slot).map(waiting), Some(0));
                    kernel.remove(&slot);
                }
            }
        }
    }
}
