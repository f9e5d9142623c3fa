//! Agent: its cost, its losses, and what it does not observe.

use super::super::board::{Board, Row};
use super::super::limits::Limits;
use super::super::panel::{Column, Panel, Unit};
use super::{CLUSTER, INSTANCE};

const AGENTS: &str = r#"cluster=~"$cluster", instance=~"$instance""#;

pub fn board(limits: &Limits) -> Board {
    Board {
        uid: "portolan-agent",
        title: "Portolan / Agent",
        description: "Cost of the agents, dropped events, and what is not observed.",
        variables: vec![CLUSTER, INSTANCE],
        explore: "rate(portolan_events_lost_total[5m]) > 0",
        rows: vec![
            Row { title: "Coverage and loss", height: 5, panels: coverage(limits) },
            Row { title: "Kernel events", height: 9, panels: events() },
            Row { title: "Hooks", height: 11, panels: hooks() },
            Row { title: "Name sources", height: 6, panels: names() },
            Row { title: "Cost", height: 8, panels: cost() },
        ],
    }
}

fn coverage(limits: &Limits) -> Vec<Panel> {
    vec![
        Panel::number("Agents up", "Agents that Prometheus scrapes or that push to it.", Unit::Count, 3, format!("count(portolan_build_info{{{AGENTS}}}) or vector(0)")).else_("red").from(1.0, "green"),
        Panel::number("Events dropped", "Share of the kernel events that did not arrive, or arrived in a row named other. Events for the log only are not included.", Unit::Ratio, 4, format!(
            "(sum(rate(portolan_events_lost_total{{{AGENTS}, class!~\"event|dns_answer\"}}[$__rate_interval])) or vector(0)) / (sum(rate(portolan_events_seen_total{{{AGENTS}}}[$__rate_interval])) > 0)"
        )).from(1e-6, "orange").from(limits.events_lost, "red"),
        Panel::number("Hooks missing", "Hooks that are not attached on some host; the table below lists them.", Unit::Count, 4, format!("sum(1 - portolan_hook_attached{{{AGENTS}}})")).from(1.0, "orange"),
        Panel::number("Unidentified processes", "Processes with sockets for which no source has a name yet.", Unit::Count, 5, format!("sum(portolan_unresolved_owners{{{AGENTS}}})")).from(1.0, "orange"),
        Panel::number("Identified connections", "Share of the connections whose two ends are both identified as services.", Unit::Ratio, 4, r#"avg(cluster:portolan_tcp_connects_named:ratio_rate5m{cluster=~"$cluster"})"#).else_("orange").from(limits.identified, "green"),
        Panel::number("Pre-existing", "Connections that were open when the agents started; they are counted from then on.", Unit::Count, 4, format!("sum(portolan_tcp_preexisting_connections_total{{{AGENTS}}}) or vector(0)")).else_("blue"),
    ]
}

fn events() -> Vec<Panel> {
    vec![
        Panel::lines("Kernel events", "Events per second that the kernel programs handled, by class, dropped ones included.", Unit::EventsPerSecond, 12)
            .query(format!("sum by (class) (rate(portolan_events_seen_total{{{AGENTS}}}[$__rate_interval]))"), "{{class}}"),
        Panel::lines("Events exported and dropped", "Events per second that are in the metrics, and those that are not, by reason. Seen = exported + dropped.", Unit::EventsPerSecond, 12)
            .query(format!("sum(rate(portolan_events_exported_total{{{AGENTS}}}[$__rate_interval]))"), "exported")
            .query(format!("sum by (class, reason) (rate(portolan_events_lost_total{{{AGENTS}}}[$__rate_interval])) > 0"), "dropped: {{class}}, {{reason}}")
            .query(format!("sum by (table) (rate(portolan_names_overflowed_total{{{AGENTS}}}[$__rate_interval])) > 0"), "counted as other: {{table}}")
            .query(format!("sum by (reason) (rate(portolan_reported_events_dropped_total{{{AGENTS}}}[$__rate_interval])) > 0"), "not reported: {{reason}}")
            .query(format!("sum(rate(portolan_history_steps_dropped_total{{{AGENTS}}}[$__rate_interval])) > 0"), "history: steps"),
    ]
}

fn hooks() -> Vec<Panel> {
    let column = |title, unit, bad_from, expr| Column { expr, title, unit, bad_from };
    let by = "instance, hook";
    vec![
        Panel::table(
            "Hooks",
            "Missing hooks first. Attached: 1, or 0 where the kernel of the host does not allow the hook. Runs and time per run need --run-stats. Skipped: runs that the kernel left out because the program was already running on that CPU.",
            24,
            &[("instance", "Agent"), ("hook", "Hook")],
            &[
                column("Attached", Unit::Count, None, format!("max by ({by}) (portolan_hook_attached{{{AGENTS}}})")),
                column("Runs", Unit::RunsPerSecond, None, format!("sum by ({by}) (rate(portolan_hook_runs_total{{{AGENTS}}}[$__rate_interval]))")),
                column("Time per run", Unit::Seconds, Some(5e-6), format!(
                    "sum by ({by}) (rate(portolan_hook_run_seconds_total{{{AGENTS}}}[$__rate_interval])) / (sum by ({by}) (rate(portolan_hook_runs_total{{{AGENTS}}}[$__rate_interval])) > 0)"
                )),
                column("Skipped", Unit::PerMinute, Some(0.06), format!("60 * sum by ({by}) (rate(portolan_hook_misses_total{{{AGENTS}}}[$__rate_interval]))")),
            ],
        )
        .least_first(),
    ]
}

fn names() -> Vec<Panel> {
    let column = |title, unit, bad_from, expr| Column { expr, title, unit, bad_from };
    let by = "instance, source";
    vec![Panel::table(
        "Name sources",
        "Up: 1, or 0 while the source fails; its last entries stay valid. A source that a host does not have is not listed.",
        24,
        &[("instance", "Agent"), ("source", "Source")],
        &[
            column(
                "Up",
                Unit::Count,
                None,
                format!("min by ({by}) (portolan_identity_source_up{{{AGENTS}}})"),
            ),
            column(
                "Entries",
                Unit::Count,
                None,
                format!("sum by ({by}) (portolan_identity_source_entries{{{AGENTS}}})"),
            ),
            column(
                "Lookups",
                Unit::PerMinute,
                None,
                format!(
                    "60 * sum by ({by}) (rate(portolan_identity_source_lookups_total{{{AGENTS}}}[$__rate_interval]))"
                ),
            ),
            column(
                "Errors",
                Unit::PerMinute,
                Some(0.06),
                format!(
                    "60 * sum by ({by}) (rate(portolan_identity_source_errors_total{{{AGENTS}}}[$__rate_interval]))"
                ),
            ),
        ],
    )
    .least_first()
    .or_else("no source configured")]
}

fn cost() -> Vec<Panel> {
    let rate =
        |metric: &str| format!("sum by (instance) (rate({metric}{{{AGENTS}}}[$__rate_interval]))");
    // Other exporters use these names too: select only agents.
    let ours = |expr: &str| format!("{expr} and on (instance) portolan_build_info{{{AGENTS}}}");
    vec![
        Panel::lines("CPU", "Share of one CPU: the agent process, the part of it that reads the kernel tables, and the kernel programs (with --run-stats).", Unit::Ratio, 6)
            .query(ours(&rate("process_cpu_seconds_total")), "{{instance}} agent")
            .query(rate("portolan_drain_duration_seconds_total"), "{{instance}} reading tables")
            .query(rate("portolan_hook_run_seconds_total"), "{{instance}} kernel programs"),
        Panel::lines("Memory", "Resident memory of the agents, and what is charged against the nearest memory limit.", Unit::Bytes, 6)
            .query(ours(&format!("sum by (instance) (process_resident_memory_bytes{{{AGENTS}}})")), "{{instance}}")
            .query(format!("max by (instance) (portolan_memory_used_bytes{{{AGENTS}}})"), "{{instance}} charged")
            .query(format!("min by (instance) (portolan_memory_limit_bytes{{{AGENTS}}})"), "{{instance}} limit"),
        Panel::lines("Kernel tables in use", "Rows in use as a share of the capacity; at 100 % new rows are counted as other.", Unit::Ratio, 6)
            .query(format!("max by (map) (portolan_map_entries{{{AGENTS}}} / (portolan_map_capacity{{{AGENTS}}} > 0))"), "{{map}}")
            .between(0.0, 1.0)
            .from(0.9, "red")
            .marked(),
        Panel::lines("Scrape duration", "Duration of a scrape, of a read of the kernel tables, and of a push.", Unit::Seconds, 6)
            .query(format!("max(portolan_scrape_duration_seconds{{{AGENTS}}})"), "scrape, slowest agent")
            .query(format!("{} / ({} > 0)", rate("portolan_drain_duration_seconds_total"), rate("portolan_drains_total")), "{{instance}} reading tables")
            .query(format!("max(portolan_otlp_push_duration_seconds{{{AGENTS}}})"), "push, slowest agent"),
        Panel::lines("OTLP pushes", "Pushes by result, where otlp.endpoint is set, and data points that the collector rejected. Counters are cumulative, so the next push makes up for one that failed.", Unit::Count, 12)
            .query(format!("sum by (result) (increase(portolan_otlp_pushes_total{{{AGENTS}}}[$__rate_interval])) > 0"), "{{result}}")
            .query(format!("sum(increase(portolan_otlp_rejected_points_total{{{AGENTS}}}[$__rate_interval])) > 0"), "rejected points")
            .or_else("no OTLP endpoint"),
        Panel::lines("Memory pressure", "Free rows that are withheld because memory is short, agents in overflow mode, which count new edges as other, and sockets that found no room in the table of sockets, which cost more.", Unit::Count, 12)
            .query(format!("max by (instance) (portolan_held_rows{{{AGENTS}}}) > 0"), "{{instance}} unused rows")
            .query(format!("max by (instance) (portolan_memory_overflow_mode{{{AGENTS}}}) > 0"), "{{instance}} in overflow mode")
            .query(format!("sum by (instance) (increase(portolan_memory_overflows_total{{{AGENTS}}}[$__rate_interval])) > 0"), "{{instance}} entered overflow mode")
            .query(format!("sum by (instance) (increase(portolan_sockets_spilled_total{{{AGENTS}}}[$__rate_interval])) > 0"), "{{instance}} sockets without room")
            .or_else("none"),
        Panel::lines("Lookups on the host", "Lookups of processes, namespaces and sockets by outcome, and threads that hang in one past its deadline. Failed ones are mostly processes that have ended.", Unit::Count, 12)
            .query(format!("sum by (kind, result) (increase(portolan_probes_total{{{AGENTS}, result!=\"ok\"}}[$__rate_interval])) > 0"), "{{kind}}: {{result}}")
            .query(format!("sum by (instance) (portolan_probes_stuck{{{AGENTS}}}) > 0"), "{{instance}} threads that hang")
            .or_else("none"),
        Panel::lines("Unverified events", "What users did within namespaces that they made, and can have made up there: in no other panel and no rule. trusted_users names the users of rootless container engines.", Unit::Count, 12)
            .query(format!("sum by (instance, user, kind) (increase(portolan_unverified_events_total{{{AGENTS}}}[$__rate_interval])) > 0"), "{{instance}} user {{user}}: {{kind}}")
            .or_else("none"),
    ]
}
