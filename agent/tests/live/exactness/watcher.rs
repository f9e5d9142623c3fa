//! Scrapes without pause while a load runs, and requires what must hold at every moment.
//!
//! * No counter goes back: Prometheus would take that for a restart and invent a rate.
//! * The ledger: what is exported and lost at one scrape has been seen by the next. (Equality
//!   holds at rest; in between a fact may be counted while the tables are read.)

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::agent::Agent;
use crate::scrape::{Sample, Scrape};

/// Between two scrapes.
const PAUSE: Duration = Duration::from_millis(10);

/// The lower bounds that all scrapes so far set for the next one.
#[derive(Default)]
pub struct Watcher {
    highest: HashMap<(String, BTreeMap<String, String>), f64>,
    accounted: HashMap<String, f64>,
    scrapes: u64,
}

impl Watcher {
    /// Runs `load` and scrapes `agent` meanwhile; panics at the first contradiction.
    #[track_caller]
    pub fn during<T: Send>(agent: &Agent, load: impl FnOnce() -> T + Send) -> T {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let running = scope.spawn(|| {
                // Also when the load panics, or the watcher would never stop.
                let _over = Over(&over);
                load()
            });
            let mut watcher = Self::default();
            while !over.load(Ordering::Relaxed) {
                watcher.look(&agent.scrape());
                std::thread::sleep(PAUSE);
            }
            println!("{} scrapes during the load", watcher.scrapes);
            running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn look(&mut self, now: &Scrape) {
        self.scrapes += 1;
        // The scrapes themselves are left out: they come from this process, whose name the
        // harness lends out meanwhile, so that their series change owners.
        let of_load = |sample: &&Sample| sample.label("server") != Some("portolan");
        for sample in now.samples.iter().filter(|sample| is_counter(sample)).filter(of_load) {
            let series = (sample.name.clone(), sample.labels.clone());
            let before = self.highest.insert(series, sample.value).unwrap_or(0.0);
            assert!(sample.value >= before, "went back from {before}: {sample:?}");
        }
        for seen in now.matching("portolan_events_seen_total", &[]) {
            let class = seen.label("class").expect("seen has a class");
            let of = |name| now.sum(name, &[("class", class)]) as f64;
            let accounted = of("portolan_events_exported_total") + of("portolan_events_lost_total");
            let before = self.accounted.insert(class.to_owned(), accounted).unwrap_or(0.0);
            assert!(
                before <= seen.value,
                "{before} of {class} were exported or lost, but only {} seen a scrape later",
                seen.value
            );
        }
    }
}

/// Whether a sample may only grow.
fn is_counter(sample: &Sample) -> bool {
    ["_total", "_count", "_sum", "_bucket"].iter().any(|end| sample.name.ends_with(end))
}

/// Ends the watcher when it goes out of scope.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
