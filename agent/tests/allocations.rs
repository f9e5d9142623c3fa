//! Allocations of a scrape: none per series, and few per row of edges. The counts are the same on
//! every machine; more than the bounds is a regression.

#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use telemetry::process::Process;
use telemetry::{Build, Exporter, Format, Scrape};

use busy::snapshot;

#[path = "../benches/busy/mod.rs"]
mod busy;

/// Allocations of a row with all its series: its labels as text, and where that is found.
const MOST_PER_ROW: f64 = 4.0;
/// Allocations that do not depend on the number of rows.
const MOST_AT_REST: u64 = 60;

/// The system's allocator, counting the allocations of this thread.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing, as the
// counter is a constant without destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of a scrape with this many rows, and its series.
fn scrape(rows: usize, format: Format) -> (u64, usize) {
    let snapshot = Arc::new(snapshot(rows));
    let exporter = Exporter::new(Build { version: "0".into(), kernel: "0".into() });
    let mut text = String::with_capacity(rows * 20_000 + 1_000_000);
    let mut render = || {
        text.clear();
        let scrape = Scrape { previous: None, process: Process::default(), pushes: None };
        let before = COUNT.get();
        exporter.render(&snapshot, format, scrape, &mut text).expect("a String takes everything");
        COUNT.get() - before
    };
    // The first one warms up.
    render();
    let count = render();
    (count, text.lines().filter(|line| !line.starts_with('#')).count())
}

#[test]
fn a_scrape_allocates_nothing_per_series() {
    for format in [Format::Prometheus, Format::OpenMetrics] {
        let (few, few_series) = scrape(100, format);
        let (many, many_series) = scrape(1100, format);
        let rows = (many - few) as f64 / 1000.0;
        let series = (many - few) as f64 / (many_series - few_series) as f64;
        println!(
            "{format:?}: {rows:.2} allocations per row, {series:.3} per series, {few} with 100 rows"
        );
        assert!(many_series > 70_000, "rows have series: {many_series}");
        assert!(rows <= MOST_PER_ROW, "{rows} allocations per row");
        assert!(few <= MOST_AT_REST + 100 * MOST_PER_ROW as u64, "{few} allocations");
    }
}
