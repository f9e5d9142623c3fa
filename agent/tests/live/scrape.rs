//! A scrape: a strict parser of Prometheus' text format, and lookups in it.
//!
//! An absent series counts as zero: a counter of something that never happened has none.
//!
//! | to read | use |
//! |---|---|
//! | series by name and labels | [`Scrape::sum`], [`Scrape::has`], [`Scrape::matching`], [`Scrape::histogram`]; of any labels [`Scrape::has_metric`] |
//! | one edge, by both names, port and role | [`Scrape::edge`]; by fewer labels [`Scrape::edges`] |
//! | a number of that edge | [`Edge::connects`], [`Edge::active`], [`Edge::sent_bytes`], [`Edge::retransmits`], [`Edge::resets`], [`Edge::requests`] and others of its methods; any metric by name: [`Edge::gauge`], [`Edge::number`] |
//! | a histogram | [`Histogram::mean`], [`Histogram::at_most`] |
//! | the ledger | [`Scrape::ledger_gaps`] (empty at rest), [`Scrape::losses`], [`Scrape::misses`], [`Scrape::skipped`] |
//! | what there is, for the message of a failure | [`Scrape::who`] |

use std::collections::BTreeMap;

/// One response of `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// Every sample, in the order of the response.
    pub samples: Vec<Sample>,
    /// Types by metric name.
    pub types: BTreeMap<String, String>,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// With `_bucket`, `_sum` or `_count`, if of a histogram.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// An edge in a scrape.
pub struct Edge<'a> {
    scrape: &'a Scrape,
    labels: Vec<(&'static str, String)>,
}

/// A histogram as Prometheus sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Cumulative counts by upper bound in seconds; the last is infinity.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of all observations, seconds.
    pub sum: f64,
    /// How many there were.
    pub count: u64,
}

// === impl Scrape ===

impl Scrape {
    /// Parses a response; panics at a line that the format does not allow, or at a duplicate
    /// series.
    pub fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type has a name and a kind");
                let again = scrape.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(again, None, "{name} has two types");
            } else if !line.is_empty() && !line.starts_with("# HELP ") {
                assert!(!line.starts_with('#'), "no comment we know: {line}");
                scrape.samples.push(Sample::parse(line));
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        for sample in &scrape.samples {
            assert!(seen.insert((&sample.name, &sample.labels)), "given twice: {sample:?}");
        }
        scrape
    }

    /// The series of this name with at least these labels.
    pub fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.label(key) == Some(*value))
        })
    }

    /// The sum over all series of this name with at least these labels; whole numbers only.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.matching(name, labels).map(|sample| whole(sample.value)).sum()
    }

    /// Whether there is any series of this name with at least these labels.
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// Whether this metric has any series, as a histogram or otherwise.
    pub fn has_metric(&self, metric: &str) -> bool {
        self.samples.iter().any(|sample| {
            let rest = sample.name.strip_prefix(metric);
            rest.is_some_and(|rest| matches!(rest, "" | "_bucket" | "_sum" | "_count"))
        })
    }

    /// The histogram of this name, added up over all series with at least these labels.
    pub fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Histogram {
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        for sample in self.matching(&format!("{name}_bucket"), labels) {
            let bound = number(sample.label("le").expect("a bucket has a bound"));
            match buckets.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
                Some((_, count)) => *count += whole(sample.value),
                None => buckets.push((bound, whole(sample.value))),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        Histogram {
            buckets,
            sum: self.matching(&format!("{name}_sum"), labels).map(|sample| sample.value).sum(),
            count: self.sum(&format!("{name}_count"), labels),
        }
    }

    /// The edge with these labels, whether it has any series or not. `role` is `client`, `server`
    /// or `listener` (whose client is `any`).
    pub fn edge(&self, client: &str, server: &str, port: u16, role: &str) -> Edge<'_> {
        let labels = [("client", client), ("server", server), ("role", role)];
        let mut labels: Vec<_> = labels.map(|(key, value)| (key, value.to_owned())).into();
        labels.push(("port", port.to_string()));
        Edge { scrape: self, labels }
    }

    /// The edge with at least these labels, for what one name alone decides.
    pub fn edges(&self, labels: &[(&'static str, &str)]) -> Edge<'_> {
        let labels = labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        Edge { scrape: self, labels }
    }

    /// What was lost, by class and reason, without zeros.
    pub fn losses(&self) -> Vec<(&str, &str, u64)> {
        self.matching("portolan_events_lost_total", &[])
            .filter(|sample| sample.value > 0.0)
            .map(|sample| {
                let label = |name| sample.label(name).unwrap_or_default();
                (label("class"), label("reason"), whole(sample.value))
            })
            .collect()
    }

    /// Runs that the kernel skipped, by hook, without zeros.
    pub fn misses(&self) -> Vec<(&str, u64)> {
        self.matching("portolan_hook_misses_total", &[])
            .filter(|sample| sample.value > 0.0)
            .map(|sample| (sample.label("hook").unwrap_or_default(), whole(sample.value)))
            .collect()
    }

    /// All runs that the kernel skipped.
    pub fn skipped(&self) -> u64 {
        self.misses().iter().map(|(_, runs)| runs).sum()
    }

    /// The edges: `client > server:port as role`.
    pub fn who(&self) -> Vec<String> {
        let describe = |sample: &Sample| {
            let [client, server, port, role] = ["client", "server", "port", "role"]
                .map(|name| sample.label(name).unwrap_or_default());
            format!("{client} > {server}:{port} as {role}")
        };
        self.matching("portolan_tcp_active_connections", &[]).map(describe).collect()
    }

    /// Classes of the ledger that do not add up: (class, seen, exported, lost).
    pub fn ledger_gaps(&self) -> Vec<(String, u64, u64, u64)> {
        let mut gaps = Vec::new();
        for sample in self.matching("portolan_events_seen_total", &[]) {
            let class = sample.label("class").expect("seen has a class");
            let of = |name| self.sum(name, &[("class", class)]);
            let seen = whole(sample.value);
            let exported = of("portolan_events_exported_total");
            let lost = of("portolan_events_lost_total");
            if seen != exported + lost {
                gaps.push((class.to_owned(), seen, exported, lost));
            }
        }
        gaps
    }
}

// === impl Edge ===

impl Edge<'_> {
    /// Ended attempts with this result; of a server, accepted connections are `ok`.
    pub fn connects(&self, result: &str) -> u64 {
        self.sum("portolan_tcp_connects_total", &[("result", result)])
    }

    /// Ended attempts with any result.
    pub fn all_connects(&self) -> u64 {
        self.sum("portolan_tcp_connects_total", &[])
    }

    /// Connections open now.
    pub fn active(&self) -> u64 {
        self.sum("portolan_tcp_active_connections", &[])
    }

    /// Connections from before the agent.
    pub fn preexisting(&self) -> u64 {
        self.sum("portolan_tcp_preexisting_connections_total", &[])
    }

    /// Payload bytes sent.
    pub fn sent_bytes(&self) -> u64 {
        self.sum("portolan_tcp_sent_bytes_total", &[])
    }

    /// Payload bytes received.
    pub fn received_bytes(&self) -> u64 {
        self.sum("portolan_tcp_received_bytes_total", &[])
    }

    /// Retransmits.
    pub fn retransmits(&self) -> u64 {
        self.sum("portolan_tcp_retransmits_total", &[])
    }

    /// Retransmits in this phase.
    pub fn retransmits_in(&self, phase: &str) -> u64 {
        self.sum("portolan_tcp_retransmits_total", &[("phase", phase)])
    }

    /// The sum of the series of this name, whatever it counts.
    pub fn gauge(&self, name: &str) -> u64 {
        self.sum(name, &[])
    }

    /// The sum of the series of this name with these labels as well, with its fraction.
    pub fn number(&self, name: &str, more: &[(&str, &str)]) -> f64 {
        let mut labels = self.borrowed();
        labels.extend(more);
        self.scrape.matching(name, &labels).map(|sample| sample.value).sum()
    }

    /// Resets in this direction (`sent`, `received`) for this cause.
    pub fn resets(&self, direction: &str, cause: &str) -> u64 {
        self.sum("portolan_tcp_resets_total", &[("direction", direction), ("cause", cause)])
    }

    /// Resets in this direction by cause, without zeros.
    pub fn resets_by_cause(&self, direction: &str) -> BTreeMap<String, u64> {
        let mut labels = self.borrowed();
        labels.push(("direction", direction));
        let mut causes = BTreeMap::new();
        for sample in self.scrape.matching("portolan_tcp_resets_total", &labels) {
            let cause = sample.label("cause").expect("a reset has a cause").to_owned();
            *causes.entry(cause).or_default() += whole(sample.value);
        }
        causes
    }

    /// Time from SYN to established.
    pub fn connect_duration(&self) -> Histogram {
        self.scrape.histogram("portolan_tcp_connect_duration_seconds", &self.borrowed())
    }

    /// Round trip times.
    pub fn rtt(&self) -> Histogram {
        self.scrape.histogram("portolan_tcp_rtt_seconds", &self.borrowed())
    }

    /// Request latency.
    pub fn requests(&self) -> Histogram {
        self.scrape.histogram("portolan_request_duration_seconds", &self.borrowed())
    }

    /// Requests without a response.
    pub fn unanswered(&self) -> u64 {
        self.sum("portolan_requests_unanswered_total", &[])
    }

    fn sum(&self, name: &str, more: &[(&str, &str)]) -> u64 {
        let mut labels = self.borrowed();
        labels.extend(more);
        self.scrape.sum(name, &labels)
    }

    fn borrowed(&self) -> Vec<(&str, &str)> {
        self.labels.iter().map(|(key, value)| (*key, value.as_str())).collect()
    }
}

// === impl Histogram ===

impl Histogram {
    /// Mean in seconds; NaN without observations.
    pub fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    /// How many observations were at most `seconds`, which must be one of the bounds.
    pub fn at_most(&self, seconds: f64) -> u64 {
        if self.count == 0 {
            return 0;
        }
        let found = self.buckets.iter().find(|(bound, _)| bound.total_cmp(&seconds).is_eq());
        found.unwrap_or_else(|| panic!("{seconds} is not a bound of {:?}", self.buckets)).1
    }
}

// === impl Sample ===

impl Sample {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }

    /// Parses `name{label="value",…} value`.
    fn parse(line: &str) -> Self {
        let bad = |what: &str| -> ! { panic!("{what}: {line}") };
        let end = line.find(['{', ' ']).unwrap_or_else(|| bad("no value"));
        let (name, mut rest) = line.split_at(end);
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if name.is_empty() || !name.chars().all(good) {
            bad("no name of a metric");
        }
        let mut labels = BTreeMap::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let Some((key, after)) = rest.split_once("=\"") else { bad("no label") };
                let (value, after) = unquote(after).unwrap_or_else(|| bad("no end of a label"));
                if labels.insert(key.to_owned(), value).is_some() {
                    bad("a label twice");
                }
                rest = after.strip_prefix(',').unwrap_or(after);
            }
            rest = &rest[1..];
        }
        let Some(value) = rest.strip_prefix(' ') else { bad("no space before the value") };
        Self { name: name.to_owned(), labels, value: number(value) }
    }
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let (mut value, mut characters) = (String::new(), text.char_indices());
    loop {
        match characters.next()? {
            (at, '"') => return Some((value, &text[at + 1..])),
            (_, '\\') => value.push(match characters.next()?.1 {
                'n' => '\n',
                escaped @ ('"' | '\\') => escaped,
                _ => return None,
            }),
            (_, other) => value.push(other),
        }
    }
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        text => text.parse().unwrap_or_else(|_| panic!("{text} is not a number")),
    }
}

/// A value that counts something.
fn whole(value: f64) -> u64 {
    assert!(value >= 0.0 && value.fract() == 0.0, "{value} counts nothing");
    value as u64
}

#[test]
fn lines_parse_as_prometheus_would() {
    let text = "# TYPE a_total counter\na_total{x=\"1,\\\"}\",y=\"\"} 3\nb 0.5\n";
    let scrape = Scrape::parse(text);
    assert_eq!(scrape.sum("a_total", &[("x", "1,\"}")]), 3);
    assert_eq!(scrape.sum("a_total", &[("x", "2")]), 0);
    assert_eq!(scrape.samples[1].value.to_bits(), 0.5f64.to_bits());
}
