//! Agent: what does it cost, what does it lose, what does it not see?

use super::super::board::{Board, Row};
use super::super::limits::Limits;
use super::super::panel::{Column, Panel, Unit};
use super::{CLUSTER, INSTANCE};

const AGENTS: &str = r#"cluster=~"$cluster", instance=~"$instance""#;

pub fn board(limits: &Limits) -> Board {
    Board {
        uid: "portolan-agent",
        title: "Portolan / Agent",
        description: "What do the agents cost, what do they lose, and what do they not see?",
        variables: vec![CLUSTER, INSTANCE],
        explore: "rate(portolan_events_lost_total[5m]) > 0",
        rows: vec![
            Row { title: "Coverage and loss", height: 5, panels: coverage(limits) },
            Row { title: "What is seen", height: 11, panels: seen() },
            Row { title: "Names", height: 6, panels: names() },
            Row { title: "What it costs", height: 8, panels: cost() },
        ],
    }
}

fn coverage(limits: &Limits) -> Vec<Panel> {
    vec![
        Panel::number("Agents", "Agents that Prometheus gets answers from.", Unit::Count, 4, format!("count(portolan_build_info{{{AGENTS}}}) or vector(0)")).else_("red").from(1.0, "green"),
        Panel::number("Facts lost", "Share of the facts that the kernel programs met and that did not arrive under a name of their own, without the details for the log.", Unit::Ratio, 4, format!(
            "(sum(rate(portolan_events_lost_total{{{AGENTS}, class!~\"event|dns_answer\"}}[$__rate_interval])) or vector(0)) / (sum(rate(portolan_events_seen_total{{{AGENTS}}}[$__rate_interval])) > 0)"
        )).from(1e-6, "orange").from(limits.events_lost, "red"),
        Panel::number("Hooks missing", "Hooks that some host does not allow; the table below names them.", Unit::Count, 4, format!("sum(1 - portolan_hook_attached{{{AGENTS}}})")).from(1.0, "orange"),
        Panel::number("Without a name", "Owners of sockets for which no source has a name yet.", Unit::Count, 4, format!("sum(portolan_unresolved_owners{{{AGENTS}}})")).from(1.0, "orange"),
        Panel::number("Named", "Share of the connections of which both ends have a service's name.", Unit::Ratio, 4, r#"avg(cluster:portolan_tcp_connects_named:ratio_rate5m{cluster=~"$cluster"})"#).else_("orange").from(limits.identified, "green"),
        Panel::number("Pre-existing", "Connections that were there before the agents and were taken over, counted from then on.", Unit::Count, 4, format!("sum(portolan_tcp_preexisting_connections_total{{{AGENTS}}}) or vector(0)")).else_("blue"),
    ]
}

fn seen() -> Vec<Panel> {
    let column = |title, unit, bad_from, expr| Column { expr, title, unit, bad_from };
    let by = "instance, hook";
    vec![
        Panel::lines("Facts met in the kernel", "A second, by class: what the programs met, lost or not.", Unit::FactsPerSecond, 6)
            .query(format!("sum by (class) (rate(portolan_events_seen_total{{{AGENTS}}}[$__rate_interval]))"), "{{class}}"),
        Panel::lines("Facts exported and lost", "A second: what arrived in the tables, and what did not and why. Seen = exported + lost.", Unit::FactsPerSecond, 6)
            .query(format!("sum(rate(portolan_events_exported_total{{{AGENTS}}}[$__rate_interval]))"), "exported")
            .query(format!("sum by (class, reason) (rate(portolan_events_lost_total{{{AGENTS}}}[$__rate_interval])) > 0"), "lost: {{class}}, {{reason}}")
            .query(format!("sum by (table) (rate(portolan_names_folded_total{{{AGENTS}}}[$__rate_interval])) > 0"), "name folded: {{table}}"),
        Panel::table(
            "Hooks",
            "What is missing first. Attached: 1, or 0 where the host does not allow it. Runs and time only with --run-stats. Skipped: runs that the kernel left out because the program was already running on that CPU.",
            12,
            &[("instance", "Agent"), ("hook", "Hook")],
            &[
                column("Attached", Unit::Count, None, format!("max by ({by}) (portolan_hook_attached{{{AGENTS}}})")),
                column("Runs", Unit::FactsPerSecond, None, format!("sum by ({by}) (rate(portolan_hook_runs_total{{{AGENTS}}}[$__rate_interval]))")),
                column("Per run", Unit::Seconds, Some(5e-6), format!(
                    "sum by ({by}) (rate(portolan_hook_run_seconds_total{{{AGENTS}}}[$__rate_interval])) / (sum by ({by}) (rate(portolan_hook_runs_total{{{AGENTS}}}[$__rate_interval])) > 0)"
                )),
                column("Skipped", Unit::PerSecond, Some(1e-3), format!("sum by ({by}) (rate(portolan_hook_misses_total{{{AGENTS}}}[$__rate_interval]))")),
            ],
        )
        .least_first()
        .wide("Hook", 170),
    ]
}

fn names() -> Vec<Panel> {
    let column = |title, unit, bad_from, expr| Column { expr, title, unit, bad_from };
    let by = "instance, source";
    vec![Panel::table(
        "Sources of names",
        "Answers: 1, or 0 while the source fails; what it told last stays. One that is not on a host is not listed.",
        24,
        &[("instance", "Agent"), ("source", "Source")],
        &[
            column(
                "Answers",
                Unit::Count,
                None,
                format!("min by ({by}) (portolan_identity_source_up{{{AGENTS}}})"),
            ),
            column(
                "Has told of",
                Unit::Count,
                None,
                format!("sum by ({by}) (portolan_identity_source_entries{{{AGENTS}}})"),
            ),
            column(
                "Asked",
                Unit::PerSecond,
                None,
                format!(
                    "sum by ({by}) (rate(portolan_identity_source_lookups_total{{{AGENTS}}}[$__rate_interval]))"
                ),
            ),
            column(
                "Failed",
                Unit::PerSecond,
                Some(1e-3),
                format!(
                    "sum by ({by}) (rate(portolan_identity_source_errors_total{{{AGENTS}}}[$__rate_interval]))"
                ),
            ),
        ],
    )
    .least_first()
    .or_else("none but the programs themselves")]
}

fn cost() -> Vec<Panel> {
    let rate =
        |metric: &str| format!("sum by (instance) (rate({metric}{{{AGENTS}}}[$__rate_interval]))");
    // Other programs export these names too: only those that are agents.
    let ours = |expr: &str| format!("{expr} and on (instance) portolan_build_info{{{AGENTS}}}");
    vec![
        Panel::lines("Processors", "Share of one processor: the agent's own time, its reading of the kernel's tables, and its kernel programs (with --run-stats).", Unit::Ratio, 6)
            .query(ours(&rate("process_cpu_seconds_total")), "{{instance}} agent")
            .query(rate("portolan_drain_duration_seconds_total"), "{{instance}} reading tables")
            .query(rate("portolan_hook_run_seconds_total"), "{{instance}} kernel programs"),
        Panel::lines("Memory", "Resident memory of the agents, and what counts against the nearest limit.", Unit::Bytes, 6)
            .query(ours(&format!("sum by (instance) (process_resident_memory_bytes{{{AGENTS}}})")), "{{instance}}")
            .query(format!("max by (instance) (portolan_memory_used_bytes{{{AGENTS}}})"), "{{instance}} counts")
            .query(format!("min by (instance) (portolan_memory_limit_bytes{{{AGENTS}}})"), "{{instance}} limit"),
        Panel::lines("Kernel tables in use", "Rows in use as a share of those there are; at 100 % what is new is counted as `other`.", Unit::Ratio, 6)
            .query(format!("max by (map) (portolan_map_entries{{{AGENTS}}} / (portolan_map_capacity{{{AGENTS}}} > 0))"), "{{map}}")
            .between(0.0, 1.0)
            .from(0.9, "red")
            .marked(),
        Panel::lines("Time to answer", "How long a scrape takes, and how long each reading of the kernel's tables.", Unit::Seconds, 6)
            .query(format!("max(portolan_scrape_duration_seconds{{{AGENTS}}})"), "scrape, slowest agent")
            .query(format!("{} / ({} > 0)", rate("portolan_drain_duration_seconds_total"), rate("portolan_drains_total")), "{{instance}} reading tables")
            .query(format!("max(portolan_otlp_push_duration_seconds{{{AGENTS}}})"), "push, slowest agent"),
        Panel::lines("Pushes to a collector", "Pushes by what became of them, where otlp.endpoint is set, and data points that were rejected. A push that fails is made up for by the next.", Unit::Count, 12)
            .query(format!("sum by (result) (increase(portolan_otlp_pushes_total{{{AGENTS}}}[$__rate_interval])) > 0"), "{{result}}")
            .query(format!("sum(increase(portolan_otlp_rejected_points_total{{{AGENTS}}}[$__rate_interval])) > 0"), "rejected points")
            .or_else("nothing is pushed"),
        Panel::lines("Short of memory", "Free rows that are kept back for want of memory, and where every new edge is counted as `other` for it.", Unit::Count, 12)
            .query(format!("max by (instance) (portolan_held_rows{{{AGENTS}}}) > 0"), "{{instance}} rows kept back")
            .query(format!("max by (instance) (portolan_memory_folding{{{AGENTS}}}) > 0"), "{{instance}} folding")
            .query(format!("sum by (instance) (increase(portolan_memory_foldings_total{{{AGENTS}}}[$__rate_interval])) > 0"), "{{instance}} began to fold")
            .or_else("none"),
    ]
}
