//! End to end: real traffic, the agent, Debian's Prometheus scraping it, and queries as a dashboard
//! sends them. `promtool` checks the agent's text as well.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::agent::{self, Agent};
use crate::exactness::{Load, Nginx, Redis, missing};
use crate::namespace::Pair;
use crate::net;

const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// Prometheus with one target, scraped every second.
pub struct Prometheus {
    /// Where its API is.
    pub address: SocketAddr,
    child: Child,
    _directory: TempDir,
}

impl Prometheus {
    /// Scrapes an agent.
    pub fn start(target: SocketAddr) -> Self {
        Self::with(&format!("- job_name: portolan\n  static_configs:\n  - targets: ['{target}']\n"))
    }

    /// With these `scrape_configs`.
    pub fn with(scrape_configs: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("prometheus.yml");
        let configuration =
            format!("global:\n  scrape_interval: 1s\nscrape_configs:\n{scrape_configs}");
        fs::write(&file, configuration).expect("writing a configuration");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, agent::free_port()));
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("starting Prometheus");
        let prometheus = Self { address, child, _directory: directory };
        let began = Instant::now();
        while prometheus.get("/-/ready").is_none() {
            assert!(began.elapsed() < PATIENCE, "Prometheus is not ready");
            thread::sleep(PAUSE);
        }
        prometheus
    }

    /// The body of a response with status 200. HTTP/1.0, so that it comes in one piece.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
    }

    fn json(&self, path: &str) -> Value {
        let body = self.get(path).unwrap_or_else(|| panic!("Prometheus refused {path}"));
        serde_json::from_str(&body).expect("Prometheus answers in JSON")
    }

    /// The values of an instant query, one for every series.
    pub fn query(&self, query: &str) -> Vec<f64> {
        let value = |series: &Value| series["value"][1].as_str().and_then(|text| text.parse().ok());
        self.series(query).iter().map(|series| value(series).expect("a number")).collect()
    }

    /// The values of a label in an instant query, one for every series.
    fn label_values(&self, query: &str, label: &str) -> Vec<String> {
        let value = |series: &Value| series["metric"][label].as_str().map(str::to_owned);
        self.series(query).iter().filter_map(value).collect()
    }

    fn series(&self, query: &str) -> Vec<Value> {
        let mut path = String::from("/api/v1/query?query=");
        for byte in query.bytes() {
            write!(path, "%{byte:02X}").expect("a string takes all");
        }
        let answer = self.json(&path);
        answer["data"]["result"].as_array().expect("a vector").clone()
    }

    /// Queries until there is a result and every value is above 0.
    pub fn positive(&self, query: &str) -> Vec<f64> {
        let began = Instant::now();
        loop {
            let values = self.query(query);
            if !values.is_empty() && values.iter().all(|value| *value > 0.0) {
                return values;
            }
            assert!(began.elapsed() < PATIENCE, "not above 0 for long: {query}: {values:?}");
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn prometheus_scrapes_edges_with_all_their_metrics() {
    needs_kernel!();
    if let Some(why) = missing(&["prometheus", "nginx", "wrk", "redis-server", "redis-benchmark"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let agent = Agent::start();
    let nginx = Nginx::start(&pair.server, 100);
    let redis = Redis::start(&pair.server);
    let prometheus = Prometheus::start(agent.address);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (host, port) = (pair.server.v4.to_string(), redis.port.to_string());
            while !over.load(Ordering::Relaxed) {
                Load::wrk(&pair.client, (pair.server.v4, nginx.port).into(), 4, &[]);
                let mut command = pair.client.command("redis-benchmark");
                command
                    .args(["-h", &host, "-p", &port, "-c", "4", "-n", "3000", "-t", "get", "-q"]);
                Load::run(&mut command);
            }
        });
        // Ends the load even if a query below fails.
        let _over = Over(&over);
        for (client, server, port) in
            [("wrk", "nginx", nginx.port), ("redis-benchmark", "redis-server", redis.port)]
        {
            for role in ["client", "server"] {
                let labels = format!(
                    "job=\"portolan\",client=\"{client}\",server=\"{server}\",port=\"{port}\",role=\"{role}\""
                );
                ask_for_everything(&prometheus, &labels, role);
            }
        }
    });
    assert_eq!(prometheus.query("up{job=\"portolan\"}"), [1.0]);
    // Not one scrape failed, and every line of the agent's text is a series.
    assert_eq!(prometheus.query("min_over_time(up{job=\"portolan\"}[1m])"), [1.0]);
    let scraped = prometheus.query("scrape_samples_scraped{job=\"portolan\"}");
    let kept = prometheus.query("scrape_samples_post_metric_relabeling{job=\"portolan\"}");
    assert_eq!(scraped, kept);
    assert!(scraped[0] > 100.0, "{scraped:?}");
    let targets = prometheus.json("/api/v1/targets");
    let target = &targets["data"]["activeTargets"][0];
    assert_eq!((target["health"].as_str(), target["lastError"].as_str()), (Some("up"), Some("")));
    agent.stop();
}

/// The metrics that a dashboard shows for an edge.
fn ask_for_everything(prometheus: &Prometheus, labels: &str, role: &str) {
    for counter in [
        "portolan_tcp_connects_total",
        "portolan_tcp_sent_bytes_total",
        "portolan_tcp_received_bytes_total",
        "portolan_request_duration_seconds_count",
        "portolan_request_duration_seconds_sum",
        "portolan_tcp_rtt_seconds_count",
    ] {
        let rates = prometheus.positive(&format!("rate({counter}{{{labels}}}[20s])"));
        assert_eq!(rates.len(), 1, "{counter}");
    }
    for quantile in ["0.5", "0.99"] {
        let metric = "portolan_request_duration_seconds_bucket";
        let query = format!(
            "histogram_quantile({quantile}, sum by (le) (rate({metric}{{{labels}}}[20s])))"
        );
        let value = prometheus.positive(&query)[0];
        assert!(value < 1.0, "{value} s is too long for this link");
    }
    // Present whatever their value: a gauge that may be 0 now, a counter that should be.
    for present in ["portolan_tcp_active_connections", "portolan_tcp_retransmits_total"] {
        assert_eq!(prometheus.query(&format!("{present}{{{labels}}}")).len(), 1, "{present}");
    }
    // 50 ms is a bucket's edge: an objective on it is counted, not interpolated.
    let mut durations = vec!["portolan_request_duration_seconds", "portolan_tcp_rtt_seconds"];
    if role == "client" {
        durations.push("portolan_tcp_connect_duration_seconds");
    }
    for duration in durations {
        let bucket = prometheus.query(&format!("{duration}_bucket{{{labels},le=\"0.05\"}}"));
        let count = prometheus.query(&format!("{duration}_count{{{labels}}}"));
        assert_eq!(bucket.len(), 1, "{duration} has no bucket up to 0.05");
        assert!(bucket[0] > 0.0 && bucket[0] <= count[0], "{duration}: {bucket:?} of {count:?}");
    }
}

#[test]
fn prometheus_scrapes_the_targets_that_the_agent_finds() {
    needs_kernel!();
    if let Some(why) = missing(&["prometheus"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let agent = Agent::start();
    // The agent's own socket: it listens at one address, of the loopback, and serves metrics.
    let port = agent.address.port();
    let path = format!("/api/v1/sd/prometheus?port={port}&loopback=true");
    let prometheus = Prometheus::with(&format!(
        "- job_name: found\n  http_sd_configs:\n  - url: 'http://{}{path}'\n    \
         refresh_interval: 1s\n  relabel_configs:\n  \
         - source_labels: [__meta_portolan_service]\n    target_label: service\n",
        agent.address
    ));
    let instance = format!("job=\"found\",service=\"portolan\",instance=\"{}\"", agent.address);
    let began = Instant::now();
    while prometheus.query(&format!("up{{{instance}}}")) != [1.0] {
        assert!(
            began.elapsed() < PATIENCE,
            "found: {}; targets: {}",
            agent.json(&path),
            prometheus.json("/api/v1/targets")
        );
        thread::sleep(PAUSE);
    }
    // The only target it scrapes there is this agent.
    let listeners = format!("portolan_port_listeners{{{instance},port=\"{port}\"}}");
    assert_eq!(prometheus.positive(&listeners).len(), 1);
    assert_eq!(prometheus.query("count(up)"), [1.0]);
    agent.stop();
}

#[test]
fn a_quantile_is_one_figure_for_the_api_the_command_line_and_prometheus() {
    needs_kernel!();
    if let Some(why) = missing(&["prometheus"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen((pair.server.v4, 0));
    let port = net::port(&listener);
    let mut all = 0;
    // Mostly fast, some slow, one in the range of a SYN that was sent again.
    for (requests, delay) in [(60, 0), (30, 7), (8, 60), (1, 1300)] {
        let mut client = pair.client.connect((pair.server.v4, port)).expect("connecting");
        let mut server = net::accept(&listener);
        net::patient(&client);
        let delay = Duration::from_millis(delay);
        let answering = thread::spawn(move || net::answer(&mut server, 10, 10, delay));
        for _ in 0..requests {
            net::ask(&mut client, 10, 10).expect("an exchange");
        }
        drop(client);
        answering.join().expect("no panic").expect("exchanges");
        all += requests;
    }
    let names = (&pair.client.service, &pair.server.service);
    agent.eventually((all, all), |now| {
        let count = |role| now.edge(names.0, names.1, port, role).requests().count;
        (count("client"), count("server"))
    });
    let prometheus = Prometheus::start(agent.address);
    let url = format!("http://{}", agent.address);
    for role in ["client", "server"] {
        let labels = format!("port=\"{port}\",role=\"{role}\"");
        let buckets = format!("portolan_request_duration_seconds_bucket{{{labels}}}");
        let path = format!("/api/v1/edges?role={role}&port={port}&window=start");
        let edge = agent.json(&path)["edges"][0].clone();
        let minute = agent.json(&path.replace("start", "5m"))["edges"][0].clone();
        for (quantile, field) in [("0.5", "p50_seconds"), ("0.99", "p99_seconds")] {
            let expected =
                prometheus.positive(&format!("histogram_quantile({quantile}, {buckets})"));
            let found = edge["request"][field].as_f64().expect("a number");
            let apart = (found - expected[0]).abs() / expected[0];
            assert!(apart < 1e-9, "{role} {field}: {found}, Prometheus says {expected:?}");
            assert_eq!(minute["request"][field], edge["request"][field], "no other figure in it");
        }
        let mut command = Command::new(agent::binary());
        agent::forget_our_variables(&mut command);
        command.args(["edges", "--role", role, "-o", "json", "--url", &url]);
        let printed = command.output().expect("starting portolan").stdout;
        let printed: Value = serde_json::from_slice(&printed).expect("JSON");
        let mut printed = printed["edges"].as_array().expect("a list").iter();
        let printed = printed.find(|edge| edge["port"] == port).expect("the edge");
        assert_eq!(printed["request"]["p99_seconds"], edge["request"]["p99_seconds"]);
    }
    agent.stop();
}

#[test]
fn names_full_of_escapes_come_back_from_prometheus() {
    needs_kernel!();
    if let Some(why) = missing(&["prometheus"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let listener = pair.server.listen((pair.server.v4, 0));
    let port = net::port(&listener);
    // Programs cannot have such a name; an operator can give one.
    let name = "a\"b\\c{d=e}f #é";
    let agent = Agent::with(&[("names.rules", &format!("port:{port} -> {name}"))]);
    drop(pair.client.connect((pair.server.v4, port)).expect("connecting"));
    drop(net::accept(&listener));
    let prometheus = Prometheus::start(agent.address);
    let filter = format!("role=\"server\",port=\"{port}\"");
    let query = format!("portolan_tcp_active_connections{{{filter}}}");
    let expected = [name.to_owned()];
    let began = Instant::now();
    loop {
        let servers = prometheus.label_values(&query, "server");
        if servers == expected {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "Prometheus knows {servers:?}, not {expected:?}");
        thread::sleep(PAUSE);
    }
    agent.stop();
}

#[test]
fn promtool_has_no_complaint_about_the_text() {
    needs_kernel!();
    if let Some(why) = missing(&["promtool"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen((pair.server.v4, 0));
    let port = net::port(&listener);
    drop(pair.client.connect((pair.server.v4, port)).expect("connecting"));
    let (client, server) = (&pair.client.service, &pair.server.service);
    agent.eventually(1, |now| now.edge(client, server, port, "client").connects("ok"));
    let (_, text) = agent.get("/metrics").expect("metrics");
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().expect("starting promtool");
    let mut stdin = promtool.stdin.take().expect("stdin is piped");
    stdin.write_all(text.as_bytes()).expect("writing to promtool");
    drop(stdin);
    let output = promtool.wait_with_output().expect("waiting for promtool");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "promtool says:\n{said}");
    agent.stop();
}

/// Ends the load when it goes out of scope.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
