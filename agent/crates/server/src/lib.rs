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
//! Changes come through a Unix socket of this host ([`local`]). What the server needs of the agent's
//! state ([`Changes`]) and of `/proc` comes in from outside.

#![forbid(unsafe_code)]

pub mod convert;
pub mod local;
mod routes;
mod serve;
mod slots;
mod stream;
pub mod web;

pub use self::local::{Caller, Changes, Refused};
pub use self::routes::{Api, paths, router};
pub use self::serve::{bind, serve};
pub use self::web::Web;
