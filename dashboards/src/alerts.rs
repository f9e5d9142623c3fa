//! The alerts: a symptom that somebody feels wakes people, a cause tells them where to look.
//!
//! Where one fault shows in several of them, `dashboards/prometheus/alertmanager.yml` lets only
//! the one speak that names the cause.

use super::promql::{EDGE, PAIR, SERVICE, copied, happened};
use super::rules::{Alert, Group, Rule, Severity};

const CRITICAL: Severity = Severity::Critical;
const WARNING: Severity = Severity::Warning;
const INFO: Severity = Severity::Info;

/// Dashboards, opened where the alert points.
const SERVICE_BOARD: &str = "portolan-service?var-service={{ $labels.server }}&var-namespace={{ $labels.server_namespace }}";
const CONNECTIVITY_BOARD: &str = "portolan-connectivity?var-service={{ $labels.server }}";
const AGENT_BOARD: &str = "portolan-agent?var-instance={{ $labels.instance }}";

pub fn groups() -> Vec<Group> {
    let alerts = |list: Vec<Alert>| list.into_iter().map(Rule::Alert).collect();
    vec![
        Group { name: "portolan-latency", rules: alerts(latency()) },
        Group { name: "portolan-connectivity", rules: alerts(connectivity()) },
        Group { name: "portolan-resets", rules: alerts(resets()) },
        Group { name: "portolan-balance-alerts", rules: alerts(balance()) },
        Group { name: "portolan-ports", rules: alerts(ports()) },
        Group { name: "portolan-agent", rules: alerts(agent()) },
    ]
}

fn latency() -> Vec<Alert> {
    let breach = "service:portolan_request_duration_seconds:breach";
    let inherited = "service:portolan_request_duration_seconds:breach_inherited";
    let p99 = "service_role:portolan_request_duration_seconds:p99_5m";
    vec![
        Alert {
            name: "PortolanLatencyHigh",
            severity: WARNING,
            hold: "5m",
            expr: format!("{breach} unless on ({SERVICE}) {inherited}"),
            summary: "A service is slower than its objective, and none that it calls explains it.",
            description: "One request in a hundred to {{ $labels.server }} takes {{ $value | humanizeDuration }} or longer, and its objective is shorter. Layer: {{ $labels.layer }} (application: its own time to answer; network: clients wait, the server does not take long; unknown: no agent on its host).",
            board: SERVICE_BOARD,
        },
        Alert {
            name: "PortolanLatencyInherited",
            severity: INFO,
            hold: "5m",
            expr: inherited.to_owned(),
            summary: "A service is slower than its objective, and so is one that it calls.",
            description: "One request in a hundred to {{ $labels.server }} takes {{ $value | humanizeDuration }} or longer. A service that it calls breaches its own objective: mend that one first.",
            board: SERVICE_BOARD,
        },
        Alert {
            name: "PortolanLatencyAgainstLastWeek",
            severity: INFO,
            hold: "15m",
            expr: format!(
                "max by ({SERVICE}) (avg_over_time({p99}[1h])) > 0.01\n\
                 and on ({SERVICE})\n\
                 max by ({SERVICE}) (avg_over_time({p99}[1h])) > 2 * max by ({SERVICE}) (avg_over_time({p99}[1h] offset 1w))\n\
                 unless on ({SERVICE}) {breach}"
            ),
            summary: "A service is twice as slow as at this time last week.",
            description: "The slowest hundredth of the requests to {{ $labels.server }} takes {{ $value | humanizeDuration }} on average over the last hour, more than twice as long as a week ago. It is still within its objective.",
            board: SERVICE_BOARD,
        },
        Alert {
            name: "PortolanServiceSilent",
            severity: WARNING,
            hold: "10m",
            expr: format!(
                "avg_over_time(service:portolan_request_duration_seconds:rate5m[1h] offset 15m) > 0.2\n\
                 unless on ({SERVICE}) service:portolan_request_duration_seconds:rate5m > 0"
            ),
            summary: "A service that was answering requests an hour ago answers none now.",
            description: "{{ $labels.server }} answered {{ $value | humanize }} requests a second until a while ago, and none now. Either nobody asks it any more, or it accepts connections and says nothing.",
            board: SERVICE_BOARD,
        },
    ]
}

fn connectivity() -> Vec<Alert> {
    let edges = "edge:portolan_tcp_connects:rate5m";
    let failing = |results: &str| {
        format!(
            "sum by ({EDGE}) ({edges}{{result=~\"{results}\"}}) > 0.02\n\
             and on ({EDGE})\n\
             sum by ({EDGE}) ({edges}{{result=~\"{results}\"}}) / sum by ({EDGE}) ({edges}) > 0.05"
        )
    };
    let ratio = "pair:portolan_tcp_connects_failures:ratio_rate";
    // The share of the budget of 0.1 %, and how fast it is spent.
    // A window that is longer than the pair is old would make a minute look like hours.
    let burn = |long: &str, short: &str, times: &str| {
        format!(
            "{ratio}{long} > {times} * 0.001\nand on ({PAIR})\n{ratio}{short} > {times} * 0.001\n\
             and on ({PAIR})\npair:portolan_tcp_connects_attempts:rate5m offset {long}"
        )
    };
    // Who knows why they fail says more, and the budget is still being spent when that is over.
    let explained = format!(
        "unless on ({SERVICE})\nmax by ({SERVICE}) (max_over_time(ALERTS{{alertname=~\"PortolanConnectionsRefused|PortolanConnectionsTimingOut|PortolanLocalPortsExhausted|PortolanListenOverflow|PortolanRetransmitsHigh\", alertstate=\"firing\"}}[10m]))"
    );
    vec![
        Alert {
            name: "PortolanConnectionsRefused",
            severity: CRITICAL,
            hold: "1m",
            expr: failing("refused|reset"),
            summary: "A service is refused when it connects to another.",
            description: "{{ $labels.client }} is refused by {{ $labels.server }} on port {{ $labels.port }}, {{ $value | humanize }} times a second. The host answers, and nothing listens there (or a firewall rejects).",
            board: CONNECTIVITY_BOARD,
        },
        Alert {
            name: "PortolanConnectionsTimingOut",
            severity: CRITICAL,
            hold: "1m",
            expr: failing("timeout|aborted|unreachable|denied"),
            summary: "A service gets no connection to another: no answer, or no way.",
            description: "{{ $labels.client }} gets no connection to {{ $labels.server }} on port {{ $labels.port }}, {{ $value | humanize }} times a second: no answer in time, or no route, or a policy said no.",
            board: CONNECTIVITY_BOARD,
        },
        Alert {
            name: "PortolanLocalPortsExhausted",
            severity: CRITICAL,
            hold: "1m",
            expr: format!("sum by ({EDGE}) ({edges}{{result=\"address_unavailable\"}}) > 0.02"),
            summary: "A service has no local port left to connect from.",
            description: "{{ $labels.client }} cannot connect to {{ $labels.server }} on port {{ $labels.port }}, {{ $value | humanize }} times a second: every local port towards it is in use.",
            board: CONNECTIVITY_BOARD,
        },
        Alert {
            name: "PortolanConnectBudgetBurnFast",
            severity: CRITICAL,
            hold: "2m",
            expr: format!(
                "((\n{}\n)\nor on ({PAIR})\n(\n{}\n))\n{explained}",
                burn("1h", "5m", "14.4"),
                burn("6h", "30m", "6")
            ),
            summary: "Connects fail so often that the error budget of a month is gone in days.",
            description: "{{ $value | humanizePercentage }} of the attempts of {{ $labels.client }} to connect to {{ $labels.server }} fail; the objective allows 0.1 %.",
            board: CONNECTIVITY_BOARD,
        },
        Alert {
            name: "PortolanConnectBudgetBurnSlow",
            severity: WARNING,
            hold: "1h",
            expr: format!(
                "{}\nunless on ({PAIR})\n{ratio}1h > 14.4 * 0.001",
                burn("3d", "6h", "1")
            ),
            summary: "Connects fail a little more often than the objective allows, for days.",
            description: "{{ $value | humanizePercentage }} of the attempts of {{ $labels.client }} to connect to {{ $labels.server }} have failed over three days; the objective allows 0.1 %.",
            board: CONNECTIVITY_BOARD,
        },
        Alert {
            name: "PortolanRetransmitsHigh",
            severity: WARNING,
            hold: "1m",
            // Where most connects get no answer at all it is no loss but a host that is gone.
            expr: format!(
                "edge:portolan_tcp_retransmits:ratio_rate5m > 0.02\nand on ({EDGE})\n\
                 edge:portolan_tcp_retransmits:rate5m > 0.2\nunless on ({EDGE})\n\
                 sum by ({EDGE}) ({edges}{{result=~\"timeout|aborted|unreachable\"}}) > 0.5 * sum by ({EDGE}) ({edges})"
            ),
            summary: "The network between two services loses packets.",
            description: "{{ $value | humanizePercentage }} of the segments between {{ $labels.client }} and {{ $labels.server }} (port {{ $labels.port }}) have to be sent again. Each costs its request 200 ms or more.",
            board: CONNECTIVITY_BOARD,
        },
        Alert {
            name: "PortolanListenOverflow",
            severity: WARNING,
            hold: "1m",
            // Longer than what follows from it: clients notice later.
            expr: "max_over_time(service:portolan_listen_overflows:rate5m[2m]) > 0.02".to_owned(),
            summary: "A service does not accept connections as fast as they come.",
            description: "{{ $labels.server }} drops {{ $value | humanize }} connection requests a second on port {{ $labels.port }}: its accept queue is full. Clients wait a second or more and try again.",
            board: CONNECTIVITY_BOARD,
        },
    ]
}

fn resets() -> Vec<Alert> {
    let connects = format!("sum by ({EDGE}) (edge:portolan_tcp_connects:rate5m)");
    let opened = format!("sum by ({EDGE}) (edge:portolan_tcp_connects:rate5m{{result=\"ok\"}})");
    let requests = "edge:portolan_request_duration_seconds:rate5m";
    let given_up = format!(
        "sum by ({EDGE}) (rate(portolan_tcp_resets_total{{role=\"client\", direction=\"sent\", cause=~\"aborted|unread_data|no_connection\"}}[5m]))"
    );
    // Where request latency is switched off there are still connects.
    let uses = format!("({connects} + on ({EDGE}) ({requests} or on ({EDGE}) 0 * {connects}))");
    vec![
        Alert {
            name: "PortolanKeepaliveMismatch",
            severity: WARNING,
            hold: "2m",
            expr: format!(
                "sum by ({EDGE}) (edge:portolan_tcp_resets:rate5m{{cause=\"idle_reuse\"}}) > 0.01"
            ),
            summary: "A client reuses idle connections that the server has closed already.",
            description: "{{ $labels.client }} writes requests on idle connections to {{ $labels.server }} (port {{ $labels.port }}) that are reset, {{ $value | humanize }} times a second. The client keeps connections longer than the server does: sporadic 502s.",
            board: CONNECTIVITY_BOARD,
        },
        Alert {
            name: "PortolanRequestsAbandoned",
            severity: WARNING,
            hold: "2m",
            // Either the hang-up is a reset, or connections end without the answers that they used
            // to end with.
            expr: format!(
                "(\n{given_up} > 0.05\nand on ({EDGE})\n{given_up} > 0.01 * {uses}\n)\nor on ({EDGE})\n(\n\
                 ({opened} - on ({EDGE}) {requests}) > 0.05\nand on ({EDGE})\n\
                 {requests} < 0.5 * {opened}\nand on ({EDGE})\n\
                 avg_over_time({requests}[1h] offset 10m)\n\
                 > 0.9 * sum by ({EDGE}) (avg_over_time(edge:portolan_tcp_connects:rate5m{{result=\"ok\"}}[1h] offset 10m))\n)"
            ),
            summary: "A client gives requests up before the server has answered.",
            description: "{{ $labels.client }} hangs up on {{ $labels.server }} (port {{ $labels.port }}) before the answer is there, {{ $value | humanize }} times a second: its own timeout is shorter than the server takes. Behind a gateway these are the 504s.",
            board: SERVICE_BOARD,
        },
        Alert {
            name: "PortolanResetStorm",
            severity: WARNING,
            hold: "5m",
            expr: format!(
                "edge:portolan_tcp_resets:rate5m{{cause!~\"idle_reuse|no_listener\"}} > 1\n\
                 and on ({EDGE}, cause)\n\
                 edge:portolan_tcp_resets:rate5m\n\
                 > on ({EDGE}) group_left ()\n\
                 0.1 * {uses}"
            ),
            summary: "More than one in ten requests or connects between two services ends in a reset.",
            description: "Connections between {{ $labels.client }} and {{ $labels.server }} (port {{ $labels.port }}) are reset {{ $value | humanize }} times a second, cause: {{ $labels.cause }}.",
            board: CONNECTIVITY_BOARD,
        },
    ]
}

fn balance() -> Vec<Alert> {
    let due = "backend:portolan_backend_requests:due_5m";
    let got = "backend:portolan_backend_requests:increase5m";
    vec![Alert {
        name: "PortolanUnevenBalance",
        severity: WARNING,
        // Longer than a rollout takes to pass through the window.
        hold: "10m",
        // Five percentage points, and what chance explains: three standard deviations of a share
        // of that many requests. `portolan balance` judges alike.
        expr: format!(
            "edge:portolan_backend_requests:deviation_5m\n> 0.05 + 3 * sqrt(\n  \
             max by ({EDGE}) ({due} * (1 - {due})) / sum by ({EDGE}) ({got})\n)"
        ),
        summary: "The backends of a service do not get the shares of the requests that they should.",
        description: "Of the requests of {{ $labels.client }} to {{ $labels.server }} (port {{ $labels.port }}) one backend gets a share that is off by {{ $value | humanizePercentage }} of all; up to 5 % is even. `portolan balance {{ $labels.server }}` on the client's host says which.",
        board: SERVICE_BOARD,
    }]
}

fn ports() -> Vec<Alert> {
    let conflicts = happened(
        "portolan_port_conflicts_total{errno=\"EADDRINUSE\"}",
        "cluster, port, protocol, claimant, claimant_namespace, holder, holder_namespace",
        "15m",
    );
    // The one that suffers is called as in the other alerts.
    let named = copied(
        &copied(&format!("({conflicts})"), "claimant", "server"),
        "claimant_namespace",
        "server_namespace",
    );
    let breaches = happened(
        "portolan_port_reservation_breaches_total",
        "cluster, port, protocol, owner, offender, action",
        "15m",
    );
    let conflict = Alert {
        name: "PortolanPortConflict",
        severity: WARNING,
        hold: "0s",
        expr: format!("{named} > 0"),
        summary: "A service wanted a port that another one has.",
        description: "{{ $labels.claimant }} wanted port {{ $labels.port }}/{{ $labels.protocol }}, and {{ $labels.holder }} has it; {{ printf \"%.0f\" $value }} times within 15 minutes. On that host `portolan ports conflicts` says why the two clash.",
        board: "portolan-ports?var-service={{ $labels.claimant }}",
    };
    let breach = Alert {
        name: "PortolanPortReservationBreach",
        severity: WARNING,
        hold: "0s",
        expr: format!("{} > 0", copied(&format!("({breaches})"), "offender", "server")),
        summary: "A service took, or tried to take, a port that is reserved for another.",
        description: "Port {{ $labels.port }}/{{ $labels.protocol }} is reserved for {{ $labels.owner }}, and {{ $labels.offender }} wanted it: {{ $labels.action }}, {{ printf \"%.0f\" $value }} times within 15 minutes.",
        board: "portolan-ports?var-service={{ $labels.offender }}",
    };
    let running_out = Alert {
        name: "PortolanLocalPortsLow",
        severity: WARNING,
        hold: "5m",
        expr: "max by (cluster, netns_of) (portolan_ephemeral_ports_destination_ratio) > 0.8\nor\n\
               max by (cluster, netns_of) (portolan_ephemeral_ports_used_ratio) > 0.8"
            .to_owned(),
        summary: "A service is running out of local ports.",
        description: "{{ $value | humanizePercentage }} of the local ports of {{ $labels.netns_of }} are in use, over all or towards one destination. At 100 % its connects fail.",
        board: "portolan-ports",
    };
    let violations = happened(
        "portolan_segment_violations_total",
        "cluster, client_segment, server_segment, client, server, server_namespace, port",
        "15m",
    );
    let violation = Alert {
        name: "PortolanSegmentViolation",
        severity: WARNING,
        hold: "0s",
        expr: format!("({violations}) > 0"),
        summary: "A service connected to a segment that it may not connect to.",
        description: "{{ $labels.client }} (segment {{ $labels.client_segment }}) connected to {{ $labels.server }} (segment {{ $labels.server_segment }}) on port {{ $labels.port }}, {{ printf \"%.0f\" $value }} times within 15 minutes; the declared matrix does not allow that.",
        board: CONNECTIVITY_BOARD,
    };
    vec![conflict, breach, running_out, violation]
}

fn agent() -> Vec<Alert> {
    vec![
        Alert {
            name: "PortolanAgentDown",
            severity: WARNING,
            hold: "2m",
            // Neither a job's name nor `up`: a target that has vanished has no `up` either.
            expr: "max by (cluster, job, instance) (max_over_time(portolan_build_info[1h]))\n\
                   unless on (cluster, job, instance) portolan_build_info"
                .to_owned(),
            summary: "An agent that was there within the last hour is not there now.",
            description: "Prometheus gets nothing from the agent at {{ $labels.instance }}. What happens on that host is not seen; what is known of its services may look silent.",
            board: AGENT_BOARD,
        },
        Alert {
            name: "PortolanHookMissing",
            severity: INFO,
            hold: "10m",
            expr: "portolan_hook_attached == 0".to_owned(),
            summary: "A host does not allow one of the agent's hooks.",
            description: "The hook {{ $labels.hook }} is not attached at {{ $labels.instance }}: its metrics are missing there. `portolan status` on that host says why and what is not seen.",
            board: AGENT_BOARD,
        },
        Alert {
            name: "PortolanEventsLost",
            severity: WARNING,
            hold: "10m",
            expr: "sum by (cluster, instance, class) (rate(portolan_events_lost_total{class!~\"event|hook_run|dns_answer\"}[5m]))\n\
                   / on (cluster, instance, class)\n\
                   (sum by (cluster, instance, class) (rate(portolan_events_seen_total[5m])) > 0)\n\
                   > 0.001"
                .to_owned(),
            summary: "An agent loses more than one fact in a thousand.",
            description: "{{ $value | humanizePercentage }} of the facts of class {{ $labels.class }} are lost at {{ $labels.instance }}: counts there are too low by that much, or their rows are called `other`.",
            board: AGENT_BOARD,
        },
        Alert {
            name: "PortolanCoverageLow",
            severity: INFO,
            hold: "30m",
            expr: "cluster:portolan_tcp_connects_named:ratio_rate5m < 0.95".to_owned(),
            summary: "Many connections lack the name of a service at one end.",
            description: "Only {{ $value | humanizePercentage }} of the connections have a service's name at both ends. Addresses and container ids stand for the others: an agent is missing on their hosts, or a source of names is not reachable.",
            board: AGENT_BOARD,
        },
    ]
}
