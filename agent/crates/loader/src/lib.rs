//! The kernel half, seen from user space. The only crate that touches BPF.
//!
//! [`preflight`] says whether this host can run us and what to do if not; [`btf`] and
//! [`offsets`] find out what this kernel's structs look like; [`hooks`] lists what we attach and
//! what is lost without it, [`maps`] the tables; [`load`] brings it into the kernel; [`drain`]
//! reads what was counted, [`ports`] what the bind hooks did, both through [`slot_table`]; [`peers`]
//! looks up the client of a connection;
//! [`spare`] is the free rows; [`attacher`] attaches more while it runs, [`pins`] keeps it alive
//! across restarts when asked to; [`private`] checks whose the files are that it uses. [`bpf`] is the thin layer over bpf(2) for what aya does not
//! offer: batches, mmap, iterators over a map.

pub mod attacher;
pub mod bootstrap;
pub mod bpf;
pub mod btf;
pub mod drain;
mod drained;
pub mod enforcement;
mod histograms;
pub mod hooks;
pub mod later;
pub mod load;
pub mod mapped;
pub mod maps;
pub mod object;
pub mod offsets;
pub mod parts;
pub mod peers;
pub mod pins;
pub mod ports;
pub mod preflight;
pub mod private;
mod queues;
mod shares;
pub mod slot_table;
mod socket_table;
mod spare;
mod tcp_sock;
