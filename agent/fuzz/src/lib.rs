//! The fuzz targets: every parser with arbitrary input. A target must not panic, hang or use
//! unbounded memory, and checks properties of the result. The fuzzer mutates `seeds/<target>/`; the
//! tests below run the same targets over the corpus, pieces of it, and noise, with every `cargo test`.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::OnceLock;

use agent_common::address;
use agent_common::histogram::Histogram;
use agent_common::owner::PATH_BYTES;
use agent_common::protocol::http1::replay::Connection;
use agent_common::wire::Wire as _;
use api_types::{AllocatePorts, Register, Release, Renew, Reserve, Timestamp, Unregister};
use discovery::rules::{Network, Rule};
use discovery::{docker_proxy, process};
use linux::mounts::Mount;
use linux::procfs::{self, Stat};
use linux::{conntrack, diag, drops, links, network, oom, process_addresses};
use loader::btf::Btf;
use model::full_name::FullName;
use model::port_ranges::PortRules;
use model::registry::{Check, Endpoint};
use portolan::config::settings::SETTINGS;
use portolan::config::{self, Config};
use portolan::occupant;
use portolan::state::file;
use recorded::prometheus::Recorded;
use serde::de::IgnoredAny;
use server::web;

/// A parser and its laws.
pub type Body = fn(&[u8]);

/// All targets, by the name of their corpus folder.
pub const BODIES: &[(&str, Body)] = &[
    ("event", event),
    ("dns", dns),
    ("btf", btf),
    ("toml", toml),
    ("yaml", yaml),
    ("setting", setting),
    ("rule", rule),
    ("command_line", command_line),
    ("proc", proc),
    ("address", canonical_address),
    ("histogram", histogram),
    ("netlink", netlink),
    ("network_files", network_files),
    ("state", state),
    ("web_file", web_file),
    ("host", host),
    ("request", request),
    ("timestamp", timestamp),
    ("snapshot", snapshot),
    ("prometheus", prometheus),
    ("http1", http1),
];

/// Records from the ring.
fn event(bytes: &[u8]) {
    // The kernel aligns records to eight bytes; the reader must not depend on it.
    for from in 0..bytes.len().min(2) {
        let _ = agent_common::decode::event(bytes.get(from..).unwrap_or_default());
    }
}

/// DNS answers: every name in the result is a valid host name.
fn dns(bytes: &[u8]) {
    let _ = agent_common::decode::dns::answer(bytes);
    let Ok(resolution) = agent_common::decode::dns::message_of(bytes, bytes.len()) else { return };
    let good =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    assert!(resolution.name.len() <= 253 && resolution.name.bytes().all(good), "{resolution:?}");
    // No record is shorter than its owner, type, class, TTL, length and address.
    assert!(resolution.addresses.len() * 15 <= bytes.len(), "{resolution:?}");
}

/// Packets of an HTTP/1 connection, each with a byte for its direction and what is missing before it, and
/// one for its length: each request that began has ended, is open or is lost.
fn http1(bytes: &[u8]) {
    let mut connection = Connection::new();
    let mut rest = bytes;
    while let [kind, length, behind @ ..] = rest {
        let (packet, behind) = behind.split_at(behind.len().min(usize::from(*length)));
        let missing = u32::from(kind >> 1 & 0x3f);
        match (kind & 1, kind >> 7) {
            (0, 0) => connection.send(packet),
            (_, 0) => connection.receive(packet),
            (0, _) => connection.send_at(connection.sent.wrapping_add(missing), packet),
            _ => connection.receive_at(connection.received.wrapping_add(missing), packet),
        }
        rest = behind;
    }
    let open = connection.open();
    assert!(connection.counts.is_whole(open), "{:?}, {open} open", connection.counts);
    connection.close();
    assert!(connection.counts.is_whole(0), "{:?}", connection.counts);
}

/// BTF, the kernel's types.
fn btf(bytes: &[u8]) {
    let Ok(btf) = Btf::parse(bytes) else { return };
    for (name, path) in [("sock", "sk_err"), ("sock_common", "skc_net.net"), ("s", "a.b.c")] {
        let _ = btf.member(name, path);
    }
    let _ = btf.tracepoint_arguments("tcp_send_reset");
    let _ = btf.has_function("tcp_sendmsg");
    let _ = btf.enum_values("sk_rst_reason");
}

/// A configuration file in TOML.
fn toml(bytes: &[u8]) {
    configuration(bytes, "toml");
}

/// A configuration file in YAML.
fn yaml(bytes: &[u8]) {
    configuration(bytes, "yaml");
}

/// Loads a file; every error can be printed.
fn configuration(bytes: &[u8], kind: &str) {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        // In memory where there is such a place: this happens thousands of times a second.
        let shared = PathBuf::from("/dev/shm");
        if shared.is_dir() { shared } else { std::env::temp_dir() }
    });
    let thread = std::thread::current().id();
    let path = folder.join(format!("portolan-fuzz-{}-{thread:?}.{kind}", std::process::id()));
    let written = std::fs::File::create(&path).and_then(|mut file| file.write_all(bytes));
    let loaded = config::load(Some(&path), [], &[]);
    let _ = std::fs::remove_file(&path);
    assert!(written.is_ok(), "writing {}: {written:?}", path.display());
    match loaded {
        Ok(loaded) => {
            for setting in SETTINGS {
                let _ = (setting.show)(&loaded.config);
                let _ = loaded.origin(setting.key);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty(), "a refusal has words"),
    }
}

/// The value of any setting from a variable or flag: the printed value parses to the same value.
fn setting(bytes: &[u8]) {
    let Some((number, text)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(text).into_owned();
    let Some(setting) = SETTINGS.get(usize::from(*number) % SETTINGS.len()) else { return };
    let mut config = Config::default();
    match (setting.set)(&mut config, &config::Given::Text(text)) {
        Ok(()) => drop((setting.show)(&config)),
        Err(problem) => assert!(!problem.is_empty(), "{} says what is wrong", setting.key),
    }
}

/// The operator's naming rules and networks.
fn rule(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for problem in [Rule::parse(&text).err(), Network::parse(&text).err()].into_iter().flatten() {
        assert!(!problem.is_empty(), "a refusal has words");
    }
}

/// What a process writes about itself: every name is short and printable.
fn command_line(bytes: &[u8]) {
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (comm, argv) = bytes.split_at(at);
    // Any bytes are a directory's name, too.
    let path = procfs::last_names(argv);
    for path in [[0; PATH_BYTES], path] {
        let name = process::process_name_in(&String::from_utf8_lossy(comm), argv, &path);
        assert!(!name.chars().any(char::is_control), "{name:?} can be shown");
    }
    let _ = docker_proxy::target(argv);
    let _ = procfs::argv_region(argv);
}

/// Lines of `/proc`.
fn proc(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        let _ = Mount::parse(line);
        let _ = Stat::parse(line);
    }
    if let Some(path) = procfs::parse_cgroup(&String::from_utf8_lossy(bytes)) {
        assert!(path.starts_with('/'));
    }
}

/// Addresses: conversion round-trips, and a mapped address is its IPv4 address.
fn canonical_address(bytes: &[u8]) {
    if let Some(octets) = bytes.first_chunk::<16>() {
        let ip = IpAddr::from(*octets).to_canonical();
        assert_eq!(address::to_ip(address::from_ip(ip)).to_canonical(), ip);
    }
}

/// Histograms: no duration is lost, and merging adds.
fn histogram(bytes: &[u8]) {
    let (mut all, mut halves) = (Histogram::zeroed(), [Histogram::zeroed(); 2]);
    let values = bytes.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok());
    for (number, value) in values.map(u64::from_le_bytes).enumerate() {
        // The sum is in microseconds and may wrap after half a million years: stay below.
        let value = value >> 20;
        all.observe(value);
        if let Some(half) = halves.get_mut(number % 2) {
            half.observe(value);
        }
    }
    let [mut left, right] = halves;
    left.merge(&right);
    assert_eq!(left, all);
    assert_eq!(all.count(), (bytes.len() / 8) as u64);
    if let (Some(half), Some(most)) = (all.quantile_us(0.5), all.quantile_us(0.99)) {
        assert!(half <= most, "{half} and {most}");
    }
}

/// A netlink datagram with sockets or tracked connections.
fn netlink(datagram: &[u8]) {
    let mut dump = diag::Dump::default();
    let _ = diag::read_datagram(datagram, 1, &mut dump);
    // The header of a message has 16 bytes.
    assert!(dump.entries.len() <= datagram.len() / 16, "no socket out of nothing");
    let mut found = 0;
    let _ = conntrack::read_datagram(datagram, 1, &mut |_| found += 1);
    assert!(found <= datagram.len() / 16, "no connection out of nothing");
    let _ = links::parse(datagram);
}

/// Files below `/proc/PID/net` and `/proc/sys/net`, whose content a container influences.
fn network_files(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    let _ = drops::parse(text);
    let _ = oom::parse(text);
    let four = process_addresses::v4(text).map(IpAddr::from);
    four.chain(process_addresses::v6(text).map(IpAddr::from)).map(address::from_ip).for_each(drop);
    let _ = occupant::listeners(text, 80);
    let _ = (network::ranges(text), network::entries(text), network::sum(text, &["ListenDrops"]));
    let _ = (network::has_default_v4(text), network::has_default_v6(text));
    let (range, kept_out) = text.split_once('\n').unwrap_or((text, ""));
    if let Some(advice) = PortRules::parse(range, kept_out).advice(&[80, 40_000]) {
        assert!(!advice.problem.is_empty() && !advice.fix.is_empty());
    }
}

/// The state file: what was read is written unchanged.
fn state(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    let boot = "e2c6f8d0-0000-4000-8000-000000000000";
    match file::read(text, boot) {
        Err(broken) => assert!(!broken.to_string().is_empty(), "a refusal has words"),
        Ok(read) => {
            let again = file::read(&file::write(&read.state, boot), boot);
            let again = again.unwrap_or_else(|broken| panic!("what we wrote: {broken}"));
            assert_eq!((again.state, again.outdated), (read.state, 0));
        }
    }
}

/// The file of `--web.config.file`.
fn web_file(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    if let Err(refused) = web::check(text) {
        assert!(!refused.to_string().is_empty(), "a refusal has words");
    }
}

/// The `Host` header: what is answered is an address or a known name, whatever surrounds it.
fn host(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    let (allowed, header) = text.split_once('\n').unwrap_or(("", text));
    let allowed: Vec<web::AllowedHost> = allowed.split(',').flat_map(str::parse).collect();
    for one in &allowed {
        assert_eq!(one.to_string().parse(), Ok(one.clone()), "an entry reads as it is written");
    }
    let none = web::Hosts::new(&["node1".to_owned()], &[]);
    if none.admits(header) {
        let header = header.to_ascii_lowercase();
        let known = ["localhost", "node1"].iter().any(|name| header.contains(name));
        let is_address =
            header.starts_with('[') || header.starts_with(|c: char| c.is_ascii_digit());
        assert!(known || is_address, "{header}");
        assert!(web::Hosts::new(&["node1".to_owned()], &allowed).admits(&header));
    }
}

/// Bodies of requests that change the agent's state.
fn request(body: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Reserve>(body) {
        let _ = request.service.parse::<FullName>();
    }
    let _ = serde_json::from_slice::<Release>(body);
    let _ = serde_json::from_slice::<AllocatePorts>(body);
    if let Ok(request) = serde_json::from_slice::<Register>(body) {
        request.addresses.iter().for_each(|address| drop(address.parse::<Endpoint>()));
        request.check.iter().for_each(|check| drop(check.parse::<Check>()));
    }
    let _ = serde_json::from_slice::<Renew>(body);
    let _ = serde_json::from_slice::<Unregister>(body);
}

/// A timestamp: the printed form parses to the same timestamp.
fn timestamp(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    match model::timestamp::parse(text, 1_800_000_000) {
        Ok(read) => assert_eq!(
            model::timestamp::absolute(&model::timestamp::rfc3339(read)),
            Some(read),
            "{text:?}"
        ),
        Err(problem) => assert!(!problem.is_empty(), "a refusal has words"),
    }
}

/// A snapshot file, compressed or plain: what it answers is JSON, whatever was left out of it.
fn snapshot(bytes: &[u8]) {
    let Some(answers) = cli::readers::snapshot(bytes) else { return };
    for answer in answers.into_iter().flatten() {
        assert!(serde_json::from_str::<IgnoredAny>(&answer).is_ok(), "{answer}");
    }
}

/// Responses of Prometheus, one on each line.
fn prometheus(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let bodies: Vec<String> = text.splitn(3, '\n').map(str::to_owned).collect();
    let at = Timestamp::from_seconds(1_700_000_100.0);
    let Ok(recorded) = Recorded::read(&bodies, at, 60) else { return };
    let edges = recorded.edges();
    assert!(edges.window.since <= edges.window.until, "{:?}", edges.window);
    let map = recorded.map(&["web".to_owned()]);
    let ends = |edge: &api_types::MapEdge| (edge.client.clone(), edge.server.clone(), edge.port);
    for edge in &map.edges {
        let has = |one: &api_types::Edge| {
            (one.client.clone(), one.server.clone(), one.port) == ends(edge)
        };
        assert!(edges.edges.iter().any(has), "{edge:?}");
    }
    let _ = (recorded.services(), recorded.map(&[]));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn seeds(body: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(body);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{body}: {error}"));
        entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn every_body_has_seeds_and_survives_them_and_their_pieces() {
        for (name, body) in BODIES {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name} has no seeds");
            for seed in seeds {
                for end in 0..=seed.len().min(400) {
                    body(seed.get(..end).unwrap());
                }
                body(&seed);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn noise_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for (_, body) in BODIES {
                body(&bytes);
            }
        }

        #[test]
        fn a_seed_with_one_byte_changed_does_no_harm(
            at in any::<prop::sample::Index>(),
            which in any::<prop::sample::Index>(),
            value in any::<u8>(),
        ) {
            for (name, body) in BODIES {
                let mut seed = which.get(&seeds(name)).clone();
                if !seed.is_empty() {
                    let at = at.index(seed.len());
                    seed[at] = value;
                }
                body(&seed);
            }
        }
    }
}
