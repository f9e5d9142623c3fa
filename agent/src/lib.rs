//! Portolan's daemon: the kernel counts, the agent names, Prometheus remembers, people see.
//!
//! Data flows one way: [`kernel`] → [`decode`] → [`identity`] → [`model`] → [`export`], [`api`]
//! and [`cli`]. [`model`] imports nothing of ours but the contract; [`kernel`] is the only module
//! that touches BPF, [`export`] the only one that knows the formats of metrics, [`pipeline`] the only
//! one that knows every stage.

pub mod api;
pub mod cli;
pub mod config;
pub mod decode;
pub mod export;
#[doc(hidden)]
pub mod foreign;
pub mod identity;
pub mod kernel;
pub mod model;
pub mod pipeline;
pub mod privileges;
pub mod push;
pub mod sockets;
pub mod state;
