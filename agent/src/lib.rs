//! Portolan's agent: the kernel counts, the agent identifies, Prometheus stores.
//!
//! This package only composes the crates below `agent/crates`: `loader`
//! (BPF), `linux` (procfs, namespaces, sock_diag), `discovery` (which service is it?), `model` (rows
//! and totals), `telemetry` (metrics), `api-types` (the API's JSON), `server` (HTTP), `cli`
//! (commands for a running agent). [`pipeline`] is the only module that knows every stage.

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
