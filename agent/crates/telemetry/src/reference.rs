//! docs/metrics.md, generated from the list of metrics so that it cannot be wrong about them.

use std::fmt::Write;

use agent_common::abort::{ABORT_CAUSE_NAMES, ABORT_CAUSES};
use agent_common::edge::{CONNECT_RESULT_NAMES, CONNECT_RESULTS};
use agent_common::exported::{EXPORTED_US, IDLE_EXPORTED_MS};
use agent_common::ledger::{CLASS_NAMES, CLASSES, REASON_NAMES, REASONS};
use agent_common::reset::{CAUSE_NAMES, CAUSES};

use super::metric::{self, Metric};

const INTRODUCTION: &str = "\
# Metrics

Generated from `agent/crates/telemetry/src/`; `PORTOLAN_BLESS=1 cargo test -p telemetry reference` regenerates it.

Every duration is in seconds, every size in bytes. `/metrics` serves the Prometheus text format 0.0.4 or, if the scraper asks for it, OpenMetrics 1.0; names and values are the same.

## Labels of an edge

An edge is a client service, a server service and the server's port, as one side saw it.

| label | meaning |
|---|---|
| `client`, `client_namespace` | the service that connects; the namespace is the scope of the name (a Kubernetes namespace, a compose project, `netns-` and a network namespace for programs outside the host's), empty on a plain host |
| `server`, `server_namespace` | the service that it connects to |
| `port` | the server's port; 0 on overflow rows and on resets without a connection |
| `role` | which side counted: `client`, `server`, or `listener` for what happened before a connection existed |

If both ends are on hosts that run Portolan, and on connections within one host, an edge is counted twice, once by each side: choose one `role` in every query. No label of its own holds a pid, a container id or, but for `backend`, an address; a peer without a name is shown by its address or by the first digits of its container's id.

Names that stand for no single service:

| name | meaning |
|---|---|
| `internet` | a server's clients from outside the configured internal ranges; also a public address without a name once `limits.addresses` of them have a row |
| `other` | what exceeded the size of a table, so that sums stay exact: the port is 0, and an unknown role is `unknown`; also a private address without a name once `limits.addresses` of them have a row |
| `any` | as client, on rows of a listener and of resets without a connection: no specific client |
| `none` | no process is known: a socket of the kernel's own, a socket whose process could not be seen when the agent started, or resets without a connection (port 0, one row per network namespace, so that a port scan fills no table) |
| `unknown` | there is a process, but no source has a name for it (`portolan_unresolved_owners` counts these) |

A series ends when its row expires: after an hour without any change and without an open connection or listener, or after five minutes when the table is more than three quarters full; about twenty seconds after the last change if its tenant has filled the table. If the edge comes back, its counters start at zero. A counter of something that never happened on a row is absent, with three exceptions that start at zero so that ratios have a denominator: `result=\"ok\"`, bytes, retransmits. Counters of interfaces and of TCP memory start at zero, too.

## What a request is

Latency is measured at the socket. It works for every protocol, encrypted or not, and on connections of any age. A request is an *exchange*: one side sends, the other answers. Nothing of the payload decides what a request is.

* **Client**: from the last byte sent to the first byte that comes back, if that byte acknowledges something sent since the previous response. The times are the kernel's own segment time stamps. Network time is included; the time that Portolan's hooks take is not, nor is the time that the request spent in the client before it was sent.
* **Server**: from the first byte of a request received to the first byte sent after it. The time until the program reads the request is included, network time is not. As long as a request fits into one segment, client minus server is the time in the network and in the network stacks.
* **Retransmits**: a retransmitted request counts, on the client, from its first transmission.
* **Pipelining**: requests sent without waiting are one exchange on both sides. It ends with the first byte of the first response. A client that always keeps several requests in flight on one connection therefore has fewer exchanges than requests, and short ones: each is measured from the segment that was acknowledged last, which may be younger than the request that is being answered. Use the server's side there.
* **Multiplexing** (HTTP/2, gRPC): the same; exchanges of the connection are counted, not streams.
* **Uploads**: more bytes in the same direction belong to the same exchange. A client's exchange starts with its last byte and does not include the time of an upload; a server's starts with the first byte and does. `100 Continue` is a response.
* **Streaming, downloads**: the exchange ends with the first byte. What a server sends after that starts no further exchange on either side until the client writes again. A client that only subscribes has one exchange.
* **The server sends first** (SMTP, MySQL): its greeting is not a response to a request and is not counted.
* **TLS**: the handshake is an exchange like others, so each new connection has one request more (two before TLS 1.3). Handshakes are not distinguished from requests.
* **One way** (syslog, statsd over TCP): without a response there is no request.
* **No response**: an exchange that ends with the connection is not in the histogram; it is an unanswered request, see below.
* **Pre-existing connections** are timed from the first request sent after the agent started.

## What a response is

The first bytes that a server of this host sends after a request: they identify the protocol of a connection once, and then the status of each exchange (`portolan_responses_total`). Only a number of a closed set leaves the kernel program that looks at them.

* **HTTP/1**: the class of the status code. After 101 the connection speaks another protocol and is not looked at any more.
* **PostgreSQL, MySQL, Redis**: `error` if the response begins with an error, else `ok`. An error behind the first rows of a result is not seen. A step of a login is a response, too.
* **HTTP/2 and TLS** are recognised, and not looked into; what fits nothing is `unknown` for the rest of the connection, as are connections of MySQL from before the agent.
* **`portolan_connection_security_total`** counts each connection once, with its server's first response or greeting; connections without any are not in it. TLS that begins later on a connection of another protocol than PostgreSQL or MySQL (STARTTLS) is not seen. Encryption of other kinds (SSH) is `unknown`.
* **Pipelined requests** have the status of the first response. An interim response (`100 Continue`) is a response.
* **Only on the server's side** (role `server`): what a client receives is not read.
* **Not seen**: files and pages sent without a buffer (`sendfile`, `splice`), `io_uring`, 32-bit programs, `sendmmsg`: lost events of the class `response` with the reason `no_buffer`. What does not begin as a response of the connection's protocol is `unframed`.

## What an unanswered request is

An exchange that is open when its connection ends: the client has sent, and nothing has come back since (`portolan_requests_unanswered_total`). It counts when the connection is closed, on either side, at most once per connection. What decides is who ended the connection first, and whether the client was waiting:

* **The client** ends it at least 50 ms after it sent the request (on the server's side: after the last data arrived): it gave up, which counts. If it closes earlier, it expected no response: a last message before the close (`QUIT`, Terminate of PostgreSQL, DISCONNECT of MQTT, GOAWAY), metrics that are sent and not read.
* **The server** closes it, or its process ends: counts, unless it comes within 50 ms on a connection on which the server had answered before. Then the server may have obeyed a last message.
* **A reset** of the server, or a kernel that gives the connection up: counts.
* **A last message behind a wait**, such as the alert that TLS clients send when they give up: counts. The client's side sees the wait if the message has at most 256 bytes and is not acknowledged when it closes, which is so on every network; on the loopback the acknowledgement may be there already. The server's side sees it if the message comes at least 100 ms after the request.
* **A client that goes on sending** without a response does not wait for one (logs, metrics): it does not count on the server's side once it has paused twice for 100 ms, nor on the client's side if nothing ever arrived on the connection and it still sent a second after the handshake. If it sends once, stays silent and closes, it counts.
* **Half-closed connections**: a response may come after the client's FIN (`shutdown`), and then the request was answered. If none comes, it counts if the client had waited 50 ms before its FIN. What a client sends after the server's FIN never counts.
* **A late response**: if the client gave up and the server answers later, the server's side counts a request, with its duration, and an unanswered one, because the client's kernel rejects the response.
* **A stuck server** that keeps its side open (CLOSE_WAIT) counts five seconds after the client gave up; a response after that is not a request any more.
* **Not seen**: requests behind the first on one connection, a request in the SYN (TCP Fast Open), one whose client closes its half at once and is never answered, streams of HTTP/2 that are cancelled, a server that says goodbye without an answer (the TLS alert of a server is taken for a response), and anything without request timing (`--no-requests`).
* **No fault, but counted**: protocols in which the server acknowledges by closing (cancel requests of PostgreSQL); a client that sends and closes its half at once, if its data arrives just before a server closes its own half without a word.
* **`cause`** is `stopping` if the server was stopping, else `other`.

## What `stopping` is

Failures of a server whose listening socket has just ended: a rollout that cuts connections, a crash. Refused connects and those reset in the handshake (`result`), resets of connections (`cause`) and requests without a response (`cause`) have this value instead of their own; connects that time out and connections that a kernel gives up keep theirs. They are in health, as no fault.

* **When**: from the collection before the listener's end until the first one that is at least five seconds after it. The end of a listener triggers a collection, so failures that follow it are separated from those before; what happened between the last collection and the end counts as well.
* **Which**: on the server's side the connections of that listener's owner and port, also if others listen there (one of several sockets with `SO_REUSEPORT`); on the client's side, if it is on this host, attempts and connections to the addresses at which that listener was reached. Behind address translation (a published port, a Service) the client's failures keep their value.
* **Not**: the resets with which refused connects are answered (`no_listener`) and health checks (`unused`).

## What a connection is

* **Attempts** (`portolan_tcp_connects_total`) count when they end. On the client: every connect of a TCP socket, including one that the kernel refuses before it sends a SYN (no route to the destination, no local port or address to connect from). The count of those is exact where the hooks `connect4` and `connect6` are attached; their result is found by a second route lookup one to two seconds later, and is `other` if the cause has gone by then. Not seen are connects that a security module denies before these hooks, and connects of MPTCP sockets that fail before the SYN. On the server: handshakes that completed, whether or not the program has accepted the connection yet, and those that failed in their last step. Only attempts that succeed are in `portolan_tcp_connect_duration_seconds`.
* **Open** (`portolan_tcp_active_connections`): established and not yet closed, including those that the agent found when it started. A connection that its program has closed counts as open until the kernel has finished with it; TIME_WAIT does not count.
* **Pre-existing**: a connection that is older than the agent is open from the start, is not an attempt, and counts bytes, retransmits and requests from then on. A listener on its local port decides its role. With `--pin` a new agent adopts the tables of the previous one, and no connection that they hold is pre-existing.
* **Bytes** are payload: what was sent for the first time, and what arrived in order, without headers, retransmits, SYN and FIN. They are updated at every scrape, every second in between, and when a connection ends.
* **Retransmits** are segments of connections and of connection attempts in the kernel's own count. `phase` is what this side was doing: `syn`, a connect that was not answered yet; `established`, data, until this side closes (also while only the other side has closed); `closing`, its FIN, and data before it that was not acknowledged. SYN-ACK retransmits count at the listener.
* **Retransmission timeouts** (`portolan_tcp_rto_total`, Linux 6.7 or later): nothing was acknowledged until the timer ran out, at least 200 ms. Those of a connect are among them, those of SYN-ACKs are not. The other retransmits are fast ones.
* **DSACKs** (`portolan_tcp_dsacks_total`): the receiver had a segment already. If there are about as many as retransmits, these were unnecessary: packets or acknowledgements are late, not lost.
* **Limited** (`portolan_tcp_limited_seconds_total`) is the kernel's own timing of each connection, in ticks of a few milliseconds (`tcpi_rwnd_limited` and `tcpi_sndbuf_limited` of `TCP_INFO`), added up over connections: a rate of 2 means that two of them wait all the time. `by=\"receive_window\"`: the window that the other end offers is full, because its program does not read or not fast enough; `by=\"send_buffer\"`: the sender's own buffer is full although the network would take more. What is neither is the network (congestion window) or a program with nothing to send.
* **Queues** (`portolan_tcp_receive_queue_bytes`, `portolan_tcp_send_queue_bytes`) are what the collection found: gauges without a history, in the bytes of `ss` but without FINs. They exist for every row with connections, also at 0. Some bytes are always on the way where there is traffic.
* **Not closed** (`portolan_tcp_close_wait_connections`): in CLOSE_WAIT for at least a minute since the first collection that found it there; so up to one interval late, and of a pre-existing connection a minute after the agent's start.
* **Round trip time** is the kernel's smoothed estimate (`srtt`), which includes how long the peer delays its acknowledgements. It is sampled at each read of the tables from every connection that has a new measurement since, and once more when it ends. So a busy long-lived connection has about one sample a second, an idle one has none, and samples are not weighted by traffic.

## What an idle connection is

Nothing has arrived or was sent for at least half a second, and no response is due. Idle times show keep-alive timeouts before they do harm: a server that closes connections after as short a time as a client goes on using them will reset a request sooner or later.

* **Closed** (`portolan_tcp_idle_close_seconds`): an end began to close (FIN) a connection that was idle. `closed_by` says which; the time is that end's keep-alive timeout, or pool timeout, plus what its timer was late. A last message right before (TLS `close_notify`, Terminate of PostgreSQL, `QUIT`) does not end the idle time. What a server closes while it is [stopping](#what-stopping-is) is not counted; a client, or one of several workers, that ends closes its idle connections as well, after any time. Resets are not counted.
* **Used again** (`portolan_tcp_idle_reuse_seconds`): a request came after a pause, and got a response.
* **A request in parts**: a pause of half a second or more within a request counts on the client's side as one before it, since latency begins with the last part there.
* **Not known**: how long a pre-existing connection was idle before anything was seen of it; anything without request timing (`--no-requests`).

`portolan timeouts` compares the two.

## What a DNS lookup is

A query that a program sends to port 53 over UDP; on its edge the server is the resolver. What a resolver asks for its clients is its own. The name is not read.

* **`rcode`**: the code of the response, known by its number and by the server that was asked, whatever is in it: `NOERROR` also if the name has no record of this type. A truncated response counts as what it says; the connection that follows is none of these.
* **`timeout`**: no response in 5 seconds, found when the socket is next used; or the same query was sent again from this socket; or the program closed the socket, or ended, a second or more after the query. A program that keeps an idle socket shows the timeout of its last query when it asks again.
* **Neither**: a query whose socket was closed within a second (lost, `closed`). Programs that ask several servers at once and take the first response (musl) do so all the time.
* **Duration**: from the send to the response's arrival at the socket, whenever the program reads it. Of a connected socket the time begins when the send returns; a response that comes before, from a resolver on the same host, has no duration.
* **Search paths**: each suffix that is tried is a lookup of its own. A client with many more `NXDOMAIN` than `NOERROR` asks for names that its search path completes (`ndots`).
* **Not seen**: anything before Linux 6.3, without request timing (`--no-requests`) or with `--no-dns-lookups`; DNS over TCP, TLS, HTTPS or multicast; other ports than 53.

## What a listener is

* **Listeners** and their accept queues are read from the kernel at the scrape. Sockets of one service on one port are one series, in which queues and limits are added up.
* **Overflows** (`portolan_listen_overflows_total`) are the kernel's count of connection requests that the listener dropped: mostly because of a full accept queue, or without memory for the new socket (`ListenDrops` of `/proc/net/netstat`). The kernel keeps that count per network namespace; where several listeners of one namespace dropped requests between two scrapes, their sum is exact and the shares follow the drop counters of their sockets. The client sees a timeout or a slow connect, not a refusal.
* **SYN-ACK retransmits**: the client, or the network path to it, does not answer.

## Histograms

The kernel counts on a decimal grid of 81 bounds from 1 µs to 100 s; the exported bounds are exact members of it, so a bucket is an exact count, not an estimate. A quantile is interpolated within its bucket; `portolan`, the API and `histogram_quantile` compute it from the same buckets in the same way, and it is off by 13 % in the mean ([decision 77](decisions.md)). Upper bounds in seconds:

";

const CAUSES_INTRODUCTION: &str = "\
## Values of `cause`

A reset *sent* has the cause that this host's kernel gives; a reset *received* carries none, so its cause is inferred from the state of the connection. `direction` is `sent` or `received`, seen from this host, on client and server alike. The host that sends a reset knows its cause better.

| value | direction | meaning |
|---|---|---|
";

const LEDGER: &str = "\
## The ledger

Every event that a kernel program handles is counted twice, independently: at once as *seen*, and later as *exported* if it is found in the tables, or as *lost* with a reason if it is not. For every class, when nothing is in flight, seen = exported + the sum of lost over all reasons. After the adoption of pinned tables (`--pin`) events that were seen and not lost before count as exported.

";

const ABORTS_INTRODUCTION: &str = "\
## Values of `cause` of aborts

An established connection that the kernel of this side gave up; the other side may not know. One that its program had closed before is not counted. The reset with which the kernel ends unanswered keep-alive probes is also in `portolan_tcp_resets_total` (sent, `keepalive_timeout`).

| value | meaning |
|---|---|
";

/// What each cause of an abort means, in the contract's order.
const ABORTS_EXPLAINED: [&str; ABORT_CAUSES] = [
    "data was not acknowledged, or a closed window not opened, within the `TCP_USER_TIMEOUT` that the program set (ETIMEDOUT)",
    "keep-alive probes went unanswered: as many as configured, or for as long as `TCP_USER_TIMEOUT` (ETIMEDOUT)",
    "data was not acknowledged, or window probes not answered, within the kernel's retries (`tcp_retries2`, a quarter of an hour by default; ETIMEDOUT)",
    "as the others, and the network or the route said why: host or net unreachable, no such neighbour, prohibited (EHOSTUNREACH and its kin)",
];

/// What each result of an attempt to connect means, in the contract's order.
const RESULTS: [&str; CONNECT_RESULTS] = [
    "the handshake completed",
    "the peer answered with a reset, or the network with port unreachable",
    "no answer within the kernel's retries (about two minutes unless the host is tuned)",
    "the network answered with host or net unreachable, or (IPv4) administratively prohibited",
    "the connection was reset during the handshake",
    "denied by a policy (EPERM, EACCES); over IPv6 also: the network answered administratively prohibited",
    "the program closed the socket before the handshake ended, as it does on its own timeout",
    "every local port for that destination was in use (EADDRNOTAVAIL)",
    "anything else",
    "no address of this host can be the source: it has none of that family (EADDRNOTAVAIL)",
    "another connection to that destination has the source port that the program had bound (EADDRNOTAVAIL)",
    "an earlier connection to that destination has the source port that the program had bound; it is closed, and in TIME_WAIT or on the way there (EADDRNOTAVAIL)",
    "refused, or reset during the handshake, while the server was stopping: see above",
];

/// What each cause of a reset means and in which direction it occurs, in the contract's order.
const CAUSES_EXPLAINED: [(&str, &str); CAUSES] = [
    ("sent", "the peer did not answer keep-alive probes, and this host ended the connection"),
    (
        "received",
        "on the side that connected: it wrote a request on a connection on which nothing had been sent or received for a second or more, and the peer did not take the request; the two sides have different idle timeouts",
    ),
    ("sent", "the program closed the socket with received data unread"),
    ("sent", "the program closed with `SO_LINGER` 0, or disconnected with data unsent"),
    (
        "sent, received",
        "sent: a connection request for a port without a listener; received: an attempt to connect was reset",
    ),
    (
        "sent",
        "a segment arrived for a connection that this host does not know, or no longer knows (after a restart, a failover)",
    ),
    (
        "sent, received",
        "received: the connection was reset while it was in use, or while no request was pending; sent: data arrived for a connection that its program had closed already",
    ),
    ("sent", "bad sequence, flags or state; MPTCP errors"),
    (
        "sent, received",
        "sent: the kernel gives no reason (before Linux 6.10), or one that belongs to no class; received: a socket that the agent has no state of",
    ),
    (
        "sent, received",
        "the client cut a connection on which it had never sent a byte: a health check (HAProxy `check`, LVS, load balancers) or a port scan; sent by the client, received by the server",
    ),
    ("sent, received", "the server was stopping: see above"),
];

/// What each class of the ledger counts and where its events are found, in the contract's order.
const CLASSES_EXPLAINED: [&str; CLASSES] = [
    "an attempt to connect that ended, or a handshake completed by a listener; found in the connects",
    "an exchange with a response; found in the counts of the request histograms",
    "a reset sent or received; found in the resets",
    "a socket that needs state of its own; exported if it got one",
    "a new edge; exported if it got a row, else counted in `other`",
    "a new owner of sockets; exported if it got a row, else shown as `other`",
    "a detail record about a reset or a failed attempt, for the log; a lost record changes no count",
    "a bind(2), or a listen(2) that lost its port; found as succeeded or as failed",
    "a DNS response with records to a program of this host; found as parsed or as malformed",
    "the first response of an exchange, on a connection that is neither TLS nor of an unknown protocol; found in `portolan_responses_total`, or as the first of a connection without statuses in `portolan_connection_security_total`",
    "a DNS query over UDP; found in `portolan_dns_lookups_total` once it has ended: until then it is open",
    "a request to a service of `protocols.services`; found in `portolan_operations_total` or `portolan_operations_unanswered_total` once it has ended: until then it is open",
];

/// What each reason for a loss means, in the contract's order.
const REASONS_EXPLAINED: [&str; REASONS] = [
    "no memory for a socket's state: the connection counts in `other`, or not at all; of a DNS lookup also: eight others were open at its socket",
    "the table of edges, of listeners or of refused connects is full: see `portolan_map_entries`, raise `limits.edges`",
    "the table of owners is full: raise `limits.owners`",
    "the ring was full",
    "more than 100 records of one kind in a second on one CPU",
    "a table refused a row for another reason; with `edge` and `owner` mostly two CPUs that inserted the same key at once, and nothing is missing",
    "too many threads were in bind(2) or connect(2) at once: the outcome is not known, or a connect refused before the SYN is not counted",
    "a bind without an outcome for a second was counted as failed, and succeeded later",
    "of DNS: the program had read the response before Portolan could, or too many were queued at once; of a response: the connection ended, or the next response was sent, before its send returned; of a DNS lookup: likewise, or two threads sent from one socket at once",
    "of DNS: the response was in pages that BPF programs cannot read, which depends on the network card's driver; of a response: the program's buffer could not be read",
    "the kernel skipped a run of a program that was already running on that CPU: what it would have counted is missing",
    "the table is nearly full and the tenant (cgroup and network namespace, or user) has its share: counted in a row `other` of that tenant, whose namespace names it; others still find room",
    "the response came from no buffer of its program: sent from a file, by io_uring, splice or sendmmsg, or by a 32-bit program",
    "the first bytes are none of a response of the connection's protocol: an answer given before the request was complete, or a protocol that was misjudged; of a DNS lookup: not a readable message; of an operation: where its message, or one before it, ends is unknown, so requests are not counted until the connection's next exchange",
    "a program closed its socket within a second of a DNS query, without a response: it may have had its answer from another server",
    "of an operation: packets of a request arrived in the wrong order, or its beginning was not seen; its response was, and its method is not known",
    "of an operation: more than 32 requests were open on a connection, or one packet had more than 2048 lines",
];

/// The whole text.
pub fn markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    let bounds: Vec<String> =
        EXPORTED_US.iter().map(|us| format!("{}", f64::from(*us) / 1e6)).collect();
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{}, +Inf.\n", bounds.join(", "));
    let bounds: Vec<String> =
        IDLE_EXPORTED_MS.iter().map(|ms| format!("{}", f64::from(*ms) / 1e3)).collect();
    let _ = writeln!(
        text,
        "Idle times are counted on the same grid, in milliseconds instead, so it reaches a day. \
         Their upper bounds in seconds: {}, +Inf.\n",
        bounds.join(", ")
    );
    push_values(&mut text, "result", CONNECT_RESULT_NAMES.iter().zip(RESULTS));
    push_causes(&mut text);
    text.push_str(ABORTS_INTRODUCTION);
    for (name, meaning) in ABORT_CAUSE_NAMES.iter().zip(ABORTS_EXPLAINED) {
        let _ = writeln!(text, "| `{name}` | {meaning} |");
    }
    text.push('\n');
    text.push_str(LEDGER);
    let classes = CLASS_NAMES.iter().zip(CLASSES_EXPLAINED);
    let hook_run = (&"hook_run", "a skipped run of a kernel program; only ever lost, never seen");
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
