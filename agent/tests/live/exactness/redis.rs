//! Redis: a known number of commands, over kept connections and over one connection each.

use super::{Between, Books, Load, Redis, Settled, Watcher, equal, equal_bytes, missing};
use crate::agent::Agent;
use crate::namespace::Pair;

/// Runs redis-benchmark without pipelining and compares with redis-server's own counts.
fn compare_with_redis(options: &str) -> Settled {
    let pair = Pair::new();
    let agent = Agent::start();
    let redis = Redis::start(&pair.server);
    let books = Books::open(&pair, &agent);
    let (host, port) = (pair.server.v4.to_string(), redis.port.to_string());
    Watcher::during(&agent, || {
        let mut command = pair.client.command("redis-benchmark");
        command.args(["-h", &host, "-p", &port, "-P", "1", "-q"]).args(options.split(' '));
        Load::run(&mut command)
    });
    let between = Between { client: "redis-benchmark", server: "redis-server", port: redis.port };
    let settled = books.close(&pair, &agent, between);
    agent.stop();
    let stats = redis.stats(&pair.client);
    let slack = settled.slack;
    equal("connections redis counted", settled.connects, stats.connections, slack);
    equal_bytes("bytes redis read", settled.server_received, stats.received, slack);
    equal_bytes("bytes redis wrote", settled.server_sent, stats.sent, slack);
    equal_bytes("bytes written to redis", settled.client_sent, stats.received, slack);
    equal_bytes("bytes read from redis", settled.client_received, stats.sent, slack);
    settled
}

#[test]
fn every_command_of_redis_benchmark_is_one_request() {
    needs_kernel!();
    if let Some(why) = missing(&["redis-server", "redis-benchmark"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let settled = compare_with_redis("-c 10 -n 20000 -t set,get");
    // Two runs of 20000, after a query of the configuration over a connection of its own.
    equal("requests of the client", settled.client_requests, 40_001, settled.slack);
    equal("requests of the server", settled.server_requests, 40_001, settled.slack);
    equal("connections", settled.connects, 21, settled.slack);
}

#[test]
fn a_connection_per_command_of_redis_benchmark_is_counted_like_the_kernel_does() {
    needs_kernel!();
    if let Some(why) = missing(&["redis-server", "redis-benchmark"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let settled = compare_with_redis("-c 10 -n 5000 -t get -k 0");
    equal("requests of the client", settled.client_requests, 5001, settled.slack);
    equal("requests of the server", settled.server_requests, 5001, settled.slack);
    assert!(settled.connects + settled.slack >= 5001, "{settled:?}");
}
