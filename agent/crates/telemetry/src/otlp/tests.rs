//! Requests as OpenTelemetry's own types read them, against the text of the same snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, HistogramDataPoint, Metric as Sent, NumberDataPoint, metric::Data,
    number_data_point,
};
use prost::Message as _;

use super::*;
use crate::tests::{BUILD_VERSION, exporter, render, scrape, valued};
use crate::{Format, Snapshot};
use model::fixture::{edge, snapshot};
use model::service::{Service, Source};
use model::snapshot::Role;

const BEGAN: u64 = 1_000_000_000;

/// Walks a snapshot; at most `most` requests are taken.
fn walk(
    snapshot: Snapshot,
    starts: &mut Starts,
    most: usize,
) -> (Vec<(ExportMetricsServiceRequest, u64)>, fmt::Result) {
    let mut requests = Vec::new();
    let resource = Resource::new(BUILD_VERSION, "box");
    let walked =
        exporter().push(&Arc::new(snapshot), scrape(), &resource, starts, &mut |request| {
            if requests.len() == most {
                return Err(fmt::Error);
            }
            assert!(request.body.len() < ENOUGH * 2, "{} bytes", request.body.len());
            let read = ExportMetricsServiceRequest::decode(&*request.body).expect("a request");
            requests.push((read, request.points));
            Ok(())
        });
    (requests, walked)
}

fn pushed(snapshot: Snapshot, starts: &mut Starts) -> Vec<Sent> {
    let (requests, walked) = walk(snapshot, starts, usize::MAX);
    walked.expect("taken");
    let mut metrics = Vec::new();
    for (request, points) in requests {
        let mut before = metrics.len();
        for of_resource in request.resource_metrics {
            for scope in of_resource.scope_metrics {
                assert_eq!(scope.scope.expect("a scope").name, "portolan");
                metrics.extend(scope.metrics);
            }
        }
        let counted: usize =
            metrics.iter().skip(std::mem::replace(&mut before, 0)).map(points_of).sum();
        assert_eq!(counted as u64, points);
    }
    metrics
}

fn points_of(metric: &Sent) -> usize {
    match metric.data.as_ref().expect("data") {
        Data::Gauge(gauge) => gauge.data_points.len(),
        Data::Sum(sum) => sum.data_points.len(),
        Data::Histogram(histogram) => histogram.data_points.len(),
        other => panic!("{} is {other:?}", metric.name),
    }
}

type Series = (String, Vec<(String, String)>);

fn labels(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => (pair.key.clone(), text.clone()),
        other => panic!("{} is {other:?}", pair.key),
    };
    attributes.iter().map(text).collect()
}

fn value(point: &NumberDataPoint) -> f64 {
    match point.value.expect("a value") {
        number_data_point::Value::AsInt(value) => value as f64,
        number_data_point::Value::AsDouble(value) => value,
    }
}

/// A histogram's point as Prometheus has it: buckets that add up, their sum, their count.
fn expanded(name: &str, point: &HistogramDataPoint, all: &mut BTreeMap<Series, f64>) {
    let labels = labels(&point.attributes);
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    let bounds = point.explicit_bounds.iter().copied().chain([f64::INFINITY]);
    let mut below = 0;
    for (bound, count) in bounds.zip(&point.bucket_counts) {
        below += count;
        let mut labels = labels.clone();
        labels.insert(0, ("le".to_owned(), bound.to_string()));
        all.insert((format!("{name}_bucket"), labels), below as f64);
    }
    assert_eq!(below, point.count);
    all.insert((format!("{name}_count"), labels.clone()), point.count as f64);
    all.insert((format!("{name}_sum"), labels), point.sum.expect("a sum"));
}

fn series(metrics: &[Sent]) -> BTreeMap<Series, f64> {
    let mut all = BTreeMap::new();
    for metric in metrics {
        let numbers = match metric.data.as_ref().expect("data") {
            Data::Gauge(gauge) => &gauge.data_points,
            Data::Sum(sum) => &sum.data_points,
            Data::Histogram(histogram) => {
                for point in &histogram.data_points {
                    expanded(&metric.name, point, &mut all);
                }
                continue;
            }
            other => panic!("{} is {other:?}", metric.name),
        };
        for point in numbers {
            let series = (metric.name.clone(), labels(&point.attributes));
            assert!(all.insert(series, value(point)).is_none(), "{} twice", metric.name);
        }
    }
    all
}

fn starts_of(metrics: &[Sent], name: &str) -> Vec<u64> {
    let metric = metrics.iter().find(|metric| metric.name == name).expect(name);
    match metric.data.as_ref().expect("data") {
        Data::Sum(sum) => sum.data_points.iter().map(|p| p.start_time_unix_nano).collect(),
        other => panic!("{name} is {other:?}"),
    }
}

/// Many edges, each with a histogram.
fn large(edges: u16) -> Snapshot {
    let mut large = snapshot();
    let mut counters = agent_common::counters::EdgeCounters::default();
    counters.request.observe(1_000);
    let service = |n| Service::new(&format!("service-number-{n}"), Source::Process);
    large.edges =
        (0..edges).map(|n| edge(service(n), service(n), n, Role::Client, &counters)).collect();
    large
}

#[test]
fn what_is_pushed_is_what_is_scraped() {
    let sent = series(&pushed(snapshot(), &mut Starts::new(BEGAN)));
    let number = |text: &str| text.replace("+Inf", "inf").parse::<f64>().expect("a number");
    let scraped: BTreeMap<Series, f64> = valued(&render(snapshot(), Format::Prometheus))
        .into_iter()
        .map(|(name, mut labels, value)| {
            for (_, bound) in labels.iter_mut().filter(|(label, _)| label == "le") {
                *bound = number(bound).to_string();
            }
            ((name, labels), number(&value))
        })
        .collect();
    assert!(scraped.len() > 150, "{}", scraped.len());
    let only = |these: &BTreeMap<Series, f64>, others: &BTreeMap<Series, f64>| -> Vec<_> {
        let differs = |(series, value): &(&Series, &f64)| others.get(*series) != Some(*value);
        these.iter().filter(differs).map(|(series, value)| (series.clone(), *value)).collect()
    };
    // Only the difference: the full text is too long to read.
    assert_eq!(only(&sent, &scraped), only(&scraped, &sent));
}

#[test]
fn types_units_and_times_are_what_a_receiver_goes_by() {
    let taken = (snapshot().taken_seconds * 1e9) as u64;
    for metric in pushed(snapshot(), &mut Starts::new(BEGAN)) {
        let listed = crate::metric::all().find(|listed| listed.name == metric.name);
        let listed = listed.expect("a listed metric");
        assert_eq!(metric.description, listed.help);
        let cumulative = AggregationTemporality::Cumulative as i32;
        let times: Vec<(u64, u64)> = match metric.data.expect("data") {
            Data::Gauge(gauge) => {
                assert_eq!(listed.kind, Kind::Gauge);
                let times = |p: &NumberDataPoint| (p.start_time_unix_nano, p.time_unix_nano);
                gauge.data_points.iter().map(times).collect()
            }
            Data::Sum(sum) => {
                assert_eq!((listed.kind, sum.is_monotonic), (Kind::Counter, true));
                assert_eq!(sum.aggregation_temporality, cumulative);
                let times = |p: &NumberDataPoint| (p.start_time_unix_nano, p.time_unix_nano);
                sum.data_points.iter().map(times).collect()
            }
            Data::Histogram(histogram) => {
                assert_eq!(listed.kind, Kind::Histogram);
                assert_eq!(histogram.aggregation_temporality, cumulative);
                let times = |p: &HistogramDataPoint| (p.start_time_unix_nano, p.time_unix_nano);
                histogram.data_points.iter().map(times).collect()
            }
            other => panic!("{other:?}"),
        };
        let began = if listed.kind == Kind::Gauge { 0 } else { BEGAN };
        assert!(times.iter().all(|times| *times == (began, taken)), "{} {times:?}", listed.name);
        let unit = match listed.name {
            name if name.contains("_seconds") => "s",
            name if name.contains("_bytes") => "By",
            name if name.ends_with("_ratio") => "1",
            _ => "",
        };
        assert_eq!(metric.unit, unit, "{}", listed.name);
    }
}

#[test]
fn a_request_names_the_agent_and_its_host() {
    let (requests, _) = walk(snapshot(), &mut Starts::new(BEGAN), usize::MAX);
    let resource = requests[0].0.resource_metrics[0].resource.as_ref().expect("a resource");
    let expected = [
        ("service.name", "portolan"),
        ("service.version", BUILD_VERSION),
        ("service.instance.id", "box"),
        ("host.name", "box"),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(labels(&resource.attributes), expected);
}

#[test]
fn a_large_snapshot_goes_in_pieces_and_each_point_once() {
    let (requests, walked) = walk(large(3_000), &mut Starts::new(BEGAN), usize::MAX);
    walked.expect("taken");
    assert!(requests.len() > 3, "{} requests", requests.len());
    let metrics = pushed(large(3_000), &mut Starts::new(BEGAN));
    let histograms: usize = metrics
        .iter()
        .filter(|metric| metric.name == "portolan_request_duration_seconds")
        .map(points_of)
        .sum();
    assert_eq!(histograms, 3_000);
    // Also checks that none comes twice.
    assert!(series(&metrics).len() > 3_000 * 20);
}

#[test]
fn what_appears_between_two_pushes_has_counted_since_the_first() {
    const NAME: &str = "portolan_tcp_sent_bytes_total";
    let mut starts = Starts::new(BEGAN);
    let at = |edges: u16, taken_seconds: f64| Snapshot { taken_seconds, ..large(edges) };
    assert_eq!(starts_of(&pushed(at(1, 10.0), &mut starts), NAME), [BEGAN]);
    let ten = 10_000_000_000;
    assert_eq!(starts_of(&pushed(at(2, 20.0), &mut starts), NAME), [BEGAN, ten]);
    // A push that breaks off forgets nothing.
    let (_, walked) = walk(at(2, 25.0), &mut starts, 0);
    assert!(walked.is_err());
    assert_eq!(starts_of(&pushed(at(2, 30.0), &mut starts), NAME), [BEGAN, ten]);
    // One that ends and comes back starts again from zero.
    assert_eq!(starts_of(&pushed(at(1, 40.0), &mut starts), NAME), [BEGAN]);
    let forty = 40_000_000_000;
    assert_eq!(starts_of(&pushed(at(2, 50.0), &mut starts), NAME), [BEGAN, forty]);
    assert!(starts.series.len() < 2 * series(&pushed(at(2, 60.0), &mut starts)).len());
}
