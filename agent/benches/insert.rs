//! The worst stall when a new row is inserted, while the tables grow to a million rows. The goal is
//! 1 ms; a hash table that is copied when it has grown too large takes a hundred times that.
//!
//! `cargo bench -p agent --bench insert [ROWS]` prints one line of JSON; `cargo xtask bench p10`
//! asks for it. Every row is timed, in as many growths as [`GROWTHS`] says; the time of a row is
//! the least of its times, because another program may take the processor at any row, but a table
//! that is copied is copied at the same one each time. The worst of these is the figure.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Instant;

use agent_common::address::from_v4;
use agent_common::counters::EdgeCounters;
use agent_common::drained::{Edge, Table};
use agent_common::edge::{CONNECT_OK, EdgeKey, FIRST_FREE_SLOT, ROLE_CLIENT};
use model::delta::{Deltas, Stage};
use model::reclaim::Room;
use model::relations::Relations;
use model::rows::Rows;
use model::service::{Service, Source};
use model::snapshot::{EdgeLabels, Role};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

const ROWS: usize = 1_000_000;
const GROWTHS: usize = 5;

fn main() {
    let rows = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(ROWS);
    let edges = edges(rows);
    let names: Vec<Service> =
        (0..rows).map(|i| Service::new(&format!("service-{i}"), Source::Container)).collect();
    let (mut tables, mut relations, mut family) =
        (Least::new(rows), Least::new(rows), Least::new(rows));
    let mut drains = Vec::new();
    for _ in 0..GROWTHS {
        let (of_tables, of_relations, drain) = grow(&edges, &names);
        tables.take(&of_tables);
        relations.take(&of_relations);
        drains.push(drain);
        family.take(&grow_family(&names));
    }
    drains.sort_by(f64::total_cmp);
    println!(
        "{{\"rows\": {rows}, \"growths\": {GROWTHS}, \"rows_worst_ns\": {}, \
         \"relations_worst_ns\": {}, \"prometheus_client_worst_ns\": {}, \
         \"drain_seconds\": {:.3}}}",
        tables.worst(),
        relations.worst(),
        family.worst(),
        drains.get(GROWTHS / 2).copied().unwrap_or(f64::NAN),
    );
}

/// The least time that each row took.
struct Least(Vec<u32>);

impl Least {
    fn new(rows: usize) -> Self {
        // The last row of the agent's tables is not timed.
        Self(vec![u32::MAX; rows - 1])
    }

    fn take(&mut self, times: &[u32]) {
        for (least, time) in self.0.iter_mut().zip(times) {
            *least = (*least).min(*time);
        }
    }

    fn worst(&self) -> u32 {
        self.0.iter().copied().max().unwrap_or_default()
    }
}

/// What each row took, nanoseconds: from one look at the clock to the next.
struct Times {
    since: Cell<Instant>,
    each: RefCell<Vec<u32>>,
}

impl Times {
    fn new(rows: usize) -> Self {
        Self { since: Cell::new(Instant::now()), each: RefCell::new(Vec::with_capacity(rows)) }
    }

    /// A row begins, and the one before has ended.
    fn next(&self) {
        let took = self.since.get().elapsed().as_nanos();
        self.each.borrow_mut().push(u32::try_from(took).unwrap_or(u32::MAX));
        self.since.set(Instant::now());
    }

    /// All rows but the last: what follows that one is of all of them.
    fn take(self) -> Vec<u32> {
        let mut each = self.each.into_inner();
        each.remove(0);
        each
    }
}

/// Lets the agent's tables take in `edges`, all of them new: what each took in the table of rows
/// and in that of relations, and the seconds of the same again, when nothing is new.
fn grow(edges: &[Edge], names: &[Service]) -> (Vec<u32>, Vec<u32>, f64) {
    let us = Service::new("shop", Source::Container);
    let label = |edge: &Edge| {
        let at = (edge.slot - FIRST_FREE_SLOT) as usize;
        let server = names.get(at).cloned().unwrap_or_else(Service::other);
        EdgeLabels::new(us.clone(), server, edge.key.port, Role::Client)
    };
    let capacity = edges.len() as u64 * 2;
    let (mut stage, mut rows, mut relations) =
        (Stage::default(), Rows::default(), Relations::new(0));
    let in_stage = Times::new(edges.len());
    let timed = |edge: &Edge| {
        let labels = label(edge);
        in_stage.next();
        labels
    };
    let Deltas { edges: deltas, .. } = stage.take(1, edges, Room::of(capacity), timed);
    let in_rows = Times::new(edges.len());
    rows.update(1, &[], deltas.iter().inspect(|_| in_rows.next()));
    let in_relations = Times::new(edges.len());
    relations.update(1_000_000, &[], deltas.iter().inspect(|_| in_relations.next()));
    // In the second drain it becomes known which side judges an edge; then all is quiet.
    stage.take(2, edges, Room::of(capacity), label);
    let began = Instant::now();
    let Deltas { closed, edges: deltas, .. } = stage.take(3, edges, Room::of(capacity), label);
    rows.update(3, &closed, &deltas);
    relations.update(3_000_000, &closed, &deltas);
    let views = rows.view().len();
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!((deltas.len(), views), (0, edges.len()), "quiet rows stay as they are");
    // What a row costs in the table of rows is the sum of both stages.
    let (of_stage, of_rows) = (in_stage.take(), in_rows.take());
    let sum = of_stage.iter().zip(of_rows).map(|(stage, row)| stage.saturating_add(row));
    (sum.collect(), in_relations.take(), seconds)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    server: String,
}

/// The same number of rows in the usual way: a family of counters.
fn grow_family(names: &[Service]) -> Vec<u32> {
    let family = Family::<Labels, Counter>::default();
    let times = Times::new(names.len());
    for name in names {
        let labels = Labels { server: name.name.to_string() };
        times.next();
        family.get_or_create(&labels).inc();
    }
    times.next();
    times.take()
}

/// As many edges, each to an address of its own.
fn edges(count: usize) -> Vec<Edge> {
    let mut counters = EdgeCounters::ZERO;
    counters.connects[usize::from(CONNECT_OK)] = 1;
    counters.opened = 1;
    counters.closed = 1;
    let counters = Arc::new(counters);
    let edge = |i: usize| {
        let remote = from_v4((i as u32).to_be());
        let key = EdgeKey { owner: 1, port: 5432, role: ROLE_CLIENT, zero: 0, remote };
        let slot = FIRST_FREE_SLOT + i as u32;
        Edge {
            table: Table::Edges,
            slot,
            key,
            local: remote,
            remote,
            born_us: 1,
            counters: Arc::clone(&counters),
        }
    };
    (0..count).map(edge).collect()
}
