//! The snapshot as OTLP requests (opentelemetry-proto, `metrics.proto` and
//! `metrics_service.proto`), from the same list of metrics as the text.
//!
//! Messages are written while the metrics are walked and handed over in requests of half a
//! megabyte: a tree of them would hold every label of every series at once, ten times the agent's
//! memory. All counts are cumulative, so a lost request loses no data.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt::{self, Display, Write as _};
use std::hash::BuildHasher as _;

use prost::encoding::{WireType, encode_key, encode_varint};

use super::labels::Labels;
use super::metric::{Kind, Metric};

/// A request is complete at this size.
const ENOUGH: usize = 512 * 1024;
/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u64 = 2;
/// Field numbers of attributes in `NumberDataPoint` and `HistogramDataPoint`.
const OF_NUMBER: u32 = 7;
const OF_HISTOGRAM: u32 = 9;

/// One `ExportMetricsServiceRequest`.
#[derive(Debug)]
pub struct Request {
    /// The message.
    pub body: Vec<u8>,
    /// Data points in it.
    pub points: u64,
}

/// The resource of the metrics: the agent on this host.
#[derive(Clone, Debug)]
pub struct Resource(Vec<u8>);

/// Start time of each series. For a series that appears between two pushes it is the time of the
/// first of them; for a series of the first push it is the start of the agent.
#[derive(Debug)]
pub struct Starts {
    keys: RandomState,
    /// When the snapshot before this one was taken, nanoseconds since the Unix epoch.
    before_ns: u64,
    /// The number of this walk.
    walk: u32,
    /// By hash of name and labels: the start, and the walk that met it last.
    series: HashMap<u64, (u64, u32)>,
}

/// Writes data points into requests.
pub(super) struct Points<'a> {
    resource: &'a Resource,
    starts: &'a mut Starts,
    give: &'a mut dyn FnMut(Request) -> fmt::Result,
    taken_ns: u64,
    /// State of the writer.
    metric: Option<&'static Metric>,
    /// Its data points, as fields.
    data: Vec<u8>,
    /// Metrics before it, as fields of `ScopeMetrics`.
    metrics: Vec<u8>,
    /// Data points in the request so far.
    count: u64,
    /// Attributes of the point, as fields; and room for one of them.
    attributes: Vec<u8>,
    value: String,
}

// === impl Resource ===

impl Resource {
    /// `version` of the agent on `host`.
    pub fn new(version: &str, host: &str) -> Self {
        let mut attributes = Vec::new();
        for (key, value) in [
            ("service.name", "portolan"),
            ("service.version", version),
            // There is one agent per host, and receivers distinguish instances by this.
            ("service.instance.id", host),
            ("host.name", host),
        ] {
            message(&mut attributes, 1, &key_value(key, value));
        }
        let mut resource = Vec::new();
        message(&mut resource, 1, &attributes);
        Self(resource)
    }
}

// === impl Starts ===

impl Starts {
    /// Everything counts since `began_ns`, nanoseconds since the Unix epoch.
    pub fn new(began_ns: u64) -> Self {
        Self { keys: RandomState::new(), before_ns: began_ns, walk: 0, series: HashMap::new() }
    }

    fn of(&mut self, metric: &str, attributes: &[u8]) -> u64 {
        let Self { keys, before_ns, walk, series } = self;
        let key = keys.hash_one((metric, attributes));
        let (start, met) = series.entry(key).or_insert((*before_ns, *walk));
        *met = *walk;
        *start
    }

    /// All series of a snapshot were visited: the others have ended. An aborted walk does not call
    /// this, so that unvisited series keep their start.
    fn finish(&mut self, taken_ns: u64) {
        let Self { before_ns, walk, series, .. } = self;
        series.retain(|_, (_, met)| met == walk);
        *walk = walk.wrapping_add(1);
        *before_ns = taken_ns;
    }
}

// === impl Points ===

impl<'a> Points<'a> {
    pub(super) fn new(
        resource: &'a Resource,
        starts: &'a mut Starts,
        taken_ns: u64,
        give: &'a mut dyn FnMut(Request) -> fmt::Result,
    ) -> Self {
        Self {
            resource,
            starts,
            give,
            taken_ns,
            metric: None,
            data: Vec::new(),
            metrics: Vec::new(),
            count: 0,
            attributes: Vec::new(),
            value: String::new(),
        }
    }

    /// The next points belong to `metric`.
    pub(super) fn begin(&mut self, metric: &'static Metric) {
        self.end_metric();
        self.metric = Some(metric);
    }

    /// Hands over the rest.
    pub(super) fn finish(mut self) -> fmt::Result {
        self.end_metric();
        self.give_away()?;
        self.starts.finish(self.taken_ns);
        Ok(())
    }

    pub(super) fn integer(&mut self, labels: Option<&impl Labels>, value: u64) -> fmt::Result {
        // as_int is signed.
        let value = i64::try_from(value).unwrap_or(i64::MAX).cast_unsigned();
        self.number(labels, |point| fixed64(point, 6, value))
    }

    pub(super) fn float(&mut self, labels: Option<&impl Labels>, value: f64) -> fmt::Result {
        self.number(labels, |point| fixed64(point, 4, value.to_bits()))
    }

    /// Buckets that are not cumulative, the last without a bound.
    pub(super) fn histogram(
        &mut self,
        labels: &impl Labels,
        buckets: &[(f64, u64)],
        count: u64,
        sum_seconds: f64,
    ) -> fmt::Result {
        self.attribute(labels, OF_HISTOGRAM);
        let mut point = self.started();
        fixed64(&mut point, 4, count);
        fixed64(&mut point, 5, sum_seconds.to_bits());
        // Packed: the numbers alone. The last bucket is everything beyond the last bound.
        let packed = |values: &mut dyn Iterator<Item = u64>| -> Vec<u8> {
            values.flat_map(u64::to_le_bytes).collect()
        };
        let counts = packed(&mut buckets.iter().map(|(_, count)| *count));
        let bounds = buckets.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite());
        let bounds = packed(&mut bounds.map(f64::to_bits));
        message(&mut point, 6, &counts);
        message(&mut point, 7, &bounds);
        self.add(point)
    }

    fn number(
        &mut self,
        labels: Option<&impl Labels>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> fmt::Result {
        self.attributes.clear();
        if let Some(labels) = labels {
            self.attribute(labels, OF_NUMBER);
        }
        let mut point = self.started();
        write(&mut point);
        self.add(point)
    }

    /// Writes labels as attributes, in fields of this number.
    fn attribute(&mut self, labels: &impl Labels, field: u32) {
        let Self { attributes, value: text, .. } = self;
        attributes.clear();
        labels.each(&mut |name: &str, value: &dyn Display| {
            text.clear();
            // Writing into a String cannot fail.
            let _ = write!(text, "{value}");
            message(attributes, field, &key_value(name, text));
        });
    }

    /// A point with its times. A gauge has no start time.
    fn started(&mut self) -> Vec<u8> {
        let mut point = Vec::with_capacity(self.attributes.len() + 64);
        let Some(metric) = self.metric else { return point };
        if metric.kind != Kind::Gauge {
            fixed64(&mut point, 2, self.starts.of(metric.name, &self.attributes));
        }
        fixed64(&mut point, 3, self.taken_ns);
        point
    }

    fn add(&mut self, mut point: Vec<u8>) -> fmt::Result {
        point.extend_from_slice(&self.attributes);
        message(&mut self.data, 1, &point);
        self.count += 1;
        if self.data.len() + self.metrics.len() < ENOUGH {
            return Ok(());
        }
        let metric = self.metric;
        self.end_metric();
        self.metric = metric;
        self.give_away()
    }

    fn end_metric(&mut self) {
        let Some(metric) = self.metric.take() else { return };
        if self.data.is_empty() {
            return;
        }
        let mut data = std::mem::take(&mut self.data);
        let field = match metric.kind {
            Kind::Gauge => 5,
            Kind::Counter => {
                number(&mut data, 2, CUMULATIVE);
                number(&mut data, 3, 1);
                7
            }
            Kind::Histogram => {
                number(&mut data, 2, CUMULATIVE);
                9
            }
        };
        let mut written = Vec::with_capacity(data.len() + 256);
        message(&mut written, 1, metric.name.as_bytes());
        message(&mut written, 2, metric.help.as_bytes());
        message(&mut written, 3, metric.ucum().as_bytes());
        message(&mut written, field, &data);
        message(&mut self.metrics, 2, &written);
    }

    fn give_away(&mut self) -> fmt::Result {
        if self.count == 0 {
            return Ok(());
        }
        let mut scope = Vec::with_capacity(self.metrics.len() + 32);
        let mut name = Vec::new();
        message(&mut name, 1, b"portolan");
        message(&mut scope, 1, &name);
        scope.append(&mut self.metrics);
        let mut of_resource = self.resource.0.clone();
        message(&mut of_resource, 2, &scope);
        let mut body = Vec::new();
        message(&mut body, 1, &of_resource);
        (self.give)(Request { body, points: std::mem::take(&mut self.count) })
    }
}

fn key_value(key: &str, text: &str) -> Vec<u8> {
    let mut value = Vec::with_capacity(text.len() + 4);
    message(&mut value, 1, text.as_bytes());
    let mut pair = Vec::with_capacity(key.len() + value.len() + 8);
    message(&mut pair, 1, key.as_bytes());
    message(&mut pair, 2, &value);
    pair
}

/// A field with a length: a message, a text, packed numbers.
fn message(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    encode_key(field, WireType::Varint, out);
    encode_varint(value, out);
}

fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    encode_key(field, WireType::SixtyFourBit, out);
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests;
