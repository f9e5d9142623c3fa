//! Claims about the whole exposition, on a hand-made snapshot.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use agent_common::counters::EdgeCounters;
use agent_common::edge::{CONNECT_OK, CONNECT_REFUSED};
use agent_common::reset::{KEEPALIVE_TIMEOUT, NO_LISTENER};
use proptest::prelude::*;

use super::*;
use model::fixture::{edge, snapshot};
use model::service::{Service, Source};
use model::snapshot::Role;

pub(super) const BUILD_VERSION: &str = "0.0.0";

pub(super) fn scrape() -> Scrape {
    let mut pushes = Pushes::default();
    pushes.count(PushResult::Ok, 0, Duration::from_millis(3));
    pushes.count(PushResult::Partial, 7, Duration::from_millis(5));
    Scrape {
        pushes: Some(pushes),
        previous: Some(Duration::from_micros(1_500)),
        process: Process {
            resident_bytes: Some(12_345_678),
            cpu_seconds: Some(1.25),
            open_fds: Some(42),
            max_fds: Some(1024),
            start_time_seconds: Some(1_700_000_000.25),
        },
    }
}

pub(super) fn exporter() -> Exporter {
    Exporter::new(Build { version: BUILD_VERSION.into(), kernel: "6.18.0".into() })
}

pub(super) fn render(snapshot: Snapshot, format: Format) -> String {
    let mut text = String::new();
    let rendered = exporter().render(&Arc::new(snapshot), format, scrape(), &mut text);
    rendered.expect("rendered");
    text
}

/// Compares `text` with a file of the crate; with `PORTOLAN_BLESS=1` writes the file.
pub(super) fn bless_or_compare(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("PORTOLAN_BLESS").is_some() {
        std::fs::write(&path, text).expect("writing");
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(text.lines()).find(|(old, new)| old != new);
    assert!(
        committed == text,
        "{} differs from what is generated, first at {differs:?}; PORTOLAN_BLESS=1 rewrites it",
        path.display()
    );
}

#[test]
fn the_exposition_is_the_golden_one() {
    bless_or_compare("src/golden/prometheus.txt", &render(snapshot(), Format::Prometheus));
    bless_or_compare("src/golden/openmetrics.txt", &render(snapshot(), Format::OpenMetrics));
}

#[test]
fn promtool_has_no_complaint() {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("SKIPPED: promtool is not installed; the exposition was not linted");
        return;
    };
    let text = render(snapshot(), Format::Prometheus);
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn both_formats_have_the_same_samples() {
    let samples = |format| {
        let text = render(snapshot(), format);
        text.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(samples(Format::Prometheus), samples(Format::OpenMetrics));
    assert!(render(snapshot(), Format::OpenMetrics).ends_with("\n# EOF\n"));
    assert!(!render(snapshot(), Format::Prometheus).contains("# EOF"));
}

#[test]
fn every_sample_belongs_to_a_listed_metric_and_carries_its_labels() {
    let listed: BTreeMap<&str, &Metric> = metric::all().map(|m| (m.name, m)).collect();
    assert_eq!(listed.len(), metric::all().count(), "a name is used twice");
    let mut met = std::collections::BTreeSet::new();
    for (name, labels) in samples(&render(snapshot(), Format::Prometheus)) {
        let metric = ["", "_bucket", "_sum", "_count"].iter().find_map(|suffix| {
            listed
                .get(name.strip_suffix(suffix)?)
                .filter(|metric| suffix.is_empty() || metric.kind == Kind::Histogram)
        });
        let metric = metric.unwrap_or_else(|| panic!("{name} is not listed"));
        // Labels of containers follow those of the agent's own.
        let listed_name = |label: &str| {
            if label.starts_with("label_") { "label_*".to_owned() } else { label.to_owned() }
        };
        let mut names: Vec<String> = labels
            .iter()
            .filter(|(label, _)| label != "le")
            .map(|(label, _)| listed_name(label))
            .collect();
        // Only of services that are.
        if metric.labels.contains(&"polled") && !names.iter().any(|label| label == "polled") {
            names.insert(4, "polled".to_owned());
        }
        if metric.labels.contains(&"label_*") && !names.iter().any(|label| label == "label_*") {
            names.push("label_*".to_owned());
        }
        assert_eq!(names, metric.labels, "{name}");
        met.insert(metric.name);
    }
    let missing: Vec<_> = listed.keys().filter(|name| !met.contains(*name)).collect();
    assert!(
        missing.is_empty(),
        "the snapshot has no value for {missing:?}: set it in agent/crates/model/src/fixture.rs"
    );
}

#[test]
fn no_series_occurs_twice_even_if_a_name_was_found_in_two_ways() {
    let mut twice = snapshot();
    for source in [Source::Process, Source::Listener] {
        let mut counters = EdgeCounters::ZERO;
        counters.connects[usize::from(CONNECT_OK)] = 2;
        twice.edges.push(edge(
            Service::new("curl", Source::Process),
            Service::new("same", source),
            80,
            Role::Client,
            &counters,
        ));
    }
    let text = render(twice, Format::Prometheus);
    let mut series = samples(&text);
    series.sort();
    assert!(series.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(
        text.contains(
            "server=\"same\",server_namespace=\"\",port=\"80\",role=\"client\",result=\"ok\"} 4"
        ),
        "{text}"
    );
}

#[test]
fn what_never_happened_has_no_series() {
    let mut quiet = snapshot();
    let mut counters = EdgeCounters::ZERO;
    counters.opened = 1;
    let client = Service::new("a", Source::Process);
    quiet.edges = vec![edge(client.clone(), client, 1, Role::Client, &counters)];
    let text = render(quiet, Format::Prometheus);
    let of_edges: Vec<String> = text
        .lines()
        .filter(|line| line.contains("client=\"a\""))
        .map(|line| line.split_once('{').expect("labels").0.to_owned())
        .collect();
    assert_eq!(
        of_edges,
        [
            "portolan_tcp_connects_total",
            "portolan_tcp_active_connections",
            "portolan_tcp_sent_bytes_total",
            "portolan_tcp_received_bytes_total",
            "portolan_tcp_retransmits_total",
        ],
        "a counter that is 0 has no series (docs/metrics.md); a metric that must have one all the same is added to this list"
    );
    assert!(text.contains("result=\"ok\"} 0\n"));
}

#[test]
fn a_listener_row_shows_only_what_precedes_connections() {
    let mut counters = EdgeCounters::ZERO;
    counters.listen_drops = 3;
    counters.resets_sent[usize::from(NO_LISTENER)] = 4;
    counters.connects[usize::from(CONNECT_REFUSED)] = 5;
    let mut only = snapshot();
    only.edges = vec![edge(
        Service::other(),
        Service::new("api", Source::Process),
        8080,
        Role::Listener,
        &counters,
    )];
    let text = render(only, Format::Prometheus);
    assert!(text.contains(
        "portolan_listen_overflows_total{service=\"api\",service_namespace=\"\",port=\"8080\",protocol=\"tcp\"} 3\n"
    ));
    assert!(text.contains("role=\"listener\",direction=\"sent\",cause=\"no_listener\"} 4\n"));
    assert!(!text.contains(",result=\"refused\""));
}

#[test]
fn bounds_are_printed_as_their_decimal() {
    let text = render(snapshot(), Format::Prometheus);
    let bounds: Vec<String> = samples(&text)
        .into_iter()
        .filter(|(name, labels)| {
            name == "portolan_request_duration_seconds_bucket"
                && labels.contains(&("role".to_owned(), "client".to_owned()))
        })
        .filter_map(|(_, labels)| labels.into_iter().find(|(name, _)| name == "le"))
        .map(|(_, le)| le)
        .collect();
    assert_eq!(
        bounds,
        [
            "0.000025", "0.00005", "0.0001", "0.00015", "0.00025", "0.0005", "0.001", "0.0015",
            "0.0025", "0.005", "0.01", "0.015", "0.025", "0.05", "0.1", "0.2", "0.25", "0.3",
            "0.5", "1.0", "1.2", "1.5", "2.0", "2.5", "5.0", "10.0", "+Inf"
        ]
    );
}

#[test]
fn the_format_is_what_the_scraper_prefers() {
    let check = |accept, expected| assert_eq!(Format::negotiate(accept), expected, "{accept:?}");
    check(None, Format::Prometheus);
    check(Some("*/*"), Format::Prometheus);
    check(Some("text/plain"), Format::Prometheus);
    check(Some("application/openmetrics-text"), Format::OpenMetrics);
    // Prometheus 2.42
    check(
        Some(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        ),
        Format::OpenMetrics,
    );
    check(
        Some("text/plain;version=0.0.4;q=0.9, application/openmetrics-text;q=0.5"),
        Format::Prometheus,
    );
    check(Some("application/openmetrics-text;q=0"), Format::Prometheus);
}

#[test]
fn a_cause_and_its_direction_are_counted_apart() {
    let text = render(snapshot(), Format::Prometheus);
    let name = agent_common::reset::CAUSE_NAMES[usize::from(KEEPALIVE_TIMEOUT)];
    assert!(text.contains(&format!("direction=\"received\",cause=\"{name}\"}} 1\n")), "{text}");
}

#[test]
fn listeners_that_a_user_can_have_made_up_are_in_no_gauge() {
    let gauges = |snapshot| {
        let text = render(snapshot, Format::Prometheus);
        let is_gauge = |line: &&str| {
            line.starts_with("portolan_port_listeners{")
                || line.starts_with("portolan_listen_backlog")
        };
        text.lines().filter(is_gauge).count()
    };
    let mut made_up = snapshot();
    assert!(gauges(made_up.clone()) > 0);
    for listener in &mut made_up.listeners {
        listener.unverified_user = Some(1500);
    }
    assert_eq!(gauges(made_up), 0);
}

proptest! {
    #[test]
    fn any_name_survives_escaping(name in ".{0,40}", namespace in "[a-z\\\\\"\n{},=]{0,10}") {
        let mut odd = snapshot();
        let service = Service {
            name: name.as_str().into(),
            namespace: namespace.as_str().into(),
            ..Service::new("", Source::Process)
        };
        odd.edges = vec![edge(service.clone(), service, 1, Role::Client, &EdgeCounters::ZERO)];
        odd.listeners.clear();
        let text = render(odd, Format::Prometheus);
        let (_, labels) = samples(&text)
            .into_iter()
            .find(|(name, _)| name == "portolan_tcp_active_connections")
            .expect("a sample");
        let expected = [
            ("client", name.as_str()),
            ("client_namespace", namespace.as_str()),
            ("server", name.as_str()),
            ("server_namespace", namespace.as_str()),
            ("port", "1"),
            ("role", "client"),
        ];
        let expected: Vec<_> = expected.map(|(l, v)| (l.to_owned(), v.to_owned())).into();
        prop_assert_eq!(labels, expected);
    }
}

/// Name and labels of every sample.
fn samples(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    valued(text).into_iter().map(|(name, labels, _)| (name, labels)).collect()
}

/// Name, labels and value as they are written.
pub(super) type Valued = (String, Vec<(String, String)>, String);

/// Name, labels and value of every sample. A parser of its own, because it is the reference that
/// the escaping is tested with.
pub(super) fn valued(text: &str) -> Vec<Valued> {
    text.split('\n')
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let end = line.find(['{', ' ']).expect("a name");
            let (name, mut rest) = line.split_at(end);
            let mut labels = Vec::new();
            while let Some(label) = rest.strip_prefix(['{', ',']) {
                let (label, value) = label.split_once("=\"").expect("a label");
                let mut unescaped = String::new();
                let mut characters = value.char_indices();
                let end = loop {
                    match characters.next().expect("a closing quote") {
                        (at, '"') => break at + 1,
                        (_, '\\') => match characters.next().expect("an escape").1 {
                            'n' => unescaped.push('\n'),
                            other => unescaped.push(other),
                        },
                        (_, other) => unescaped.push(other),
                    }
                };
                labels.push((label.to_owned(), unescaped));
                rest = &value[end..];
            }
            let value = rest.trim_start_matches('}').trim_start();
            (name.to_owned(), labels, value.to_owned())
        })
        .collect()
}
