//! A host with very many busy edges, for the benchmark of scrapes and the test that counts what
//! they allocate.

use std::sync::Arc;

use agent_common::counters::EdgeCounters;
use agent_common::edge::CONNECT_OK;
use agent_common::ledger::{CLASSES, Ledger};
use agent_common::queues::Queues;
use agent_common::wire::Wire as _;
use model::events::EventsView;
use model::health::Traffic;
use model::memory::MemoryView;
use model::probes::ProbesView;
use model::recent::RecentView;
use model::reservation_status::ReservationStatus;
use model::service::{Service, Source};
use model::snapshot::{EdgeLabels, EdgeView, LedgerView, RelatedView, Role, Snapshot};
use model::unverified::ByUser;

/// A host with `rows` busy edges, all of which have all three histograms.
pub fn snapshot(rows: usize) -> Snapshot {
    let mut counters = EdgeCounters::ZERO;
    for (i, n) in counters.connects.iter_mut().enumerate() {
        *n = u64::from(i == usize::from(CONNECT_OK)) * 123_456;
    }
    counters.opened = 123_456;
    counters.sent_bytes = 9_876_543_210;
    counters.received_bytes = 1_234_567_890;
    for us in (0..20_000u64).map(|i| i * i) {
        counters.connect.observe(us);
        counters.rtt.observe(us);
        counters.request.observe(us);
    }
    let counters = Arc::new(counters);
    let row = |i: usize| {
        let client = Service::new(&format!("checkout-service-{i}"), Source::Container);
        let server = Service::new(&format!("inventory-postgres-{}", i % 97), Source::Container);
        let role = if i.is_multiple_of(2) { Role::Client } else { Role::Server };
        let labels = Arc::new(EdgeLabels::new(client, server, 5432, role));
        EdgeView { labels, counters: Arc::clone(&counters), queues: Some(Queues::NONE) }
    };
    Snapshot {
        taken_seconds: 0.0,
        edges: (0..rows).map(row).collect(),
        listeners: Vec::new(),
        ports: Vec::new(),
        ephemeral: Vec::new(),
        conditions: Arc::default(),
        conflicts: Vec::new(),
        conflict_totals: Vec::new(),
        unverified_conflicts: ByUser::default(),
        unverified_connects: ByUser::default(),
        ledger: LedgerView {
            kernel: Ledger::zeroed(),
            exported: [0; CLASSES],
            recursion_misses: 0,
        },
        hooks: Vec::new(),
        disabled: Vec::new(),
        maps: Vec::new(),
        sources: Vec::new(),
        probes: ProbesView::default(),
        unresolved_owners: 0,
        preexisting_sockets: 0,
        related: RelatedView::default(),
        drains: 0,
        drain_seconds: 0.0,
        memory: MemoryView::default(),
        reservations: ReservationStatus::default(),
        traffic: Traffic::default(),
        recent: RecentView::default(),
        events: EventsView::default(),
    }
}
