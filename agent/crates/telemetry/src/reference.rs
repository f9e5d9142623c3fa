//! docs/metrics.md, generated from the list of metrics so that it cannot be wrong about them.

use std::fmt::Write;

use agent_common::edge::{CONNECT_RESULT_NAMES, CONNECT_RESULTS};
use agent_common::ledger::{CLASS_NAMES, CLASSES, REASON_NAMES, REASONS};
use agent_common::reset::{CAUSE_NAMES, CAUSES};

use super::bounds::EXPORTED_US;
use super::metric::{self, Metric};

const INTRODUCTION: &str = "\
# Metrics

Generated from `agent/crates/telemetry/src/`; `PORTOLAN_BLESS=1 cargo test -p telemetry reference` writes it anew.

Every duration is in seconds, every size in bytes. `/metrics` speaks Prometheus text 0.0.4 and, if asked, OpenMetrics 1.0; names and values are the same.

## Labels of an edge

An edge is a client service, a server service and the server's port, as one side saw it.

| label | meaning |
|---|---|
| `client`, `client_namespace` | who connects; the namespace is where the name is unique (a Kubernetes namespace, a compose project), empty on a plain host |
| `server`, `server_namespace` | who is connected to |
| `port` | the server's port; 0 on rows that took what found no row of its own |
| `role` | which side counted: `client`, `server`, or `listener` for what happened before a connection existed |

If both ends are on hosts that run Portolan, and on connections within one host, an edge is counted twice, once by each side: choose one `role` in every query. No address, pid or container id is a label of its own; an end that has no name is called by its address, or by the first digits of its container's id.

Names that stand for no single service:

| name | meaning |
|---|---|
| `internet` | a server's clients from outside the configured internal ranges |
| `other` | what exceeded the size of a table, so that sums stay exact; the port is 0, and a role that is not known is `unknown` |
| `any` | as client, on rows of a listener and of resets without a connection: nobody in particular |
| `none` | no process is known: a socket of the kernel's own, a socket whose process could not be seen when the agent started, or resets without a connection (port 0, one row per network namespace, so that a port scan fills no table) |
| `unknown` | there is a process, but no source has a name for it (`portolan_unresolved_owners` counts these) |

A series ends when its row ends: after an hour without any change and without an open connection or listener, after five minutes when the table is more than three quarters full. If the edge comes back, its counters begin at zero. A counter of something that never happened on a row is absent, with three exceptions that start at zero so that ratios have a denominator: `result=\"ok\"`, bytes, retransmits.

## What a request is

Latency is measured at the socket, so it is there for every protocol, encrypted or not, and on connections of any age. A request is a *turn*: one side has sent, the other answers. Payload is never looked at.

* **Client**: from the last byte sent to the first byte that comes back, as far as it acknowledges something sent since the answer before. The kernel's own time stamps of the segment are used, so what the request waited in our hooks is nothing; what it waited in the client's own code before the send is not in it, the way through the network is.
* **Server**: from the first byte of a request received to the first byte sent after it. What the request waited for the program to read it is in it, the network is not. Client minus server is thus about the network and the stacks, as long as a request fits into one segment.
* **Sent again**: a request that had to be retransmitted counts, on the client, from its first sending.
* **Pipelining**: requests sent without waiting are one turn on either side; it ends with the first byte of the first response. A client that keeps several requests in flight on one connection all the time therefore has fewer turns than requests, and short ones: each is measured from the segment that was acknowledged last, which may be younger than the request that is being answered. Believe the server's side there.
* **Multiplexing** (HTTP/2, gRPC): the same; turns of the connection are counted, not streams.
* **Uploads**: more bytes in the same direction belong to the same turn. A client's turn starts with its last byte, so an upload's duration is not in it; a server's starts with the first byte, so there it is. `100 Continue` is an answer.
* **Streaming, downloads**: the turn ends with the first byte. What a server sends on after that is no further turn on either side, until the client writes again. A client that only subscribes has one turn.
* **The server speaks first** (SMTP, MySQL): its greeting answers nothing and is no request.
* **One way** (syslog, statsd over TCP): no answer, no request.
* **Without an answer**: a turn that ends with the connection is not counted; it shows in the resets, or not at all.
* **Connections from before the agent** are timed from the first request sent after it started.

## What a connection is

* **Attempts** (`portolan_tcp_connects_total`) count when they end. On the client: from the moment the kernel is about to send the SYN; an attempt that it refuses before that (no route to the destination, a cgroup program or security module that says no) is not seen. On the server: handshakes that completed, whether or not the program has accepted them yet, and those that broke off in their last step. Only attempts that succeed are in `portolan_tcp_connect_duration_seconds`.
* **Open** (`portolan_tcp_active_connections`): established and not yet closed, with those that the agent found when it started. A connection whose program has closed it is open until the kernel is done with it, without TIME_WAIT.
* **Pre-existing**: a connection that was there before the agent is open from the start, is no attempt, and counts bytes, retransmits and requests from then on. Its role is known from the listener on its local port. With `--pin` a new agent takes over the tables, so nothing is pre-existing to it.
* **Bytes** are payload: what was handed to the network for the first time, and what arrived in order; no headers, no repetitions, no SYN and FIN. They are brought up to date at every scrape, every second in between, and when a connection ends.
* **Retransmits** are segments of connections and of attempts to connect (a SYN sent again) in the kernel's own count. SYN-ACKs sent again are the listener's.
* **Round trip time** is the kernel's smoothed estimate (`srtt`), which includes how long the peer delays its acknowledgements. It is sampled at each read of the tables from every connection that has a new measurement since, and once more when it ends. So a long-lived busy connection has about one sample a second, one that is silent has none, and none is weighted by its traffic.

## What a listener is

* **Listeners** and their accept queues are as the kernel has them at the scrape. Sockets of one service on one port are one series, in which queues and limits are added up.
* **Overflows** (`portolan_listen_overflows_total`) are the kernel's count of connection requests that the listener dropped: a full accept queue mostly, or no memory for the new socket (`ListenDrops` of `/proc/net/netstat`). The kernel keeps that count per network namespace; where several listeners of one dropped something between two scrapes their sum is exact and the shares follow the drop counters of their sockets. The client sees a timeout or a slow connect, not a refusal.
* **SYN-ACKs sent again**: the client, or the way to it, does not answer.

## Histograms

The kernel counts on a decimal grid of 81 bounds from 1 µs to 100 s; the exported bounds are exact members of it, so a bucket is a count and never an estimate. Upper bounds in seconds:

";

const CAUSES_INTRODUCTION: &str = "\
## Values of `cause`

A reset *sent* has the cause that this host's kernel gives; a reset *received* carries none, so its cause is told from what the connection was doing. `direction` is `sent` or `received`: as seen from this host, whichever side it is. A service that resets others shows on its own host with the better cause.

| value | direction | meaning |
|---|---|---|
";

const LEDGER: &str = "\
## The ledger

Whatever the kernel programs meet is counted twice, on two ways: at once as *seen*, and where it ends, as *exported* if it is found in the tables and as *lost* with a reason if it is not. For every class, when nothing is in flight, seen = exported + the sum of lost over all reasons. After a take-over of pinned tables (`--pin`) what was seen and not lost before counts as exported.

";

/// What each result of an attempt to connect means, in the contract's order.
const RESULTS: [&str; CONNECT_RESULTS] = [
    "the handshake completed",
    "the peer answered with a reset, or the network with port unreachable",
    "no answer within the kernel's retries (about two minutes unless the host is tuned)",
    "the network answered with host or net unreachable, or (IPv4) administratively prohibited",
    "the connection was reset during the handshake",
    "a policy said no (EPERM, EACCES): over IPv6 the network answered administratively prohibited",
    "the program closed the socket before the handshake ended, as it does on its own timeout",
    "no local port or address was left to connect from",
    "anything else",
];

/// What each cause of a reset means and which side tells it, in the contract's order.
const CAUSES_EXPLAINED: [(&str, &str); CAUSES] = [
    ("sent", "the peer left keep-alive probes unanswered, and this host gave the connection up"),
    (
        "received",
        "told by the side that connected: it had written a request on a connection that had been silent for a second or more, or that the peer had closed: the two sides disagree about how long a connection may idle",
    ),
    ("sent", "the program closed the socket with received data unread"),
    ("sent", "the program closed with `SO_LINGER` 0, or disconnected with data unsent"),
    (
        "sent, received",
        "a connection request met no listener; received: an attempt to connect was reset",
    ),
    (
        "sent",
        "a segment met no connection: this host had forgotten it, or never had it (after a restart, a failover)",
    ),
    (
        "sent, received",
        "received: the connection was cut while it was in use, or while nothing was asked; sent: data came for a connection whose program had closed it already",
    ),
    ("sent", "bad sequence, flags or state; MPTCP errors"),
    (
        "sent, received",
        "sent: this kernel does not say (it does from Linux 6.10 on), or says something that is in no class; received: a socket the agent has no state of",
    ),
];

/// What each class of the ledger counts and where it is found again, in the contract's order.
const CLASSES_EXPLAINED: [&str; CLASSES] = [
    "an attempt to connect that ended, or a handshake completed by a listener; found in the connects",
    "a turn that got its answer; found in the counts of the request histograms",
    "a reset sent or received; found in the resets",
    "a socket that needs state of its own; exported are those that got it",
    "a new edge; exported are those that got a row, the rest is counted in `other`",
    "a new owner of sockets; exported are those that got a row, the rest is called `other`",
    "a detail record about a reset or a failed attempt, for the log; losing one loses no count",
    "a program asked for a port, or lost one when it began to listen; found as granted or as failed",
    "an answer of a DNS server, with records, to a program of this host; found as read or as not to be read",
];

/// What each reason for a loss means, in the contract's order.
const REASONS_EXPLAINED: [&str; REASONS] = [
    "no memory for a socket's state: the connection counts in `other`, or not at all",
    "the table of edges is full: see `portolan_map_entries`, raise `limits.edges`",
    "the table of owners is full: raise `limits.owners`",
    "the ring was full",
    "more than 100 records of one kind in a second on one CPU",
    "a table refused a row for another reason; with `edge` and `owner` mostly two CPUs that met the same one at once, and nothing is missing",
    "too many threads had a bind under way at once: what became of it is not known",
    "a bind that said nothing for a second, counted as failed, and succeeded after all",
    "the program had read the answer before we could, or too many were queued at once",
    "the answer lay in pages that no kernel program may read; depends on the network card's driver",
    "the kernel skipped a run, because the program was running on that CPU already: what it would have counted is missing",
];

/// The whole text.
pub fn markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    let bounds: Vec<String> =
        EXPORTED_US.iter().map(|us| format!("{}", f64::from(*us) / 1e6)).collect();
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{}, +Inf.\n", bounds.join(", "));
    push_values(&mut text, "result", CONNECT_RESULT_NAMES.iter().zip(RESULTS));
    push_causes(&mut text);
    text.push_str(LEDGER);
    let classes = CLASS_NAMES.iter().zip(CLASSES_EXPLAINED);
    let hook_run = (&"hook_run", "a whole run of a program; only ever lost, never seen");
    push_values(&mut text, "class", classes.chain([hook_run]));
    let reasons = REASON_NAMES.iter().zip(REASONS_EXPLAINED);
    push_values(&mut text, "reason", reasons);
    text.push_str("## All metrics\n");
    for metric in metric::all() {
        push_metric(&mut text, metric);
    }
    text
}

fn push_values<'a>(
    text: &mut String,
    label: &str,
    values: impl Iterator<Item = (&'a &'static str, &'static str)>,
) {
    let _ = writeln!(text, "## Values of `{label}`\n\n| value | meaning |\n|---|---|");
    for (value, meaning) in values {
        let _ = writeln!(text, "| `{value}` | {meaning} |");
    }
    text.push('\n');
}

fn push_causes(text: &mut String) {
    text.push_str(CAUSES_INTRODUCTION);
    for (name, (direction, meaning)) in CAUSE_NAMES.iter().zip(CAUSES_EXPLAINED) {
        let _ = writeln!(text, "| `{name}` | {direction} | {meaning} |");
    }
    text.push('\n');
}

fn push_metric(text: &mut String, metric: &Metric) {
    let Metric { name, kind, help, labels, fed_by, render: _ } = metric;
    let unit = metric.unit().map_or("", |unit| unit.as_str());
    let _ = write!(text, "\n### {name}\n\n{help}\n\n* type: {}", kind.as_str());
    if !unit.is_empty() {
        let _ = write!(text, ", in {unit}");
    }
    if !labels.is_empty() {
        let _ = write!(text, "\n* labels: {}", code(labels));
    }
    let _ = writeln!(text, "\n* fed by: {fed_by}");
}

fn code(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::bless_or_compare;

    #[test]
    fn the_committed_reference_is_the_generated_one() {
        bless_or_compare("../../../docs/metrics.md", &markdown());
    }
}
