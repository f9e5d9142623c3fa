//! The agent's HTTP endpoints: metrics for Prometheus, JSON for programs, a web page.
//!
//! | path | response |
//! |---|---|
//! | `/metrics` | Prometheus text, or OpenMetrics on request |
//! | `/healthz`, `/-/healthy` | liveness of the process; independent of BPF |
//! | `/readyz`, `/-/ready` | the first snapshot exists |
//! | `/api/v1/…` | JSON, as `/api/v1/openapi.json` describes it ([`api_types::OPERATIONS`]) |
//! | `/` | a page with a live table |
//!
//! The network is read-only: methods other than GET and HEAD are refused, but for the question of
//! Envoy, which is a POST. Changes come through a
//! Unix socket of this host ([`local`]). Access to the agent's state ([`Changes`]) and to `/proc`
//! is passed in.

#![forbid(unsafe_code)]

pub mod convert;
pub mod local;
pub mod relay;
mod routes;
mod serve;
mod slots;
mod stream;
pub mod web;

pub use self::local::{Caller, Changes, Refused};
pub use self::routes::{Api, paths, router};
pub use self::serve::{bind, serve};
pub use self::web::{Endpoint, Web};
