//! Claims about recorded metrics: what the agent exports is read back as what the agent shows.

use std::fmt::Write as _;

use api_types::WindowChoice;
use model::fixture;
use server::convert::{self, EdgeQuery};

use super::queries::GAUGES;
use super::*;

/// What the agent exports of [`fixture::snapshot`].
const EXPORTED: &str = include_str!("../../../telemetry/src/golden/prometheus.txt");

/// The moment, and the window that ends there.
const AT: f64 = 1_700_000_100.0;
const SECONDS: u64 = 100;

fn at() -> Timestamp {
    Timestamp::from_seconds(AT)
}

/// The labels of a sample as JSON: in the text they are written alike.
fn metric(name: &str, labels: &str, instance: &str) -> String {
    let mut json =
        format!("{{\"__name__\":\"{name}\",\"instance\":\"{instance}\",\"job\":\"portolan\"");
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once('=').expect("a label");
        write!(json, ",\"{name}\":{value}").expect("a string takes all");
    }
    json + "}"
}

/// Responses to the queries, if Prometheus scraped this text at the moment, and nothing but the clock
/// at the beginning of the window; edited by `edit`.
fn responses(instance: &str, first: f64) -> [Vec<String>; 3] {
    let [mut counters, mut histograms, mut gauges] = [const { Vec::new() }; 3];
    for line in EXPORTED.lines().filter(|line| !line.starts_with('#')) {
        // As agents name the client of a listener.
        let line = if line.contains("role=\"listener\"") {
            line.replace("client=\"other\"", "client=\"any\"")
        } else {
            line.to_owned()
        };
        let (series, value) = line.rsplit_once(' ').expect("a sample");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let metric = metric(name, labels.trim_end_matches('}'), instance);
        let samples = format!("{{\"metric\":{metric},\"values\":[[{AT},\"{value}\"]]}}");
        if name == CLOCK {
            counters.push(format!(
                "{{\"metric\":{metric},\"values\":[[{first},\"1\"],[{AT},\"{value}\"]]}}"
            ));
        } else if counters::COUNTERS.contains(&name) || name == ACTIVE {
            counters.push(samples.clone());
        } else if name.ends_with("_seconds_bucket") || name.ends_with("_seconds_sum") {
            histograms.push(samples.clone());
        }
        if GAUGES.contains(&name) {
            gauges.push(samples);
        }
    }
    [counters, histograms, gauges]
}

fn bodies(series: &[Vec<String>; 3]) -> Vec<String> {
    let body = |kind: &str, series: &[String]| {
        format!(
            "{{\"status\":\"success\",\"data\":{{\"resultType\":\"{kind}\",\"result\":[{}]}}}}",
            series.join(",")
        )
    };
    let [counters, histograms, gauges] = series;
    vec![body("matrix", counters), body("matrix", histograms), body("matrix", gauges)]
}

fn recorded() -> Recorded {
    let series = responses("node1:10062", AT - SECONDS as f64);
    Recorded::read(&bodies(&series), at(), SECONDS).expect("readable")
}

/// What is compared: numbers, and what is made of them. How names were found is of now.
fn numbers(mut value: serde_json::Value) -> serde_json::Value {
    let fields = [
        "client_kind",
        "client_source",
        "server_kind",
        "server_source",
        "kind",
        "source",
        "changes_before",
        "virtual_service",
        "virtual_service_namespace",
        "registered",
        "registration",
        "listens",
        // Not read yet: `portolan operations` takes no --prometheus.
        "operations",
        "operations_unanswered",
    ];
    if let Some(object) = value.as_object_mut() {
        for field in fields {
            object.remove(field);
        }
    }
    value
}

#[test]
fn edges_have_the_agents_figures() {
    let snapshot = fixture::snapshot();
    let window = WindowChoice::Last(SECONDS);
    // What a user can have made up is in no metric.
    let mut expected = convert::edges(&snapshot, EdgeQuery::Rows(window), |labels| {
        labels.unverified_user.is_none()
    });
    for edge in expected.edges.iter_mut().filter(|edge| edge.role == api_types::Role::Listener) {
        ANY.clone_into(&mut edge.client);
    }
    let found = recorded().edges();
    let key = |edge: &api_types::Edge| (edge.client.clone(), edge.server.clone(), edge.port);
    assert!(expected.edges.len() > 2, "{expected:?}");
    for edge in &expected.edges {
        let same = found.edges.iter().find(|one| key(one) == key(edge) && one.role == edge.role);
        let same = same.unwrap_or_else(|| panic!("{} is missing", edge.server));
        let json = |edge| numbers(serde_json::to_value(edge).expect("JSON"));
        assert_eq!(json(same), json(edge));
    }
    assert_eq!(found.edges.len(), expected.edges.len());
    assert!((found.window.seconds - SECONDS as f64).abs() < 1e-6, "{:?}", found.window);
}

#[test]
fn services_have_the_agents_health() {
    let expected = convert::services(&fixture::snapshot(), WindowChoice::Last(SECONDS), |_| true);
    let found = recorded().services();
    let mut compared = 0;
    for service in &found.services {
        let same = expected.services.iter().find(|one| {
            one.service == service.service && one.service_namespace == service.service_namespace
        });
        let same = same.unwrap_or_else(|| panic!("no service is called {}", service.service));
        let json = |health| numbers(serde_json::to_value(health).expect("JSON"));
        assert_eq!(json(&service.health), json(&same.health), "{}", service.service);
        assert_eq!(service.source, same.source, "{}", service.service);
        compared += 1;
    }
    assert!(compared >= 3, "{found:?}");
}

#[test]
fn two_agents_are_one_answer_and_their_counts_are_summed() {
    let mut series = responses("node1:10062", AT - SECONDS as f64);
    for (all, more) in series.iter_mut().zip(responses("node2:10062", AT - SECONDS as f64)) {
        all.extend(more);
    }
    let both = Recorded::read(&bodies(&series), at(), SECONDS).expect("readable");
    let names: Vec<&str> = both.agents().iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["node1:10062", "node2:10062"]);
    let (one, two) = (recorded().edges(), both.edges());
    assert_eq!(one.edges.len(), two.edges.len());
    for (one, two) in one.edges.iter().zip(&two.edges) {
        assert_eq!(two.request.count, 2 * one.request.count);
        assert_eq!(two.request.p99_seconds, one.request.p99_seconds, "the same distribution");
        assert_eq!(two.active, 2 * one.active);
        let sum = |edge: &api_types::Edge| edge.connects.values().sum::<u64>();
        assert_eq!(sum(two), 2 * sum(one));
    }
}

#[test]
fn a_map_has_applications_or_what_is_around_a_service() {
    let map = recorded().map(&["postgres".to_owned()]);
    let drawn: Vec<_> =
        map.edges.iter().map(|edge| (&*edge.client, &*edge.server, edge.failed)).collect();
    assert_eq!(drawn, [("internet", "shop", 0), ("shop", "postgres", 3)]);
    assert!(recorded().map(&[]).edges.len() <= recorded().map(&["shop".to_owned()]).edges.len());
}

#[test]
fn growth_is_of_the_window_from_zero_where_a_series_begins_and_anew_where_it_falls() {
    let scraped = Scraped { first: 100.0, last: 160.0 };
    let check = |samples: &[(f64, f64)], grown: f64| {
        assert!((scraped.growth(samples) - grown).abs() < 1e-9, "{samples:?}");
    };
    check(&[(85.0, 3.0), (100.0, 5.0), (130.0, 5.0), (160.0, 9.0)], 4.0);
    check(&[(130.0, 2.0), (160.0, 9.0)], 9.0);
    check(&[(100.0, 5.0), (130.0, 2.0), (160.0, 3.0)], 3.0);
    check(&[(100.0, 5.0)], 0.0);
    check(&[], 0.0);
    // Open connections rise and fall.
    let change = |samples: &[(f64, f64)]| scraped.change(samples);
    assert!((change(&[(100.0, 5.0), (130.0, 2.0)]) + 3.0).abs() < 1e-9);
    assert!((change(&[(130.0, 2.0)]) - 2.0).abs() < 1e-9);
    // Gone at the last scrape.
    assert_eq!(scraped.value(&[(130.0, 2.0), (160.0, 3.0)]), Some(3.0));
    assert_eq!(scraped.value(&[(130.0, 2.0)]), None);
}

#[test]
fn a_window_begins_with_the_sample_before_it_or_the_first_there_is() {
    let of = |times: &[f64]| {
        let samples: Vec<_> = times.iter().map(|time| (*time, 1.0)).collect();
        Scraped::of(&samples, 100.0).map(|one| (one.first, one.last))
    };
    assert_eq!(of(&[70.0, 85.0, 115.0, 145.0]), Some((85.0, 145.0)));
    assert_eq!(of(&[110.0, 125.0]), Some((110.0, 125.0)));
    assert_eq!(of(&[85.0]), None);
    assert_eq!(of(&[110.0]), None);
    assert_eq!(of(&[]), None);
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    let read = |bodies: &[String]| Recorded::read(bodies, at(), SECONDS).expect_err("refused");
    let none = bodies(&[Vec::new(), Vec::new(), Vec::new()]);
    assert_eq!(read(&none).to_string(), "it has no metrics of Portolan at 2023-11-14T22:15:00Z");
    // One scrape within the window, and none before.
    let one = bodies(&responses("node1:10062", AT));
    assert_eq!(read(&one), Error::TooFew { at: at(), seconds: SECONDS });
    assert!(read(&one).to_string().contains("take a longer --window"), "{}", read(&one));
    let refused = r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#.to_owned();
    assert_eq!(read(&[refused]).to_string(), "it refused the query: parse error");
    let mut strange = none.clone();
    for text in ["", "<html>", "{}", "[]", r#"{"status":"success"}"#, "{\"status\":1}"] {
        text.clone_into(&mut strange[0]);
        assert!(matches!(read(&strange), Error::NotPrometheus(_)), "{text}");
    }
    strange[0] = none[0].replace("matrix", "vector");
    assert!(read(&strange).to_string().contains("in place of a matrix"), "{}", read(&strange));
    assert!(matches!(read(&[]), Error::NotPrometheus(_)));
}

#[test]
fn an_agent_that_was_not_scraped_in_the_window_is_named() {
    let mut series = responses("node1:10062", AT - SECONDS as f64);
    let gone = metric(CLOCK, "", "node2:10062");
    let before = AT - SECONDS as f64 - 30.0;
    series[0].push(format!("{{\"metric\":{gone},\"values\":[[{before},\"7\"]]}}"));
    let recorded = Recorded::read(&bodies(&series), at(), SECONDS).expect("readable");
    let errors: Vec<_> = recorded.agents().iter().map(|one| one.error.is_some()).collect();
    assert_eq!(errors, [false, true]);
}

#[test]
fn queries_name_every_metric_that_is_read_and_the_moment() {
    let queries = queries(at(), 60);
    assert_eq!(queries.len(), 3);
    for query in &queries {
        assert!(query.starts_with("/api/v1/query?query="), "{query}");
        assert!(query.ends_with("&time=1700000100.000"), "{query}");
        assert!(!query.contains(['{', '"', ' ', '|']), "{query}");
    }
    let known: Vec<&str> = telemetry::catalogue().map(|metric| metric.name).collect();
    let asked = counters::COUNTERS.iter().chain(GAUGES).chain([&CLOCK]);
    for name in asked {
        assert!(known.contains(name), "{name} is not a metric");
    }
    for name in counters::HISTOGRAMS {
        let name = name.strip_suffix("_(bucket|sum)").expect("a histogram");
        assert!(known.contains(&name), "{name} is not a metric");
    }
}
