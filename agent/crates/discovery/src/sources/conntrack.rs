//! Who really answered where an address was translated: a Service's, a published port's.
//!
//! The kernel keeps the original and the translated end of every connection that it tracks
//! (nf_conntrack). All translated ones are listed in each namespace that tracks any, when the core
//! misses a name and now and then; the list is paid for by the kernel, so the pause until the next
//! grows with what the last one took.

use std::io;
use std::time::Duration;

use hashbrown::HashSet;
use tokio::time::{Instant, sleep};

use super::{Outlet, Teller, Trouble};
use crate::told::{MAX_ENTRIES, Told};
use linux::conntrack::{self, Translation};
use linux::namespaces;
use linux::probes::{Failure, Kind, Probes};

/// Between two lists at least.
const PAUSE: Duration = Duration::from_millis(500);
/// A list may take at most one part in this many of the time.
const SHARE: u32 = 50;

/// The kernel's connection tracking.
pub(super) struct Conntrack(pub(super) Probes);

impl Teller for Conntrack {
    async fn run(&mut self, outlet: &Outlet) -> Trouble {
        loop {
            let began = Instant::now();
            outlet.looked_up();
            let pending = self.0.ask(Kind::Conntrack, look);
            let answer = tokio::task::spawn_blocking(move || pending.wait()).await;
            match answer.unwrap_or(Err(Failure::Deadline)) {
                Ok(Some(told)) => outlet.tell(told, None),
                Ok(None) => {
                    return Trouble::Absent("no network namespace tracks connections".to_owned());
                }
                Err(why) => return Trouble::Failed(why.to_string()),
            }
            let took = began.elapsed();
            if let Err(trouble) = outlet.wait(std::future::pending()).await {
                return trouble;
            }
            sleep(PAUSE.max(took * SHARE)).await;
        }
    }
}

/// Everything that is translated now; none where nothing is tracked.
fn look() -> io::Result<Option<Told>> {
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
            // Nothing to list; gone meanwhile; or not ours to enter, which the survey has said.
            Ok(None) | Err(_) => {}
        }
    }
    if let Some(why) = failure.filter(|_| !tracking) {
        return Err(why);
    }
    let mut told = Told::default();
    for Translation { asked, answered } in translations {
        told.add_answer(asked, answered);
    }
    Ok(tracking.then_some(told))
}
