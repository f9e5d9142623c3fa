//! Which metrics the agent exports, and with which labels: read from `docs/metrics.md`, which is
//! generated from the catalogue of the `telemetry` crate. A test compares the two, so building this
//! crate takes neither TLS nor HTTP along.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

const LIST: &str = "docs/metrics.md";
/// Labels that Prometheus adds to every series of a target.
const OF_THE_TARGET: [&str; 3] = ["cluster", "instance", "job"];
/// How labels of pods and containers begin (names.labels), and how docs/metrics.md names them all.
const OF_CONTAINERS: &str = "label_";
const ANY_OF_CONTAINERS: &str = "label_*";
/// The label of a histogram's buckets.
const BOUND: &str = "le";
/// Suffixes of a histogram's series.
const ENDINGS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// The metrics, by name.
pub struct Catalogue(BTreeMap<String, Metric>);

#[derive(Default)]
struct Metric {
    is_histogram: bool,
    labels: BTreeSet<String>,
}

impl Catalogue {
    /// Reads the list of the checkout at `root`.
    pub fn read(root: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(root.join(LIST)).with_context(|| format!("reading {LIST}"))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut metrics = BTreeMap::new();
        let mut current: Option<&mut Metric> = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("### ") {
                current = Some(metrics.entry(name.to_owned()).or_default());
            } else if let Some(metric) = current.as_deref_mut() {
                if let Some(kind) = line.strip_prefix("* type: ") {
                    metric.is_histogram = kind.starts_with("histogram");
                } else if let Some(labels) = line.strip_prefix("* labels: ") {
                    metric.labels =
                        labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
                }
            }
        }
        Self(metrics)
    }

    /// Every metric.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Checks that a series with this name and these labels exists; the error names what does not.
    pub fn check<'a>(
        &self,
        series: &str,
        mut labels: impl Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        let of_histogram = || {
            let name = ENDINGS.iter().find_map(|ending| series.strip_suffix(ending))?;
            self.0.get(name).filter(|metric| metric.is_histogram)
        };
        let plain = self.0.get(series).filter(|metric| !metric.is_histogram);
        let metric = plain.or_else(of_histogram);
        let metric =
            metric.ok_or_else(|| format!("{series} is not a series of the agent: see {LIST}"))?;
        let unknown = labels.find(|label| {
            let is_known = metric.labels.contains(*label)
                || OF_THE_TARGET.contains(label)
                || (label.starts_with(OF_CONTAINERS) && metric.labels.contains(ANY_OF_CONTAINERS))
                || (series.ends_with("_bucket") && *label == BOUND);
            !is_known
        });
        unknown.map_or(Ok(()), |label| Err(format!("{series} has no label {label}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_the_catalogue_of_the_code() {
        let Catalogue(mut listed) = Catalogue::read(&crate::tests::root()).unwrap();
        for metric in telemetry::catalogue() {
            let name = metric.name;
            let found = listed.remove(name).unwrap_or_else(|| panic!("{LIST} lacks {name}"));
            assert_eq!(found.is_histogram, metric.kind == telemetry::Kind::Histogram, "{name}");
            let labels = metric.labels.iter().map(|label| (*label).to_owned());
            assert_eq!(found.labels, labels.collect(), "{name}");
        }
        assert!(listed.is_empty(), "no longer in the code: {:?}", listed.keys());
    }

    #[test]
    fn a_series_is_known_by_its_metric_and_its_labels() {
        let catalogue = Catalogue::parse(
            "### a_total\n\n* type: counter\n* labels: `port`, `role`\n\n### b_seconds\n* type: histogram, in seconds\n",
        );
        let check = |series, label: &'static str, expected: &str| {
            let problem = catalogue.check(series, [label].into_iter()).err().unwrap_or_default();
            assert_eq!(problem.split(':').next().unwrap(), expected);
        };
        check("a_total", "port", "");
        check("a_total", "instance", "");
        check("a_total", "server", "a_total has no label server");
        check("a_total_count", "port", "a_total_count is not a series of the agent");
        check("b_seconds", "job", "b_seconds is not a series of the agent");
        check("b_seconds_bucket", "le", "");
        check("b_seconds_sum", "le", "b_seconds_sum has no label le");
        check("c", "port", "c is not a series of the agent");
    }
}
