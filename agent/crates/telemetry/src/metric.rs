//! The definition of a metric, and the list of all metrics.

use std::fmt;

use agent_common::exported;
use agent_common::histogram::Histogram;
use prometheus_client::encoding::{MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::labels::Labels;
use super::otlp::Points;
use super::{Format, View};
use super::{
    aborts, agent, backends, conditions, conflicts, connects, ephemeral, events, hooks, idle,
    latency, ledger, limited, listeners, lookups, memory, operations, probes, process, pushes,
    queues, recovery, reservations, resets, responses, segments, services, sources, traffic,
    unanswered, unverified,
};

/// One metric.
pub struct Metric {
    /// Full name, as Prometheus stores it.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// Label names, in the order of the output.
    pub labels: &'static [&'static str],
    /// The hooks or other sources that feed it.
    pub fed_by: &'static str,
    /// Writes the samples.
    pub(super) render: fn(&View, &mut Samples<'_>) -> fmt::Result,
}

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Gauge: goes up and down.
    Gauge,
    /// Buckets, count and sum.
    Histogram,
}

/// Writes the samples of one metric.
pub(super) enum Samples<'a> {
    /// As text; whether a sample is encoded as a counter.
    Text(MetricEncoder<'a>, bool),
    /// As data points.
    Otlp(Box<Points<'a>>),
}

/// For a metric without labels.
pub(super) const NO_LABELS: Option<&NoLabelSet> = None;

/// Labels of an edge and those given, for [`Metric::labels`].
macro_rules! edge_and {
    ($($label:literal),*) => {
        &["client", "client_namespace", "server", "server_namespace", "port", "role", $($label),*]
    };
}
pub(super) use edge_and;

/// Labels of an edge, for [`Metric::labels`].
pub(super) const EDGE: &[&str] = edge_and!();

/// Every metric, in the order of the output.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    [
        connects::METRICS,
        latency::METRICS,
        responses::METRICS,
        operations::METRICS,
        lookups::METRICS,
        unanswered::METRICS,
        traffic::METRICS,
        recovery::METRICS,
        limited::METRICS,
        queues::METRICS,
        idle::METRICS,
        resets::METRICS,
        aborts::METRICS,
        listeners::METRICS,
        conflicts::METRICS,
        events::METRICS,
        ephemeral::METRICS,
        conditions::METRICS,
        reservations::METRICS,
        services::METRICS,
        sources::METRICS,
        backends::METRICS,
        segments::METRICS,
        unverified::METRICS,
        ledger::METRICS,
        hooks::METRICS,
        agent::METRICS,
        memory::METRICS,
        probes::METRICS,
        pushes::METRICS,
        process::METRICS,
    ]
    .into_iter()
    .flatten()
}

static SECONDS: Unit = Unit::Seconds;
static BYTES: Unit = Unit::Bytes;

// === impl Metric ===

impl Metric {
    /// The unit, which the name ends in.
    pub(super) fn unit(&self) -> Option<&'static Unit> {
        let base = self.name.strip_suffix("_total").unwrap_or(self.name);
        [&SECONDS, &BYTES]
            .into_iter()
            .find(|unit| base.strip_suffix(unit.as_str()).is_some_and(|stem| stem.ends_with('_')))
    }

    /// The unit as OpenTelemetry writes it (ucum.org).
    pub(super) fn ucum(&self) -> &'static str {
        match self.unit() {
            Some(Unit::Seconds) => "s",
            Some(Unit::Bytes) => "By",
            _ if self.name.ends_with("_ratio") => "1",
            _ => "",
        }
    }

    /// Name and unit as `prometheus-client` needs them for `format`: in OpenMetrics a counter's
    /// family has no `_total`, and the unit is separate.
    pub(super) fn descriptor(&self, format: Format) -> (&'static str, Option<&'static Unit>) {
        if format == Format::Prometheus {
            return (self.name, None);
        }
        let base = match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Gauge | Kind::Histogram => self.name,
        };
        let unit = self.unit();
        let stem = unit
            .and_then(|unit| base.strip_suffix(unit.as_str())?.strip_suffix('_'))
            .unwrap_or(base);
        (stem, unit)
    }
}

// === impl Kind ===

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl From<Kind> for MetricType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Self::Counter,
            Kind::Gauge => Self::Gauge,
            Kind::Histogram => Self::Histogram,
        }
    }
}

// === impl Samples ===

impl<'a> Samples<'a> {
    pub(super) fn text(encoder: MetricEncoder<'a>, kind: Kind, format: Format) -> Self {
        // Encoded as a counter a sample's name gets `_total`. In the older format the name of the
        // family has it already, so there the value is written as a gauge writes it.
        Self::Text(encoder, kind == Kind::Counter && format == Format::OpenMetrics)
    }

    /// The next samples belong to `metric`; in text the encoder writes its header.
    pub(super) fn begin(&mut self, metric: &'static Metric) {
        if let Self::Otlp(points) = self {
            points.begin(metric);
        }
    }

    /// Writes the rest.
    pub(super) fn finish(self) -> fmt::Result {
        match self {
            Self::Text(..) => Ok(()),
            Self::Otlp(points) => points.finish(),
        }
    }

    /// A whole number.
    pub(super) fn integer(&mut self, labels: Option<&impl Labels>, value: u64) -> fmt::Result {
        match self {
            Self::Text(encoder, true) => write(encoder, labels, |encoder| {
                encoder.encode_counter::<NoLabelSet, u64, f64>(&value, None)
            }),
            Self::Text(encoder, false) => {
                write(encoder, labels, |encoder| encoder.encode_gauge(&value))
            }
            Self::Otlp(points) => points.integer(labels, value),
        }
    }

    /// A number with a fraction.
    pub(super) fn float(&mut self, labels: Option<&impl Labels>, value: f64) -> fmt::Result {
        match self {
            Self::Text(encoder, true) => write(encoder, labels, |encoder| {
                encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None)
            }),
            Self::Text(encoder, false) => {
                write(encoder, labels, |encoder| encoder.encode_gauge(&value))
            }
            Self::Otlp(points) => points.float(labels, value),
        }
    }

    /// A histogram on the decimal grid, with the exported bounds.
    pub(super) fn histogram(&mut self, labels: &impl Labels, histogram: &Histogram) -> fmt::Result {
        let (buckets, count) = exported::fold(histogram);
        self.buckets(labels, &buckets, count, histogram.sum_us as f64 / 1e6)
    }

    /// The same of idle times, which are in milliseconds and have bounds of their own.
    pub(super) fn idle_times(
        &mut self,
        labels: &impl Labels,
        histogram_ms: &Histogram,
    ) -> fmt::Result {
        let (buckets, count) = exported::fold_idle(histogram_ms);
        self.buckets(labels, &buckets, count, histogram_ms.sum_us as f64 / 1e3)
    }

    fn buckets(
        &mut self,
        labels: &impl Labels,
        buckets: &[(f64, u64)],
        count: u64,
        sum_seconds: f64,
    ) -> fmt::Result {
        let encoder = match self {
            Self::Text(encoder, _) => encoder,
            Self::Otlp(points) => return points.histogram(labels, buckets, count, sum_seconds),
        };
        encoder.encode_family(labels)?.encode_histogram::<NoLabelSet>(
            sum_seconds,
            count,
            buckets,
            None,
        )
    }
}

fn write(
    encoder: &mut MetricEncoder<'_>,
    labels: Option<&impl Labels>,
    value: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    match labels {
        Some(labels) => value(&mut encoder.encode_family(labels)?),
        None => value(encoder),
    }
}
