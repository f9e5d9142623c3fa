//! Builds the kernel programs and hands the object to the crate through `OUT_DIR`.

use aya_build::{Package, Toolchain, build_ebpf};

fn main() -> anyhow::Result<()> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    println!("cargo:rerun-if-changed={root}/agent-common/src");
    let root_dir = format!("{root}/agent-ebpf");
    // SAFETY: build scripts are single-threaded here.
    unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "aya_ebpf,agent_ebpf,portolan_ebpf") };
    build_ebpf([Package { name: "agent-ebpf", root_dir: &root_dir, ..Default::default() }], Toolchain::Custom("portolan-bpf"))
}
