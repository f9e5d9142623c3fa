//! Edges, services and the map at a moment, from the metrics that Prometheus has of agents.
//!
//! The caller sends the [`queries`] and hands in the responses. What an edge counted in the window is
//! the difference of samples ([`samples`]), put into the counters that the agent itself has
//! ([`counters`]); names of causes, quantiles, health and the map are then made by the agent's code.
//! Several agents are one here: an edge that two of them have is one row a side (decision 18).

mod counters;
mod queries;
mod samples;
mod scraped;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use agent_common::queues::Queues;
use api_types::{Edges, Map, Services, Timestamp, Window};
use model::health::{self, Traffic};
use model::recent::{Counted, WindowRow, share_responses};
use model::service::{Service, Source};
use model::snapshot::{EdgeLabels, ListenerView, Role};
use server::convert::ToApi;

use self::counters::Growing;
use self::queries::{
    ACTIVE, BACKLOG, BACKLOG_MAX, BUILD_INFO, CLOCK, CLOSE_WAIT, LISTENERS, RECEIVE_QUEUE,
    SEND_QUEUE, SERVICE_INFO,
};
use self::samples::{Series, range};
use self::scraped::Scraped;

pub use self::queries::{agents_now, count_of_agents, queries};

/// The class of services that a map draws if none is named.
const APPLICATION: &str = "application";

/// Why nothing can be shown.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The response is not one of Prometheus' API.
    #[error("it does not answer as Prometheus does ({0})")]
    NotPrometheus(String),
    /// It refused.
    #[error("it refused the query: {0}")]
    Refused(String),
    /// It has no metrics of agents at that time.
    #[error("it has no metrics of Portolan at {at}")]
    NoMetrics {
        /// The moment that was asked for.
        at: Timestamp,
    },
    /// A counter needs two samples.
    #[error(
        "it has no two samples of Portolan in the {seconds} s before {at}, and a difference needs two: take a longer --window (5m at most), or scrape the agent more often"
    )]
    TooFew {
        /// The moment that was asked for.
        at: Timestamp,
        /// Length of the window.
        seconds: u64,
    },
}

/// An agent, as Prometheus knows it: the labels of its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its label `instance`, or all labels if it has none.
    pub name: String,
    /// Its version, if it says one.
    pub version: Option<String>,
    /// Why it counts nothing here.
    pub error: Option<String>,
}

/// What agents recorded in a window.
#[derive(Debug)]
pub struct Recorded {
    window: Window,
    agents: Vec<Agent>,
    rows: BTreeMap<Key, Row>,
    listeners: Vec<ListenerView>,
    /// By namespace and name.
    info: BTreeMap<Name, Info>,
}

/// What agents say of a service.
#[derive(Debug)]
struct Info {
    source: Source,
    class: String,
    is_polled: bool,
}

/// A service: its namespace and its name.
type Name = (String, String);

/// An edge and the side that counted it: client, server, port, side.
type Key = (Name, Name, u16, Role);

/// The labels of a target.
type Target = BTreeMap<String, String>;

/// An edge on one side, of all agents.
#[derive(Debug, Default)]
struct Row {
    grown: Growing,
    active: u64,
    queues: Option<Queues>,
}

// === impl Recorded ===

impl Recorded {
    /// From the responses to [`queries`].
    pub fn read(bodies: &[String], at: Timestamp, window_seconds: u64) -> Result<Self, Error> {
        let body = |at: usize| bodies.get(at).map(String::as_str).unwrap_or_default();
        let (counters, histograms, gauges) = (range(body(0))?, range(body(1))?, range(body(2))?);
        let since = at.seconds() - window_seconds as f64;
        let versions: BTreeMap<Target, String> = gauges
            .iter()
            .filter(|series| series.name == BUILD_INFO)
            .map(|series| (series.target.clone(), series.label("version").to_owned()))
            .collect();
        let mut clocks: BTreeMap<Target, Option<Scraped>> = BTreeMap::new();
        for series in counters.iter().filter(|series| series.name == CLOCK) {
            clocks.insert(series.target.clone(), Scraped::of(&series.samples, since));
        }
        if clocks.is_empty() {
            return Err(Error::NoMetrics { at });
        }
        let scraped = || clocks.values().flatten();
        let first = scraped().map(|one| one.first).reduce(f64::min);
        let last = scraped().map(|one| one.last).reduce(f64::max);
        let longest = scraped().map(|one| one.last - one.first).reduce(f64::max);
        let (Some(first), Some(last), Some(seconds)) = (first, last, longest) else {
            return Err(Error::TooFew { at, seconds: window_seconds });
        };
        let stamp = Timestamp::from_seconds;
        let window = Window { since: stamp(first), until: stamp(last), seconds };
        let mut recorded = Self {
            window,
            agents: clocks.iter().map(|(target, one)| Agent::of(target, *one, &versions)).collect(),
            rows: BTreeMap::new(),
            listeners: Vec::new(),
            info: BTreeMap::new(),
        };
        for series in counters.iter().chain(&histograms) {
            let Some(Some(scraped)) = clocks.get(&series.target) else { continue };
            recorded.count(series, *scraped);
        }
        recorded.see(&gauges, &clocks);
        Ok(recorded)
    }

    /// Who recorded.
    pub fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// The time that the numbers cover.
    pub fn window(&self) -> Window {
        self.window
    }

    /// As `/api/v1/edges` has them.
    pub fn edges(&self) -> Edges {
        let Self { window, rows, .. } = self;
        let mut all: Vec<WindowRow> = rows
            .iter()
            .map(|((client, server, port, role), row)| {
                let other = (client.clone(), server.clone(), *port, Role::Client);
                WindowRow {
                    labels: self.labels(client, server, *port, *role),
                    counters: Arc::new(row.grown.counters()),
                    active: row.active,
                    queues: row.queues.filter(|_| *role != Role::Listener),
                    is_other_side: *role == Role::Server && rows.contains_key(&other),
                    address: None,
                }
            })
            .collect();
        share_responses(&mut all);
        let edges = all.iter().map(ToApi::to_api).collect();
        Edges { timestamp: window.until, window: *window, edges }
    }

    /// As `/api/v1/services` has them.
    pub fn services(&self) -> Services {
        let Self { window, rows, listeners, .. } = self;
        let counted: Vec<Counted> = rows
            .iter()
            .map(|((client, server, port, role), row)| Counted {
                labels: self.labels(client, server, *port, *role),
                counters: row.grown.counters(),
                is_unsent: false,
            })
            .collect();
        let labels: Vec<_> = counted.iter().map(|one| Arc::clone(&one.labels)).collect();
        let traffic = Traffic::of([counted]);
        let edges = labels.iter().map(|labels| &**labels);
        let is_polled = |name: &str, namespace: &str| {
            let info = self.info.get(&(namespace.to_owned(), name.to_owned()));
            info.is_some_and(|info| info.is_polled)
        };
        let services = health::services_of(edges, listeners, &traffic, &is_polled, window.seconds);
        let services = services.iter().map(ToApi::to_api).collect();
        Services { timestamp: window.until, window: *window, services }
    }

    /// As `/api/v1/map` has it: of applications, or around services.
    pub fn map(&self, services: &[String]) -> Map {
        let mut edges = self.edges();
        if services.is_empty() {
            let is_drawn = |namespace: &str, name: &str| {
                let info = self.info.get(&(namespace.to_owned(), name.to_owned()));
                info.is_none_or(|info| info.class == APPLICATION)
            };
            edges.edges.retain(|edge| {
                is_drawn(&edge.client_namespace, &edge.client)
                    && is_drawn(&edge.server_namespace, &edge.server)
            });
        }
        crate::around(&edges, services)
    }

    /// Adds what a series grew by.
    fn count(&mut self, series: &Series, scraped: Scraped) {
        let grown = scraped.growth(&series.samples);
        if let Some(key) = edge_of(series) {
            let row = self.rows.entry(key).or_default();
            if series.name == ACTIVE {
                // What is open at the end, less what was at the beginning.
                row.grown.opened_more(scraped.change(&series.samples));
            } else {
                row.grown.add(&series.name, series, grown);
            }
        } else if let Some((name, port)) = listener_of(series).filter(|_| grown > 0.0) {
            let any = (String::new(), ANY.to_owned());
            let key = (any, name, port, Role::Listener);
            self.rows.entry(key).or_default().grown.add(&series.name, series, grown);
        }
    }

    /// Takes what is so at the moment: what the last scrape of each agent had.
    fn see(&mut self, gauges: &[Series], clocks: &BTreeMap<Target, Option<Scraped>>) {
        let mut queues: BTreeMap<(Name, u16), [u32; 2]> = BTreeMap::new();
        let mut listening: BTreeSet<(Name, u16)> = BTreeSet::new();
        for series in gauges {
            let clock = clocks.get(&series.target).copied().flatten();
            let Some(value) = clock.and_then(|clock| clock.value(&series.samples)) else {
                continue;
            };
            let count = counters::whole(value);
            if series.name == SERVICE_INFO {
                let name = (
                    series.label("service_namespace").to_owned(),
                    series.label("service").to_owned(),
                );
                let source = source(series.label("source"));
                let class = series.label("class").to_owned();
                let info = Info { source, class, is_polled: false };
                let known = self.info.entry(name).or_insert(info);
                known.source = known.source.min(source);
                known.is_polled |= series.label("polled") == "true";
                continue;
            }
            if let Some(key) = edge_of(series) {
                // An edge that counted nothing at all is none: its agent is not there any more.
                let Some(row) = self.rows.get_mut(&key) else { continue };
                let waiting = || row.queues.unwrap_or(Queues::NONE);
                match &*series.name {
                    ACTIVE => row.active += count,
                    RECEIVE_QUEUE => {
                        let now = waiting();
                        let receive_bytes = now.receive_bytes + count;
                        row.queues = Some(Queues { receive_bytes, ..now });
                    }
                    SEND_QUEUE => {
                        let now = waiting();
                        row.queues = Some(Queues { send_bytes: now.send_bytes + count, ..now });
                    }
                    CLOSE_WAIT => {
                        let now = waiting();
                        row.queues = Some(Queues { close_wait: now.close_wait + count, ..now });
                    }
                    _ => {}
                }
            } else if let Some(place) = listener_of(series) {
                let [length, limit] = queues.entry(place.clone()).or_default();
                let short = u32::try_from(count).unwrap_or(u32::MAX);
                match &*series.name {
                    LISTENERS => {
                        listening.insert(place);
                    }
                    BACKLOG => *length = (*length).max(short),
                    BACKLOG_MAX => *limit = (*limit).max(short),
                    _ => {}
                }
            }
        }
        for (name, port) in listening {
            let [backlog, max_backlog] =
                queues.get(&(name.clone(), port)).copied().unwrap_or_default();
            self.listeners.push(ListenerView {
                service: self.service(&name),
                port,
                address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                netns: 0,
                backlog,
                max_backlog,
                unverified_user: None,
            });
        }
    }

    fn labels(&self, client: &Name, server: &Name, port: u16, role: Role) -> Arc<EdgeLabels> {
        Arc::new(EdgeLabels::new(self.service(client), self.service(server), port, role))
    }

    /// A service by its name. How the name was found is a metric of its own, for services on edges of
    /// that moment.
    fn service(&self, name: &Name) -> Service {
        let (namespace, text) = name;
        let guess = || match text.parse::<IpAddr>() {
            Ok(_) => Source::Address,
            Err(_) if text == INTERNET => Source::Internet,
            Err(_) => Source::Unknown,
        };
        let source = self.info.get(name).map_or_else(guess, |info| info.source);
        Service::new(text, source).within(namespace)
    }
}

/// The client of a listener.
const ANY: &str = "any";
/// The name of clients from outside.
const INTERNET: &str = "internet";

/// A source by its word.
fn source(word: &str) -> Source {
    Source::ALL.iter().copied().find(|one| one.as_str() == word).unwrap_or(Source::Unknown)
}

/// The edge that a series is of.
fn edge_of(series: &Series) -> Option<Key> {
    let role = match series.label("role") {
        "client" => Role::Client,
        "server" => Role::Server,
        "listener" => Role::Listener,
        "unknown" => Role::Unknown,
        _ => return None,
    };
    let name = |end: &str| {
        (series.label(&format!("{end}_namespace")).to_owned(), series.label(end).to_owned())
    };
    Some((name("client"), name("server"), series.label("port").parse().ok()?, role))
}

/// The listener over TCP that a series is of.
fn listener_of(series: &Series) -> Option<(Name, u16)> {
    let name = (series.label("service_namespace").to_owned(), series.label("service").to_owned());
    let port = series.label("port").parse().ok()?;
    (series.label("protocol") == "tcp" && !name.1.is_empty()).then_some((name, port))
}

// === impl Agent ===

impl Agent {
    fn of(target: &Target, scraped: Option<Scraped>, versions: &BTreeMap<Target, String>) -> Self {
        let labels = || {
            let all: Vec<String> = target.iter().map(|(k, v)| format!("{k}={v}")).collect();
            all.join(",")
        };
        let name = target.get("instance").cloned().unwrap_or_else(labels);
        let error = scraped.is_none().then(|| "no two samples in the window".to_owned());
        Self { name, version: versions.get(target).cloned(), error }
    }
}

#[cfg(test)]
mod tests;
