//! The backends behind translated addresses: of a Service, of a published port.
//!
//! The kernel keeps the original and the translated end of every connection that it tracks
//! (nf_conntrack). All translated ones are listed in each namespace that tracks any, when the core
//! misses a name, and periodically. The kernel does that work, so the pause until the next list
//! grows with the duration of the last.

use std::io;
use std::time::Duration;

use hashbrown::HashSet;
use tokio::time::{Instant, sleep};

use super::{NameSource, Publisher, SourceError};
use crate::inventory::{Inventory, MAX_ENTRIES};
use linux::conntrack::{self, Translation};
use linux::namespaces;
use linux::probes::{Failure, Kind, Probes};

/// Between two lists at least.
const PAUSE: Duration = Duration::from_millis(500);
/// Lists may take at most this fraction of the time (one part in N).
const SHARE: u32 = 50;

/// The kernel's connection tracking.
pub(super) struct Conntrack(pub(super) Probes);

impl NameSource for Conntrack {
    async fn run(&mut self, publisher: &Publisher) -> SourceError {
        loop {
            let began = Instant::now();
            publisher.looked_up();
            let pending = self.0.ask(Kind::Conntrack, look);
            let answer = tokio::task::spawn_blocking(move || pending.wait()).await;
            match answer.unwrap_or(Err(Failure::Deadline)) {
                Ok(Some(inventory)) => publisher.publish(inventory, None),
                Ok(None) => {
                    return SourceError::Absent(
                        "no network namespace tracks connections".to_owned(),
                    );
                }
                Err(why) => return SourceError::Failed(why.to_string()),
            }
            let took = began.elapsed();
            if let Err(error) = publisher.wait(std::future::pending()).await {
                return error;
            }
            sleep(PAUSE.max(took * SHARE)).await;
        }
    }
}

/// All translated connections; empty where nothing is tracked.
fn look() -> io::Result<Option<Inventory>> {
    let (namespaces, _) = namespaces::all();
    let mut translations: HashSet<Translation> = HashSet::new();
    let mut tracking = false;
    let mut failure = None;
    for namespace in &namespaces {
        let inside = || {
            if conntrack::tracked() == 0 {
                None
            } else {
                Some(conntrack::translations(MAX_ENTRIES))
            }
        };
        match namespaces::run_in(namespace, inside) {
            Ok(Some(Ok(found))) => {
                tracking = true;
                translations.extend(found);
            }
            Ok(Some(Err(error))) => failure = Some(io::Error::other(error)),
            // Nothing to list; gone meanwhile; or not permitted, which was already logged.
            Ok(None) | Err(_) => {}
        }
    }
    if let Some(why) = failure.filter(|_| !tracking) {
        return Err(why);
    }
    let mut inventory = Inventory::default();
    for Translation { original, backend } in translations {
        inventory.add_translation(original, backend);
    }
    Ok(tracking.then_some(inventory))
}
