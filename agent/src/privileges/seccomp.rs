//! The system calls that the running agent makes; the kernel refuses all others.
//!
//! The list covers the time after startup: it permits no execve, mount or ptrace, and creates no
//! BPF map or program. Refused calls fail with EPERM, so a missing entry disables a feature, but does
//! not end the agent. `seccomp = "log"` allows everything and has the kernel log what would be
//! refused to its audit log (`type=1326`).

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use anyhow::Context as _;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::config::Seccomp;

/// System calls that are allowed with any arguments, by purpose.
const CALLS: &[(&str, &[libc::c_long])] = &[
    (
        "memory",
        &[
            libc::SYS_brk,
            libc::SYS_madvise,
            libc::SYS_mmap,
            libc::SYS_mprotect,
            libc::SYS_mremap,
            libc::SYS_munmap,
        ],
    ),
    (
        "threads, signals, time",
        &[
            libc::SYS_clock_gettime,
            libc::SYS_clock_nanosleep,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_exit,
            libc::SYS_exit_group,
            libc::SYS_futex,
            libc::SYS_getcpu,
            libc::SYS_getpid,
            libc::SYS_gettid,
            libc::SYS_gettimeofday,
            libc::SYS_membarrier,
            libc::SYS_nanosleep,
            libc::SYS_prctl,
            libc::SYS_restart_syscall,
            libc::SYS_rseq,
            libc::SYS_rt_sigaction,
            libc::SYS_rt_sigprocmask,
            libc::SYS_rt_sigreturn,
            libc::SYS_sched_getaffinity,
            libc::SYS_sched_yield,
            libc::SYS_set_robust_list,
            libc::SYS_sigaltstack,
            libc::SYS_tgkill,
        ],
    ),
    (
        "descriptors",
        &[
            libc::SYS_close,
            libc::SYS_dup,
            libc::SYS_epoll_create1,
            libc::SYS_epoll_ctl,
            libc::SYS_epoll_pwait,
            libc::SYS_eventfd2,
            libc::SYS_fcntl,
            libc::SYS_ioctl,
            libc::SYS_lseek,
            libc::SYS_pipe2,
            libc::SYS_ppoll,
            libc::SYS_pread64,
            libc::SYS_pwrite64,
            libc::SYS_read,
            libc::SYS_readv,
            libc::SYS_timerfd_create,
            libc::SYS_timerfd_settime,
            libc::SYS_write,
            libc::SYS_writev,
        ],
    ),
    (
        "files: /proc, names, certificates, pins, the state directory",
        &[
            libc::SYS_faccessat,
            libc::SYS_faccessat2,
            libc::SYS_fchmod,
            libc::SYS_fchmodat,
            libc::SYS_fchown,
            libc::SYS_fchownat,
            libc::SYS_fdatasync,
            libc::SYS_flock,
            libc::SYS_fstat,
            libc::SYS_fstatfs,
            libc::SYS_fsync,
            libc::SYS_ftruncate,
            libc::SYS_getcwd,
            libc::SYS_getdents64,
            libc::SYS_inotify_add_watch,
            libc::SYS_inotify_init1,
            libc::SYS_inotify_rm_watch,
            libc::SYS_linkat,
            libc::SYS_mkdirat,
            libc::SYS_name_to_handle_at,
            libc::SYS_newfstatat,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_readlinkat,
            libc::SYS_renameat,
            libc::SYS_renameat2,
            libc::SYS_statfs,
            libc::SYS_statx,
            libc::SYS_umask,
            libc::SYS_unlinkat,
        ],
    ),
    (
        "connections",
        &[
            libc::SYS_accept4,
            libc::SYS_bind,
            libc::SYS_connect,
            libc::SYS_getpeername,
            libc::SYS_getsockname,
            libc::SYS_getsockopt,
            libc::SYS_listen,
            libc::SYS_recvfrom,
            libc::SYS_recvmmsg,
            libc::SYS_recvmsg,
            libc::SYS_sendmmsg,
            libc::SYS_sendmsg,
            libc::SYS_sendto,
            libc::SYS_setsockopt,
            libc::SYS_shutdown,
            libc::SYS_socketpair,
        ],
    ),
    (
        "facts about this process and host",
        &[
            libc::SYS_capget,
            libc::SYS_getegid,
            libc::SYS_geteuid,
            libc::SYS_getgid,
            libc::SYS_getrandom,
            libc::SYS_getrusage,
            libc::SYS_getuid,
            libc::SYS_prlimit64,
            libc::SYS_sysinfo,
            libc::SYS_uname,
        ],
    ),
];

/// The same under names that exist only on x86-64.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_chmod,
    libc::SYS_epoll_wait,
    libc::SYS_getdents,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_stat,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[libc::c_long] = &[];

/// A system call whose first or second argument must be one of a few values.
struct Limited {
    call: libc::c_long,
    argument: u8,
    values: &'static [u64],
}

const LIMITED: &[Limited] = &[
    // Operations on open maps, programs and links: include/uapi/linux/bpf.h.
    Limited {
        call: libc::SYS_bpf,
        argument: 0,
        values: &[
            1,  // BPF_MAP_LOOKUP_ELEM
            2,  // BPF_MAP_UPDATE_ELEM
            3,  // BPF_MAP_DELETE_ELEM
            4,  // BPF_MAP_GET_NEXT_KEY
            10, // BPF_PROG_TEST_RUN: the iteration over the table of sockets
            15, // BPF_OBJ_GET_INFO_BY_FD
            21, // BPF_MAP_LOOKUP_AND_DELETE_ELEM
            24, // BPF_MAP_LOOKUP_BATCH
            25, // BPF_MAP_LOOKUP_AND_DELETE_BATCH
            26, // BPF_MAP_UPDATE_BATCH
            27, // BPF_MAP_DELETE_BATCH
            33, // BPF_ITER_CREATE: the socket iteration
        ],
    },
    Limited {
        call: libc::SYS_socket,
        argument: 0,
        values: &[
            libc::AF_UNIX as u64,
            libc::AF_INET as u64,
            libc::AF_INET6 as u64,
            libc::AF_NETLINK as u64,
        ],
    },
    Limited { call: libc::SYS_setns, argument: 1, values: &[libc::CLONE_NEWNET as u64] },
];

/// System calls that attaching programs after startup needs in addition (`loader/src/attacher.rs`).
const ATTACHING: (u64, libc::c_long) = (
    28, // BPF_LINK_CREATE
    libc::SYS_perf_event_open,
);

/// Installs the filter for the calling thread and all threads that it starts later. `attaches`:
/// programs are attached after startup.
pub fn install(mode: Seccomp, attaches: bool) -> anyhow::Result<()> {
    let otherwise = match mode {
        Seccomp::Off => return Ok(()),
        Seccomp::Log => SeccompAction::Log,
        Seccomp::Enforce => SeccompAction::Errno(libc::EPERM as u32),
    };
    let program = program(otherwise, attaches).context("compiling the list of system calls")?;
    let installed = seccompiler::apply_filter(&program).context(
        "installing the list of system calls; does this kernel have CONFIG_SECCOMP_FILTER, and may seccomp(2) be called here? --seccomp off does without",
    );
    match installed {
        // The filter would not deny anything.
        Err(error) if mode == Seccomp::Log => {
            tracing::warn!("system calls beyond the list are not logged: {error:#}");
            Ok(())
        }
        installed => installed,
    }
}

/// How many system calls are allowed, those with limits included.
pub fn allowed() -> usize {
    CALLS.iter().map(|(_, calls)| calls.len()).sum::<usize>() + OLD_CALLS.len() + LIMITED.len()
}

fn program(otherwise: SeccompAction, attaches: bool) -> anyhow::Result<BpfProgram> {
    let free = CALLS.iter().flat_map(|(_, calls)| *calls).chain(OLD_CALLS);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = free.map(|call| (*call, Vec::new())).collect();
    let equals = |argument: u8, value: u64| {
        let (length, equal) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
        SeccompRule::new(vec![SeccompCondition::new(argument, length, equal, value)?])
    };
    for Limited { call, argument, values } in LIMITED {
        let rules_of = values.iter().map(|value| equals(*argument, *value));
        rules.insert(*call, rules_of.collect::<Result<_, _>>()?);
    }
    if attaches {
        let (command, call) = ATTACHING;
        rules.entry(libc::SYS_bpf).or_default().push(equals(0, command)?);
        rules.insert(call, Vec::new());
    }
    let architecture = TargetArch::try_from(ARCH)?;
    let filter = SeccompFilter::new(rules, otherwise, SeccompAction::Allow, architecture)?;
    Ok(filter.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux::foreign_path::open_namespaces;
    use linux::mounts::Mount;

    /// Runs `f` on a thread under the list.
    fn confined<T: Send + 'static>(attaches: bool, f: impl FnOnce() -> T + Send + 'static) -> T {
        let inside = std::thread::spawn(move || {
            super::super::no_new_privileges().unwrap();
            install(Seccomp::Enforce, attaches).unwrap();
            f()
        });
        inside.join().unwrap()
    }

    fn refused(result: libc::c_long) -> bool {
        result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
    }

    #[test]
    fn what_the_agent_does_passes() {
        confined(false, || {
            let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(text.contains("Seccomp:\t2"), "{text}");
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let there = listener.local_addr().unwrap();
            std::net::TcpStream::connect(there).unwrap();
            std::thread::spawn(|| {}).join().unwrap();
            let somewhere =
                Mount { id: 1, root: "net:[1]".into(), point: "/".into(), kind: "nsfs".into() };
            let found = open_namespaces(std::process::id(), &[&somewhere], u64::MAX).unwrap();
            let error = found.into_iter().next().unwrap().unwrap_err();
            assert_eq!(error.raw_os_error(), None, "openat2 answers: {error}");
        });
    }

    #[test]
    fn an_agent_that_attaches_later_may_link_and_still_not_load() {
        confined(true, || {
            // SAFETY: length 0, so the kernel reads nothing.
            assert!(!refused(unsafe { libc::syscall(libc::SYS_bpf, 28, 0, 0) }));
            // SAFETY: as above.
            assert!(refused(unsafe { libc::syscall(libc::SYS_bpf, 5, 0, 0) }));
        });
    }

    #[test]
    fn running_programs_and_loading_into_the_kernel_is_refused() {
        confined(false, || {
            let error = std::process::Command::new("/bin/true").status().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            // BPF_PROG_LOAD, with no attributes: without the list it would be EINVAL.
            // SAFETY: length 0, so the kernel reads nothing.
            assert!(refused(unsafe { libc::syscall(libc::SYS_bpf, 5, 0, 0) }));
            // BPF_LINK_CREATE.
            // SAFETY: as above.
            assert!(refused(unsafe { libc::syscall(libc::SYS_bpf, 28, 0, 0) }));
            // SAFETY: takes no pointers.
            assert!(refused(unsafe { libc::syscall(libc::SYS_socket, libc::AF_PACKET, 3, 0) }));
            // SAFETY: a null path is not even looked at.
            assert!(refused(unsafe { libc::syscall(libc::SYS_mount, 0, 0, 0, 0, 0) }));
        });
    }
}
