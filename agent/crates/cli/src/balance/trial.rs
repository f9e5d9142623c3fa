//! `portolan balance test`: sends requests through a load balancer, and compares what was sent with
//! what arrived at the backends, as the agent counts it.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::checked;
use super::counts::{Back, Counter, Counts};
use super::intent::{Balancer, Intent, Mode};
use super::source::Source;
use crate::target::Target;
use crate::{Outcome, Output, Usage, human, print};

const EXAMPLES: &str = "\
Examples:
  portolan balance test --spec balance.toml --for nginx --requests 1000
  portolan balance test --service api --for haproxy --listen 0.0.0.0:8080 --path /healthz
  portolan balance test --spec balance.toml --for envoy --as edge-proxy --output json

Each request (mode tcp: each connection) has a connection of its own, from this host to the address
that the balancer listens at. What each backend received is counted by the agent, not by the
balancer. Others who use the balancer meanwhile are in these numbers, too; the report says how many.

Exit codes: 0 all was answered, and shares are within 5 points; 1 it was not; 3 the agent did not
see it all arrive.";

/// How long a response may take, and the agent to count it.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
/// The largest deviation of a share.
const TOLERANCE: f64 = 0.05;
/// Senders at the same time.
const SENDERS: u32 = 4;
/// More of a response is not read.
const LONGEST: u64 = 16 << 20;

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct TestArgs {
    #[command(flatten)]
    source: Source,
    /// The program that balances.
    #[arg(long = "for", value_name = "BALANCER", value_enum)]
    balancer: Balancer,
    /// Name of the balancer in `portolan edges` [default: nginx, haproxy, …].
    #[arg(long = "as", value_name = "NAME")]
    named: Option<String>,
    /// How many to send.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    requests: u32,
    /// At most so many per second.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// What to request.
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = checked::path)]
    path: String,
    /// Host header.
    #[arg(long, value_name = "NAME", default_value = "portolan.test", value_parser = host)]
    host: String,
    #[command(flatten)]
    target: Target,
}

/// What came of the requests, as the sender has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_field_names, reason = "as in the JSON")]
struct Sent {
    /// Tried.
    sent: u32,
    /// Answered with a status below 500 (mode tcp: connected).
    ok: u32,
    /// Answered with a status of 500 or above.
    server_errors: u32,
    /// Not connected, or no response.
    failed: u32,
}

#[derive(Serialize)]
struct Answer<'a> {
    address: SocketAddr,
    #[serde(flatten)]
    sent: Sent,
    received: u64,
    others: u64,
    backends: Vec<Received<'a>>,
    verdict: &'static str,
    reason: Option<String>,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "as in the JSON")]
struct Received<'a> {
    backend: &'a str,
    received: u64,
    share: f64,
    expected_share: Option<f64>,
    failed_connects: u64,
    unanswered: u64,
}

pub(super) fn run(arguments: &TestArgs) -> anyhow::Result<Outcome> {
    let TestArgs { source, balancer, named, target, .. } = arguments;
    target.connection.live("balance test")?;
    let intent = source.intent(&target.connection)?;
    if intent.tls.is_some() {
        return Err(Usage(
            "the balancer speaks TLS, which this test does not; test a listener without [tls]"
                .to_owned(),
        )
        .into());
    }
    if intent.proxy_protocol.accept {
        return Err(Usage("the balancer expects the PROXY protocol, which this test does not send; test a listener without it".to_owned()).into());
    }
    let named = named.as_deref().unwrap_or(balancer.program());
    let counter = Counter { agent: &target.connection, balancer: named, intent: &intent };
    let before = counter.read()?;
    let address = reached(intent.listen);
    let sent = send(arguments, address, intent.mode);
    let counts = arrived(&counter, &before, sent, intent.mode)?;
    let answer = judge(address, sent, &counts, &intent);
    match target.output {
        Output::Text => print(&text(&answer))?,
        Output::Json => print(&(serde_json::to_string(&answer).context("writing JSON")? + "\n"))?,
    }
    Ok(match answer.verdict {
        "ok" => Outcome::Done,
        "not_observed" => Outcome::Incomplete,
        _ => Outcome::Found,
    })
}

/// A balancer that listens at all addresses is reached at the loopback.
fn reached(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Sends all of them, at most as fast as asked for.
fn send(arguments: &TestArgs, address: SocketAddr, mode: Mode) -> Sent {
    let TestArgs { requests, rate, path, host, .. } = arguments;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: portolan/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    let (next, began) = (AtomicU32::new(0), Instant::now());
    let sender = || {
        let mut sum = Sent::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= *requests {
                return sum;
            }
            let due = began + Duration::from_secs_f64(f64::from(number) / f64::from(*rate));
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let result = match mode {
                Mode::Http => ask(address, &request),
                Mode::Tcp => TcpStream::connect_timeout(&address, PATIENCE).map(|_| 200),
            };
            sum.add(&result);
        }
    };
    thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS.min(*requests)).map(|_| scope.spawn(sender)).collect();
        let mut all = Sent::default();
        for sum in senders.into_iter().filter_map(|sender| sender.join().ok()) {
            all.sent += sum.sent;
            all.ok += sum.ok;
            all.server_errors += sum.server_errors;
            all.failed += sum.failed;
        }
        all
    })
}

/// One request on a connection of its own; the whole response is read, its status returned.
fn ask(address: SocketAddr, request: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    status(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The status of `HTTP/1.1 200 OK`.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let text = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    text.split(' ').nth(1)?.parse().ok()
}

/// The agent's counts, as soon as they have all of it.
fn arrived(
    counter: &Counter<'_>,
    before: &Counts,
    sent: Sent,
    mode: Mode,
) -> anyhow::Result<Counts> {
    let began = Instant::now();
    loop {
        let counts = counter.read()?.since(before);
        let got = match mode {
            Mode::Http => counts.backends.values().map(|back| back.requests).sum::<u64>(),
            Mode::Tcp => counts.backends.values().map(|back| back.connections).sum(),
        };
        let at_front = match mode {
            Mode::Http => counts.front.requests,
            Mode::Tcp => counts.front.connections,
        };
        let ok = u64::from(sent.ok);
        if (got >= ok && at_front >= ok) || began.elapsed() > PATIENCE {
            return Ok(counts);
        }
        thread::sleep(PAUSE);
    }
}

fn judge<'a>(address: SocketAddr, sent: Sent, counts: &'a Counts, intent: &Intent) -> Answer<'a> {
    let expected = intent.expected_shares();
    let is_http = intent.mode == Mode::Http;
    let of = |back: &Back| if is_http { back.requests } else { back.connections };
    let received: u64 = counts.backends.values().map(of).sum();
    let backends: Vec<Received<'a>> = counts
        .backends
        .iter()
        .map(|(address, back)| Received {
            backend: address,
            received: of(back),
            share: of(back) as f64 / received.max(1) as f64,
            expected_share: expected.as_ref().and_then(|shares| shares.get(address).copied()),
            failed_connects: back.failed,
            unanswered: back.unanswered,
        })
        .collect();
    let front = if is_http { counts.front.requests } else { counts.front.connections };
    let answered = sent.ok + sent.server_errors;
    let others = front.saturating_sub(u64::from(answered));
    let off = backends
        .iter()
        .find(|one| one.expected_share.is_some_and(|share| (one.share - share).abs() > TOLERANCE));
    let (verdict, reason) = if sent.failed > 0 || sent.server_errors > 0 {
        let what = format!(
            "{} of {} requests failed: {} without a response, {} with a status of 500 or above",
            sent.failed + sent.server_errors,
            sent.sent,
            sent.failed,
            sent.server_errors
        );
        ("errors", Some(what))
    } else if received < u64::from(sent.ok) {
        let what = format!(
            "the agent saw {received} of {} at the backends; is the balancer on this host, and is its name right (--as)?",
            sent.ok
        );
        ("not_observed", Some(what))
    } else if let Some(Received { backend, share, expected_share, .. }) = off {
        let what = format!(
            "{backend} received {}, expected {}",
            human::percent(*share),
            human::percent(expected_share.unwrap_or_default())
        );
        ("unbalanced", Some(what))
    } else {
        ("ok", None)
    };
    Answer { address, sent, received, others, backends, verdict, reason }
}

fn text(answer: &Answer<'_>) -> String {
    let Answer { address, sent, received, others, backends, verdict, reason } = answer;
    let mut text = format!(
        "sent to {address}: {} ({} ok, {} with status 500 or above, {} failed)\nreceived by backends: {received}\n",
        sent.sent, sent.ok, sent.server_errors, sent.failed
    );
    let longest = backends.iter().map(|one| one.backend.len()).max().unwrap_or_default();
    for one in backends {
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "  {:longest$}  {:>6}  {:>6}",
            one.backend,
            one.received,
            human::percent(one.share)
        );
        if let Some(share) = one.expected_share {
            let _ = write!(text, "  expected {}", human::percent(share));
        }
        for (count, what) in
            [(one.failed_connects, "failed connects"), (one.unanswered, "unanswered")]
        {
            if count > 0 {
                let _ = write!(text, "  {count} {what}");
            }
        }
        text.push('\n');
    }
    if *others > 0 {
        let _ = writeln!(text, "others sent {others} meanwhile, which are among these");
    }
    let because = reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let _ = writeln!(text, "{}{because}", verdict.replace('_', " "));
    text
}

// === impl Sent ===

impl Sent {
    fn add(&mut self, result: &io::Result<u16>) {
        self.sent += 1;
        match result {
            Ok(status) if *status < 500 => self.ok += 1,
            Ok(_) => self.server_errors += 1,
            Err(_) => self.failed += 1,
        }
    }
}

/// A name for the Host header.
fn host(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if !text.is_empty() && text.len() <= 255 && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err("write a host name, like shop.example".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::counts::Front;
    use super::super::intent::Backend;
    use super::*;

    fn judged(ok: u32, errors: u32, received: [u64; 2]) -> (String, String) {
        let backend = |address: &str| Backend {
            address: address.parse().expect("an address"),
            weight: 1,
            backup: false,
        };
        let names = ["10.0.0.1:80", "10.0.0.2:80"];
        let listen = "0.0.0.0:80".parse().expect("an address");
        let intent = Intent::new("api".into(), listen, names.map(backend).to_vec());
        let back = |requests| Back { requests, ..Back::default() };
        let backends = names.map(str::to_owned).into_iter().zip(received.map(back)).collect();
        let front = Front { requests: 110, ..Front::default() };
        let counts = Counts { backends, front };
        let sent = Sent { sent: ok + errors, ok, server_errors: errors, failed: 0 };
        let answer = judge(reached(listen), sent, &counts, &intent);
        (answer.verdict.to_owned(), text(&answer))
    }

    #[test]
    fn what_was_sent_is_compared_with_what_arrived() {
        let (verdict, text) = judged(100, 0, [55, 55]);
        assert_eq!(verdict, "ok");
        assert_eq!(
            text,
            "\
sent to 127.0.0.1:80: 100 (100 ok, 0 with status 500 or above, 0 failed)
received by backends: 110
  10.0.0.1:80      55     50%  expected 50%
  10.0.0.2:80      55     50%  expected 50%
others sent 10 meanwhile, which are among these
ok
"
        );
        assert_eq!(judged(100, 0, [20, 20]).0, "not_observed");
        assert_eq!(judged(100, 0, [80, 30]).0, "unbalanced");
        assert_eq!(judged(90, 10, [55, 55]).0, "errors");
    }

    #[test]
    fn a_status_is_read_or_it_is_no_response() {
        assert_eq!(status(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), Some(502));
        for bytes in [&b""[..], b"HTTP/2 200\r\n", b"SSH-2.0\r\n", b"\xff\r\n", b"HTTP/1.1 x"] {
            assert_eq!(status(bytes), None);
        }
    }
}
