//! Pushing: a collector gets what a scrape shows, also after it was away.
//!
//! The collector decodes with OpenTelemetry's own types and rebuilds the samples that a scrape
//! would have, so that both are compared in the same form.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    HistogramDataPoint, Metric, metric::Data, number_data_point,
};
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::agent::Agent;
use crate::facts::patience;
use crate::namespace::Pair;
use crate::net;
use crate::scrape::{Sample, Scrape};
use crate::web::Keys;

const SECRET: &str = "Bearer secret-token";
const CONNECTIONS: u64 = 7;

/// A receiver of OTLP over HTTP.
struct Collector {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// Whether it responds that it is busy.
    busy: bool,
    requests: u64,
    /// The request that was taken last: a push of so few series is one.
    latest: Option<ExportMetricsServiceRequest>,
    authorization: String,
}

impl Collector {
    fn start() -> Self {
        Self::with(None)
    }

    /// A collector with TLS, if it has a certificate.
    fn with(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                thread::spawn(move || {
                    let Some(tls) = tls else {
                        while serve(&mut stream, &shared).is_some() {}
                        return;
                    };
                    let connection = ServerConnection::new(tls).expect("a connection");
                    let mut stream = StreamOwned::new(connection, stream);
                    while serve(&mut stream, &shared).is_some() {}
                });
            }
        });
        Self { address, seen }
    }

    /// Polls its data until `value` is there.
    fn eventually<T>(&self, value: impl Fn(&Seen) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(value) = value(&self.seen.lock().unwrap()) {
                return value;
            }
            assert!(began.elapsed() < patience(Duration::from_secs(15)), "nothing like it came");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Answers one request of a connection; `None` at its end.
fn serve(stream: &mut (impl Read + Write), seen: &Mutex<Seen>) -> Option<()> {
    let mut reader = BufReader::new(&mut *stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
    let mut authorization = String::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => value.clone_into(&mut authorization),
            "content-type" => assert_eq!(value, "application/x-protobuf"),
            _ => {}
        }
    }
    assert_eq!(first.trim_end(), "POST /v1/metrics HTTP/1.1");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut seen = seen.lock().unwrap();
    seen.requests += 1;
    let status = if seen.busy {
        "503 Service Unavailable"
    } else {
        seen.latest = Some(ExportMetricsServiceRequest::decode(&*body).expect("a request"));
        seen.authorization = authorization;
        "200 OK"
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").ok()
}

/// The samples that Prometheus would have scraped.
fn rebuilt(request: &ExportMetricsServiceRequest) -> Scrape {
    let mut scrape = Scrape::default();
    for of_resource in &request.resource_metrics {
        for metric in of_resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            add(metric, &mut scrape.samples);
        }
    }
    scrape
}

fn add(metric: &Metric, samples: &mut Vec<Sample>) {
    let numbers = match metric.data.as_ref().expect("data") {
        Data::Gauge(gauge) => &gauge.data_points,
        Data::Sum(sum) => &sum.data_points,
        Data::Histogram(histogram) => {
            histogram.data_points.iter().for_each(|point| expand(&metric.name, point, samples));
            return;
        }
        other => panic!("{} is {other:?}", metric.name),
    };
    for point in numbers {
        let value = match point.value.expect("a value") {
            number_data_point::Value::AsInt(value) => value as f64,
            number_data_point::Value::AsDouble(value) => value,
        };
        let (name, labels) = (metric.name.clone(), labels(&point.attributes));
        samples.push(Sample { name, labels, value });
    }
}

fn expand(name: &str, point: &HistogramDataPoint, samples: &mut Vec<Sample>) {
    let labels = labels(&point.attributes);
    let mut below = 0;
    let bounds = point.explicit_bounds.iter().copied().chain([f64::INFINITY]);
    for (bound, count) in bounds.zip(&point.bucket_counts) {
        below += count;
        let bound = if bound.is_infinite() { "+Inf".to_owned() } else { bound.to_string() };
        let mut labels = labels.clone();
        labels.insert("le".to_owned(), bound);
        samples.push(Sample { name: format!("{name}_bucket"), labels, value: below as f64 });
    }
    let sum = point.sum.expect("a sum");
    for (suffix, value) in [("count", point.count as f64), ("sum", sum)] {
        let name = format!("{name}_{suffix}");
        samples.push(Sample { name, labels: labels.clone(), value });
    }
}

fn labels(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let pair = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => (pair.key.clone(), text.clone()),
        other => panic!("{} is {other:?}", pair.key),
    };
    attributes.iter().map(pair).collect()
}

/// Everything about the edges between two services, without what every collection adds to.
fn of_edges(scrape: &Scrape, pair: &Pair) -> Vec<(String, BTreeMap<String, String>, String)> {
    let ours = |sample: &&Sample| {
        sample.label("server") == Some(&pair.server.service) && !sample.name.contains("_rtt_")
    };
    let mut all: Vec<_> = scrape
        .samples
        .iter()
        .filter(ours)
        .map(|sample| {
            let mut labels = sample.labels.clone();
            if let Some(bound) = labels.get_mut("le") {
                *bound = bound.replace("+Inf", "inf").parse::<f64>().unwrap().to_string();
            }
            (sample.name.clone(), labels, sample.value.to_string())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_collector_gets_what_a_scrape_shows_also_after_it_was_away() {
    needs_kernel!();
    let collector = Collector::start();
    collector.seen.lock().unwrap().busy = true;
    let pair = Pair::new();
    let agent = Agent::with(&[
        ("otlp.endpoint", &format!("http://{}", collector.address)),
        ("otlp.interval", "1s"),
        ("otlp.headers", &format!("authorization={SECRET}")),
        ("seccomp", "enforce"),
    ]);
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    for _ in 0..CONNECTIONS {
        let mut client = pair.client.connect((pair.server.v4, port)).unwrap();
        let mut server = net::accept(&listener);
        client.write_all(b"ask").unwrap();
        server.read_exact(&mut [0; 3]).unwrap();
        server.write_all(b"answer").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
    }
    // It was pushed in vain while all of this happened.
    collector.eventually(|seen| (seen.requests > 3).then_some(()));
    let ended = |now: &Scrape| {
        let client = now.edge(&pair.client.service, &pair.server.service, port, "client");
        (client.connects("ok"), now.sum("portolan_otlp_pushes_total", &[("result", "busy")]) > 0)
    };
    let scraped = agent.eventually((CONNECTIONS, true), ended);
    assert_eq!(scraped.sum("portolan_otlp_pushes_total", &[("result", "ok")]), 0);

    collector.seen.lock().unwrap().busy = false;
    collector.eventually(|seen| seen.latest.as_ref().map(drop));
    let scraped = agent
        .eventually(true, |now| now.sum("portolan_otlp_pushes_total", &[("result", "ok")]) > 1);
    let expected = of_edges(&scraped, &pair);
    assert!(expected.len() > 50, "{expected:?}");
    let (pushed, resource, authorization) = collector.eventually(|seen| {
        let latest = seen.latest.as_ref()?;
        let pushed = of_edges(&rebuilt(latest), &pair);
        let resource = latest.resource_metrics[0].resource.clone();
        (pushed == expected).then(|| (pushed, resource, seen.authorization.clone()))
    });
    assert_eq!(pushed, expected);
    let resource = labels(&resource.expect("a resource").attributes);
    assert_eq!(resource["service.name"], "portolan");
    assert!(!resource["host.name"].is_empty());
    assert_eq!(authorization, SECRET);
    let output = format!("{}{}", agent.log(), agent.json("/api/v1/status"));
    assert!(!output.contains(SECRET), "{output}");

    // Events since the last push come with the final one.
    let before = collector.seen.lock().unwrap().requests;
    drop(pair.client.connect((pair.server.v4, port)).unwrap());
    agent.eventually(CONNECTIONS + 1, |now| {
        now.edge(&pair.client.service, &pair.server.service, port, "client").connects("ok")
    });
    agent.stop();
    let seen = collector.seen.lock().unwrap();
    assert!(seen.requests > before);
    let last = rebuilt(seen.latest.as_ref().unwrap());
    let client = last.edge(&pair.client.service, &pair.server.service, port, "client");
    assert_eq!(client.connects("ok"), CONNECTIONS + 1);
}

#[test]
fn a_collector_behind_tls_is_believed_by_its_authority_only() {
    needs_kernel!();
    let keys = Keys::new();
    let certificates = CertificateDer::pem_file_iter(keys.path("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(keys.path("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates.map(Result::unwrap).collect(), key)
        .unwrap();
    let collector = Collector::with(Some(Arc::new(tls)));
    let endpoint = format!("https://localhost:{}", collector.address.port());
    let authority = keys.path("ca.pem").display().to_string();
    let pushes =
        |now: &Scrape, result| now.sum("portolan_otlp_pushes_total", &[("result", result)]) > 0;

    let base = [("otlp.endpoint", endpoint.as_str()), ("otlp.interval", "1s")];
    let agent = Agent::with(&[&base[..], &[("otlp.ca_file", authority.as_str())]].concat());
    agent.eventually(true, |now| pushes(now, "ok"));
    agent.stop();
    assert!(collector.seen.lock().unwrap().latest.is_some());

    // Another authority, which has issued nothing.
    let others = Keys::new();
    let other_ca = others.path("ca.pem").display().to_string();
    let taken = collector.seen.lock().unwrap().requests;
    let agent = Agent::with(&[&base[..], &[("otlp.ca_file", other_ca.as_str())]].concat());
    // It is tried three times, with pauses, before it is reported.
    let began = Instant::now();
    while !pushes(&agent.scrape(), "unreachable") {
        assert!(began.elapsed() < patience(Duration::from_secs(20)), "{}", agent.log());
        thread::sleep(Duration::from_millis(50));
    }
    assert!(agent.log().contains("certificate"), "{}", agent.log());
    drop(agent);
    assert_eq!(collector.seen.lock().unwrap().requests, taken);
}
