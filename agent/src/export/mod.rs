//! The snapshot as Prometheus text; the only folder that knows `prometheus-client`.
//!
//! Nothing is stored here: a scrape is a view over one [`Snapshot`], so series end when their row
//! ends. [`metric::all`] lists every metric with the function that renders it; docs/metrics.md is
//! generated from the same list ([`reference`]). A new metric is one row in one file.

mod agent;
mod backends;
mod bounds;
mod conflicts;
mod connects;
mod ephemeral;
mod hooks;
mod latency;
mod ledger;
mod listeners;
mod metric;
pub mod process;
pub mod reference;
mod reservations;
mod resets;
mod rows;
mod segments;
mod services;
mod sources;
mod traffic;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use self::metric::Samples;
use self::process::Process;
use self::rows::Row;
use crate::model::snapshot::Snapshot;

/// The text formats a scraper can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// What is running.
#[derive(Clone, Debug)]
pub struct Build {
    /// Version of the agent.
    pub version: String,
    /// Release of the kernel.
    pub kernel: String,
}

/// What a scrape knows beside the snapshot.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// How long the scrape before this one took.
    pub previous: Option<Duration>,
    /// The agent's own process.
    pub process: Process,
}

/// Renders snapshots.
#[derive(Debug)]
pub struct Exporter {
    build: Build,
    /// The output of an earlier scrape, to be written over: at a hundred thousand series getting
    /// its pages from the system anew would cost as much as a third of the rendering.
    buffers: Arc<Mutex<Vec<String>>>,
}

/// How many idle output buffers are kept: Prometheus asks for one scrape after the other.
const BUFFERS: usize = 1;

/// What the metrics' functions see.
#[derive(Debug)]
struct View {
    snapshot: Arc<Snapshot>,
    rows: Vec<Row>,
    build: Build,
    scrape: Scrape,
    format: Format,
}

// === impl Format ===

impl Format {
    /// Chooses by the `Accept` header of a request.
    pub fn negotiate(accept: Option<&str>) -> Self {
        let weight = |wanted: &str| {
            accept
                .unwrap_or_default()
                .split(',')
                .filter_map(|range| {
                    let (kind, parameters) = range.split_once(';').unwrap_or((range, ""));
                    let q = parameters.split(';').find_map(|p| p.trim().strip_prefix("q="));
                    (kind.trim().eq_ignore_ascii_case(wanted))
                        .then(|| q.map_or(1.0, |q| q.trim().parse::<f32>().unwrap_or(0.0)))
                })
                .fold(0.0, f32::max)
        };
        let open_metrics = weight("application/openmetrics-text");
        if open_metrics > 0.0 && open_metrics >= weight("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The `Content-Type` of the answer.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

// === impl Build ===

impl Build {
    /// This program on this kernel.
    pub fn here() -> Self {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), kernel: release.trim().to_owned() }
    }
}

// === impl Exporter ===

impl Exporter {
    /// An exporter for `build`.
    pub fn new(build: Build) -> Self {
        Self { build, buffers: Arc::default() }
    }

    /// What is running.
    pub fn build(&self) -> &Build {
        &self.build
    }

    /// The whole exposition.
    pub fn render(
        &self,
        snapshot: &Arc<Snapshot>,
        format: Format,
        scrape: Scrape,
    ) -> Result<Bytes, fmt::Error> {
        let view = View {
            snapshot: Arc::clone(snapshot),
            rows: rows::rows(&snapshot.edges),
            build: self.build.clone(),
            scrape,
            format,
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(view));

        let mut buffer = Buffer { text: self.take_buffer(), home: Arc::clone(&self.buffers) };
        text::encode_registry(&mut buffer.text, &registry)?;
        if format == Format::OpenMetrics {
            text::encode_eof(&mut buffer.text)?;
        }
        Ok(Bytes::from_owner(buffer))
    }

    fn take_buffer(&self) -> String {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }
}

// === impl View ===

impl Collector for View {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in metric::all() {
            let (name, unit) = metric.descriptor(self.format);
            let metric_encoder =
                encoder.encode_descriptor(name, metric.help, unit, metric.kind.into())?;
            (metric.render)(self, &mut Samples::new(metric_encoder, metric.kind, self.format))?;
        }
        Ok(())
    }
}

/// An output buffer that goes back where it came from when the response has been sent.
struct Buffer {
    text: String,
    home: Arc<Mutex<Vec<String>>>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let mut idle = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < BUFFERS {
            idle.push(text);
        }
    }
}

#[cfg(test)]
mod tests;
