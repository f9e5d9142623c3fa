//! How long rendering a scrape of a hundred thousand series takes. The goal is 30 ms.
//!
//! `cargo bench -p agent --bench scrape [ROWS]` prints one line; no harness, so that it needs
//! nothing but the crate.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use telemetry::process::Process;
use telemetry::{Build, Exporter, Format, Scrape};

use busy::snapshot;

mod busy;

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
