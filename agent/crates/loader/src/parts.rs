//! Parts of hooks that can be left out without leaving out the hook.

use agent_common::config::Config;

/// A part of a hook that a constant of the configuration switches off. The verifier prunes it then,
/// so there is no second program: where the kernel refuses a hook, it is tried without its parts.
#[derive(Debug)]
pub struct Part {
    /// As it is masked: `part:NAME`.
    pub name: &'static str,
    /// The hook it is a part of.
    pub hook: &'static str,
    /// Kernel fields that it reads, beside those of the hook.
    pub fields: &'static [&'static str],
    /// Whether a configuration has it.
    pub is_on: fn(&Config) -> bool,
    /// Takes it out of a configuration.
    pub leave_out: fn(&mut Config),
    /// What nobody will see without it, as the operator knows it.
    pub lost_without: &'static str,
}

/// Answers of DNS servers, read where data becomes ready.
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
    lost_without: "names that programs asked DNS servers for",
};

/// All parts.
pub const PARTS: &[Part] = &[DNS_ANSWERS];
