//! `cargo xtask test e2e-alerts`: breaks the shop in every way there is, and requires the right
//! alert, and no other, at a webhook behind the real Alertmanager; and its end after healing.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::faults::{FAULTS, Fault};
use super::{Demo, watch};
use crate::dashboards;

/// How many times as fast as in earnest: windows of 5 minutes last 15 seconds.
const FASTER: u64 = 20;
/// The longest `for` of an expected alert, its window, two scrapes and Alertmanager's wait, at
/// that speed; and what a busy machine needs.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long the shop runs before it is broken: an objective needs a past.
const WARM_UP: Duration = Duration::from_secs(75);

/// Metrics of what the shop has not: container runtimes, reservations, declared segments.
const NOT_HERE: [&str; 4] = [
    "portolan_identity_source_",
    "portolan_port_reservation",
    "portolan_segment_violations_total",
    "portolan_names_folded_total",
];

/// What arrived at the webhook: alert, service, and whether it fires.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    alert: String,
    server: String,
    firing: bool,
}

#[derive(Clone, Default)]
struct Webhook(Arc<Mutex<Vec<Said>>>);

/// Breaks and heals; `only` are names of faults, all if empty.
pub fn alerts(only: &[String]) -> Result<()> {
    let webhook = Webhook::default();
    let address = webhook.listen()?;
    let mut demo = Demo::start(&format!("http://{address}/"), FASTER)?;
    thread::sleep(WARM_UP);
    let quiet = webhook.firing();
    if !quiet.is_empty() {
        bail!("alerts before anything is broken: {quiet:?}");
    }
    let mut failed = Vec::new();
    // Some panels have something to show only when something is broken.
    let mut unanswered = dashboards::questions();
    unanswered.retain(|question| !NOT_HERE.iter().any(|metric| question.contains(metric)));
    ask(&demo, &mut unanswered)?;
    let chosen = |fault: &&Fault| only.is_empty() || only.iter().any(|name| name == fault.name);
    for fault in FAULTS.iter().filter(chosen) {
        match one(&mut demo, &webhook, fault, &mut unanswered) {
            Ok(took) => println!(
                "ok      {:18} {} after {:.0} s, gone {:.0} s after healing",
                fault.name,
                fault.alert,
                took.0.as_secs_f64(),
                took.1.as_secs_f64()
            ),
            Err(error) => {
                println!("FAILED  {:18} {error:#}", fault.name);
                failed.push(fault.name);
                demo.obey("heal")?;
                let _ = webhook.until(PATIENCE * 2, BTreeSet::is_empty);
            }
        }
    }
    if only.is_empty() && !unanswered.is_empty() {
        bail!("panels that never had anything to show:\n  {}", unanswered.join("\n  "));
    }
    if !failed.is_empty() {
        bail!("{} faults were not told right: {}", failed.len(), failed.join(", "));
    }
    Ok(())
}

/// One fault; how long its alert took to come and to go.
fn one(
    demo: &mut Demo,
    webhook: &Webhook,
    fault: &Fault,
    unanswered: &mut Vec<String>,
) -> Result<(Duration, Duration)> {
    let expected = (fault.alert.to_owned(), fault.culprit.to_owned());
    webhook.forget();
    let began = Instant::now();
    demo.obey(&format!("break {}", fault.name))?;
    webhook
        .until(PATIENCE, |firing| firing.contains(&expected))
        .with_context(|| format!("{} for {} did not come", fault.alert, fault.culprit))?;
    let came = began.elapsed();
    ask(demo, unanswered)?;
    // What else there is to say would have been said by then.
    thread::sleep(Duration::from_secs(20));
    let others: Vec<_> =
        webhook.ever().into_iter().filter(|(alert, _)| *alert != fault.alert).collect();
    if !others.is_empty() {
        bail!("not only {}: {others:?}", fault.alert);
    }
    let healed = Instant::now();
    demo.obey("heal")?;
    webhook.until(PATIENCE * 2, BTreeSet::is_empty).context("it does not end")?;
    let gone = healed.elapsed();
    // Windows forget, and the next fault begins in peace.
    thread::sleep(Duration::from_secs(15));
    Ok((came, gone))
}

/// Takes away the questions that have an answer now.
fn ask(demo: &Demo, questions: &mut Vec<String>) -> Result<()> {
    let mut left = Vec::new();
    for question in questions.drain(..) {
        if demo.watch.query(&question)?.is_empty() {
            left.push(question);
        }
    }
    *questions = left;
    Ok(())
}

impl Webhook {
    /// Serves on the loopback, as long as the process lives.
    fn listen(&self) -> Result<String> {
        let listener = TcpListener::bind(watch::free_address()?).context("opening a webhook")?;
        let address = listener.local_addr().context("opening a webhook")?.to_string();
        let said = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A message that does not arrive is sent again.
                let _ = said.take(stream);
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
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for alert in message["alerts"].as_array().into_iter().flatten() {
            let label = |name: &str| alert["labels"][name].as_str().unwrap_or_default().to_owned();
            for text in ["summary", "description"] {
                let text = alert["annotations"][text].as_str().unwrap_or_default();
                assert!(!text.is_empty() && !text.contains("<no value>"), "{alert}");
            }
            said.push(Said {
                alert: label("alertname"),
                server: label("server"),
                firing: alert["status"] == "firing",
            });
        }
        Ok(())
    }

    fn all(&self) -> Vec<Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What fires, as far as was said.
    fn firing(&self) -> BTreeSet<(String, String)> {
        let mut firing = BTreeSet::new();
        for Said { alert, server, firing: fires } in self.all() {
            if fires {
                firing.insert((alert, server));
            } else {
                firing.remove(&(alert, server));
            }
        }
        firing
    }

    /// What has fired, over or not.
    fn ever(&self) -> BTreeSet<(String, String)> {
        self.all()
            .into_iter()
            .filter(|said| said.firing)
            .map(|said| (said.alert, said.server))
            .collect()
    }

    /// Waits until what fires is as wished.
    fn until(
        &self,
        patience: Duration,
        wish: impl Fn(&BTreeSet<(String, String)>) -> bool,
    ) -> Result<()> {
        let began = Instant::now();
        while !wish(&self.firing()) {
            if began.elapsed() > patience {
                bail!("after {} s there are {:?}", patience.as_secs(), self.firing());
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}
