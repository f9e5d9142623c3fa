//! The fields of `task_struct`: who is running.

use core::ffi::c_void;

use agent_common::config::NO_RESULT;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};

use super::read;
use crate::maps::config;

/// The current task, for its name and arguments.
#[derive(Clone, Copy)]
pub struct Task(pub *const c_void);

impl Task {
    /// Command name of the thread group's leader.
    #[inline(always)]
    pub fn leader_comm(self) -> [u8; 16] {
        let leader = field!(self.0, group_leader: *const c_void);
        let offset = config!(offsets.comm);
        // SAFETY: as in `field!`; comm is sixteen bytes.
        let words: [u64; 2] = unsafe { [read(leader, offset), read(leader, offset + 8)] };
        let mut comm = [0; 16];
        let (a, b) = (words[0].to_ne_bytes(), words[1].to_ne_bytes());
        let mut i = 0;
        while i < 8 {
            comm[i] = a[i];
            comm[i + 8] = b[i];
            i += 1;
        }
        comm
    }

    /// Whether its effective capabilities have CAP_NET_BIND_SERVICE (10).
    #[inline(always)]
    pub fn may_bind_privileged(self) -> bool {
        let cred = field!(self.0, cred: *const c_void);
        field!(cred, cap_effective: u32) >> 10 & 1 == 1
    }

    /// Where the arguments start and end in the task's memory; zeros for kernel threads.
    #[inline(always)]
    pub fn arguments(self) -> (u64, u64) {
        let mm = field!(self.0, mm: *const c_void);
        (field!(mm, arg_start: u64), field!(mm, arg_end: u64))
    }

    /// Its working directory.
    #[inline(always)]
    pub fn working_directory(self) -> Directory {
        let fs = field!(self.0, fs: *const c_void);
        Directory(field!(fs, working_directory: *const c_void))
    }
}

/// Tasks of the kernel's own: `PF_KTHREAD` and `PF_IO_WORKER` (include/linux/sched.h). The registers of the
/// latter are those of the program that it works for, at some other time.
const KERNELS: u32 = 0x0020_0000 | 0x10;

/// A system call that is not over.
pub struct SystemCall {
    /// Its number.
    pub number: u16,
    /// Its second argument.
    pub argument: u64,
    /// Its third argument.
    pub third: u32,
}

impl SystemCall {
    /// That which the running task is in. `None` for who has none: threads of the kernel, and programs
    /// whose system call has ended and for which the kernel now works off what they left to it
    /// (`io_uring`).
    #[inline(always)]
    pub fn current() -> Option<Self> {
        // SAFETY: no arguments; returns the running task.
        let task = unsafe { bpf_get_current_task_btf() };
        if field!(task as *const c_void, task_flags: u32) & KERNELS != 0 {
            return None;
        }
        // SAFETY: the running task, as the verifier knows.
        let registers = unsafe { bpf_task_pt_regs(task) } as *const c_void;
        let result = field!(registers, syscall_result: i64);
        let began = if config!(result_replaces_argument) == 1 {
            field!(registers, syscall_first: i64)
        } else {
            NO_RESULT
        };
        let number = field!(registers, syscall_number: u32);
        if result != began || number > u16::MAX.into() {
            return None;
        }
        Some(Self {
            number: number as u16,
            argument: field!(registers, syscall_argument: u64),
            third: field!(registers, syscall_third: u32),
        })
    }
}

/// A `struct dentry` of a directory.
#[derive(Clone, Copy)]
pub struct Directory(*const c_void);

impl Directory {
    /// The directory it is in; of the root of a file system, itself.
    #[inline(always)]
    pub fn parent(self) -> Self {
        Self(field!(self.0, parent_directory: *const c_void))
    }

    /// Where its name is in kernel memory.
    #[inline(always)]
    pub fn name(self) -> u64 {
        field!(self.0, directory_name: u64)
    }
}
