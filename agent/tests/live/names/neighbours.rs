//! Two services of one network namespace that connect to a third in another one: they share an
//! address, and the server's side distinguishes them all the same.

use std::net::TcpStream;

use super::{edges, end};
use crate::agent::Agent;
use crate::namespace::Pair;
use crate::net;

#[test]
fn clients_that_share_an_address_are_known_by_name_on_the_servers_side() {
    needs_kernel!();
    let net = Pair::new();
    let agent = Agent::start();
    let tag = std::process::id();
    let (left, right) = (format!("lft{tag}"), format!("rgt{tag}"));
    for address in ["0.0.0.0:0", "[::]:0"] {
        let listener = net.server.listen(address);
        let port = net::port(&listener);
        let ip = if listener.local_addr().is_ok_and(|local| local.is_ipv4()) {
            net.server.v4.into()
        } else {
            std::net::IpAddr::from(net.server.v6)
        };
        let connect = |name: &str, times: u32| {
            for _ in 0..times {
                let client = net.client.act_as(name, || TcpStream::connect((ip, port)));
                drop((net::accept(&listener), client.expect("a listener of ours")));
            }
        };
        connect(&left, 3);
        connect(&right, 5);
        connect(&left, 2);
        let both = || {
            let all = edges(&agent);
            let of_role = |role: &str| {
                let rows = all.iter().filter(|row| row["port"] == port && row["role"] == role);
                let mut rows: Vec<_> = rows
                    .map(|row| (end(row, "client"), row["connects"]["ok"].as_u64()))
                    .filter(|(_, ok)| *ok > Some(0))
                    .collect();
                rows.sort();
                rows
            };
            (of_role("client"), of_role("server"))
        };
        let named = |name: &str| (net.client.full_name(name), Some(5));
        let expected = vec![named(&left), named(&right)];
        let expected = (expected.clone(), expected);
        super::until(&format!("both sides say {expected:?}: {:?}", both()), || both() == expected);
    }
    agent.stop();
}
