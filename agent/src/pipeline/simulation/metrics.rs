//! Counters as a scraper reads them.

use std::collections::BTreeMap;

use super::fake::Truth;

/// Counters that a scraper reads.
pub(super) struct Metrics(pub(super) BTreeMap<String, f64>);

// === impl Metrics ===

impl Metrics {
    /// Reads the text format; buckets of histograms are left out.
    pub(super) fn read(text: &str) -> Self {
        let mut counters = BTreeMap::new();
        let mut is_counter = false;
        for line in text.lines() {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').expect("a type");
                // How the agent works is not the world's.
                let is_own =
                    name.starts_with("process_") || name.contains("duration_seconds_total");
                is_counter = kind != "gauge" && !is_own;
            }
            if !is_counter || line.starts_with('#') || line.contains("_bucket{") {
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            counters.insert(series.to_owned(), value.parse().expect("a number"));
        }
        Self(counters)
    }

    /// Series that never go back.
    pub(super) fn counters(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(series, value)| (series.as_str(), *value))
    }

    /// Every series of a metric with its value.
    pub(super) fn series<'a>(&'a self, metric: &str) -> impl Iterator<Item = (&'a str, f64)> {
        let first = metric.to_owned();
        let range = self.0.range(first.clone()..);
        let of = range.take_while(move |(series, _)| series.starts_with(&first));
        let is_whole = metric.len();
        of.filter(move |(series, _)| {
            series.as_bytes().get(is_whole).is_none_or(|next| *next == b'{')
        })
        .map(|(series, value)| (series.as_str(), *value))
    }

    pub(super) fn truth(&self) -> Truth {
        Truth {
            connects: self.by("portolan_tcp_connects_total", "client"),
            requests: self.by("portolan_request_duration_seconds_count", "client"),
            resets: self.by("portolan_tcp_resets_total", "client"),
            drops: self.by("portolan_listen_overflows_total", "service"),
            conflicts: self.by("portolan_port_conflicts_total", "claimant"),
        }
    }

    /// Sums of a metric by a label, without zeros.
    pub(super) fn by(&self, metric: &str, label: &str) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for (series, value) in self.series(metric).filter(|(_, value)| *value > 0.0) {
            *sums.entry(value_of(series, label)).or_default() += value as u64;
        }
        sums
    }

    /// Servers, by name.
    pub(super) fn servers(&self) -> BTreeMap<String, u64> {
        self.by("portolan_tcp_connects_total", "server")
    }
}

fn value_of(series: &str, label: &str) -> String {
    let (_, rest) = series.split_once(&format!("{label}=\"")).expect("the label");
    rest.split('"').next().expect("a value").to_owned()
}
