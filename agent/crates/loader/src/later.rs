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
    /// A function of a program file.
    Function,
}

/// All of them. They are loaded only on request ([`super::load::Options::later`]).
pub const LATER: &[Later] = &[
    Later { program: "probe_cgroup", target: Target::CgroupIngress },
    Later { program: "probe_function", target: Target::Function },
];

impl Target {
    /// The kernel's attach type, for a cgroup.
    pub fn cgroup_attach_type(self) -> Option<bpf_attach_type> {
        match self {
            Self::CgroupIngress => Some(bpf_attach_type::BPF_CGROUP_INET_INGRESS),
            Self::Function => None,
        }
    }
}
