//! `portolan top` on a real fault: what is wrong is in the first row.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::{Agent, binary, forget_our_variables};
use crate::facts::patience;
use crate::namespace::Pair;
use crate::net;

/// How long a refused connect may take to show.
const PATIENCE: Duration = Duration::from_secs(10);

/// The screen, once.
fn top(url: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(binary());
    forget_our_variables(&mut command);
    command.args(["top", "--once", "--url", url]).args(arguments);
    let output = command.output().expect("starting portolan");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_refused_connect_is_the_first_row_of_top() {
    needs_kernel!();
    let pair = Pair::new();
    // A server that stops is no fault: nobody has ever listened here while an agent looked.
    let closed = net::port(&pair.server.listen("0.0.0.0:0"));
    let agent = Agent::with(&[]);
    let refused = pair.client.connect((pair.server.v4, closed));
    assert!(refused.is_err(), "{refused:?}");
    let url = format!("http://{}", agent.address);
    let filter = format!("port={closed}");
    let began = Instant::now();
    let json = loop {
        let json: Value =
            serde_json::from_str(&top(&url, &["-o", "json", "--filter", &filter])).expect("JSON");
        if json["rows"][0]["why"][0]["cause"] == "connect_refused" {
            break json;
        }
        assert!(began.elapsed() < patience(PATIENCE), "{json:#}");
    };
    let first = &json["rows"][0];
    assert_eq!((&first["role"], &first["connects"]["refused"]), (&"client".into(), &1.into()));
    assert_ne!(first["mark"], "ok");
    // Others on this host may have faults of their own: of those without a finding this is one.
    let text = top(&url, &["--filter", &filter]);
    let mut rows = text.lines().skip_while(|line| !line.contains("CLIENT")).skip(1);
    let row = rows.next().unwrap_or_default();
    assert!(row.starts_with(['!', '✗']) && row.contains("1 refused"), "{text}");
    assert!(text.starts_with("portolan top  "), "{text}");
    agent.stop();
}
