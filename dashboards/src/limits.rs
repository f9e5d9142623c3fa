//! The limits that panels draw: each is read from the alert or the objective that states it.

use anyhow::{Context as _, Result};

use super::promql::{constant, limit, parse};
use super::rules::RuleFile;

/// From where on a value is bad.
pub struct Limits {
    /// The default latency objective, in seconds.
    pub latency: f64,
    /// The share of connects that may fail.
    pub connect_failures: f64,
    /// How many times too fast the error budget is spent when someone is paged.
    pub burn_rate: f64,
    /// Failed connects per minute.
    pub failed_connects: f64,
    /// Share of the segments that are retransmitted.
    pub retransmits: f64,
    /// Resets per minute.
    pub resets: f64,
    /// Share of the local ports in use.
    pub local_ports: f64,
    /// Share of the connections that can be tracked.
    pub conntrack: f64,
    /// Tolerated deviation of a backend's share.
    pub imbalance: f64,
    /// Share of the connections whose two ends are identified.
    pub identified: f64,
    /// Share of the events that are lost.
    pub events_lost: f64,
}

impl Limits {
    /// Reads them from the rules.
    pub fn of(files: &[RuleFile]) -> Result<Self> {
        let alert = |name: &str, series: &str| {
            let mut rules = files.iter().flat_map(RuleFile::rules);
            let rule = rules.find(|rule| rule.alert.as_deref() == Some(name));
            let rule = rule.with_context(|| format!("no alert is called {name}"))?;
            limit(&parse(&rule.expr)?, series).with_context(|| {
                format!("{name} has to compare {series} with a number: panels draw that limit")
            })
        };
        let failures =
            |window: &str| format!("pair:portolan_tcp_connects_failures:ratio_rate{window}");
        let connect_failures = alert("PortolanConnectBudgetBurnSlow", &failures("3d"))?;
        let paged = alert("PortolanConnectBudgetBurnFast", &failures("1h"))?;
        Ok(Self {
            latency: latency_objective(files)?,
            connect_failures,
            burn_rate: rounded(paged / connect_failures),
            failed_connects: alert(
                "PortolanConnectionsRefused",
                "edge:portolan_tcp_connects:rate5m",
            )?,
            retransmits: alert(
                "PortolanRetransmitsHigh",
                "edge:portolan_tcp_retransmits:ratio_rate5m",
            )?,
            resets: alert("PortolanResetStorm", "edge:portolan_tcp_resets:rate5m")?,
            local_ports: alert("PortolanLocalPortsLow", "portolan_ephemeral_ports_used_ratio")?,
            conntrack: alert("PortolanConntrackNearlyFull", "portolan_conntrack_used_ratio")?,
            imbalance: alert(
                "PortolanUnevenBalance",
                "edge:portolan_backend_requests:deviation_5m",
            )?,
            identified: alert(
                "PortolanCoverageLow",
                "cluster:portolan_tcp_connects_named:ratio_rate5m",
            )?,
            events_lost: alert("PortolanEventsLost", "portolan_events_lost_total")?,
        })
    }
}

/// The default objective.
fn latency_objective(files: &[RuleFile]) -> Result<f64> {
    const SERIES: &str = "portolan:latency_objective:seconds";
    let mut rules = files.iter().flat_map(RuleFile::rules);
    let default = rules
        .find(|rule| rule.record.as_deref() == Some(SERIES) && rule.labels.is_empty())
        .with_context(|| format!("no rule records {SERIES} without labels, the default"))?;
    constant(&parse(&default.expr)?).with_context(|| format!("{SERIES} is not a number"))
}

/// Without the noise of binary fractions: 14.4 * 0.001 / 0.001 is 14.4.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
