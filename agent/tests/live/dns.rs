//! Names that programs resolved by DNS: real programs, a real server, and one that misbehaves.
//!
//! The addresses of the servers belong to no interface (local routes), so that only the resolved
//! name can name them.

mod asked;
mod flood;
mod scene;
mod server;

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use loader::hooks::{UNPREEMPTED, find};
use serde_json::Value;

pub(crate) use self::asked::{Family, answers_count_only_from_a_server_that_was_asked};
use self::flood::{RESOLVE, budgets, flood};
use self::scene::{
    PATIENCE, PAUSE, V4, V6, agent, ask, ask_connected, by_address, expect, ledger, named, pair,
    servers, source,
};
pub(crate) use self::server::Dnsmasq as Resolver;
use self::server::{Dnsmasq, Message, Record, Responder};
use crate::exactness::missing;
use crate::net;

#[test]
fn a_server_is_called_what_the_program_asked_for() {
    needs_kernel!();
    if let Some(why) = missing(&["dnsmasq", "curl", "unshare"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = pair();
    let (db, six) = (format!("{V4}.7"), format!("{V6}::7"));
    let dnsmasq = Dnsmasq::start(
        &pair.server,
        &[
            &format!("--host-record=db.portolan.test,{db}"),
            &format!("--host-record=six.portolan.test,{six}"),
            "--cname=alias.portolan.test,db.portolan.test",
            "--cname=shop.portolan.test,alias.portolan.test",
        ],
    );
    let agent = agent(&[]);
    let listener = pair.server.listen("[::]:0");
    let port = net::port(&listener);
    let web = std::thread::spawn(move || server::serve_http(&listener, 3));

    // glibc queries both families at once, from a connected socket.
    dnsmasq.curl(&pair.client, "Shop.portolan.test", port);
    expect(&agent, port, &[named("shop.portolan.test", 1)]);
    dnsmasq.curl(&pair.client, "six.portolan.test", port);
    expect(&agent, port, &[named("shop.portolan.test", 1), named("six.portolan.test", 1)]);
    // The same address under another name is the same server: its first name stays.
    dnsmasq.curl(&pair.client, "db.portolan.test", port);
    expect(&agent, port, &[named("shop.portolan.test", 2), named("six.portolan.test", 1)]);
    web.join().expect("three requests were answered");

    let info = [("service", "shop.portolan.test"), ("source", "dns")];
    assert_eq!(agent.scrape().sum("portolan_service_info", &info), 1);
    let source = source(&agent).expect("it is a source");
    assert!(source["entries"].as_u64() >= Some(2) && source["errors"] == 0, "{source}");
    let (seen, exported, lost) = ledger(&agent);
    // glibc may read the response to one of its two queries before it could be copied.
    assert!(seen >= 3 && exported + lost == seen && lost <= 1, "{seen} {exported} {lost}");
    agent.stop();
}

#[test]
fn a_name_ends_with_its_time_to_live() {
    needs_kernel!();
    let pair = pair();
    let responder = Responder::start(&pair.server, |question| {
        let (ttl, host) = if question.name.starts_with("short") { (1, 21) } else { (300, 22) };
        let data = Record::a(&question.name, ttl, &format!("{V4}.{host}"));
        vec![Message::answer(question, &[data])]
    });
    let agent = agent(&[]);
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    for name in ["short.portolan.test", "long.portolan.test"] {
        ask(&pair.client, pair.server.v4, name, server::A);
    }
    let began = Instant::now();
    let entries = || source(&agent).map(|source| source["entries"].clone());
    while entries() != Some(2.into()) {
        assert!(began.elapsed() < crate::facts::patience(PATIENCE), "{:?}", source(&agent));
        std::thread::sleep(PAUSE);
    }
    // A name is kept for half a minute at least.
    std::thread::sleep(Duration::from_secs(31));
    let [gone, stays] = [21, 22].map(|host| format!("{V4}.{host}"));
    let open = [&gone, &stays].map(|address| {
        let address: IpAddr = address.parse().expect("an address");
        pair.client.connect((address, port)).expect("a connection")
    });
    expect(&agent, port, &[by_address(&gone, 1), named("long.portolan.test", 1)]);
    drop((open, responder));
    agent.stop();
}

#[test]
fn an_unconnected_socket_is_read_too_and_a_late_name_takes_the_counts_along() {
    needs_kernel!();
    let pair = pair();
    let (late, six) = (format!("{V4}.9"), format!("{V6}::9"));
    let responder = Responder::start(&pair.server, |question| {
        let data = match question.kind {
            server::A => Record::a(&question.name, 1, &format!("{V4}.9")),
            _ => Record::aaaa(&question.name, 1, &format!("{V6}::9")),
        };
        vec![Message::answer(question, &[data])]
    });
    let agent = agent(&[]);
    let listener = pair.server.listen("[::]:0");
    let port = net::port(&listener);
    let connect = |address: &str| {
        let address: IpAddr = address.parse().expect("an address");
        pair.client.connect((address, port)).expect("a connection")
    };
    let mut open: Vec<TcpStream> = vec![connect(&late), connect(&late)];
    expect(&agent, port, &[by_address(&late, 2)]);
    ask(&pair.client, pair.server.v4, "late.portolan.test", server::A);
    expect(&agent, port, &[named("late.portolan.test", 2)]);
    open.push(connect(&late));
    expect(&agent, port, &[named("late.portolan.test", 3)]);
    ask(&pair.client, pair.server.v4, "Six.Portolan.test", server::AAAA);
    open.push(connect(&six));
    expect(&agent, port, &[named("late.portolan.test", 3), named("six.portolan.test", 1)]);
    // Answers to other namespaces do not apply here.
    ask(&pair.server, pair.server.v4, "elsewhere.portolan.test", server::A);
    let third = format!("{V4}.10");
    open.push(connect(&third));
    let six = named("six.portolan.test", 1);
    expect(&agent, port, &[by_address(&third, 1), named("late.portolan.test", 3), six]);
    drop((open, responder));
    agent.stop();
}

#[test]
fn what_a_server_cuts_off_or_makes_up_does_no_harm() {
    needs_kernel!();
    let pair = pair();
    let responder = Responder::start(&pair.server, |question| {
        let good = |last: u8| Record::a(&question.name, 60, &format!("{V4}.{last}"));
        match question.name.split('.').next().unwrap_or_default() {
            "cut" => {
                let whole = Message::answer(question, &[good(20), good(21)]);
                vec![whole.cut(3).truncated()]
            }
            "garbage" => vec![Message(vec![0xff; 64]), Message(vec![0x80; 11])],
            "lies" => {
                let mut bytes = Message::answer(question, &[good(22)]).0;
                // A name that points to itself.
                bytes.splice(12..14, [0xc0, 12]);
                vec![Message(bytes)]
            }
            "blocked" => {
                let nowhere = ["0.0.0.0", "127.0.0.1"];
                let records = nowhere.map(|ip| Record::a(&question.name, 60, ip));
                vec![Message::answer(question, &records)]
            }
            "large" => {
                let mut records = vec![good(23)];
                records.extend((0..90).map(|_| good(24)));
                vec![Message::answer(question, &records)]
            }
            _ => vec![Message::answer(question, &[])],
        }
    });
    let agent = agent(&[]);
    let (seen, ..) = ledger(&agent);
    for name in ["cut", "garbage", "lies", "blocked", "nothing", "large"] {
        ask_connected(&pair.client, pair.server.v4, &format!("{name}.portolan.test"));
    }
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let open: Vec<TcpStream> = [20, 21, 22, 23]
        .map(|last| {
            let address: SocketAddr = format!("{V4}.{last}:{port}").parse().expect("an address");
            pair.client.connect(address).expect("a connection")
        })
        .into();
    // The first record of the truncated answer was complete; the rest was not.
    let expected = [
        by_address(&format!("{V4}.21"), 1),
        by_address(&format!("{V4}.22"), 1),
        named("cut.portolan.test", 1),
        named("large.portolan.test", 1),
    ];
    expect(&agent, port, &expected);
    let source = source(&agent).expect("it is a source");
    assert!(source["errors"].as_u64() >= Some(1), "a lie is counted: {source}");
    let (now, exported, lost) = ledger(&agent);
    // The answer without records gives no name, and no garbage looks like an answer.
    assert!(now - seen >= 4 && exported + lost == now, "{now} {exported} {lost}");
    assert!(agent.log().lines().all(|line| !line.contains("panicked")), "{}", agent.log());
    drop((open, responder));
    agent.stop();
}

#[test]
fn a_flood_of_answers_is_counted_and_costs_only_who_is_flooded() {
    needs_kernel!();
    let (flooded, other) = budgets();
    let responder = Responder::start(&other.server, |question| {
        vec![Message::answer(question, &[Record::a(&question.name, 60, &format!("{V4}.30"))])]
    });
    let check = |settings: &[(&str, &str)], addresses: u8, reason: &str| {
        let agent = agent(settings);
        let (seen, ..) = ledger(&agent);
        let arrived = std::thread::scope(|scope| {
            let flood = scope.spawn(|| flood(&flooded, 10_000, addresses));
            std::thread::sleep(Duration::from_millis(20));
            ask(&other.client, other.server.v4, "calm.portolan.test", server::A);
            flood.join().expect("the flood ends")
        });
        let (now, exported, lost) = ledger(&agent);
        println!(
            "{arrived} answers arrived, {} seen, {exported} exported, {lost} lost",
            now - seen
        );
        // One was the quiet client's; this host may send queries too.
        assert!((arrived + 1..arrived + 20).contains(&(now - seen)), "{arrived}: {}", now - seen);
        assert_eq!(exported + lost, now);
        let losses = agent
            .scrape()
            .losses()
            .into_iter()
            .map(|(_, reason, n)| (reason.to_owned(), n))
            .collect::<Vec<_>>();
        assert!(losses.iter().any(|(why, n)| why == reason && *n > 0), "{losses:?}");
        let listener = other.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        let address: SocketAddr = format!("{V4}.30:{port}").parse().expect("an address");
        let _open = other.client.connect(address).expect("a connection");
        let began = Instant::now();
        let calm = loop {
            // Counts of an edge are withheld while its names are looked up.
            let calm = servers(&agent, port);
            if !calm.is_empty() || began.elapsed() > crate::facts::patience(PATIENCE) {
                break calm;
            }
            std::thread::sleep(PAUSE);
        };
        agent.stop();
        calm
    };
    let calm = check(&[], 1, "rate_limited");
    assert_eq!(calm, [named("calm.portolan.test", 1)]);
    // With a tiny ring that is not drained in time, answers without room are counted as well.
    check(&[("limits.ring_bytes", "4096"), ("collection_interval", "10s")], 60, "ring_full");
    drop(responder);
}

#[test]
fn a_flood_of_large_answers_leaves_others_room_in_the_ring() {
    needs_kernel!();
    let (flooded, other) = budgets();
    let responder = Responder::start(&other.server, |question| {
        vec![Message::answer(question, &[Record::a(&question.name, 60, &format!("{V4}.50"))])]
    });
    // The ring is not read before this test does.
    let agent = agent(&[("limits.ring_bytes", "65536"), ("collection_interval", "1m")]);
    flood(&flooded, 2000, 60);
    ask(&other.client, other.server.v4, "calm.portolan.test", server::A);
    let listener = other.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let address: SocketAddr = format!("{V4}.50:{port}").parse().expect("an address");
    let open = other.client.connect(address).expect("a connection");
    expect(&agent, port, &[named("calm.portolan.test", 1)]);
    let losses = agent.scrape();
    let of = |reason| {
        losses.sum("portolan_events_lost_total", &[("class", "dns_answer"), ("reason", reason)])
    };
    assert_eq!((of("ring_full"), of("rate_limited") > 0), (0, true), "{:?}", losses.losses());
    drop((open, responder));
    agent.stop();
}

#[test]
fn all_namespaces_of_a_user_have_one_share_of_the_names() {
    needs_kernel!();
    const PLACES: u64 = 4;
    let net = pair();
    let responder = Responder::start(&net.server, |question| {
        vec![Message::answer(question, &[Record::a(&question.name, 600, &format!("{V4}.40"))])]
    });
    let agent = agent(&[]);
    ask(&net.client, net.server.v4, "victim.portolan.test", server::A);
    for place in 0..PLACES {
        let mut user = Command::new("setpriv");
        user.args([
            "--reuid=1500",
            "--regid=1500",
            "--clear-groups",
            "unshare",
            "-Urn",
            "sh",
            "-c",
        ]);
        user.args(["ip link set lo up && exec python3 -c \"$RESOLVE\" $0", &place.to_string()]);
        let output = user.env("RESOLVE", RESOLVE).output().expect("starting setpriv");
        if !output.status.success() {
            println!("SKIPPED: {}", String::from_utf8_lossy(&output.stderr));
            return;
        }
    }
    // What other programs of this host ask for is there, too.
    let (share, others) = (4096, 256);
    let began = Instant::now();
    loop {
        let source = source(&agent).expect("it is a source");
        let of = |field: &str| source[field].as_u64().unwrap_or_default();
        if of("queries") > PLACES * 25 {
            assert!((share..share + others).contains(&of("entries")), "{source}");
            break;
        }
        assert!(began.elapsed() < crate::facts::patience(PATIENCE), "{source}");
        std::thread::sleep(PAUSE);
    }
    let listener = net.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let address: SocketAddr = format!("{V4}.40:{port}").parse().expect("an address");
    let open = net.client.connect(address).expect("a connection");
    expect(&agent, port, &[named("victim.portolan.test", 1)]);
    drop((open, responder));
    agent.stop();
}

/// As on a kernel that preempts programs: a fallback program reads no answer, and counts those that
/// the first did not read.
#[test]
fn an_answer_that_only_a_second_program_meets_is_counted_as_lost() {
    needs_kernel!();
    let pair = pair();
    let responder = Responder::start(&pair.server, |question| {
        vec![Message::answer(question, &[Record::a(&question.name, 60, &format!("{V4}.41"))])]
    });
    let check = |disabled: &str, exported: u64, lost: u64| {
        let agent = agent(&[("disable_hooks", disabled)]);
        ask_connected(&pair.client, pair.server.v4, "again.portolan.test");
        agent.eventually((1, exported, lost), |_| ledger(&agent));
        let reason = [("class", "dns_answer"), ("reason", "recursion")];
        assert_eq!(agent.scrape().sum("portolan_events_lost_total", &reason), lost);
        agent.stop();
    };
    check(UNPREEMPTED, 1, 0);
    let hook = find("sk_data_ready").expect("it is in the table");
    let first = hook.ways.iter().map(|way| format!("way:{}", way.name));
    let first: Vec<_> = [UNPREEMPTED.to_owned()].into_iter().chain(first).collect();
    check(&first.join(","), 0, 1);
    drop(responder);
}

#[test]
fn without_the_hook_or_a_field_or_by_choice_names_are_off() {
    needs_kernel!();
    let pair = pair();
    let responder = Responder::start(&pair.server, |question| {
        vec![Message::answer(question, &[Record::a(&question.name, 60, &format!("{V4}.40"))])]
    });
    let what = "names that programs resolve by DNS";
    let check = |settings: &[(&str, &str)], why: Option<&str>| {
        let agent = agent(settings);
        ask(&pair.client, pair.server.v4, "off.portolan.test", server::A);
        let listener = pair.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        let address: SocketAddr = format!("{V4}.40:{port}").parse().expect("an address");
        let _open = pair.client.connect(address).expect("a connection");
        expect(&agent, port, &[by_address(&format!("{V4}.40"), 1)]);
        assert_eq!(source(&agent), None);
        let status = agent.json("/api/v1/status");
        let off: Vec<&Value> = status["findings"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|off| off["subject"] == what)
            .collect();
        let reasons: Vec<&str> =
            off.iter().filter_map(|off| off["evidence"]["reason"].as_str()).collect();
        assert_eq!(reasons.len(), usize::from(why.is_some()), "{settings:?}: {reasons:?}");
        assert!(
            reasons.iter().all(|reason| reason.contains(why.unwrap_or_default())),
            "{reasons:?}"
        );
        assert_eq!(ledger(&agent).0, 0);
        agent.stop();
    };
    check(&[("disable_hooks", "sk_data_ready")], Some("sk_data_ready"));
    check(&[("disable_fields", "newest_packet")], Some("newest_packet"));
    // As on a kernel whose verifier refuses the part.
    check(&[("disable_hooks", "part:dns_answers")], Some("attached without the part"));
    check(&[("requests", "false")], Some("request timing is switched off"));
    check(&[("names.dns", "false")], None);
    drop(responder);
}
