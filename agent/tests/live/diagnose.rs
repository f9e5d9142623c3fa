//! `portolan diagnose` and real faults: each has its verdict and its exit code, within seconds.

mod diagnosis;
mod programs;
mod traffic;

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use self::diagnosis::Diagnosis;
use self::programs::{Limited, Program, SERVER, make_expired_certificate};
use self::traffic::{connects, exchange, listens, served, try_connect, words};
use crate::agent::{Agent, binary, forget_our_variables};
use crate::facts::patience;
use crate::namespace::Pair;
use crate::net;

/// A connection is idle after this (`tcp_receive_reset`).
const IDLE: Duration = Duration::from_millis(1200);

/// Longer than a program takes between its last message and the close (`unanswered`).
const WAIT: Duration = Duration::from_millis(80);

#[test]
fn a_connect_that_fails_is_told_apart_by_what_listens_and_what_drops() {
    needs_kernel!();
    let pairs: [Pair; 5] = std::array::from_fn(|_| Pair::new());
    let agent = Agent::start();
    let [ended, loopback, dropped, lossy, full] = &pairs;

    // The server has ended. For a while its clients' failures are those of a stop, but not probes.
    let (listener, port) = served(ended);
    connects(&agent, ended, port, "ok", 1);
    drop(listener);
    let [client, server] = words(ended, port);
    let found = Diagnosis::of(&agent, &[&client, &server, "--probe-count", "3"]);
    found.is("nothing_listens", 1);
    assert_eq!(found.report["verdict"]["certainty"], "high", "{}", found.said);

    // It listens on the loopback only; what is connected to has no name then.
    let listener = loopback.server.listen("127.0.0.1:0");
    let port = net::port(&listener);
    let loopback_port = port;
    try_connect(loopback, (loopback.server.v4, port).into()).unwrap_err();
    connects(&agent, loopback, port, "refused", 1);
    let address = format!("{}:{port}", loopback.server.v4);
    let found = Diagnosis::of(&agent, &[&loopback.client.service, &address, "--probe-count", "3"]);
    found.is("loopback_only", 1);
    found.says(&format!("127.0.0.1:{port}"));

    // SYNs are dropped.
    let (_listener, port) = served(dropped);
    connects(&agent, dropped, port, "ok", 1);
    dropped.server.nft_input(&format!("tcp dport {port} drop"));
    try_connect(dropped, (dropped.server.v4, port).into()).unwrap_err();
    connects(&agent, dropped, port, "aborted", 1);
    let [client, server] = words(dropped, port);
    let found = Diagnosis::of(&agent, &[&client, &server, "--probe-count", "3"]);
    found.is("dropped", 1);

    // Some are: every fourth.
    let (_listener, port) = served(lossy);
    connects(&agent, lossy, port, "ok", 1);
    let syn = "tcp flags & (syn | ack) == syn numgen inc mod 4 3 drop";
    lossy.server.nft_input(&format!("tcp dport {port} {syn}"));
    let [client, server] = words(lossy, port);
    let found = Diagnosis::of(&agent, &[&client, &server, "--probe-count", "6"]);
    found.is("loss", 1);
    lossy.server.nft_flush();
    let found = Diagnosis::of(&agent, &[&client, &server, "--probe-count", "6"]);
    found.is("healthy", 0);

    // The program does not accept.
    let socket = full.server.act(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).expect("a port");
        socket.listen(1).expect("listening");
        socket
    });
    let port = socket.local_addr().expect("an address").as_socket().expect("IPv4").port();
    let to = SocketAddr::from((full.server.v4, port));
    let _waiting: Vec<TcpStream> = (0..2).map(|_| try_connect(full, to).expect("room")).collect();
    connects(&agent, full, port, "ok", 2);
    let [client, server] = words(full, port);
    let found = Diagnosis::of(&agent, &[&client, &server, "--probe-count", "2"]);
    found.is("accept_queue_full", 1);
    found.says("2 connections wait for accept(), 1 may");

    // The service alone is enough, and Markdown has the verdict.
    let mut command = Command::new(binary());
    forget_our_variables(&mut command);
    let url = format!("http://{}", agent.address);
    command.args(["diagnose", &loopback.client.service, "-o", "markdown", "--url", &url]);
    let output = command.arg("--no-probe").output().expect("starting portolan");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let verdict = format!("listens on the loopback only (127.0.0.1:{loopback_port})");
    assert!(said.contains("**Verdict:**") && said.contains(&verdict), "{said}");
    agent.stop();
}

#[test]
fn a_server_that_accepts_is_slow_silent_or_closes_too_early() {
    needs_kernel!();
    let pairs: [Pair; 4] = std::array::from_fn(|_| Pair::new());
    let agent = Agent::start();
    let [silent, slow, early, quiet] = &pairs;
    let connected = |pair: &Pair| {
        let connection = pair.connection();
        net::patient(&connection.client);
        connection
    };

    // It takes requests and does not answer.
    let mut open = connected(silent);
    for _ in 0..2 {
        open.client.write_all(b"request").unwrap();
        net::read_exactly(&mut open.server, 7).unwrap();
        thread::sleep(WAIT);
        let client = silent.client.connect((silent.server.v4, open.port)).unwrap();
        drop(std::mem::replace(&mut open.client, client));
        open.server = net::accept(&open.listener);
    }
    agent.eventually(2, |now| {
        let edge = now.edge(&silent.client.service, &silent.server.service, open.port, "client");
        edge.unanswered()
    });
    let [client, server] = words(silent, open.port);
    let found = Diagnosis::of(&agent, &[&client, &server, "--no-probe"]);
    found.is("never_answers", 1);
    assert_eq!(found.report["verdict"]["certainty"], "medium", "{}", found.said);
    // A request of the command's own is not answered either.
    let found = Diagnosis::of(&agent, &[&client, &server, "--http", "/", "--probe-count", "2"]);
    found.is("never_answers", 1);
    assert_eq!(found.report["verdict"]["certainty"], "high", "{}", found.said);

    // It answers slowly.
    let mut open = connected(slow);
    for _ in 0..2 {
        open.client.write_all(b"request").unwrap();
        net::read_exactly(&mut open.server, 7).unwrap();
        thread::sleep(Duration::from_millis(700));
        open.server.write_all(b"response").unwrap();
        net::read_exactly(&mut open.client, 8).unwrap();
    }
    agent.eventually(2, |now| {
        now.edge(&slow.client.service, &slow.server.service, open.port, "client").requests().count
    });
    let [client, server] = words(slow, open.port);
    let found = Diagnosis::of(&agent, &[&client, &server, "--no-probe"]);
    found.is("slow_server", 1);

    // It closes an idle connection that the client uses again.
    let mut open = connected(early);
    open.client.write_all(b"request").unwrap();
    net::read_exactly(&mut open.server, 7).unwrap();
    open.server.write_all(b"response").unwrap();
    net::read_exactly(&mut open.client, 8).unwrap();
    thread::sleep(IDLE);
    drop(open.server);
    agent.eventually(0, |now| {
        now.edge(&early.client.service, &early.server.service, open.port, "server").active()
    });
    open.client.write_all(b"request").unwrap();
    agent.eventually(Some(1), |now| {
        let edge = now.edge(&early.client.service, &early.server.service, open.port, "client");
        edge.resets_by_cause("received").get("idle_reuse").copied()
    });
    let [client, server] = words(early, open.port);
    let found = Diagnosis::of(&agent, &[&client, &server, "--probe-count", "2"]);
    found.is("keepalive_mismatch", 1);

    // Without traffic and probes nothing can be said; with probes it can.
    let listener = quiet.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let name = quiet.server.service.clone();
    agent.eventually(true, |now| {
        now.has("portolan_port_listeners", &[("service", &name), ("port", &port.to_string())])
    });
    let server = format!("{name}:{port}");
    let pid = quiet.client.resident_pid().to_string();
    let found = Diagnosis::of(&agent, &[&server, "--no-probe"]);
    found.is("not_enough_data", 3);
    let found = Diagnosis::of(&agent, &[&server, "--pid", &pid, "--probe-count", "2"]);
    found.is("healthy", 0);
    let found = Diagnosis::of(&agent, &["no-such-service", &server]);
    assert_eq!(found.code, 2, "{}", found.said);
    agent.stop();
}

#[test]
fn a_gateway_a_database_all_edges_and_ports_lead_to_the_same_faults() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let (app, database, late) = ("diagnose-app", "diagnose-db", "diagnose-late");
    let gateway = pair.server.service.as_str();
    let listens_as = |name: &str| {
        let listener = pair.server.act_as(name, || TcpListener::bind("127.0.0.1:0"));
        listener.expect("a free port")
    };
    let connects_as = |name: &str, to: &TcpListener| {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, net::port(to)));
        pair.server.act_as(name, || TcpStream::connect(to)).expect("a listener of ours")
    };

    // The gateway answers, so does the application behind it; its database does not.
    let mut to_gateway = pair.connection();
    exchange(&mut to_gateway.client, &mut to_gateway.server);
    let (of_app, of_database) = (listens_as(app), listens_as(database));
    let mut to_app = connects_as(gateway, &of_app);
    exchange(&mut to_app, &mut net::accept(&of_app));
    let asked: Vec<(TcpStream, TcpStream)> = (0..2)
        .map(|_| {
            let mut client = connects_as(app, &of_database);
            client.write_all(b"request").unwrap();
            let mut server = net::accept(&of_database);
            net::read_exactly(&mut server, 7).unwrap();
            (client, server)
        })
        .collect();
    thread::sleep(WAIT);
    drop(asked);
    let port = net::port(&of_database);
    // And another program wants its port.
    let again = pair.server.act_as(late, || TcpListener::bind(("127.0.0.1", port)));
    again.expect_err("the port is in use");
    agent.eventually((2, true), |now| {
        let edge = now.edges(&[("client", app), ("server", database), ("role", "client")]);
        (edge.unanswered(), now.has("portolan_port_conflicts_total", &[("claimant", late)]))
    });

    let names = |report: &Value| {
        let name = |end: &str| report[end]["name"].as_str().unwrap_or_default().to_owned();
        [name("client"), name("server")]
    };
    let fault = [app.to_owned(), database.to_owned()];
    let found = Diagnosis::of(&agent, &["--gateway", gateway, "--no-probe"]);
    found.is("never_answers", 1);
    assert_eq!(names(&found.report), fault, "{}", found.said);
    let chain = found.answer["chain"].as_array().cloned().unwrap_or_default();
    let has = |client: &str, server: &str| {
        let is = |hop: &Value, end: &str, name: &str| {
            hop[end].as_str().is_some_and(|text| text.ends_with(name))
        };
        chain.iter().any(|hop| is(hop, "client", client) && is(hop, "server", server))
    };
    for (client, server) in
        [(pair.client.service.as_str(), gateway), (gateway, app), (app, database)]
    {
        assert!(has(client, server), "{client} → {server}: {}", found.said);
    }

    let found = Diagnosis::of(&agent, &["--database", database, "--no-probe"]);
    found.is("never_answers", 1);
    assert_eq!(names(&found.report), fault, "{}", found.said);
    // Services that are not in the chain of the database are not shown.
    let chain = found.answer["chain"].as_array().map(Vec::len);
    assert_eq!(chain, Some(1), "{}", found.said);

    // Others on this host may have faults of their own.
    let found = Diagnosis::of(&agent, &["--all"]);
    let reports = found.answer["reports"].as_array().cloned().unwrap_or_default();
    let ours = reports.iter().find(|report| names(report) == fault);
    let cause = ours.map(|report| &report["verdict"]["cause"]);
    assert_eq!((cause, found.code), (Some(&"never_answers".into()), 1), "{}", found.said);
    let is_late = |one: &Value| {
        one["cause"] == "bind_failed" && one["title"].as_str().is_some_and(|it| it.contains(late))
    };
    let has_late =
        |list: &str| found.answer[list].as_array().is_some_and(|all| all.iter().any(is_late));
    assert!(has_late("failed_binds"), "{}", found.said);

    let found = Diagnosis::of(&agent, &["--ports"]);
    let faults = found.answer["faults"].as_array().cloned().unwrap_or_default();
    assert_eq!((faults.iter().any(is_late), found.code), (true, 1), "{}", found.said);
    agent.stop();
}

#[test]
fn a_server_that_does_not_run_is_named_by_what_stops_it() {
    needs_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let (stopped, throttled, killed) = (Pair::new(), Pair::new(), Pair::new());
    let agent = Agent::start();
    fs::write(folder.path().join("server.py"), SERVER).unwrap();
    let start = |pair: &Pair, mode: &str| {
        let program =
            Program::start(&pair.server, "python3", &["server.py", "4000", mode], folder.path());
        listens(&pair.server, 4000);
        program
    };
    // The name of the service is the agent's.
    let name = |pair: &Pair, pid: u32| {
        let began = Instant::now();
        loop {
            let ports = agent.json("/api/v1/ports?port=4000");
            let all = ports["ports"].as_array().cloned().unwrap_or_default();
            let ours = all
                .iter()
                .find(|port| port["netns"] == pair.server.inode() && port["holder"]["pid"] == pid);
            if let Some(port) = ours {
                let service = &port["holder"]["service"];
                let part = |key: &str| service[key].as_str().unwrap_or_default().to_owned();
                return format!("{}/{}:4000", part("namespace"), part("name"));
            }
            assert!(began.elapsed() < patience(Duration::from_secs(5)), "{ports}");
            thread::sleep(Duration::from_millis(50));
        }
    };

    let server = start(&stopped, "accept");
    let word = name(&stopped, server.0.id());
    server.signal(libc::SIGSTOP);
    let pid = stopped.client.resident_pid().to_string();
    let found = Diagnosis::of(&agent, &[&word, "--pid", &pid, "--probe-count", "2"]);
    found.is("process_stopped", 1);
    found.says(&format!("(pid {})", server.0.id()));
    server.signal(libc::SIGCONT);
    let found = Diagnosis::of(&agent, &[&word, "--pid", &pid, "--probe-count", "2"]);
    found.is("healthy", 0);

    let server = start(&throttled, "burn");
    let word = name(&throttled, server.0.id());
    let quota = (("cpu.cfs_quota_us", "5000"), ("cpu.max", "5000 100000"));
    match Limited::new("cpu", quota.0, quota.1) {
        None => println!("SKIPPED: the cpu controller is not available"),
        Some(limited) => {
            limited.take(&server);
            thread::sleep(Duration::from_millis(300));
            let found = Diagnosis::of(&agent, &[&word, "--no-probe"]);
            found.is("cpu_throttled", 1);
            drop(server);
            drop(limited);
        }
    }

    let mut server = start(&killed, "grow");
    let word = name(&killed, server.0.id());
    let limit = (("memory.limit_in_bytes", "50M"), ("memory.max", "50M"));
    match Limited::new("memory", limit.0, limit.1) {
        None => println!("SKIPPED: the memory controller is not available"),
        Some(limited) => {
            limited.take(&server);
            // It begins when it is connected to, and the agent has to see that before it ends.
            let stream = killed.client.connect((killed.server.v4, 4000)).unwrap();
            connects(&agent, &killed, 4000, "ok", 1);
            (&stream).write_all(b"grow").unwrap();
            let status = server.0.wait().expect("a child of ours");
            assert!(!status.success(), "it was not killed");
            killed.client.connect((killed.server.v4, 4000)).unwrap_err();
            let found =
                Diagnosis::of(&agent, &[&killed.client.service, &word, "--probe-count", "2"]);
            found.is("oom_killed", 1);
            found.says("(python3, pid ");
        }
    }
    agent.stop();
}

#[test]
fn names_and_certificates_are_probed_without_an_agent_too() {
    needs_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let pair = Pair::new();
    make_expired_certificate(folder.path());
    let arguments = ["s_server", "-www", "-accept", "4433", "-cert", "cert.pem", "-key", "key.pem"];
    let _server = Program::start(&pair.server, "openssl", &arguments, folder.path());
    listens(&pair.server, 4433);
    let pid = pair.client.resident_pid().to_string();
    let run = |arguments: &[&str]| {
        Diagnosis::at("http://127.0.0.1:1", &[&["--pid", &pid], arguments].concat())
    };
    let server = SocketAddr::new(IpAddr::V4(pair.server.v4), 4433).to_string();
    let found = run(&[&server, "--tls-name", "shop.example", "--probe-count", "2"]);
    found.is("certificate_expired", 1);
    let found = run(&["shop.invalid:80", "--probe-count", "2"]);
    found.is("name_not_resolved", 1);
    let found = run(&[&server, "--probe-count", "2"]);
    found.is("healthy", 0);
    assert!(found.said.contains("No agent"), "{}", found.said);
    // Without a port there is nothing to try.
    assert_eq!(run(&["catalog"]).code, 3);
}
