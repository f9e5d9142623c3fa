//! Kernel modules that the tests need and a cloud kernel does not have built in, in the order in
//! which they can be loaded: nothing in the machine loads them on demand.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use portolan_kit::shell;

use crate::kernels::find_file;

/// Modules that the tests use; one that is built in has no file.
const WANTED: [&str; 28] = [
    "veth",
    "dummy",
    "bridge",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "unix_diag",
    "netlink_diag",
    "af_packet_diag",
    "nfnetlink",
    "nf_tables",
    "nft_counter",
    "nft_ct",
    "nft_limit",
    "nft_numgen",
    "nft_quota",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "nft_chain_nat",
    "nft_nat",
    "nft_redir",
    "nft_masq",
    "sch_tbf",
    "sch_htb",
    "sch_netem",
    "sch_ingress",
    "tls",
];

/// A module, ready to be loaded.
pub struct Module {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// The requested modules of a kernel and their dependencies, in load order.
pub fn in_order(kernel: &Path) -> Result<Vec<Module>> {
    let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
    for name in WANTED {
        add(kernel, name, &mut order, &mut seen)?;
    }
    Ok(order)
}

fn add(
    kernel: &Path,
    name: &str,
    order: &mut Vec<Module>,
    seen: &mut BTreeSet<String>,
) -> Result<()> {
    if !seen.insert(name.to_owned()) {
        return Ok(());
    }
    // A file name may have - where the module's name has _.
    let file = [name.to_owned(), name.replace('_', "-")]
        .iter()
        .find_map(|name| find_file(kernel, &format!("{name}.ko")));
    let Some(file) = file else { return Ok(()) };
    let bytes = read(&file)?;
    for needed in needs(&bytes) {
        add(kernel, &needed, order, seen)?;
    }
    order.push(Module { name: name.to_owned(), bytes });
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|kind| kind.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(file).with_context(|| format!("reading {}", file.display())),
    };
    let mut unpack = Command::new(program);
    unpack.args(["--decompress", "--stdout"]).arg(file);
    let output =
        unpack.output().with_context(|| format!("starting `{}`", shell::name_of(&unpack)))?;
    anyhow::ensure!(output.status.success(), "`{program}` cannot unpack {}", file.display());
    Ok(output.stdout)
}

/// The dependencies of a module, from its `.modinfo`.
fn needs(module: &[u8]) -> Vec<String> {
    let key = b"depends=";
    let at = module
        .windows(key.len() + 1)
        .position(|window| window.first() == Some(&0) && window.get(1..) == Some(key.as_slice()));
    let Some(rest) = at.and_then(|at| module.get(at + 1 + key.len()..)) else { return Vec::new() };
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let text = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_its_dependencies() {
        assert_eq!(
            needs(b"ELF\0license=GPL\0depends=nf_tables,x_tables\0name=a\0"),
            ["nf_tables", "x_tables"]
        );
        assert_eq!(needs(b"ELF\0depends=\0"), [""; 0]);
        assert_eq!(needs(b"no such thing"), [""; 0]);
    }

    #[test]
    fn those_needed_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| {
            fs::write(folder.path().join(name), text).unwrap();
        };
        write("veth.ko", b"\0depends=nf-low\0");
        write("nf-low.ko", b"\0depends=\0");
        let order = in_order(folder.path()).unwrap();
        let names: Vec<&str> = order.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["nf-low", "veth"]);
    }
}
