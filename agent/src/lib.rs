//! Portolan's daemon: the kernel counts, the agent names, Prometheus remembers, people see.
//!
//! This package only composes. What it composes is below `agent/crates`, one concern each: `loader`
//! (BPF), `linux` (procfs, namespaces, sock_diag), `discovery` (which service is it?), `model` (rows
//! and totals), `telemetry` (metrics), `api-types` (the API's JSON), `server` (HTTP), `cli`
//! (commands that ask a running agent). [`pipeline`] is the only module that knows every stage.

#![cfg_attr(not(test), forbid(unsafe_code))]

pub mod commands;
pub mod config;
mod control;
pub mod occupant;
pub mod pipeline;
pub mod privileges;
pub mod state;
#[cfg(test)]
mod tests;
