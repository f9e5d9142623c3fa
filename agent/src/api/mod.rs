//! What the agent answers over HTTP: metrics for Prometheus, JSON for programs, a page for people.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | Prometheus text, or OpenMetrics if asked |
//! | `/healthz`, `/-/healthy` | the process lives; says nothing about BPF |
//! | `/readyz`, `/-/ready` | there is a first snapshot |
//! | `/api/v1/status` | hooks, what is off and why, loss, tables ([`shapes::Status`]) |
//! | `/api/v1/edges` | edges ([`shapes::Edges`]); `?role=`, `?service=`, `?port=` |
//! | `/api/v1/ports` | who has which port ([`ports::Ports`]); `?port=`, `?protocol=` |
//! | `/api/v1/conflicts` | ports that somebody wanted and did not get ([`ports::Conflicts`]); `?since=`, `?port=` |
//! | `/api/v1/listeners` | listening sockets ([`shapes::Listeners`]) |
//! | `/api/v1/reservations` | ports kept for services, and who does not keep to it |
//! | `/api/v1/services` | services, where they are, and their health; `?service=` |
//! | `/api/v1/map` | the graph of services ([`relations::Map`]); `?window=`, `?service=` |
//! | `/api/v1/balance` | shares of backends ([`relations::Balance`]); `?window=`, `?service=` |
//! | `/api/v1/segments` | declared and seen ([`relations::Segments`]) |
//! | `/` | a page with a live table |
//!
//! Nothing can be changed over the network: other methods than GET and HEAD are refused there.
//! Changes come through a Unix socket of this host ([`local`]).

#[cfg(test)]
mod golden;
pub mod kept;
pub mod local;
pub mod occupant;
pub mod ports;
pub mod relations;
mod routes;
mod server;
pub mod shapes;
mod slots;
mod stream;
pub mod web;

pub use self::routes::{Api, router};
pub use self::server::{bind, serve};
pub use self::web::Web;
