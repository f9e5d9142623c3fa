//! Programs that are attached after the start, one row each.

use aya_obj::generated::bpf_attach_type;

/// A program that is attached after the start, as often as wanted; see [`super::attacher`].
#[derive(Debug)]
pub struct Later {
    /// The program in the object file.
    pub program: &'static str,
    /// What it is attached to.
    pub place: Place,
}

/// What a program is attached to after the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A cgroup: packets that its sockets receive.
    CgroupIngress,
    /// A function of a program file.
    Function,
}

/// All of them. They are loaded only if something asks for them ([`super::load::Options::later`]).
pub const LATER: &[Later] = &[
    Later { program: "probe_cgroup", place: Place::CgroupIngress },
    Later { program: "probe_function", place: Place::Function },
];

impl Place {
    /// How the kernel calls it, if it is a cgroup.
    pub fn cgroup_attach_type(self) -> Option<bpf_attach_type> {
        match self {
            Self::CgroupIngress => Some(bpf_attach_type::BPF_CGROUP_INET_INGRESS),
            Self::Function => None,
        }
    }
}
