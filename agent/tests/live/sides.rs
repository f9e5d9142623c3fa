//! Failures belong to who caused them: health of client and server, of health checks, long polling,
//! slow servers and accept queues.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::exactness::{Redis, missing};
use crate::namespace::{Namespace, Pair};
use crate::net;
use crate::services::service;

/// Longer than the 500 ms from which on a request is long.
const LONG: Duration = Duration::from_millis(600);

fn health(agent: &Agent, name: &str) -> Value {
    service(agent, name)["health"].clone()
}

/// State and reasons.
fn verdict(agent: &Agent, name: &str) -> (Value, Value) {
    let mut health = health(agent, name);
    (health["state"].take(), health["reasons"].take())
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Accepts connections and serves each on a thread, until the test ends.
fn serve(listener: &TcpListener, each: fn(TcpStream)) {
    let listener = listener.try_clone().unwrap();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            net::patient(&stream);
            thread::spawn(move || each(stream));
        }
    });
}

#[test]
fn a_connect_that_fails_on_its_own_side_is_the_clients() {
    needs_kernel!();
    let pair = Pair::new();
    let mut ip = Command::new("ip");
    ip.args(["-n", &pair.client.name, "route", "add", "prohibit", "198.51.100.7"]);
    assert!(ip.status().unwrap().success());
    let agent = Agent::start();
    let listener = pair.server.listen("[::]:0");
    serve(&listener, |mut stream| drop(net::answer(&mut stream, 5, 5, Duration::ZERO)));
    let port = net::port(&listener);
    let (client, server) = (&pair.client.service, &pair.server.service);
    for address in [IpAddr::from(pair.server.v4), IpAddr::from(pair.server.v6)] {
        let mut stream = pair.client.connect((address, port)).unwrap();
        net::ask(&mut stream, 5, 5).unwrap();
    }
    agent.eventually((json!("ok"), json!([])), |_| verdict(&agent, server));
    // No route and no permission, a connect that is given up at once, a bound port that is taken.
    for _ in 0..2 {
        for address in ["198.51.100.7:9", "203.0.113.7:9", "[2001:db8::7]:9"] {
            let address: SocketAddr = address.parse().unwrap();
            pair.client.act(|| TcpStream::connect(address)).unwrap_err();
        }
    }
    pair.server.nft_input("tcp dport 9 drop");
    for address in [SocketAddr::from((pair.server.v4, 9)), SocketAddr::from((pair.server.v6, 9))] {
        drop(pair.client.begin_connect(address));
    }
    let failed = |_: &_| health(&agent, client)["as_client"]["connects_failed"].clone();
    agent.eventually(json!(8), failed);
    let (state, reasons) = verdict(&agent, client);
    assert_eq!((state, reasons), (json!("degraded"), json!(["own_connects_fail"])));
    assert_eq!(verdict(&agent, server), (json!("ok"), json!([])));
    for address in ["198.51.100.7", "203.0.113.7", "2001:db8::7"] {
        let (state, reasons) = verdict(&agent, address);
        assert_eq!((state, reasons), (json!("idle"), json!([])), "{address}");
    }
    // A refused connect is the server's.
    pair.server.nft_flush();
    for _ in 0..3 {
        pair.client.connect((pair.server.v4, 9)).unwrap_err();
    }
    let refused = pair.server.v4.to_string();
    let failing = (json!("failing"), json!(["connects_fail"]));
    agent.eventually(failing, |_| verdict(&agent, &refused));
    assert_eq!(health(&agent, client)["as_client"]["connects_failed"], 8);
    agent.stop();
}

#[test]
fn a_client_that_cuts_its_connections_harms_itself_only() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen("0.0.0.0:0");
    serve(&listener, |mut stream| drop(net::answer(&mut stream, 5, 5, Duration::ZERO)));
    for _ in 0..3 {
        let mut stream = pair.client.connect((pair.server.v4, net::port(&listener))).unwrap();
        net::ask(&mut stream, 5, 5).unwrap();
        net::close_with_reset(stream);
    }
    let resets = |_: &_| health(&agent, &pair.client.service)["as_client"]["resets"].clone();
    agent.eventually(json!(3), resets);
    assert_eq!(verdict(&agent, &pair.server.service), (json!("ok"), json!([])));
    agent.stop();
}

/// Connect, then a reset without a byte: as HAProxy does, whose reset comes instead of the ACK of the
/// handshake; after the handshake; at a server that speaks first; on both families.
#[test]
fn a_check_that_cuts_an_unused_connection_harms_nobody() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let silent = pair.server.listen("[::]:0");
    serve(&silent, |mut stream| drop(net::read_to_end(&mut stream)));
    let greeting = pair.server.listen("[::]:0");
    serve(&greeting, |mut stream| {
        let _ = stream.write_all(b"220 ready\r\n");
        let _ = net::read_to_end(&mut stream);
    });
    for listener in [&silent, &greeting] {
        let port = net::port(listener);
        for address in [IpAddr::from(pair.server.v4), IpAddr::from(pair.server.v6)] {
            let at_once = pair.client.act(|| {
                let address = SocketAddr::new(address, port);
                let socket = net::socket_for(&address);
                // The handshake's ACK waits for data, and the reset overtakes it.
                socket.set_tcp_quickack(false).unwrap();
                socket.connect(&address.into()).unwrap();
                TcpStream::from(socket)
            });
            net::close_with_reset(at_once);
            let later = pair.client.connect((address, port)).unwrap();
            thread::sleep(Duration::from_millis(30));
            net::close_with_reset(later);
        }
    }
    let (client, server) = (&pair.client.service, &pair.server.service);
    let now = agent.eventually(8, |now| {
        let sent = [("client", client.as_str()), ("direction", "sent"), ("cause", "unused")];
        now.sum("portolan_tcp_resets_total", &sent)
    });
    let all = now.sum("portolan_tcp_resets_total", &[("client", client)]);
    let unused = now.sum("portolan_tcp_resets_total", &[("client", client), ("cause", "unused")]);
    assert_eq!(all, unused, "none has another cause");
    let received = [("client", client.as_str()), ("direction", "received"), ("cause", "unused")];
    assert!(now.sum("portolan_tcp_resets_total", &received) >= 4, "the server has seen some");
    assert_eq!(verdict(&agent, server), (json!("ok"), json!([])));
    assert_eq!(health(&agent, client)["as_client"]["resets"], 0);
    agent.stop();
}

#[test]
fn haproxy_checks_harm_nobody() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen("0.0.0.0:0");
    serve(&listener, |mut stream| drop(net::read_to_end(&mut stream)));
    let file = tempfile::NamedTempFile::new().unwrap();
    let server = SocketAddr::from((pair.server.v4, net::port(&listener)));
    let text = format!(
        "defaults\n mode tcp\n timeout connect 2s\n timeout client 2s\n timeout server 2s\n\
         listen checked\n bind 127.0.0.1:18019\n server one {server} check inter 100\n"
    );
    fs::write(file.path(), text).unwrap();
    let mut haproxy = pair.client.command("haproxy");
    haproxy.arg("-db").arg("-f").arg(file.path());
    haproxy.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(child) = haproxy.spawn() else {
        println!("SKIPPED: haproxy is not installed");
        return;
    };
    let running = Running(child);
    let checks = |now: &crate::scrape::Scrape| {
        let of = [("client", "haproxy"), ("server", pair.server.service.as_str())];
        let sum = |cause| {
            let labels = [of[0], of[1], ("direction", "sent"), ("cause", cause)];
            now.sum("portolan_tcp_resets_total", &labels)
        };
        (sum("unused") >= 5, sum("linger"), sum("aborted"))
    };
    agent.eventually((true, 0, 0), checks);
    assert_eq!(verdict(&agent, &pair.server.service), (json!("ok"), json!([])));
    assert_eq!(health(&agent, "haproxy")["as_client"]["resets"], 0);
    drop(running);
    agent.stop();
}

/// Asks so often, so long a wait each.
fn poll(client: &Namespace, address: SocketAddr, times: usize) -> thread::JoinHandle<()> {
    let mut stream = client.connect(address).unwrap();
    net::patient(&stream);
    thread::spawn(move || (0..times).for_each(|_| net::ask(&mut stream, 7, 5).unwrap()))
}

/// Requests of 7 bytes wait, those of 5 bytes are answered at once.
fn wait_or_answer(mut stream: TcpStream) {
    let mut request = [0; 7];
    while let Ok(length @ 1..) = std::io::Read::read(&mut stream, &mut request) {
        if length == 7 {
            thread::sleep(LONG);
        }
        if stream.write_all(b"reply").is_err() {
            return;
        }
    }
}

#[test]
fn long_polling_does_not_make_a_server_slow_and_a_slow_server_is() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen("0.0.0.0:0");
    serve(&listener, wait_or_answer);
    let address = SocketAddr::from((pair.server.v4, net::port(&listener)));
    let polls = [poll(&pair.client, address, 4), poll(&pair.client, address, 4)];
    let mut busy = pair.client.connect(address).unwrap();
    for _ in 0..40 {
        net::ask(&mut busy, 5, 5).unwrap();
        thread::sleep(LONG / 10);
    }
    for poll in polls {
        poll.join().unwrap();
    }
    let (client, server) = (&pair.client.service, &pair.server.service);
    for role in ["client", "server"] {
        let now = agent
            .eventually(48, |now| now.edge(client, server, address.port(), role).requests().count);
        let edge = now.edge(client, server, address.port(), role);
        assert_eq!(edge.gauge("portolan_requests_waited_total"), 8, "{role}");
    }
    assert_eq!(verdict(&agent, server), (json!("ok"), json!([])));
    let found = health(&agent, server);
    assert_eq!((&found["requests"], &found["waits"]), (&json!(48), &json!(8)));
    assert!(found["p99_seconds"].as_f64().unwrap() < LONG.as_secs_f64() / 2.0, "{found}");
    // The same connections at a server that answers nobody else in that time.
    let polls = [poll(&pair.client, address, 4), poll(&pair.client, address, 4)];
    for poll in polls {
        poll.join().unwrap();
    }
    agent.eventually((json!("degraded"), json!(["slow"])), |_| verdict(&agent, server));
    let found = health(&agent, server);
    assert!(found["p99_seconds"].as_f64().unwrap() >= LONG.as_secs_f64(), "{found}");
    agent.stop();
    // And at one that is said to be polled.
    let agent = Agent::with(&[("names.polled", server)]);
    let listener = pair.server.listen("0.0.0.0:0");
    serve(&listener, wait_or_answer);
    let address = SocketAddr::from((pair.server.v4, net::port(&listener)));
    let polls = [poll(&pair.client, address, 4), poll(&pair.client, address, 4)];
    for poll in polls {
        poll.join().unwrap();
    }
    agent.eventually(8, |now| now.edge(client, server, address.port(), "server").requests().count);
    assert_eq!(verdict(&agent, server), (json!("ok"), json!([])));
    let found = health(&agent, server);
    assert_eq!((&found["requests"], &found["waits"]), (&json!(8), &json!(8)), "{found}");
    agent.stop();
}

/// A queue at night: each worker waits for a job, and is told that there is none.
#[test]
fn workers_that_wait_for_jobs_do_not_make_redis_slow() {
    needs_kernel!();
    if let Some(why) = missing(&["redis-server"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let agent = Agent::start();
    let redis = Redis::start(&pair.server);
    let address = SocketAddr::from((pair.server.v4, redis.port));
    let workers = [(); 3].map(|()| {
        let mut stream = pair.client.connect(address).unwrap();
        net::patient(&stream);
        thread::spawn(move || {
            // Redis 6 and later take a fraction of a second.
            let wait = b"*3\r\n$5\r\nBRPOP\r\n$4\r\njobs\r\n$3\r\n0.7\r\n";
            for _ in 0..4 {
                stream.write_all(wait).unwrap();
                let mut none = [0; 5];
                std::io::Read::read_exact(&mut stream, &mut none).unwrap();
                assert_eq!(&none, b"*-1\r\n");
            }
        })
    });
    for worker in workers {
        worker.join().unwrap();
    }
    let (client, server) = (&pair.client.service, "redis-server");
    agent.eventually(12, |now| now.edge(client, server, redis.port, "server").requests().count);
    let found = health(&agent, server);
    let of = |name: &str| found[name].clone();
    assert_eq!((of("waits"), of("p99_seconds")), (json!(12), Value::Null), "{found}");
    assert_eq!((of("state"), of("reasons")), (json!("ok"), json!([])), "{found}");
    agent.stop();
}

/// Two sockets share a port, and the program behind one of them does not accept.
#[test]
fn a_worker_that_does_not_accept_is_not_hidden_by_one_that_does() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let listen = |port: u16, backlog: i32| -> TcpListener {
        pair.server.act(|| {
            let address = SocketAddr::from((pair.server.v4, port));
            let socket = net::socket_for(&address);
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(backlog).unwrap();
            socket.into()
        })
    };
    let good = listen(0, 1000);
    let port = net::port(&good);
    let stuck = listen(port, 3);
    serve(&good, |mut stream| drop(net::answer(&mut stream, 5, 5, Duration::ZERO)));
    let address = SocketAddr::from((pair.server.v4, port));
    let mut kept = Vec::new();
    let of_port = port.to_string();
    let labels = [("port", of_port.as_str()), ("service", pair.server.service.as_str())];
    let queue = |now: &crate::scrape::Scrape| {
        let of = |name| now.sum(name, &labels);
        (of("portolan_listen_backlog"), of("portolan_listen_backlog_max"))
    };
    // Half of the connections go to each; one more than the limit may wait.
    while queue(&agent.scrape()).0 < 4 {
        assert!(kept.len() < 200, "{:?}", queue(&agent.scrape()));
        let socket = pair.client.begin_connect(address);
        thread::sleep(Duration::from_millis(2));
        kept.push(socket);
    }
    agent.eventually((4, 3), queue);
    agent.eventually(2, |now| now.sum("portolan_port_listeners", &labels));
    let found = health(&agent, &pair.server.service);
    assert_eq!(found["accept_queue"], json!({ "length": 4, "limit": 3 }));
    assert!(found["reasons"].as_array().unwrap().contains(&json!("accept_queue_full")), "{found}");
    assert_eq!(found["state"], "degraded");
    drop((kept, stuck, good));
    agent.stop();
}
