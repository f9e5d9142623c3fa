//! docs/metrics.md, generated from the list of metrics so that it cannot be wrong about them.

use std::fmt::Write;

use agent_common::edge::{CONNECT_RESULT_NAMES, CONNECT_RESULTS};
use agent_common::ledger::{CLASS_NAMES, REASON_NAMES, REASON_RECURSION};
use agent_common::reset::{CAUSE_NAMES, CAUSES};

use super::bounds::EXPORTED_US;
use super::metric::{self, Metric};

const INTRODUCTION: &str = "\
# Metrics

Generated from `agent/src/export/`; `PORTOLAN_BLESS=1 cargo test -p agent --lib reference` writes it anew.

Every duration is in seconds, every size in bytes. `/metrics` speaks Prometheus text 0.0.4 and, if asked, OpenMetrics 1.0; names and values are the same.

## Labels of an edge

An edge is a client service, a server service and the server's port, as one side saw it.

| label | meaning |
|---|---|
| `client`, `client_namespace` | who connects; the namespace is where the name is unique (a Kubernetes namespace, a compose project), empty on a plain host |
| `server`, `server_namespace` | who is connected to |
| `port` | the server's port; 0 on rows that took what found no row of its own |
| `role` | which side counted: `client`, `server`, or `listener` for what happened before a connection existed |

If both ends are on hosts that run Portolan, an edge is counted twice, once by each side: choose one `role` in every query. No address, pid or container id is a label. A server's clients from outside the configured internal ranges are `internet`; what exceeds a table's size is `other`, so sums stay exact.

A series ends when its row ends. A counter of something that never happened on a row is absent, with three exceptions that start at zero so that ratios have a denominator: `result=\"ok\"`, bytes, retransmits.

## What a request is

Latency is measured at the socket, so it is there for every protocol, encrypted or not, and on connections of any age.

* **Client**: from the last byte sent to the first byte that comes back, as far as it acknowledges something sent since the answer before. The kernel's own time stamps are used, so what the request waited in our hooks is nothing.
* **Sent again**: a request that had to be retransmitted counts from its first sending.
* **Server**: from the first byte of a request received to the first byte sent after it.
* **Pipelining**: requests sent without waiting are one turn; it ends with the first byte of the first response.
* **Streaming**: more bytes in the same direction belong to the same turn. A long upload starts a client's turn with its last byte; a long download ends it with its first.
* **The server speaks first** (SMTP, MySQL): its greeting answers nothing and is no request.
* **Multiplexing** (HTTP/2): turns of the connection are counted, not streams.

## Histograms

The kernel counts on a decimal grid of 81 bounds from 1 µs to 100 s; the exported bounds are exact members of it, so a bucket is a count and never an estimate. Upper bounds in seconds:

";

/// What each result of an attempt to connect means, in the contract's order.
const RESULTS: [&str; CONNECT_RESULTS] = [
    "the handshake completed",
    "the peer answered with a reset, or the network with port unreachable",
    "no answer within the kernel's retries",
    "no route, or the network answered with host or net unreachable",
    "the connection was reset during the handshake",
    "a policy said no (EPERM, EACCES)",
    "the program closed the socket before the handshake ended, as it does on its own timeout",
    "no local port or address was left to connect from",
    "anything else",
];

/// What each cause of a reset means, in the contract's order.
const CAUSES_EXPLAINED: [&str; CAUSES] = [
    "keep-alive probes went unanswered",
    "a request was written on a connection that had been idle for a second or more, or that the peer had closed: the two sides disagree about how long a connection may idle",
    "the program closed the socket with received data unread",
    "the program closed with `SO_LINGER` 0, or disconnected",
    "a connection request met no listener",
    "a segment met no connection: this host had forgotten it, or closed it for good",
    "the connection was cut while it was in use",
    "bad sequence, flags or state; MPTCP errors",
    "this kernel does not say (resets sent have a cause from Linux 6.10 on)",
];

/// The whole text.
pub fn markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    let bounds: Vec<String> =
        EXPORTED_US.iter().map(|us| format!("{}", f64::from(*us) / 1e6)).collect();
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{}, +Inf.\n", bounds.join(", "));
    push_values(&mut text, "result", CONNECT_RESULT_NAMES.iter().zip(RESULTS));
    push_values(&mut text, "cause", CAUSE_NAMES.iter().zip(CAUSES_EXPLAINED));
    let reasons: Vec<&str> = REASON_NAMES.iter().copied().chain([REASON_RECURSION]).collect();
    let classes: Vec<&str> = CLASS_NAMES.iter().copied().chain(["hook_run"]).collect();
    let _ = writeln!(text, "## Other closed labels\n\n| label | values |\n|---|---|");
    for (label, values) in
        [("direction", &["sent", "received"][..]), ("class", &classes), ("reason", &reasons)]
    {
        let _ = writeln!(text, "| `{label}` | {} |", code(values));
    }
    let _ = writeln!(text, "\n## All metrics");
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
    use crate::export::tests::bless_or_compare;
    use crate::kernel::hooks::HOOKS;

    #[test]
    fn the_committed_reference_is_the_generated_one() {
        bless_or_compare("../docs/metrics.md", &markdown());
    }

    #[test]
    fn every_hook_feeds_a_metric_and_no_metric_names_a_hook_that_is_gone() {
        let fed: Vec<&str> = metric::all().flat_map(|metric| metric.fed_by.split(", ")).collect();
        for hook in HOOKS {
            assert!(fed.contains(&hook.name), "{} feeds no metric", hook.name);
        }
        // Hooks are single words with underscores, or the two iterators.
        for name in fed.iter().filter(|name| name.starts_with("tcp_") || name.starts_with("sock_"))
        {
            assert!(HOOKS.iter().any(|hook| hook.name == *name), "{name} is no hook");
        }
    }
}
