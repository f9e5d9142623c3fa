//! How long rendering a scrape of a hundred thousand series takes. The goal is 30 ms.
//!
//! `cargo bench -p agent --bench scrape [ROWS]` prints one line; no harness, so that it needs
//! nothing but the crate.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_common::edge::{CONNECT_OK, EdgeCounters};
use agent_common::ledger::{CLASSES, Ledger};
use agent_common::wire::Wire;
use portolan::export::process::Process;
use portolan::export::{Build, Exporter, Format, Scrape};
use portolan::model::kept::KeptView;
use portolan::model::memory::MemoryView;
use portolan::model::service::{Service, Source};
use portolan::model::snapshot::{EdgeLabels, EdgeView, LedgerView, RelatedView, Role, Snapshot};

const RUNS: usize = 51;

fn main() {
    let rows = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1_320);
    let snapshot = Arc::new(snapshot(rows));
    let exporter = Exporter::new(Build { version: "0".into(), kernel: "0".into() });
    let scrape = Scrape { previous: None, process: Process::default(), pushes: None };
    for format in [Format::Prometheus, Format::OpenMetrics] {
        let (mut times, mut text) = (Vec::new(), String::new());
        let (mut series, mut bytes) = (0, 0);
        for _ in 0..RUNS {
            text.clear();
            let began = Instant::now();
            // Writing into a String cannot fail.
            let _ = exporter.render(&snapshot, format, scrape.clone(), &mut text);
            times.push(began.elapsed());
            bytes = text.len();
            series = text.lines().filter(|line| !line.starts_with('#')).count();
        }
        times.sort();
        let median = times.get(RUNS / 2).copied().unwrap_or(Duration::ZERO);
        println!(
            "{format:?}: {series} series, {:.1} MB: median {:.1} ms, best {:.1} ms, {:.0} ns a series",
            bytes as f64 / 1e6,
            median.as_secs_f64() * 1e3,
            times.first().map_or(0.0, Duration::as_secs_f64) * 1e3,
            median.as_nanos() as f64 / series as f64,
        );
    }
}

/// A host with `rows` busy edges, all of which have all three histograms.
fn snapshot(rows: usize) -> Snapshot {
    let mut counters = EdgeCounters::zeroed();
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
        EdgeView { labels, counters: Arc::clone(&counters) }
    };
    Snapshot {
        taken_seconds: 0.0,
        edges: (0..rows).map(row).collect(),
        listeners: Vec::new(),
        ports: Vec::new(),
        ephemeral: Vec::new(),
        conflicts: Vec::new(),
        conflict_totals: Vec::new(),
        ledger: LedgerView {
            kernel: Ledger::zeroed(),
            exported: [0; CLASSES],
            recursion_misses: 0,
        },
        hooks: Vec::new(),
        disabled: Vec::new(),
        maps: Vec::new(),
        sources: Vec::new(),
        unresolved_owners: 0,
        preexisting_sockets: 0,
        related: RelatedView::default(),
        drains: 0,
        drain_seconds: 0.0,
        memory: MemoryView::default(),
        kept: KeptView::default(),
        health_since: Arc::default(),
    }
}
