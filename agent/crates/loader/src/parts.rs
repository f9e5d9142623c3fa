//! Parts of hooks that can be left out without leaving out the hook.

use agent_common::config::Config;

/// A part of a hook that a constant of the configuration disables. The verifier prunes it, so there
/// is no second program: where the kernel refuses a hook, it is tried without its parts.
#[derive(Debug)]
pub struct Part {
    /// Its name to disable it: `part:NAME`.
    pub name: &'static str,
    /// Its hook.
    pub hook: &'static str,
    /// Kernel fields that it reads, beside those of the hook.
    pub fields: &'static [&'static str],
    /// Whether a configuration has it.
    pub is_on: fn(&Config) -> bool,
    /// Takes it out of a configuration.
    pub leave_out: fn(&mut Config),
    /// What is not observed without it, in the operator's terms.
    pub lost_without: &'static str,
}

/// DNS answers, read when data becomes ready.
pub const DNS_ANSWERS: Part = Part {
    name: "dns_answers",
    hook: "sk_data_ready",
    fields: &[
        "family",
        "protocol",
        "dport",
        "net",
        "net_inum",
        "newest_packet",
        "waiting_packets",
        "skb_prev",
        "skb_head",
        "skb_tail",
        "skb_transport_header",
    ],
    is_on: |config| config.dns == 1,
    leave_out: |config| config.dns = 0,
    lost_without: "names that programs resolve by DNS",
};

/// All parts.
pub const PARTS: &[Part] = &[DNS_ANSWERS];
