//! The worst stall when a new row is inserted, from `agent/benches/insert.rs`: it times the
//! agent's own tables, without a kernel, as they grow to a million rows.

use anyhow::{Context as _, Result};
use portolan_kit::{build, shell};
use serde_json::Value;

/// The figures.
pub struct Insertion {
    /// Rows that were inserted.
    pub rows: u64,
    /// The worst in the table of rows, milliseconds.
    pub rows_ms: f64,
    /// The worst in the table of relations, milliseconds.
    pub relations_ms: f64,
    /// The worst in a family of `prometheus-client`, milliseconds.
    pub family_ms: f64,
    /// A collection of this many known rows, seconds.
    pub drain_seconds: f64,
}

/// Measures them.
pub fn measure() -> Result<Insertion> {
    let mut cargo = shell::cargo();
    cargo.args(["bench", "--quiet", "--package", "agent", "--bench", "insert"]);
    let output = shell::output(cargo.args(build::locked()))?;
    figures(&output)
        .with_context(|| format!("unexpected output of the benchmark of insertions:\n{output}"))
}

fn figures(output: &str) -> Option<Insertion> {
    let line = output.lines().find(|line| line.starts_with('{'))?;
    let figures: Value = serde_json::from_str(line).ok()?;
    let number = |name: &str| figures[name].as_f64();
    Some(Insertion {
        rows: figures["rows"].as_u64()?,
        rows_ms: number("rows_worst_ns")? / 1e6,
        relations_ms: number("relations_worst_ns")? / 1e6,
        family_ms: number("prometheus_client_worst_ns")? / 1e6,
        drain_seconds: number("drain_seconds")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_benchmark_prints_its_figures() {
        let output = "warning: x\n{\"rows\": 10, \"rows_worst_ns\": 2500000, \
                      \"relations_worst_ns\": 1, \"prometheus_client_worst_ns\": 4, \
                      \"drain_seconds\": 0.5}\n";
        let Insertion { rows, rows_ms, drain_seconds, .. } = figures(output).unwrap();
        assert_eq!((rows, rows_ms, drain_seconds), (10, 2.5, 0.5));
        assert!(figures("nothing").is_none());
    }
}
