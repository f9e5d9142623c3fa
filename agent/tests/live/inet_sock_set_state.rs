//! Lifecycle: every way a connection can begin, fail and end.

use crate::agent::Agent;
use crate::namespace::Pair;
use crate::{needs_kernel, net};

#[test]
fn a_connection_counts_once_on_each_side() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let client = pair.client.connect((pair.server.v4, port)).unwrap();
    let server = net::accept(&listener);
    let (c, s) = (&pair.client.service, &pair.server.service);
    agent.eventually((1, 1, 1, 1), |now| {
        let (a, b) = (now.edge(c, s, port, "client"), now.edge(c, s, port, "server"));
        (a.connects("ok"), b.connects("ok"), a.active(), b.active())
    });
    drop((client, server));
    agent.eventually((1, 1, 0, 0), |now| {
        let (a, b) = (now.edge(c, s, port, "client"), now.edge(c, s, port, "server"));
        (a.connects("ok"), b.connects("ok"), a.active(), b.active())
    });
    agent.stop();
}
