//! Responses of Prometheus' HTTP API: `/api/v1/query` of Prometheus, Thanos, Mimir, VictoriaMetrics.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Error, Target};

/// Labels that an agent sets; what else a series has is of its target.
const OWN: &[&str] = &[
    "__name__",
    "by",
    "cause",
    "class",
    "client",
    "client_namespace",
    "direction",
    "kernel",
    "le",
    "phase",
    "polled",
    "port",
    "protocol",
    "qtype",
    "rcode",
    "result",
    "role",
    "security",
    "server",
    "server_namespace",
    "service",
    "service_namespace",
    "source",
    "status",
    "version",
];

/// A series.
#[derive(Debug)]
pub(super) struct Series {
    pub name: String,
    /// The labels of its target, as `instance` and `job`.
    pub target: Target,
    labels: BTreeMap<String, String>,
    /// Time, seconds since the Unix epoch, and value; oldest first.
    pub samples: Vec<(f64, f64)>,
}

#[derive(Deserialize)]
struct Response {
    status: String,
    data: Option<Data>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: serde_json::Value,
}

#[derive(Deserialize)]
struct Line {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, String)>,
    value: Option<(f64, String)>,
}

/// The series of a query for a range of samples.
pub(super) fn range(body: &str) -> Result<Vec<Series>, Error> {
    read(body, "matrix")
}

/// The series of a query for the samples of a moment.
pub(super) fn instant(body: &str) -> Result<Vec<Series>, Error> {
    read(body, "vector")
}

fn read(body: &str, kind: &str) -> Result<Vec<Series>, Error> {
    let strange = |error: serde_json::Error| Error::NotPrometheus(error.to_string());
    let Response { status, data, error } = serde_json::from_str(body).map_err(strange)?;
    if status != "success" {
        return Err(Error::Refused(error.unwrap_or(status)));
    }
    let data = data.ok_or_else(|| Error::NotPrometheus("there is no \"data\"".to_owned()))?;
    if data.kind != kind {
        let why = format!("the result is a {:?} in place of a {kind}", data.kind);
        return Err(Error::NotPrometheus(why));
    }
    let lines: Vec<Line> = serde_json::from_value(data.result).map_err(strange)?;
    Ok(lines.into_iter().map(Series::of).collect())
}

// === impl Series ===

impl Series {
    fn of(line: Line) -> Self {
        let Line { metric, values, value } = line;
        let is_own = |name: &str| OWN.contains(&name) || name.starts_with("label_");
        let (labels, target): (BTreeMap<_, _>, BTreeMap<_, _>) =
            metric.into_iter().partition(|(name, _)| is_own(name));
        let number = |(time, text): (f64, String)| Some((time, text.parse::<f64>().ok()?));
        let samples = values.into_iter().chain(value).filter_map(number);
        // What was never measured is NaN.
        let samples = samples.filter(|(time, value)| time.is_finite() && value.is_finite());
        let name = labels.get("__name__").cloned().unwrap_or_default();
        Self { name, target, labels, samples: samples.collect() }
    }

    /// The value of a label; empty if it has none, as in Prometheus.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map(String::as_str).unwrap_or_default()
    }
}
