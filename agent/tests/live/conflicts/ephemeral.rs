//! Running out: a range of ephemeral ports fills up, and the next connect fails.

use std::net::TcpStream;

use crate::agent::Agent;
use crate::holder::Holder;
use crate::namespace::Pair;
use crate::net;

const PORTS: u32 = 10;
const OPEN: usize = 7;
const BEYOND: usize = 5;

#[test]
fn a_range_that_fills_up_shows_and_connects_beyond_it_are_counted() {
    needs_kernel!();
    let pair = Pair::new();
    pair.client.sysctl("ipv4/ip_local_port_range", &format!("40000 {}", 40_000 + PORTS - 1));
    let listener = pair.server.listen("0.0.0.0:0");
    let to = (pair.server.v4, net::port(&listener));
    let open = (0..OPEN).map(|_| pair.client.connect(to).unwrap().into()).collect();
    let open = Holder::new("the-client", open);
    let agent = Agent::start();
    let rows = agent.json("/api/v1/ports")["ephemeral_ports"].clone();
    let here = pair.client.inode();
    let row = rows.as_array().unwrap().iter().find(|row| row["netns"] == here).unwrap();
    assert_eq!(
        (&row["used_tcp"], &row["busiest_destination"]["used"]),
        (&OPEN.into(), &OPEN.into()),
        "{row:#}"
    );
    let address = row["busiest_destination"]["address"].as_str().expect("an address");
    assert!(address.ends_with(&format!(":{}", to.1)), "{row:#}");
    assert_eq!(row["service"]["name"], "the-client", "{row:#}");
    let now = agent.scrape();
    let labels = [("netns_of", "the-client")];
    let ratio = |name| now.matching(name, &labels).next().map(|sample| sample.value);
    let expected = OPEN as f64 / f64::from(PORTS);
    for name in
        ["portolan_ephemeral_ports_used_ratio", "portolan_ephemeral_ports_destination_ratio"]
    {
        assert!(ratio(name).is_some_and(|ratio| (ratio - expected).abs() < 1e-9), "{name}");
    }
    // The rest of the range, and then nothing.
    let rest: Vec<_> = pair.client.act(|| {
        let connect = |_| TcpStream::connect(to);
        let all: Vec<_> = (0..PORTS as usize - OPEN + BEYOND).map(connect).collect();
        let failed = all.iter().filter_map(|one| one.as_ref().err()?.raw_os_error());
        assert_eq!(failed.collect::<Vec<_>>(), [libc::EADDRNOTAVAIL; BEYOND]);
        all
    });
    agent.eventually(BEYOND as u64, |now| {
        now.edges(&[("client", &pair.client.service)]).connects("ports_exhausted")
    });
    drop((open, rest));
    agent.stop();
}
