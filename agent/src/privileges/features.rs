//! The table: which feature needs which capability, when, why, and what is missing without it.
//!
//! `portolan agent --show-privileges`, the capabilities dropped after startup, the error of an
//! agent with too few, and the check of the manifests in `deploy/` all use it.

use serde::Serialize;

use super::host::Host;
use crate::config::Config;
use linux::capability::Capability;

/// A feature of the agent that may need capabilities.
#[derive(Debug)]
pub struct Feature {
    /// Its name, as in the documentation.
    pub name: &'static str,
    /// Whether the configuration enables it.
    pub wanted: fn(&Config) -> bool,
    /// The capabilities that it needs.
    pub needs: &'static [Need],
}

/// One capability that a feature needs.
#[derive(Debug)]
pub struct Need {
    /// Which.
    pub capability: Capability,
    /// For how long.
    pub span: Span,
    /// On which hosts.
    pub on: fn(&Host) -> bool,
    /// The kernel check that requires it.
    pub why: &'static str,
    /// What is missing without it.
    pub lost_without: Lost,
}

/// For how long a capability is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// Until everything is attached and the pre-existing sockets are adopted.
    Start,
    /// As long as the agent runs.
    Always,
}

/// What is missing without a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The agent does not start.
    Everything,
    /// This.
    Only(&'static str),
}

const EVERYWHERE: fn(&Host) -> bool = |_| true;

/// Whether something is attached after startup (`loader/attacher.rs`): its capabilities and system calls
/// are kept.
pub fn attaches_later(config: &Config) -> bool {
    !config.protocols.services.is_empty()
}

/// The table.
pub const FEATURES: &[Feature] = &[
    Feature {
        name: "kernel tables and hooks",
        wanted: |_| true,
        needs: &[
            Need {
                capability: Capability::Bpf,
                span: Span::Start,
                on: EVERYWHERE,
                why: "creating maps and loading programs (bpf_capable in kernel/bpf/syscall.c)",
                lost_without: Lost::Everything,
            },
            Need {
                capability: Capability::Perfmon,
                span: Span::Start,
                on: EVERYWHERE,
                why: "programs that trace the kernel and read its memory (perfmon_capable in bpf_prog_load)",
                lost_without: Lost::Everything,
            },
            Need {
                capability: Capability::Bpf,
                span: Span::Always,
                on: |host| host.kernel < (5, 19) && host.bpf_restricted,
                why: "before Linux 5.19 every bpf(2) call takes it while kernel.unprivileged_bpf_disabled is set; later, maps that are open are read and written without",
                lost_without: Lost::Everything,
            },
        ],
    },
    Feature {
        name: "pre-existing sockets",
        wanted: |_| true,
        needs: &[
            Need {
                capability: Capability::SysAdmin,
                span: Span::Start,
                on: EVERYWHERE,
                why: "entering other network namespaces (setns, net/core/net_namespace.c)",
                lost_without: Lost::Only(
                    "pre-existing connections and listeners in other network namespaces",
                ),
            },
            Need {
                capability: Capability::SysPtrace,
                span: Span::Start,
                on: EVERYWHERE,
                why: "/proc/PID/ns and /proc/PID/fd of other processes (ptrace_may_access, kernel/ptrace.c)",
                lost_without: Lost::Only("owners of pre-existing connections and listeners"),
            },
            Need {
                capability: Capability::DacReadSearch,
                span: Span::Start,
                on: EVERYWHERE,
                why: "/proc/PID/fd of other users' processes (mode 0500)",
                lost_without: Lost::Only(
                    "owners of pre-existing connections and listeners of other users",
                ),
            },
        ],
    },
    Feature {
        name: "addresses of containers on this host",
        wanted: |_| true,
        needs: &[Need {
            capability: Capability::SysPtrace,
            span: Span::Always,
            on: EVERYWHERE,
            why: "which network namespace a process is in: /proc/PID/ns/net (ptrace_may_access, kernel/ptrace.c); the addresses are then in /proc/PID/net, which is world-readable",
            lost_without: Lost::Only(
                "names for connections between network namespaces of this host: they show addresses",
            ),
        }],
    },
    Feature {
        name: "failed binds",
        wanted: |_| true,
        needs: &[
            Need {
                capability: Capability::NetAdmin,
                span: Span::Start,
                on: EVERYWHERE,
                why: "programs for cgroups (is_net_admin_prog_type, kernel/bpf/syscall.c)",
                lost_without: Lost::Only("failed binds, port conflicts"),
            },
            Need {
                capability: Capability::SysPtrace,
                span: Span::Always,
                on: EVERYWHERE,
                why: "which process holds a port: /proc/PID/fd (ptrace_may_access, kernel/ptrace.c)",
                lost_without: Lost::Only("the process that holds a port for which a bind failed"),
            },
            Need {
                capability: Capability::DacReadSearch,
                span: Span::Always,
                on: EVERYWHERE,
                why: "/proc/PID/fd of other users' processes (mode 0500)",
                lost_without: Lost::Only(
                    "the process that holds a port for which a bind failed, if it belongs to another user",
                ),
            },
        ],
    },
    Feature {
        name: "translated addresses (names.conntrack)",
        wanted: |config| config.names.conntrack,
        needs: &[Need {
            capability: Capability::NetAdmin,
            span: Span::Always,
            on: EVERYWHERE,
            why: "listing tracked connections (netlink_net_capable in nfnetlink_rcv, net/netfilter/nfnetlink.c)",
            lost_without: Lost::Only(
                "the backends behind the address of a Service or a published port",
            ),
        }],
    },
    Feature {
        name: "entering network namespaces while it runs (enter_namespaces)",
        wanted: |config| config.enter_namespaces,
        needs: &[Need {
            capability: Capability::SysAdmin,
            span: Span::Always,
            on: EVERYWHERE,
            why: "setns to another network namespace (netns_install, net/core/net_namespace.c); of all that CAP_SYS_ADMIN allows, the list of system calls leaves little more than this",
            lost_without: Lost::Only(
                "in other network namespaces: holders of ports, reasons of failed binds and refused connects, translated addresses, full connection tracking, drops of interfaces; and address changes in namespaces without a process",
            ),
        }],
    },
    Feature {
        name: "operations of chosen services (protocols.services)",
        wanted: attaches_later,
        needs: &[Need {
            capability: Capability::NetAdmin,
            span: Span::Always,
            on: EVERYWHERE,
            why: "linking a program to the packets of a cgroup (bpf_prog_attach_check_attach_type, kernel/bpf/syscall.c)",
            lost_without: Lost::Only(
                "operations of services in protocols.services: methods, statuses and durations of their requests",
            ),
        }],
    },
    Feature {
        name: "attaching to functions of programs while it runs",
        // No setting does so yet.
        wanted: |_| false,
        needs: &[Need {
            capability: Capability::SysAdmin,
            span: Span::Always,
            on: EVERYWHERE,
            why: "uprobes (perf_uprobe_event_init, kernel/events/core.c); CAP_PERFMON is not enough",
            lost_without: Lost::Only("data read at functions of programs and libraries"),
        }],
    },
    Feature {
        name: "the kernel's timing of our programs (run_stats)",
        wanted: |config| config.run_stats,
        needs: &[Need {
            capability: Capability::SysAdmin,
            span: Span::Start,
            on: EVERYWHERE,
            why: "BPF_ENABLE_STATS (bpf_enable_stats, kernel/bpf/syscall.c)",
            lost_without: Lost::Everything,
        }],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_names_its_check_and_no_feature_comes_twice() {
        let mut names: Vec<&str> = FEATURES.iter().map(|feature| feature.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FEATURES.len());
        for need in FEATURES.iter().flat_map(|feature| feature.needs) {
            assert!(need.why.len() > 20, "{need:?}");
        }
    }
}
