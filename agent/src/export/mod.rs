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
use std::sync::Arc;
use std::time::Duration;

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
}

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
        Self { build }
    }

    /// What is running.
    pub fn build(&self) -> &Build {
        &self.build
    }

    /// Writes the whole exposition, in small pieces. Fails only if `out` does.
    pub fn render(
        &self,
        snapshot: &Arc<Snapshot>,
        format: Format,
        scrape: Scrape,
        out: &mut impl fmt::Write,
    ) -> fmt::Result {
        let view = View {
            snapshot: Arc::clone(snapshot),
            rows: rows::rows(&snapshot.edges),
            build: self.build.clone(),
            scrape,
            format,
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(view));
        text::encode_registry(out, &registry)?;
        if format == Format::OpenMetrics {
            text::encode_eof(out)?;
        }
        Ok(())
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

#[cfg(test)]
mod tests;
