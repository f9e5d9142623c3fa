//! Programs that are attached after the start, one row each.

use aya_obj::generated::bpf_attach_type;

/// A program that is attached after startup, any number of times; see [`super::attacher`].
#[derive(Debug)]
pub struct Later {
    /// The program in the object file.
    pub program: &'static str,
    /// The kind of its target.
    pub target: Target,
}

/// The kind of target of a program that is attached after startup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A cgroup: packets that its sockets receive.
    CgroupIngress,
    /// A cgroup: packets that its sockets send.
    CgroupEgress,
    /// A function of a program file.
    Function,
}

/// All of them. They are loaded only on request ([`super::load::Options::later`]).
pub const LATER: &[Later] = &[
    Later { program: "probe_cgroup", target: Target::CgroupIngress },
    Later { program: "probe_function", target: Target::Function },
    Later { program: WALKS[0], target: Target::CgroupIngress },
    Later { program: WALKS[1], target: Target::CgroupEgress },
];

/// What walks through the packets of a service's cgroup: those that it receives, and those that it sends.
pub const WALKS: [&str; 2] = ["walk_in", "walk_out"];

impl Target {
    /// The kernel's attach type, for a cgroup.
    pub fn cgroup_attach_type(self) -> Option<bpf_attach_type> {
        match self {
            Self::CgroupIngress => Some(bpf_attach_type::BPF_CGROUP_INET_INGRESS),
            Self::CgroupEgress => Some(bpf_attach_type::BPF_CGROUP_INET_EGRESS),
            Self::Function => None,
        }
    }
}
