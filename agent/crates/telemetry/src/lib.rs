//! The snapshot as Prometheus text and as OTLP; the only crate with `prometheus-client`.
//!
//! Nothing is stored here: a scrape is a view of one [`Snapshot`], so series end when their row
//! ends. [`metric::all`] lists every metric with the function that renders it; docs/metrics.md is
//! generated from the same list ([`reference`]). A new metric is one row in one file.

#![forbid(unsafe_code)]

mod aborts;
mod agent;
mod backends;
mod conditions;
mod conflicts;
mod connects;
mod ephemeral;
pub mod event_feed;
mod events;
mod hooks;
mod idle;
mod labels;
mod latency;
mod ledger;
mod limited;
mod listeners;
mod lookups;
mod memory;
mod metric;
mod operations;
mod otlp;
mod probes;
pub mod process;
pub mod push;
mod pushes;
mod queues;
mod recovery;
pub mod reference;
mod reservations;
mod resets;
mod responses;
mod rows;
mod segments;
mod services;
pub mod source;
mod sources;
mod traffic;
mod unanswered;
mod unverified;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use self::metric::Samples;
use self::otlp::Points;
use self::process::Process;
use self::rows::Row;
use model::snapshot::Snapshot;

pub use self::metric::{Kind, Metric, all as catalogue};
pub use self::otlp::{Request, Resource, Starts};
pub use self::pushes::{PushResult, Pushes};

/// The text formats that a scraper can request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// Version and host of the agent.
#[derive(Clone, Debug)]
pub struct Build {
    /// Version of the agent.
    pub version: String,
    /// Release of the kernel.
    pub kernel: String,
}

/// Inputs of a scrape besides the snapshot.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// How long the scrape before this one took.
    pub previous: Option<Duration>,
    /// The agent's own process.
    pub process: Process,
    /// Pushes to a collector, if one is configured.
    pub pushes: Option<Pushes>,
}

/// Renders snapshots.
#[derive(Debug)]
pub struct Exporter {
    build: Build,
}

/// Arguments of the metrics' functions.
#[derive(Debug)]
struct View {
    snapshot: Arc<Snapshot>,
    rows: Vec<Row>,
    build: Build,
    scrape: Scrape,
}

/// A view that is written as text.
#[derive(Debug)]
struct Text(View, Format);

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

    /// The `Content-Type` of the response.
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

    /// Version and host of the agent.
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
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Text(self.view(snapshot, scrape), format)));
        text::encode_registry(out, &registry)?;
        if format == Format::OpenMetrics {
            text::encode_eof(out)?;
        }
        Ok(())
    }

    /// Writes everything as OTLP requests and gives them away one by one. Fails only if `give`
    /// does, and then without the rest.
    pub fn push(
        &self,
        snapshot: &Arc<Snapshot>,
        scrape: Scrape,
        resource: &Resource,
        starts: &mut Starts,
        give: &mut dyn FnMut(Request) -> fmt::Result,
    ) -> fmt::Result {
        let view = self.view(snapshot, scrape);
        let taken_ns = (snapshot.taken_seconds * 1e9) as u64;
        let points = Points::new(resource, starts, taken_ns, give);
        let mut samples = Samples::Otlp(Box::new(points));
        for metric in metric::all() {
            samples.begin(metric);
            (metric.render)(&view, &mut samples)?;
        }
        samples.finish()
    }

    fn view(&self, snapshot: &Arc<Snapshot>, scrape: Scrape) -> View {
        View {
            snapshot: Arc::clone(snapshot),
            rows: rows::rows(snapshot.verified_edges()),
            build: self.build.clone(),
            scrape,
        }
    }
}

// === impl Text ===

impl Collector for Text {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(view, format) = self;
        for metric in metric::all() {
            let (name, unit) = metric.descriptor(*format);
            let metric_encoder =
                encoder.encode_descriptor(name, metric.help, unit, metric.kind.into())?;
            (metric.render)(view, &mut Samples::text(metric_encoder, metric.kind, *format))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
