//! The properties of a machine that a figure depends on.

use std::fs;
use std::process::Command;

use portolan_kit::shell;

/// Name and value, in the order they are shown.
pub type Properties = Vec<(&'static str, String)>;

/// Everything that influences the figures; unavailable values are `unknown`.
pub fn describe() -> Properties {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    vec![
        ("processor", field("/proc/cpuinfo", "model name")),
        ("processors", processors.to_string()),
        ("memory", memory()),
        ("virtual machine", yes_or_no(field("/proc/cpuinfo", "flags").contains(" hypervisor"))),
        ("kernel", line("/proc/sys/kernel/osrelease")),
        ("indirect branches", line("/sys/devices/system/cpu/vulnerabilities/spectre_v2")),
        ("nginx", version(&mut Command::new("nginx"), "-v")),
        ("wrk", version(&mut Command::new("wrk"), "-v")),
        ("libbpf-tools", package("libbpf-tools")),
        ("bpftrace", version(&mut Command::new("bpftrace"), "--version")),
        ("commit", commit()),
    ]
}

fn line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    known(text.lines().next().map(str::trim))
}

/// The value of the first `name : value` line of a file.
fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    known(pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()))
}

fn memory() -> String {
    let total = field("/proc/meminfo", "MemTotal");
    let kib: Option<f64> = total.split(' ').next().and_then(|word| word.parse().ok());
    kib.map_or(total, |kib| format!("{:.0} GiB", kib / 1024.0 / 1024.0))
}

/// The first line of a program's version; nginx and wrk fail or use standard error.
fn version(command: &mut Command, flag: &str) -> String {
    let Ok(output) = command.arg(flag).output() else { return "not installed".to_owned() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    known(text.lines().find(|line| line.chars().any(|c| c.is_ascii_digit())).map(str::trim))
}

fn package(name: &str) -> String {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Version}", name]);
    known(shell::probe(&mut query).as_deref())
}

fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%h of %cs"]).current_dir(portolan_kit::tree::root());
    known(shell::probe(&mut git).as_deref().map(str::trim))
}

fn known(value: Option<&str>) -> String {
    value.filter(|value| !value.is_empty()).unwrap_or("unknown").to_owned()
}

fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}
