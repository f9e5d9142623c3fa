//! Notifies the service manager: sd_notify(3), a datagram with lines of text.
//!
//! Without a manager (`NOTIFY_SOCKET` is not set) nothing is sent. The watchdog is fed while the
//! loop publishes snapshots; when it stops the manager restarts the agent.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use telemetry::source::{STALE_AFTER, SnapshotSource};

/// How often the loop is checked if the manager does not require more.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// The manager, if there is one.
#[derive(Debug)]
pub(super) struct Manager {
    socket: Option<UnixDatagram>,
    /// The manager's watchdog interval.
    watchdog: Option<Duration>,
}

impl Manager {
    /// The manager of this process.
    pub(super) fn of_this_process() -> Self {
        let variable = |name| std::env::var(name).ok();
        let socket = variable("NOTIFY_SOCKET").and_then(|address| {
            let connected = connect(&address);
            connected
                .inspect_err(|error| {
                    tracing::warn!(
                        "cannot notify the service manager at {address} that the agent is ready: {error}"
                    );
                })
                .ok()
        });
        let for_us =
            variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let microseconds = variable("WATCHDOG_USEC").filter(|_| for_us);
        let watchdog = microseconds.and_then(|text| text.parse().ok()).map(Duration::from_micros);
        Self { socket, watchdog }
    }

    /// Reports readiness; `status` is for `systemctl status`.
    pub(super) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// Reports the shutdown.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Checks the loop continuously, and feeds the watchdog while it publishes.
    pub(super) async fn watch(&self, source: &SnapshotSource) {
        let every = self.watchdog.map_or(CHECK_EVERY, |period| CHECK_EVERY.min(period / 3));
        let mut still = false;
        loop {
            let since = source.since_published();
            if since < STALE_AFTER {
                still = false;
                self.send("WATCHDOG=1");
            } else if !still {
                still = true;
                tracing::error!(
                    "no collection for {} s: metrics are stale, /healthz reports it{}",
                    since.as_secs(),
                    if self.watchdog.is_some() {
                        ", and the service manager will restart the agent"
                    } else {
                        ""
                    }
                );
            }
            tokio::time::sleep(every).await;
        }
    }

    fn send(&self, lines: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(lines.as_bytes()) {
            tracing::debug!(%error, "the service manager does not receive");
        }
    }
}

/// A path, or a name in the abstract namespace after `@`.
fn connect(address: &str) -> io::Result<UnixDatagram> {
    let address = match address.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A manager that does not read must not block the agent.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_receives_readiness_and_shutdown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let there = UnixDatagram::bind(&path).unwrap();
        let socket = Some(connect(path.to_str().unwrap()).unwrap());
        let manager = Manager { socket, watchdog: None };
        manager.ready("9 hooks");
        manager.stopping();
        let mut heard = [0; 100];
        for expected in ["READY=1\nSTATUS=9 hooks", "STOPPING=1"] {
            let length = there.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], expected.as_bytes());
        }
    }
}
