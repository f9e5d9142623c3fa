//! A hand-made snapshot with an example of everything, for tests of its readers.
//!
//! Long because each field of a snapshot has its example here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use agent_common::abort::USER_TIMEOUT;
use agent_common::counters::EdgeCounters;
use agent_common::edge::{CONNECT_OK, CONNECT_REFUSED, CONNECT_TIMEOUT};
use agent_common::histogram::Histogram;
use agent_common::ledger::{
    CONNECTION, EDGE, EVENT, GAP, Ledger, NO_SLOT, OPERATION, RATE_LIMITED, REQUEST, RESPONSE,
    UNFRAMED,
};
use agent_common::lookup;
use agent_common::on_demand::OnDemand;
use agent_common::queues::Queues;
use agent_common::reset::{IDLE_REUSE, KEEPALIVE_TIMEOUT, NO_LISTENER, UNUSED};
use agent_common::response::STATUSES;
use agent_common::wire::Wire;

use super::balance::Weights;
use super::conditions::ConditionsView;
use super::conflicts::{ConflictLabels, ConflictTotal};
use super::directory::{Classes, ContainerLabels, Directory, Pattern};
use super::ephemeral::{Ephemeral, EphemeralView};
use super::events::EventsView;
use super::flows::{Flow, FlowsView, Seen};
use super::health::Traffic;
use super::memory::{MemoryView, Usage};
use super::port::Protocol;
use super::probes::{Looks, ProbesView};
use super::recent::RecentView;
use super::relations::{Backend, Ends, Relation, RelationsView, ServiceName};
use super::reservation_status::ReservationStatus;
use super::segments::{Declared, Policy, Reason};
use super::service::{Kind, Service, Source};
use super::snapshot::{
    Disabled, EdgeLabels, EdgeView, HookView, LedgerView, ListenerView, MapView, RelatedView, Role,
    Snapshot, SourceState, SourceView,
};
use super::tally::{History, Tally};
use super::unverified::ByUser;
use super::violations::{Between, SegmentsView, Steps};

/// A row of edges.
pub fn edge(
    client: Service,
    server: Service,
    port: u16,
    role: Role,
    counters: &EdgeCounters,
) -> EdgeView {
    EdgeView {
        labels: Arc::new(EdgeLabels::new(client, server, port, role)),
        counters: Arc::new(counters.clone()),
        queues: None,
    }
}

/// Two backends of one server, one of them a third of the other; a violation between segments.
fn related() -> RelatedView {
    let name = |name: &str, namespace: &str| ServiceName {
        namespace: namespace.into(),
        name: name.into(),
    };
    let row = |address: [u8; 4], connections, requests| {
        let backend = Backend::Address((address, 5432).into());
        let relation = Relation {
            client: name("shop", "prod"),
            server: name("postgres", ""),
            port: 5432,
            role: Role::Client,
            counts: true,
            named: true,
            backend,
        };
        let mut history = History::default();
        history.add(1000, &tally(connections, requests));
        (relation, Arc::new(history))
    };
    let rows = vec![row([10, 0, 0, 2], 9, 600), row([10, 0, 0, 3], 3, 200)];
    let between = Between {
        reason: Reason::NotAllowed,
        client_segment: "frontend".into(),
        server_segment: "database".into(),
        ends: Ends {
            client: "shop".into(),
            client_namespace: "prod".into(),
            server: "postgres".into(),
            server_namespace: "".into(),
            port: 5432,
        },
    };
    let policy = Policy::new(declarations()).expect("no contradiction");
    let cells = vec![((Some(0), Some(2)), 12), ((Some(0), Some(1)), 30)];
    // Fewer in the last minute.
    let steps = Steps::fixture(
        1_700_000_100.0,
        &[((Some(0), Some(2)), 2), ((Some(0), Some(1)), 7)],
        &[(between.clone(), 2)],
    );
    let mut weights = Weights::default();
    weights.insert(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), Some(5432), 1);
    RelatedView {
        relations: RelationsView { now: 1005, since: 905, rows, folded: 0 },
        flows: flows(),
        segments: Some(SegmentsView {
            policy: Arc::new(policy),
            cells,
            rows: vec![(between, 12)],
            steps,
            events: Vec::new(),
            dropped_events: 0,
            folded: 0,
            unverified: by_user(1500, 3),
        }),
        weights: Arc::new(weights),
        known: Arc::default(),
        directory: Arc::new(directory()),
    }
}

/// A client with a database at two addresses, and a client from the internet.
fn flows() -> FlowsView {
    let name = |name: &str, namespace: &str| ServiceName {
        namespace: namespace.into(),
        name: name.into(),
    };
    let of_shop = |server: [u8; 4], connections, failed| {
        let flow = Flow {
            client: name("shop", "prod"),
            server: name("postgres", ""),
            port: 5432,
            role: Role::Client,
            counts: true,
            client_address: Some([172, 20, 0, 2].into()),
            server_address: Some(server.into()),
            virtual_service: None,
        };
        let ends = ((Kind::Container, Source::Container), (Kind::Process, Source::Process));
        (flow, connections, failed, ends)
    };
    let from_internet = Flow {
        client: name("internet", ""),
        server: name("shop", "prod"),
        port: 8080,
        role: Role::Server,
        counts: true,
        client_address: None,
        server_address: Some([172, 20, 0, 2].into()),
        virtual_service: None,
    };
    let ends = ((Kind::Internet, Source::Internet), (Kind::Container, Source::Container));
    let all =
        [of_shop([10, 0, 0, 2], 9, 1), of_shop([10, 0, 0, 3], 3, 2), (from_internet, 5, 0, ends)];
    let rows = all.into_iter().map(|(flow, connections, failed, (client, server))| {
        let (first_seconds, last_seconds) = (1_700_000_010, 1_700_000_095);
        (Arc::new(flow), Seen { connections, failed, first_seconds, last_seconds, client, server })
    });
    FlowsView { rows: rows.collect(), forgotten: 0 }
}

/// A class that nothing here is of, the team of the shop, and that it is polled.
fn directory() -> Directory {
    let shop = Service { namespace: "prod".into(), ..Service::new("shop", Source::Container) };
    let mut labels = ContainerLabels::new(&["team".to_owned()]);
    labels.add(&shop, |_| Some("payments"));
    let system = Pattern::parse("kube-system/*").into_iter().collect();
    let polled = Pattern::parse("prod/shop").into_iter().collect();
    Directory { classes: Classes { system, polled, ..Classes::default() }, labels }
}

/// Two edges, a listener's row, three listening sockets, a hook that is off.
pub fn snapshot() -> Snapshot {
    let shop = Service { namespace: "prod".into(), ..Service::new("shop", Source::Container) };
    let postgres = Service::new("postgres", Source::Process);

    let mut to_postgres = EdgeCounters::ZERO;
    to_postgres.connects[usize::from(CONNECT_OK)] = 10;
    to_postgres.connects[usize::from(CONNECT_REFUSED)] = 2;
    to_postgres.connects[usize::from(CONNECT_TIMEOUT)] = 1;
    to_postgres.opened = 12;
    to_postgres.closed = 7;
    to_postgres.preexisting = 2;
    to_postgres.sent_bytes = 123_456;
    to_postgres.received_bytes = 7_654_321;
    to_postgres.retransmits = [1, 2, 0];
    to_postgres.timeouts = 2;
    to_postgres.dsacks = 1;
    to_postgres.limited_us = [1_250_000, 40_000];
    to_postgres.resets_sent[usize::from(IDLE_REUSE)] = 2;
    to_postgres.resets_received[usize::from(KEEPALIVE_TIMEOUT)] = 1;
    to_postgres.aborts[usize::from(USER_TIMEOUT)] = 2;
    to_postgres.unanswered = 3;
    to_postgres.unanswered_stopping = 1;
    to_postgres.lookup.observe(1_500);
    let mut lookups = Histogram::EMPTY;
    lookups.buckets[lookup::number(0, 0) as usize] = 1;
    lookups.buckets[lookup::number(1, lookup::NXDOMAIN) as usize] = 1;
    to_postgres.lookup_results = OnDemand::after(None, Some(&lookups));
    to_postgres.waits = 2;
    to_postgres.resets_sent[usize::from(UNUSED)] = 4;
    for micros in [180, 210, 250, 251, 900, 3_000_000] {
        to_postgres.connect.observe(micros);
    }
    for micros in [40, 45, 50, 60, 110] {
        to_postgres.rtt.observe(micros);
    }
    for micros in [800, 1_000, 2_400, 49_999, 50_000, 50_001, 12_000_000] {
        to_postgres.request.observe(micros);
    }
    for millis in [900, 3_500, 4_700] {
        to_postgres.idle_reuse_ms.observe(millis);
    }
    for millis in [5_004, 5_011, 5_020, 5_009] {
        to_postgres.idle_closed_by_server_ms.observe(millis);
    }
    to_postgres.idle_closed_by_client_ms.observe(2_000);

    let mut from_internet = EdgeCounters::ZERO;
    from_internet.connects[usize::from(CONNECT_OK)] = 5;
    from_internet.opened = 5;
    from_internet.closed = 5;
    from_internet.received_bytes = 500;
    from_internet.request.observe(75);
    // Of HTTP: 2xx, 5xx, and connections.
    for (at, count) in [(1, 4), (4, 1), (STATUSES, 5)] {
        from_internet.responses[at] = count;
    }

    for (method, class, micros) in [(0, 2, 900), (0, 2, 1_100), (0, 4, 300), (2, 5, 30_000)] {
        from_internet.operations.observe(method, class, micros);
    }
    from_internet.operations.observe_unanswered();

    let mut listening = EdgeCounters::ZERO;
    listening.listen_drops = 4;
    listening.synack_retransmits = 6;
    listening.resets_sent[usize::from(NO_LISTENER)] = 1;

    let mut kernel = Ledger::zeroed();
    kernel.seen[CONNECTION] = 18;
    kernel.seen[REQUEST] = 8;
    kernel.seen[RESPONSE] = 6;
    kernel.lost[RESPONSE][UNFRAMED] = 1;
    kernel.seen[OPERATION] = 6;
    kernel.lost[OPERATION][GAP] = 1;
    kernel.seen[EDGE] = 4;
    kernel.lost[EDGE][NO_SLOT] = 1;
    kernel.seen[EVENT] = 9;
    kernel.lost[EVENT][RATE_LIMITED] = 2;

    let listener = |service: &Service, port, address, backlog| ListenerView {
        service: service.clone(),
        port,
        address,
        netns: 4_026_531_840,
        backlog,
        max_backlog: 128,
        unverified_user: None,
    };
    let hook = |name: &str, attached: bool, runs, run_seconds, misses| HookView {
        name: name.to_owned(),
        attached,
        reason: (!attached).then(|| "this kernel has no such tracepoint".to_owned()),
        lost_without: "request latency".to_owned(),
        runs,
        run_seconds,
        misses,
    };
    let map = |name: &str, entries, capacity| MapView { name: name.to_owned(), entries, capacity };

    let source = |name: &str, state, detail: Option<&str>| SourceView {
        name: name.to_owned(),
        state,
        detail: detail.map(str::to_owned),
        entries: 12,
        dropped: 0,
        lookups: 34,
        errors: 1,
    };

    let waiting =
        Queues { receive_bytes: 4096, send_bytes: 120, close_wait: 3, open: 5, connecting: 0 };
    let mut edges = vec![
        edge(Service::internet(), shop.clone(), 8080, Role::Server, &from_internet),
        edge(Service::other(), postgres.clone(), 5432, Role::Listener, &listening),
        edge(shop.clone(), postgres.clone(), 5432, Role::Client, &to_postgres),
    ];
    edges[0].queues = Some(Queues::NONE);
    edges[2].queues = Some(waiting);

    Snapshot {
        taken_seconds: 1_700_000_100.5,
        listeners: vec![
            listener(&postgres, 5432, IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            listener(&postgres, 5432, IpAddr::V6(Ipv6Addr::UNSPECIFIED), 2),
            listener(&shop, 8080, IpAddr::V4(Ipv4Addr::LOCALHOST), 1),
        ],
        ports: Vec::new(),
        ephemeral: vec![EphemeralView {
            netns: 1,
            netns_of: shop.clone(),
            unverified_user: None,
            ephemeral: Ephemeral {
                first: 32_768,
                last: 60_999,
                used_tcp: 7058,
                used_udp: 1,
                most: 3529,
                most_to: Some((IpAddr::V4(Ipv4Addr::LOCALHOST), 5432)),
                time_wait: 3000,
            },
        }],
        conditions: Arc::new(ConditionsView::example()),
        conflicts: Vec::new(),
        conflict_totals: vec![ConflictTotal {
            labels: ConflictLabels {
                port: 5432,
                protocol: Some(Protocol::Tcp),
                claimant: shop.clone(),
                holder: postgres.clone(),
                errno: "EADDRINUSE",
            },
            count: 3,
        }],
        unverified_conflicts: by_user(1500, 4),
        unverified_connects: by_user(1500, 70),
        ledger: LedgerView {
            kernel,
            exported: [18, 8, 4, 15, 3, 2, 7, 0, 0, 5, 0, 5],
            recursion_misses: 1,
        },
        hooks: vec![
            hook("inet_sock_set_state", true, 90, 0.000_045, 0),
            hook("sock_send_length", false, 0, 0.0, 0),
        ],
        disabled: vec![Disabled {
            what: "request latency of clients".to_owned(),
            why: "sock_send_length: this kernel has no such tracepoint".to_owned(),
            is_observed: false,
        }],
        maps: vec![map("edges", 7, 4096), map("owners", 3, 1024)],
        probes: ProbesView {
            looks: vec![
                Looks { kind: "process", result: "ok", count: 21 },
                Looks { kind: "process", result: "failed", count: 0 },
                Looks { kind: "process", result: "deadline", count: 2 },
            ],
            stuck: 1,
        },
        unresolved_owners: 1,
        sources: vec![
            source("docker", SourceState::Up, None),
            source("kubernetes", SourceState::Absent, Some("not running in a pod")),
        ],
        preexisting_sockets: 5,
        related: related(),
        drains: 100,
        drain_seconds: 0.25,
        memory: MemoryView {
            usage: Some(Usage { used: 45_000_000, limit: 50_000_000 }),
            overflow_mode: true,
            held_rows: 12,
            overflows: 2,
        },
        reservations: ReservationStatus::example(),
        traffic: Traffic::from_rows(&edges),
        recent: RecentView::from_rows(&edges, 100),
        events: EventsView::example(),
        edges,
    }
}

/// The same host with other edges and flows.
pub fn host(edges: Vec<EdgeView>, flows: Vec<(Flow, Seen)>) -> Snapshot {
    let mut host = snapshot();
    (host.traffic, host.recent) = (Traffic::from_rows(&edges), RecentView::from_rows(&edges, 100));
    let rows = flows.into_iter().map(|(flow, seen)| (Arc::new(flow), seen)).collect();
    host.related.flows = FlowsView { rows, forgotten: 0 };
    host.related.relations.rows.clear();
    host.listeners.clear();
    host.edges = edges;
    host
}

/// What one user can have made up.
fn by_user(user: u32, count: u64) -> ByUser {
    let mut counts = ByUser::default();
    counts.add(user, count);
    counts
}

/// So many connections and requests of a millisecond.
pub fn tally(connections: u64, requests: u64) -> Tally {
    let mut now = EdgeCounters { opened: connections, ..EdgeCounters::ZERO };
    for _ in 0..requests {
        now.request.observe(1000);
    }
    Tally::between(&EdgeCounters::ZERO, &now)
}

/// The users' four networks.
///
/// # Panics
/// Never: they are valid.
pub fn declarations() -> Vec<Declared> {
    let network = |segment: &str, text: &str| {
        Declared::Network(segment.into(), text.parse().expect("a network"))
    };
    let allow = |rule: &str| Declared::Allow(rule.parse().expect("a rule"));
    vec![
        network("frontend", "172.20.0.0/16"),
        network("backend", "172.21.0.0/16"),
        network("database", "172.22.0.0/16"),
        network("monitoring", "172.23.0.0/16"),
        allow("frontend -> backend"),
        allow("backend -> database"),
        allow("monitoring -> *"),
    ]
}
