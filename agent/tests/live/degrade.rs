//! With less kernel less is observed, and only that: each hook, each field and each first way to
//! attach a hook is disabled in turn.
//!
//! What must be missing without a hook is written here ([`lose`]); which hooks depend on a field is
//! the agent's own table, so a row that lacks a field shows up as a missing figure.

mod rare;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use agent_common::config::Offsets;
use loader::btf::Btf;
use loader::hooks::{HOOKS, Hook, Kind, OPTIONAL_FIELDS, QUESTIONS, RELEASE, UNPREEMPTED, Way};
use loader::parts::{SOCKET_TABLE, TCP_CAST};

use crate::agent::{self, Agent};
use crate::conflicts::claim::Claim;
use crate::facts::{self, patience, programs_of_a_hook};
use crate::holder::Holder;
use crate::namespace::{Connection, Pair};
use crate::net;
use crate::scrape::Scrape;

/// The figures of the same traffic, by what they need. Pairs are client and server, sent and
/// received, or IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Default)]
struct Seen {
    connects: (u64, u64),
    failed_connects: u64,
    unsent_connects: (u64, u64),
    connect_latency: u64,
    client_requests: u64,
    open_server_requests: u64,
    server_requests: u64,
    final_bytes: (u64, u64),
    open_bytes: u64,
    round_trips: bool,
    resets: (u64, u64),
    listeners: u64,
    preexisting: u64,
    preexisting_datagrams: usize,
    failed_binds: (u64, u64),
    exact_errnos: (u64, u64),
    held_ports: (usize, usize),
}

/// The figures of an agent that lacks nothing on a kernel that lacks nothing.
const EVERYTHING: Seen = Seen {
    connects: (1, 1),
    failed_connects: 1,
    unsent_connects: (2, 2),
    connect_latency: 1,
    client_requests: 3,
    open_server_requests: 3,
    server_requests: 3,
    final_bytes: (3 * 100, 3 * 200),
    open_bytes: 3 * 100,
    round_trips: true,
    resets: (1, 1),
    listeners: 1,
    preexisting: 1,
    preexisting_datagrams: 1,
    failed_binds: (1, 1),
    exact_errnos: (1, 1),
    held_ports: (1, 1),
};

/// Ports of a server: of the datagram socket from before, and of those bound over IPv4 and IPv6.
const OLD_DATAGRAMS: u16 = 7100;
const HELD: (u16, u16) = (7104, 7106);
/// A destination without a route, and its port.
const NOWHERE4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const NOWHERE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const NOWHERE: (u16, u16) = (7004, 7006);
/// A port of the server without a listener.
const NOBODYS: u16 = 7007;
/// How long names may take.
const NAMES_WITHIN: Duration = Duration::from_secs(10);

/// The key that disables this field or these hooks.
fn key_to_disable(names: &str) -> &'static str {
    let is_field = |name: &str| Offsets::FIELDS.iter().any(|(field, ..)| *field == name);
    if names.split(',').all(is_field) { "disable_fields" } else { "disable_hooks" }
}

/// Runs the traffic under an agent without `disabled`; returns its figures and its status. Counts of
/// an edge are withheld while its names are looked up, so the figures are read until they are as
/// `expected`, for a while.
fn observe(
    disabled: &str,
    expected: impl Fn(&Scrape) -> Seen,
) -> (Seen, Scrape, serde_json::Value) {
    let pair = Pair::new();
    let old = pair.server.listen("0.0.0.0:0");
    let old_client = pair.client.connect((pair.server.v4, net::port(&old))).unwrap();
    let datagrams = Claim::udp((pair.server.v4, OLD_DATAGRAMS).into());
    let datagrams = pair.server.within(|| datagrams.bind().unwrap());
    let _old_datagrams = Holder::new("the-old-one", vec![datagrams.into()]);
    // DNS lookups have tests of their own.
    let agent = Agent::with(&[(key_to_disable(disabled), disabled), ("dns_lookups", "false")]);
    let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
    for _ in 0..3 {
        client.write_all(&[b'q'; 100]).unwrap();
        net::read_exactly(&mut server, 100).unwrap();
        server.write_all(&[b'x'; 200]).unwrap();
        net::read_exactly(&mut client, 200).unwrap();
        // Lets the send hook of this response run before the next request.
        thread::sleep(Duration::from_millis(2));
    }
    let (c, s, number) = (&pair.client.service, &pair.server.service, port.to_string());
    // Without a list of listeners the remote end is an address: only the own name is certain.
    let of_client = [("client", c.as_str()), ("role", "client"), ("port", &number)];
    let of_server = [("server", s.as_str()), ("role", "server"), ("port", &number)];
    let began = Instant::now();
    let open = loop {
        let open = agent.scrape();
        let Seen { open_server_requests, open_bytes, .. } = expected(&open);
        let (a, b) = (open.edges(&of_client).sent_bytes(), open.edges(&of_server).requests().count);
        if (a, b) == (open_bytes, open_server_requests) || began.elapsed() > patience(NAMES_WITHIN)
        {
            break open;
        }
        thread::sleep(Duration::from_millis(100));
    };
    let probe = pair.server.within(|| std::net::TcpListener::bind("0.0.0.0:0").unwrap());
    let unused = net::port(&probe);
    drop(probe);
    pair.client.act(|| {
        // One family after the other, each ended by the next event on the same hook: where only one
        // of the two hooks exists, the SYN of the other family removes the pending connect.
        for (nowhere, count, somewhere) in [
            (
                SocketAddr::new(NOWHERE6, NOWHERE.1),
                EVERYTHING.unsent_connects.1,
                (pair.server.v6.into(), NOBODYS),
            ),
            (
                SocketAddr::new(NOWHERE4, NOWHERE.0),
                EVERYTHING.unsent_connects.0,
                (IpAddr::from(pair.server.v4), unused),
            ),
        ] {
            for _ in 0..count {
                std::net::TcpStream::connect(nowhere).unwrap_err();
            }
            std::net::TcpStream::connect(somewhere).unwrap_err();
        }
    });
    let places = [
        SocketAddr::new(pair.server.v4.into(), HELD.0),
        SocketAddr::new(pair.server.v6.into(), HELD.1),
    ];
    let held = pair.server.act(|| {
        let held = places.map(|place| Claim::udp(place).bind().unwrap());
        for place in places {
            assert_eq!(Claim::udp(place).bind().unwrap_err(), libc::EADDRINUSE);
            // The next one ends it again.
            Claim::udp(SocketAddr::new(place.ip(), 0)).bind().unwrap();
        }
        held
    });
    net::close_with_reset(server);
    let active = |now: &Scrape| now.edges(&of_client).active() + now.edges(&of_server).active();
    agent.eventually(0, active);
    // The reason of a connect that is refused before the SYN is looked up later; wait for it.
    let is_whole = |now: &Scrape| {
        let events = |metric: &str| now.sum(metric, &[("class", "connection")]);
        let exported = events("portolan_events_exported_total");
        events("portolan_events_seen_total") <= exported + events("portolan_events_lost_total")
    };
    let began = Instant::now();
    let (seen, now) = loop {
        let now = agent.eventually(true, is_whole);
        let ports = agent.json("/api/v1/ports");
        let conflicts = agent.json("/api/v1/conflicts");
        let rows = |port: u16| {
            let rows = ports["ports"].as_array().expect("a list of ports").iter();
            rows.filter(|row| row["port"] == port && row["netns"] == pair.server.inode()).count()
        };
        let failed = |port: u16| {
            let all = conflicts["conflicts"].as_array().expect("a list of conflicts").iter();
            let mut ours =
                all.filter(|one| one["port"] == port && one["claimant"]["service"]["name"] == **s);
            let Some(one) = ours.next() else { return (0, 0) };
            assert_eq!((&one["errno"], ours.next()), (&"EADDRINUSE".into(), None), "{conflicts:#}");
            let count = one["count"].as_u64().expect("a count");
            (count, if one["inferred"] == false { count } else { 0 })
        };
        let (failed4, failed6) = (failed(HELD.0), failed(HELD.1));
        let unsent = |port: u16| {
            let port = port.to_string();
            let labels = [("client", c.as_str()), ("role", "client"), ("port", &port)];
            now.edges(&labels).connects("unreachable")
        };
        let unused = unused.to_string();
        let (a, b) = (now.edges(&of_client), now.edges(&of_server));
        let seen = Seen {
            connects: (a.connects("ok"), b.connects("ok")),
            failed_connects: now
                .edges(&[("client", c), ("role", "client"), ("port", &unused)])
                .connects("refused"),
            unsent_connects: (unsent(NOWHERE.0), unsent(NOWHERE.1)),
            connect_latency: a.connect_duration().count,
            client_requests: a.requests().count,
            open_server_requests: open.edges(&of_server).requests().count,
            server_requests: b.requests().count,
            final_bytes: (a.sent_bytes(), b.sent_bytes()),
            open_bytes: open.edges(&of_client).sent_bytes(),
            round_trips: a.rtt().count > 0,
            resets: (
                b.resets_by_cause("sent").values().sum(),
                a.resets_by_cause("received").values().sum(),
            ),
            listeners: now.sum("portolan_port_listeners", &[("service", s), ("port", &number)]),
            preexisting: now
                .edges(&[("role", "client"), ("port", &net::port(&old).to_string())])
                .preexisting(),
            preexisting_datagrams: rows(OLD_DATAGRAMS),
            failed_binds: (failed4.0, failed6.0),
            exact_errnos: (failed4.1, failed6.1),
            held_ports: (rows(HELD.0), rows(HELD.1)),
        };
        if seen == expected(&now) || began.elapsed() > patience(NAMES_WITHIN) {
            break (seen, now);
        }
        thread::sleep(Duration::from_millis(100));
    };
    drop((client, old_client, held));
    let status = agent.json("/api/v1/status");
    agent.stop();
    (seen, now, status)
}

/// What this kernel lacks by itself, as (what, why).
fn kernel_lacks() -> &'static [(String, String)] {
    static LACKS: OnceLock<Vec<(String, String)>> = OnceLock::new();
    LACKS.get_or_init(|| {
        // Without the part that has tests of its own, as everywhere here.
        let agent = Agent::with(&[("dns_lookups", "false")]);
        let status = agent.json("/api/v1/status");
        agent.stop();
        off(&status)
    })
}

/// The findings as (what, why); those for both families of addresses as one for each.
fn off(status: &serde_json::Value) -> Vec<(String, String)> {
    let entries = status["findings"].as_array().expect("a list of what is off");
    let text = |value: &serde_json::Value| value.as_str().expect("a sentence").to_owned();
    let each = |entry: &serde_json::Value| {
        let (what, why) = (text(&entry["subject"]), text(&entry["evidence"]["reason"]));
        let hooks =
            why.split_once(": ").and_then(|(hooks, why)| Some((hooks.split_once(", ")?, why)));
        let Some(((four, six), why)) = hooks.filter(|_| what.contains("IPv4 and IPv6")) else {
            return vec![(what, why)];
        };
        [("IPv4", four), ("IPv6", six)]
            .map(|(family, hook)| (what.replace("IPv4 and IPv6", family), format!("{hook}: {why}")))
            .to_vec()
    };
    entries.iter().flat_map(each).collect()
}

/// Whether this kernel has a field, or lets a hook attach at all, and an agent here attaches it: these
/// agents read no names from DNS, whose hooks have tests of their own.
fn kernel_has(hook: &str) -> bool {
    let (of_hook, of_field) = (format!("{hook}: "), format!(" no {hook}"));
    let lacks = |why: &str| why.starts_with(&of_hook) || why.ends_with(&of_field);
    !QUESTIONS.contains(&hook)
        && hook != RELEASE
        && !kernel_lacks().iter().any(|(_, why)| lacks(why))
}

/// The disabled features in `/api/v1/status`, as (what, why), without those that this kernel lacks.
fn disabled(status: &serde_json::Value) -> Vec<(String, String)> {
    let all = off(status).into_iter();
    // A hook that the kernel lacks may now be off for another reason as well.
    let of_lacking = |why: &str| {
        let hook = why.split(": ").next().unwrap_or_default();
        HOOKS.iter().any(|known| known.name == hook) && !kernel_has(hook)
    };
    // Nor what is missing where the table of sockets is off as well.
    let of_files = |why: &str| why.ends_with("permits no iterator over maps");
    let is_lacking =
        |entry: &(String, String)| kernel_lacks().contains(entry) || of_lacking(&entry.1);
    all.filter(|entry| !is_lacking(entry) && !of_files(&entry.1)).collect()
}

/// Removes the figures that need this hook or field.
fn lose(what: &str, seen: &mut Seen) {
    match what {
        "sk_data_ready" => {
            seen.client_requests = 0;
            seen.open_server_requests = 0;
            seen.server_requests = 0;
        }
        // A response shows when the next request arrives, or at the end.
        "sock_send_length" => seen.open_server_requests = seen.open_server_requests.min(2),
        "connect4" => seen.unsent_connects.0 = 0,
        "connect6" => seen.unsent_connects.1 = 0,
        "bind4" => (seen.failed_binds.0, seen.exact_errnos.0) = (0, 0),
        "bind6" => (seen.failed_binds.1, seen.exact_errnos.1) = (0, 0),
        "inet_bind_sk" => seen.exact_errnos.0 = 0,
        "inet6_bind_sk" => seen.exact_errnos.1 = 0,
        "post_bind4" => seen.held_ports.0 = 0,
        "post_bind6" => seen.held_ports.1 = 0,
        "bound_sockets" => (seen.held_ports, seen.preexisting_datagrams) = ((0, 0), 0),
        "bootstrap_udp" => seen.preexisting_datagrams = 0,
        "tcp_send_reset" => seen.resets.0 = 0,
        "tcp_receive_reset" => seen.resets.1 = 0,
        "iterate_sockets" => (seen.open_bytes, seen.listeners) = (0, 0),
        "bootstrap_tcp" => seen.preexisting = 0,
        "srtt_us" | "rtt_seq" => seen.round_trips = false,
        "bytes_sent" => (seen.final_bytes, seen.open_bytes) = ((0, 0), 0),
        // Then sockets are looked for among open files.
        "socket_sk" if facts::refuses_iterators_over_maps() => lose("bound_sockets", seen),
        _ => {}
    }
}

/// The figures of an agent that lacks nothing on this kernel.
fn everything() -> Seen {
    let mut seen = EVERYTHING;
    HOOKS.iter().filter(|hook| !kernel_has(hook.name)).for_each(|hook| lose(hook.name, &mut seen));
    seen
}

/// Without this hook or field everything else is observed, and the agent reports what is missing.
#[track_caller]
fn check_without(mask: &str) {
    if !kernel_has(mask) {
        println!("this kernel has no {mask} to take away");
    } else if off_without(&[mask]).contains(&HOOKS[0].name) {
        refuses_without(mask);
    } else {
        check_without_all(&[mask]);
    }
}

/// The hooks that are off without these hooks and fields.
fn off_without(masks: &[&str]) -> Vec<&'static str> {
    let mut off: Vec<&str> = Vec::new();
    for hook in HOOKS.iter().filter(|hook| kernel_has(hook.name)) {
        let without_another = hook.after.is_some_and(|after| off.contains(&after));
        let needs = |mask: &&str| hook.name == *mask || hook.fields.contains(mask);
        if masks.iter().any(needs) || without_another {
            off.push(hook.name);
        }
    }
    off
}

/// As [`check_without`], for several at once, with which the agent starts.
#[track_caller]
fn check_without_all(masks: &[&str]) {
    let off = off_without(masks);
    let mut expected = everything();
    off.iter().chain(masks).for_each(|what| lose(what, &mut expected));
    let mask = masks.join(",");
    let (seen, now, status) = observe(&mask, |_| expected.clone());
    assert_eq!(seen, expected, "without {mask}: {:#?}", now.who());
    for sample in now.matching("portolan_hook_attached", &[]) {
        let hook = sample.label("hook").expect("which hook");
        let expected = kernel_has(hook) && !off.contains(&hook);
        assert_eq!(sample.value > 0.5, expected, "without {mask}: {sample:?}");
    }
    has_no_series_of(&off, &now);
    let disabled = disabled(&status);
    let optional = OPTIONAL_FIELDS.iter().filter(|(field, _)| masks.contains(field)).count();
    assert_eq!(disabled.len(), off.len() + optional, "without {mask}: {disabled:?}");
    for (what, why) in &disabled {
        assert!(!what.is_empty(), "it says what is lost: {disabled:?}");
        let named = masks.iter().any(|mask| why.contains(mask))
            || off.iter().any(|hook| why.starts_with(hook));
        assert!(named, "without {mask}: {disabled:?}");
    }
    for hook in off {
        let because = |(_, why): &(String, String)| why.starts_with(&format!("{hook}: "));
        assert!(disabled.iter().any(because), "{hook} without {mask}: {disabled:?}");
    }
}

/// Metrics that nothing but these hooks feeds.
fn fed_only_by(hooks: &[&str]) -> Vec<&'static str> {
    let is_fed_only = |metric: &&telemetry::Metric| {
        metric.fed_by.split(", ").all(|source| hooks.contains(&source))
    };
    telemetry::catalogue().filter(is_fed_only).map(|metric| metric.name).collect()
}

/// A metric that nothing feeds says nothing: a zero would say that nothing happened.
#[track_caller]
fn has_no_series_of(off: &[&str], now: &Scrape) {
    for metric in fed_only_by(off) {
        assert!(!now.has_metric(metric), "{metric} has series without {off:?}");
    }
}

/// Without the fields of the first hook nothing is observed: one sentence, and the agent refuses.
#[track_caller]
fn refuses_without(mask: &str) {
    let run = tempfile::tempdir().unwrap();
    let run = run.path().display().to_string();
    let listen = format!("127.0.0.1:{}", agent::free_port());
    let ended = agent::run_to_end(&mut agent::command(&[
        (key_to_disable(mask), mask),
        ("run_directory", &run),
        ("web.listen_address", &listen),
        ("log.level", "error"),
    ]));
    assert!(!ended.status.success(), "without {mask}");
    assert_eq!(ended.stderr.lines().count(), 1, "one sentence: {}", ended.stderr);
    for word in ["inet_sock_set_state", mask] {
        assert!(ended.stderr.contains(word), "nothing of {word}: {}", ended.stderr);
    }
}

#[test]
fn with_everything_everything_is_seen() {
    needs_kernel!();
    let (seen, now, status) = observe("", |_| everything());
    assert_eq!(seen, everything());
    assert_eq!(disabled(&status), []);
    for hook in HOOKS {
        let attached = now.sum("portolan_hook_attached", &[("hook", hook.name)]) == 1;
        assert_eq!(attached, kernel_has(hook.name), "{}", hook.name);
        if QUESTIONS.contains(&hook.name) || hook.name == RELEASE {
            continue;
        }
        // Only functions may be unavailable: some kernels refuse trampolines.
        let by_function = |way: &Way| matches!(way.kind, Kind::FunctionEntry | Kind::FunctionExit);
        assert!(attached || hook.ways.iter().any(by_function), "{}", hook.name);
    }
    for (what, why) in kernel_lacks() {
        let known = HOOKS.iter().any(|hook| why.starts_with(&format!("{}: ", hook.name)))
            || (why.contains("6.10") && !facts::names_reset_reasons())
            || (why.contains("total_rto") && facts::kernel_is_before(6, 7));
        assert!(known, "{what}: {why}");
        println!("this kernel lacks {what}: {why}");
    }
}

#[test]
fn without_a_hook_only_its_figures_are_missing() {
    needs_kernel!();
    for hook in HOOKS {
        check_without(hook.name);
    }
}

/// With all hooks but the first off, so that metrics that several hooks feed are among them.
#[test]
fn a_metric_whose_hooks_are_all_off_has_no_series() {
    needs_kernel!();
    let off: Vec<&str> = HOOKS.iter().skip(1).map(|hook| hook.name).collect();
    let mut expected = everything();
    for hook in &off {
        lose(hook, &mut expected);
    }
    let (seen, now, _) = observe(&off.join(","), |_| expected.clone());
    assert_eq!(seen, expected, "{:#?}", now.who());
    has_no_series_of(&off, &now);
    // With their hooks most of them have series after the same traffic.
    let (_, now, _) = observe("", |_| everything());
    let has: Vec<&str> =
        fed_only_by(&off).into_iter().filter(|metric| now.has_metric(metric)).collect();
    let every_time = [
        "portolan_tcp_preexisting_connections_total",
        "portolan_request_duration_seconds",
        "portolan_tcp_receive_queue_bytes",
        "portolan_tcp_send_queue_bytes",
        "portolan_tcp_close_wait_connections",
        "portolan_tcp_resets_total",
        "portolan_backend_requests_total",
        "portolan_port_listeners",
        "portolan_listen_backlog",
        "portolan_listen_backlog_max",
    ];
    for metric in every_time {
        assert!(has.contains(&metric), "{metric} is not among {has:?}");
    }
}

#[test]
fn without_a_field_only_what_needs_it_is_gone() {
    needs_kernel!();
    let fields = Offsets::FIELDS.iter().map(|(field, ..)| *field).filter(|field| kernel_has(field));
    let (needed, others): (Vec<&str>, Vec<&str>) =
        fields.partition(|field| off_without(&[field]).contains(&HOOKS[0].name));
    for field in needed {
        refuses_without(field);
    }
    // One by one it takes minutes.
    let at_once = if std::env::var_os("PORTOLAN_TEST_LONG").is_some() { 1 } else { 4 };
    for masks in others.chunks(at_once) {
        check_without_all(masks);
    }
}

/// As on a kernel without `bpf_rdonly_cast`, or one that refuses it.
#[test]
fn without_the_cast_of_tcp_sockets_the_same_is_seen() {
    needs_kernel!();
    let (seen, now, status) = observe(&format!("part:{}", TCP_CAST.name), |_| everything());
    assert_eq!(seen, everything());
    for hook in HOOKS {
        let attached = now.sum("portolan_hook_attached", &[("hook", hook.name)]) == 1;
        assert_eq!(attached, kernel_has(hook.name), "{}", hook.name);
    }
    let casts = Btf::of_running_kernel().unwrap().has_function("bpf_rdonly_cast");
    let off = disabled(&status);
    // Without the cast there is no table of sockets either.
    let expected = [TCP_CAST.lost_without, SOCKET_TABLE.lost_without];
    let expected = if programs_of_a_hook() == 1 { &expected[..] } else { &expected[..1] };
    let expected = if casts { expected } else { &[] };
    let what: Vec<&str> = off.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(what, expected, "{off:?}");
    for (what, _) in &off {
        let finding = status["findings"].as_array().expect("a list of what is off");
        let finding = finding.iter().find(|finding| finding["subject"] == *what);
        assert_eq!(finding.expect("it is there")["code"], api_types::code::MORE_CPU_TIME);
    }
}

/// Hooks that depend on another one are not tested here.
#[test]
fn without_its_best_ways_a_hook_takes_the_next_or_is_reported() {
    needs_kernel!();
    for hook in HOOKS.iter().filter(|hook| kernel_has(hook.name)) {
        for better in 1..hook.ways.len() {
            check_without_ways(hook, better);
        }
    }
}

/// As on a kernel that preempts programs on tracepoints.
#[test]
fn second_programs_count_nothing_twice_and_are_as_good_as_the_first() {
    needs_kernel!();
    let (seen, _, status) = observe(UNPREEMPTED, |_| everything());
    assert_eq!(seen, everything(), "both programs");
    assert_eq!(disabled(&status), []);

    let first = HOOKS.iter().filter(|hook| hook.fallback.is_some()).flat_map(|hook| hook.ways);
    let first: Vec<_> = first.map(|way| format!("way:{}", way.name)).collect();
    let (seen, _, status) =
        observe(&format!("{UNPREEMPTED},{}", first.join(",")), |_| everything());
    assert_eq!(seen, everything(), "without the first programs");
    assert_eq!(disabled(&status), []);
}

/// Without the best way to attach a hook it observes the same in the next one; or, if this kernel
/// has no other, the hook's figures are missing.
#[track_caller]
fn check_without_ways(hook: &Hook, better: usize) {
    let (without, left) = hook.ways.split_at(better);
    let mask: Vec<String> = without.iter().map(|way| format!("way:{}", way.name)).collect();
    let is_attached = |now: &Scrape| now.sum("portolan_hook_attached", &[("hook", hook.name)]) == 1;
    let expected = |now: &Scrape| {
        let mut expected = everything();
        if !is_attached(now) {
            lose(hook.name, &mut expected);
        }
        expected
    };
    let (seen, now, status) = observe(&mask.join(","), expected);
    let expected = expected(&now);
    if is_attached(&now) {
        println!("{} attached without {}", hook.name, mask.join(", "));
        assert_eq!(disabled(&status), [], "{}", hook.name);
    } else {
        // Some kernels, this project's own build machines among them, refuse trampolines.
        println!("this kernel does not let {} attach without {}", hook.name, mask.join(", "));
        let by_function = |way: &Way| matches!(way.kind, Kind::FunctionEntry | Kind::FunctionExit);
        assert!(left.iter().all(by_function), "{} was refused", hook.name);
        let disabled = disabled(&status);
        assert!(disabled.iter().any(|(_, why)| why.starts_with(hook.name)), "{disabled:?}");
    }
    assert_eq!(seen, expected, "{} without {mask:?}", hook.name);
}
