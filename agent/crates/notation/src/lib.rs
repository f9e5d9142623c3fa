//! Text formats: durations, ports, names of services, endpoints and their checks, filters, YAML files. The command
//! line, the configuration, the API and the state file share this one grammar without depending on
//! each other.

#![forbid(unsafe_code)]

pub mod character;
mod check;
pub mod duration;
mod endpoint;
mod environment;
pub mod filter;
mod full_name;
mod nearest;
mod port;
mod text;
pub mod yaml;

pub use self::check::{Check, Path};
pub use self::endpoint::Endpoint;
pub use self::environment::Environment;
pub use self::full_name::FullName;
pub use self::nearest::nearest;
pub use self::port::{Port, Protocol};
