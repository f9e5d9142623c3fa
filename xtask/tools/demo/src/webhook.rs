//! Alertmanager's receiver: an HTTP server on the loopback that remembers the notifications.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{stop, watch};

/// A notification at the webhook: alert, service, and whether it fires.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Notification {
    alert: String,
    server: String,
    firing: bool,
}

/// The notifications received so far.
#[derive(Clone, Default)]
pub struct Webhook(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    notifications: Vec<Notification>,
    /// An alert whose annotations are empty or have unfilled values.
    incomplete: Option<String>,
}

impl Webhook {
    /// Serves on the loopback until the process ends.
    pub fn listen(&self) -> Result<String> {
        let listener = TcpListener::bind(watch::free_address()?).context("opening a webhook")?;
        let address = listener.local_addr().context("opening a webhook")?.to_string();
        let webhook = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Alertmanager repeats a message that does not arrive.
                let _ = webhook.take(stream);
            }
        });
        Ok(address)
    }

    /// One POST of Alertmanager's.
    fn take(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        let body = loop {
            let read = stream.read(&mut buffer)?;
            request.extend_from_slice(buffer.get(..read).unwrap_or_default());
            let text = String::from_utf8_lossy(&request);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| {
                        line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
                    })
                    .unwrap_or(0);
                if body.len() >= length {
                    break body.to_owned();
                }
            }
            if read == 0 {
                bail!("cut short");
            }
        };
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        let message: Value = serde_json::from_str(&body)?;
        let mut received = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for alert in message["alerts"].as_array().into_iter().flatten() {
            let label = |name: &str| alert["labels"][name].as_str().unwrap_or_default().to_owned();
            for text in ["summary", "description"] {
                let text = alert["annotations"][text].as_str().unwrap_or_default();
                if text.is_empty() || text.contains("<no value>") {
                    received.incomplete = Some(alert.to_string());
                }
            }
            received.notifications.push(Notification {
                alert: label("alertname"),
                server: label("server"),
                firing: alert["status"] == "firing",
            });
        }
        Ok(())
    }

    fn all(&self) -> Result<Vec<Notification>> {
        let received = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(alert) = &received.incomplete {
            bail!("an alert with incomplete annotations: {alert}");
        }
        Ok(received.notifications.clone())
    }

    pub fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).notifications.clear();
    }

    /// The alerts that fire now.
    pub fn firing(&self) -> Result<BTreeSet<(String, String)>> {
        let mut firing = BTreeSet::new();
        for Notification { alert, server, firing: fires } in self.all()? {
            if fires {
                firing.insert((alert, server));
            } else {
                firing.remove(&(alert, server));
            }
        }
        Ok(firing)
    }

    /// The alerts that have fired, resolved or not.
    pub fn ever(&self) -> Result<BTreeSet<(String, String)>> {
        let fired = self.all()?.into_iter().filter(|notification| notification.firing);
        Ok(fired.map(|notification| (notification.alert, notification.server)).collect())
    }

    /// Waits until the firing alerts are as wished.
    pub fn until(
        &self,
        patience: Duration,
        wish: impl Fn(&BTreeSet<(String, String)>) -> bool,
    ) -> Result<()> {
        let began = Instant::now();
        while !wish(&self.firing()?) {
            if began.elapsed() > patience {
                bail!("after {} s there are {:?}", patience.as_secs(), self.firing()?);
            }
            stop::pause(Duration::from_millis(200))?;
        }
        Ok(())
    }
}
