//! Signals stop the demo in order: waits are interrupted, and everything started is dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

static STOPPED: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_: libc::c_int) {
    STOPPED.store(true, Ordering::Relaxed);
}

/// From now on Ctrl-C, a closed terminal and `kill` only request the end.
pub fn on_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler stores to an atomic and does nothing else.
        unsafe { libc::signal(signal, stop as *const () as libc::sighandler_t) };
    }
}

/// Whether a signal has requested the end.
pub fn is_wanted() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// Waits; an error as soon as a signal requests the end.
pub fn pause(length: Duration) -> Result<()> {
    let until = Instant::now() + length;
    loop {
        if is_wanted() {
            bail!("stopped by a signal");
        }
        let remaining = until.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Ok(());
        }
        thread::sleep(remaining.min(Duration::from_millis(100)));
    }
}
