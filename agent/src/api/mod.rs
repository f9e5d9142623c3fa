//! What the agent answers over HTTP: metrics for Prometheus, JSON for programs, a page for people.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | Prometheus text, or OpenMetrics if asked |
//! | `/healthz`, `/-/healthy` | the process lives; says nothing about BPF |
//! | `/readyz`, `/-/ready` | there is a first snapshot |
//! | `/api/v1/…` | JSON, as `/api/v1/openapi.json` describes it ([`api_types::OPERATIONS`]) |
//! | `/` | a page with a live table |
//!
//! Nothing can be changed over the network: other methods than GET and HEAD are refused there.
//! Changes come through a Unix socket of this host ([`local`]).

pub mod convert;
#[cfg(test)]
mod golden;
pub mod local;
pub mod occupant;
mod routes;
mod server;
mod slots;
mod stream;
pub mod web;

pub use self::routes::{Api, router};
pub use self::server::{bind, serve};
pub use self::web::Web;
