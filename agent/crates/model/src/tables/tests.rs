//! Rows through late names, used-again slots and the cap.

use super::*;
use crate::reclaim::IDLE_SECONDS;
use crate::reclaim::Room;
use crate::rows::MAX_ABANDONED;
use crate::service::{Entity, Service, Source};
use crate::slot::PATIENCE_SECONDS;
use crate::snapshot::Role;
use agent_common::address::UNSPECIFIED;
use agent_common::counters::EdgeCounters;
use agent_common::edge::EdgeKey;
use agent_common::ledger::{CONNECTION, EDGE};
use agent_common::slot_table::Reclaim;
use agent_common::wire::Wire as _;
use hashbrown::HashMap;
use proptest::prelude::*;
use std::sync::Arc;

fn edge(slot: u32, born_us: u64, ok: u64) -> Edge {
    let mut counters = EdgeCounters::ZERO;
    counters.connects[0] = ok;
    let counters = Arc::new(counters);
    Edge {
        table: Table::Edges,
        slot,
        key: EdgeKey { port: slot as u16, ..EdgeKey::zeroed() },
        local: UNSPECIFIED,
        remote: UNSPECIFIED,
        born_us,
        counters,
    }
}

fn labels(client: &str, source: Source) -> EdgeLabels {
    let server = Service::new("db", Source::Process);
    EdgeLabels::new(Service::new(client, source), server, 5432, Role::Client)
}

/// Its names.
fn row(view: &EdgeView) -> String {
    let EdgeLabels { client, server, .. } = &*view.labels;
    format!("{} -> {}", client.name, server.name)
}

fn total(updated: &Updated) -> u64 {
    updated.edges.iter().map(|view| view.counters.connects[0]).sum()
}

#[test]
fn a_late_name_moves_the_whole_row_and_a_worse_one_does_not() {
    let mut tables = Tables::default();
    let update = |tables: &mut Tables, client: &'static str, source| {
        tables.update(1, &[edge(4, 1, 7)], Room::of(100), |_| labels(client, source))
    };
    let first = update(&mut tables, "10.0.0.1", Source::Address);
    assert_eq!(first.edges[0].labels.client.name.as_ref(), "10.0.0.1");
    let second = update(&mut tables, "shop", Source::Process);
    assert_eq!((second.edges.len(), total(&second)), (1, 7));
    assert_eq!(second.edges[0].labels.client.name.as_ref(), "shop");
    let third = update(&mut tables, "10.0.0.1", Source::Address);
    assert_eq!(third.edges[0].labels.client.name.as_ref(), "shop");
}

#[test]
fn slots_of_one_name_are_one_row() {
    let mut tables = Tables::default();
    let updated = tables.update(1, &[edge(4, 1, 7), edge(5, 1, 8)], Room::of(100), |_| {
        labels("a", Source::Process)
    });
    assert_eq!((updated.edges.len(), total(&updated)), (1, 15));
}

#[test]
fn a_name_found_in_two_ways_is_one_row() {
    let mut tables = Tables::default();
    let edges = [edge(4, 1, 7), edge(5, 1, 8)];
    let named = |edge: &Edge| {
        labels("a", if edge.slot == 4 { Source::LocalClient } else { Source::Process })
    };
    let updated = tables.update(1, &edges, Room::of(100), named);
    assert_eq!((updated.edges.len(), total(&updated)), (1, 15));
    assert_eq!(updated.edges[0].labels.client.source, Source::Process);
}

#[test]
fn an_idle_slot_is_forgotten_then_freed_and_the_row_keeps_its_total() {
    let mut tables = Tables::default();
    let edges = [edge(4, 1, 7), edge(5, 1, 8)];
    let update = |tables: &mut Tables, now, edges: &[Edge]| {
        // Slot 5 stays in use.
        let mut edges = edges.to_vec();
        for edge in edges.iter_mut().filter(|edge| edge.slot == 5) {
            Arc::make_mut(&mut edge.counters).opened = 1;
        }
        tables.update(now, &edges, Room::of(100), |_| labels("a", Source::Process))
    };
    assert_eq!(update(&mut tables, 0, &edges).deltas.reclaim, []);
    let forget = update(&mut tables, IDLE_SECONDS, &edges);
    assert_eq!(forget.deltas.reclaim, [Reclaim::Forget(edges[0].key)]);
    let free = update(&mut tables, IDLE_SECONDS + 1, &edges);
    assert_eq!(free.deltas.reclaim, [Reclaim::Free(4)]);
    let after = update(&mut tables, IDLE_SECONDS + 2, &edges[1..]);
    assert_eq!(total(&after), 15);
    assert_eq!(after.deltas.exported[CONNECTION], 15);
    // The slot comes back as another edge of the same name.
    let again = update(&mut tables, IDLE_SECONDS + 3, &[edge(4, 9, 2), edges[1].clone()]);
    assert_eq!(
        (total(&again), again.deltas.exported[CONNECTION], again.deltas.exported[EDGE]),
        (17, 17, 3)
    );
}

#[test]
fn a_slot_that_moves_after_it_was_forgotten_is_not_freed() {
    let mut tables = Tables::default();
    let update = |tables: &mut Tables, now, ok| {
        tables
            .update(now, &[edge(4, 1, ok)], Room::of(100), |_| labels("a", Source::Process))
            .deltas
            .reclaim
    };
    update(&mut tables, 0, 1);
    assert_eq!(update(&mut tables, IDLE_SECONDS, 1).len(), 1);
    assert_eq!(update(&mut tables, IDLE_SECONDS + 5, 2), []);
    assert_eq!(update(&mut tables, IDLE_SECONDS + 6, 2), [Reclaim::Free(4)]);
}

/// The server's end is `server`, of this entity.
fn naming(server: &str, source: Source, entity: u64) -> Naming {
    let mut labels = labels("a", Source::Process);
    labels.server = Service::new(server, source);
    Naming { server: Entity(entity), ..labels.into() }
}

fn of(updated: &Updated, server: &str) -> u64 {
    let rows = updated.edges.iter().filter(|view| &*view.labels.server.name == server);
    rows.map(|view| view.counters.connects[0]).sum()
}

#[test]
fn slots_of_one_row_that_get_better_names_take_what_they_counted_along() {
    let mut tables = Tables::default();
    let edges = [edge(4, 1, 7), edge(5, 1, 8), edge(6, 1, 9)];
    tables.update(1, &edges, Room::of(100), |_| naming("10.0.0.1", Source::Address, 0));
    let named = |edge: &Edge| naming(["x", "y", "y"][edge.slot as usize - 4], Source::Listener, 1);
    let after = tables.update(2, &edges, Room::of(100), named);
    assert_eq!((of(&after, "10.0.0.1"), of(&after, "x"), of(&after, "y")), (0, 7, 17));
}

#[test]
fn a_row_that_keeps_another_slot_does_not_go_back() {
    let mut tables = Tables::default();
    let edges = [edge(4, 1, 7), edge(5, 1, 8)];
    tables.update(1, &edges, Room::of(100), |_| naming("10.0.0.1", Source::Address, 0));
    let named = |edge: &Edge| match edge.slot {
        4 => naming("db", Source::Listener, 1),
        _ => naming("10.0.0.1", Source::Address, 0),
    };
    let after = tables.update(2, &edges, Room::of(100), named);
    assert_eq!((of(&after, "10.0.0.1"), of(&after, "db")), (15, 0));
    let later = tables.update(3, &[edge(4, 1, 70), edge(5, 1, 8)], Room::of(100), named);
    assert_eq!((of(&later, "10.0.0.1"), of(&later, "db")), (15, 63));
}

#[test]
fn an_address_given_to_another_leaves_what_the_former_had() {
    let mut tables = Tables::default();
    let open = |ok, opened, closed| {
        let mut edge = edge(4, 1, ok);
        let counters = Arc::make_mut(&mut edge.counters);
        (counters.opened, counters.closed) = (opened, closed);
        [edge]
    };
    let first = |_: &Edge| naming("one", Source::ContainerAddress, 1);
    let second = |_: &Edge| naming("two", Source::ContainerAddress, 2);
    tables.update(1, &open(7, 7, 5), Room::of(100), first);
    let after = tables.update(2, &open(10, 10, 6), Room::of(100), second);
    assert_eq!((of(&after, "one"), of(&after, "two")), (7, 3));
    let active: Vec<u64> = after.edges.iter().map(|view| view.counters.active()).collect();
    assert_eq!(active, [0, 4], "open connections are with the name of today");
    // The same one under a better name is no other.
    let renamed = |_: &Edge| naming("two-b", Source::ContainerAddress, 2);
    let renamed = tables.update(3, &open(11, 11, 11), Room::of(100), renamed);
    assert_eq!((of(&renamed, "one"), of(&renamed, "two"), of(&renamed, "two-b")), (7, 0, 4));
    let long_after = 3 + IDLE_SECONDS;
    let ended = tables.update(long_after, &open(12, 12, 11), Room::of(100), |_| {
        naming("two-b", Source::ContainerAddress, 2)
    });
    assert_eq!((of(&ended, "one"), of(&ended, "two-b")), (0, 5), "the row has ended");
}

/// The kernel goes on counting while its tables are read, so an end may come before its beginning.
#[test]
fn an_end_that_is_read_before_its_beginning_leaves_no_connection_open() {
    let mut tables = Tables::default();
    let row = |opened, closed| {
        let mut edge = edge(4, 1, 7);
        let counters = Arc::make_mut(&mut edge.counters);
        (counters.opened, counters.closed) = (opened, closed);
        [edge]
    };
    let first = |_: &Edge| naming("one", Source::ContainerAddress, 1);
    let second = |_: &Edge| naming("two", Source::ContainerAddress, 2);
    tables.update(1, &row(6, 7), Room::of(100), first);
    tables.update(2, &row(6, 7), Room::of(100), second);
    let after = tables.update(3, &row(7, 7), Room::of(100), second);
    assert!(after.edges.iter().all(|view| view.counters.active() == 0));
}

#[test]
fn connections_that_somebody_accepts_after_a_long_silence_wait_for_who_it_is() {
    let mut tables = Tables::default();
    let row = |ok, opened| {
        let mut edge = edge(4, 1, ok);
        Arc::make_mut(&mut edge.counters).opened = opened;
        [edge]
    };
    let known = |_: &Edge| naming("one", Source::Listener, 1);
    let gone = |_: &Edge| naming("10.0.0.1", Source::Address, 0);
    let next = |_: &Edge| naming("two", Source::ContainerAddress, 2);
    tables.update(1, &row(7, 7), Room::of(100), known);
    tables.update(2, &row(7, 7), Room::of(100), gone);
    tables.update(20, &row(7, 7), Room::of(100), gone);
    let first = tables.update(21, &row(9, 9), Room::of(100), gone);
    assert_eq!(of(&first, "one"), 7);
    let named = tables.update(22, &row(9, 9), Room::of(100), next);
    assert_eq!((of(&named, "one"), of(&named, "two")), (7, 2));
}

#[test]
fn a_proxy_is_forgotten_and_another_is_seen_in_a_less_sure_way_too() {
    let mut tables = Tables::default();
    let row = |ok| [edge(4, 1, ok)];
    let proxy = |_: &Edge| naming("proxy", Source::Listener, 1);
    let behind = |_: &Edge| naming("web", Source::PublishedPort, 2);
    let next = |_: &Edge| naming("next", Source::ContainerAddress, 3);
    tables.update(1, &row(7), Room::of(100), proxy);
    let after = tables.update(2, &row(8), Room::of(100), behind);
    assert_eq!((of(&after, "proxy"), of(&after, "web")), (0, 8));
    let last = tables.update(3, &row(9), Room::of(100), next);
    assert_eq!((of(&last, "web"), of(&last, "next")), (8, 1));
}

#[test]
fn a_client_without_a_final_name_is_the_same_under_its_containers_and_no_other_containers() {
    let check = |entity: u64, expected: (u64, u64)| {
        let mut tables = Tables::default();
        let row = |ok| [edge(4, 1, ok)];
        let client = |name: &str, source, entity, stable| {
            let labels = labels(name, source);
            Naming { client: Entity(entity), stable, ..labels.into() }
        };
        let of = |updated: &Updated, name: &str| {
            let rows = updated.edges.iter().filter(|view| &*view.labels.client.name == name);
            rows.map(|view| view.counters.connects[0]).sum::<u64>()
        };
        let waiting = |_: &Edge| client("0123", Source::LocalClient, 7, false);
        tables.update(1, &row(7), Room::of(100), waiting);
        let late = tables.update(1 + PATIENCE_SECONDS, &row(8), Room::of(100), waiting);
        assert_eq!(of(&late, "0123"), 8);
        let listed = |_: &Edge| client("web", Source::ContainerAddress, entity, true);
        let named = tables.update(2 + PATIENCE_SECONDS, &row(10), Room::of(100), listed);
        assert_eq!((of(&named, "0123"), of(&named, "web")), expected, "{entity}");
    };
    check(7, (0, 10));
    // Its identity is unknown.
    check(0, (0, 10));
    // The address belongs to another container by now.
    check(8, (8, 2));
}

#[test]
fn what_is_counted_while_the_name_is_in_doubt_waits_for_the_right_one() {
    let mut tables = Tables::default();
    let known = |_: &Edge| naming("one", Source::Listener, 1);
    let gone = |_: &Edge| naming("10.0.0.1", Source::Address, 0);
    let next = |_: &Edge| naming("two", Source::Listener, 2);
    tables.update(1, &[edge(4, 1, 7)], Room::of(100), known);
    // What came before it was missed was for the one that had been there.
    let missed = tables.update(2, &[edge(4, 1, 8)], Room::of(100), gone);
    assert_eq!((of(&missed, "one"), missed.deltas.exported[CONNECTION]), (8, 8));
    let doubt = tables.update(2, &[edge(4, 1, 9)], Room::of(100), gone);
    assert_eq!((of(&doubt, "one"), doubt.deltas.exported[CONNECTION]), (8, 9));
    let stable = tables.update(3, &[edge(4, 1, 10)], Room::of(100), next);
    assert_eq!((of(&stable, "one"), of(&stable, "two")), (8, 2));
    // No other appears: then it was the one that had been there.
    tables.update(4, &[edge(4, 1, 10)], Room::of(100), gone);
    tables.update(5, &[edge(4, 1, 11)], Room::of(100), gone);
    let late = tables.update(4 + PATIENCE_SECONDS, &[edge(4, 1, 11)], Room::of(100), gone);
    assert_eq!((of(&late, "one"), of(&late, "two")), (8, 3));
}

#[test]
fn a_new_slot_waits_for_its_source_but_not_for_ever() {
    let mut tables = Tables::default();
    let waiting = |_: &Edge| Naming { stable: false, ..naming("0123", Source::Container, 1) };
    let first = tables.update(1, &[edge(4, 1, 7)], Room::of(100), waiting);
    assert_eq!((first.edges.len(), first.deltas.exported[CONNECTION]), (0, 7));
    let told = |_: &Edge| naming("web", Source::Docker, 1);
    let second = tables.update(2, &[edge(4, 1, 8)], Room::of(100), told);
    assert_eq!((second.edges.len(), of(&second, "web")), (1, 8));

    let mut tables = Tables::default();
    tables.update(1, &[edge(4, 1, 7)], Room::of(100), waiting);
    let late = tables.update(1 + PATIENCE_SECONDS, &[edge(4, 1, 8)], Room::of(100), waiting);
    assert_eq!(of(&late, "0123"), 8);
}

#[test]
fn rows_that_only_keep_are_bounded_and_the_rest_is_other() {
    let mut tables = Tables::default();
    let mut ok = 0;
    let mut last = None;
    for who in 1..=2 * MAX_ABANDONED as u64 {
        ok += 1;
        let named = |_: &Edge| naming(&format!("pod-{who}"), Source::ContainerAddress, who);
        last = Some(tables.update(1, &[edge(4, 1, ok)], Room::of(100), named));
    }
    let last = last.unwrap();
    assert_eq!((total(&last), last.deltas.exported[CONNECTION]), (ok, ok));
    assert!(last.edges.len() <= MAX_ABANDONED + 2, "{}", last.edges.len());
    assert!(of(&last, "other") > 0);
}

proptest! {
    /// However slots are renamed: no fact is lost or counted twice, and no row goes back
    /// while it is there.
    #[test]
    fn totals_are_conserved_and_rows_are_counters(
        steps in prop::collection::vec(
            (4u32..8, 0u64..100, 0usize..4, 0usize..3, 0u64..3, any::<bool>(), 0u64..3), 1..60,
        )
    ) {
        let mut tables = Tables::default();
        let mut kernel: HashMap<u32, (Edge, Naming)> = HashMap::new();
        let mut before: HashMap<String, u64> = HashMap::new();
        let (mut now, mut expected) = (0, 0);
        let mut update = |now, kernel: &HashMap<u32, (Edge, Naming)>| {
            let mut edges: Vec<_> = kernel.values().map(|(edge, _)| edge.clone()).collect();
            edges.sort_by_key(|edge| edge.slot);
            tables.update(now, &edges, Room::of(100), |edge| kernel[&edge.slot].1.clone())
        };
        for (slot, more, name, source, entity, stable, wait) in steps {
            now += wait;
            let source = [Source::ContainerAddress, Source::Listener, Source::Address][source];
            let naming = Naming { stable, ..naming(["w", "x", "y", "z"][name], source, entity) };
            let known = kernel.entry(slot).or_insert_with(|| (edge(slot, 1, 0), naming.clone()));
            Arc::make_mut(&mut known.0.counters).connects[0] += more;
            known.1 = naming;
            expected += more;
            let updated = update(now, &kernel);
            prop_assert_eq!(updated.deltas.exported[CONNECTION], expected);
            prop_assert!(total(&updated) <= expected);
            let rows: HashMap<String, u64> = updated.edges.iter()
                .map(|view| (row(view), view.counters.connects[0])).collect();
            for (row, count) in &rows {
                prop_assert!(before.get(row).is_none_or(|former| former <= count), "{row:?} went back");
            }
            before = rows;
        }
        // What waited for a name has been reported by then.
        prop_assert_eq!(total(&update(now + PATIENCE_SECONDS, &kernel)), expected);
    }

    /// However slots come and go, the ledger's side of the tables is exact.
    #[test]
    fn what_was_exported_outlives_the_slots(
        steps in prop::collection::vec((4u32..8, 0u64..100, 0usize..3, any::<bool>()), 1..60)
    ) {
        let mut tables = Tables::default();
        let mut kernel: HashMap<u32, Edge> = HashMap::new();
        let (mut now, mut expected) = (0, 0);
        for (slot, more, name, wait) in steps {
            now += if wait { IDLE_SECONDS } else { 1 };
            let edge = kernel.entry(slot).or_insert_with(|| edge(slot, now + 1, 0));
            Arc::make_mut(&mut edge.counters).connects[0] += more;
            expected += more;
            let edges: Vec<_> = kernel.values().cloned().collect();
            let names = ["a", "b", "c"];
            let updated = tables.update(now, &edges, Room::of(100), |_| labels(names[name], Source::Process));
            prop_assert_eq!(updated.deltas.exported[CONNECTION], expected);
            for action in updated.deltas.reclaim {
                if let Reclaim::Free(slot) = action {
                    kernel.remove(&slot);
                }
            }
        }
    }
}
