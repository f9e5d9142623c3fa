//! `portolan timeouts`: how long callers wait along a chain, when one of them gives up.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::{Agent, binary, forget_our_variables};
use crate::facts::patience;
use crate::namespace::Pair;
use crate::net;

/// The client waits for so long, what its server calls takes so long.
const WAITS: Duration = Duration::from_millis(150);
const TAKES: Duration = Duration::from_millis(400);
/// Requests that are answered too late: as many as it takes to be no chance.
const LATE: usize = 3;
/// How long a count may take to show.
const SOON: Duration = Duration::from_secs(10);

fn timeouts(agent: &Agent, arguments: &[&str]) -> String {
    let mut command = Command::new(binary());
    forget_our_variables(&mut command);
    command.args(["timeouts", "--url", &format!("http://{}", agent.address)]);
    let output = command.args(arguments).output().expect("starting portolan");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// How long the client of an edge waits.
fn wait<'a>(all: &'a Value, client: &str, server: &str) -> &'a Value {
    let waits = all["waits"].as_array().expect("a list");
    let found = waits.iter().find(|one| one["client"] == client && one["server"] == server);
    found.unwrap_or(&Value::Null)
}

#[test]
fn a_service_that_waits_longer_than_its_caller_is_found_along_the_chain() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let (web, api, db) = (&pair.client.service, &pair.server.service, "waits-db");
    let of_api = pair.server.listen("0.0.0.0:0");
    let of_db = pair.server.act_as(db, || std::net::TcpListener::bind("127.0.0.1:0"));
    let of_db = of_db.expect("a free port");
    let (port, db_port) = (net::port(&of_api), net::port(&of_db));
    let call = || {
        let web = pair.client.connect((pair.server.v4, port)).expect("a listener of ours");
        (&web).write_all(b"request").expect("sent");
        let mut api = net::accept(&of_api);
        net::read_exactly(&mut api, 7).expect("a request");
        (web, api)
    };
    // Two are answered in time.
    for _ in 0..2 {
        let (mut web, mut api) = call();
        api.write_all(b"response").expect("sent");
        net::read_exactly(&mut web, 8).expect("a response");
    }
    // The others have to wait for the database, and the client does not wait for them.
    let began = Instant::now();
    let chains: Vec<(TcpStream, TcpStream, TcpStream, TcpStream)> = (0..LATE)
        .map(|_| {
            let (web, api) = call();
            let mut to_db =
                pair.server.connect(([127, 0, 0, 1], db_port)).expect("a listener of ours");
            to_db.write_all(b"query").expect("sent");
            let mut db = net::accept(&of_db);
            net::read_exactly(&mut db, 5).expect("a query");
            (web, api, to_db, db)
        })
        .collect();
    thread::sleep(WAITS);
    let rest = chains.into_iter().map(|(_web, api, to_db, db)| (api, to_db, db));
    let rest: Vec<_> = rest.collect();
    thread::sleep(TAKES.saturating_sub(began.elapsed()));
    for (mut api, mut to_db, mut db) in rest {
        db.write_all(b"rows").expect("sent");
        net::read_exactly(&mut to_db, 4).expect("rows");
        // Nobody takes it.
        let _ = api.write_all(b"response");
    }

    let began = Instant::now();
    let all = loop {
        let all: Value =
            serde_json::from_str(&timeouts(&agent, &["-o", "json", web])).expect("JSON");
        let of_web = wait(&all, web, api);
        if of_web["finding"].is_object() && !wait(&all, api, db).is_null() {
            break all;
        }
        assert!(began.elapsed() < patience(SOON), "{all:#}");
        thread::sleep(Duration::from_millis(50));
    };
    let (of_web, of_api) = (wait(&all, web, api), wait(&all, api, db));
    let numbers = |of: &Value| ["unanswered", "late"].map(|name| of[name].as_u64());
    assert_eq!(numbers(of_web), [Some(LATE as u64); 2], "{all:#}");
    assert_eq!(numbers(of_api), [Some(0); 2], "{all:#}");
    let seconds = |of: &Value, name: &str| of[name].as_f64();
    // The two bounds enclose how long the client waited; buckets are up to a third wide.
    let waits = WAITS.as_secs_f64();
    assert!(seconds(of_web, "at_least_seconds").is_some_and(|least| least < waits), "{all:#}");
    assert!(seconds(of_web, "at_most_seconds").is_some_and(|most| most >= waits), "{all:#}");
    let takes = TAKES.as_secs_f64() * 0.7;
    assert!(seconds(of_api, "at_least_seconds").is_some_and(|least| least > takes), "{all:#}");
    let finding = &of_web["finding"];
    assert_eq!((&finding["code"], &finding["severity"]), (&"PP232".into(), &"info".into()));
    let title = finding["title"].as_str().expect("a title");
    assert!(title.contains(&format!("{db}:{db_port}")), "{title}");
    // What is called stands below its caller.
    let text = timeouts(&agent, &[web]);
    let line = |client: &str| text.lines().position(|line| line.starts_with(client));
    let below = format!("  {}", pair.server.full_name(api));
    let lines = (line(&pair.client.full_name(web)), line(&below));
    assert!(matches!(lines, (Some(above), Some(line)) if line == above + 1), "{lines:?}\n{text}");
    assert!(text.contains("! PP232 "), "{text}");
    agent.stop();
}
