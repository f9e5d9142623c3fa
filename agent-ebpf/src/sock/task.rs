//! The fields of `task_struct`: who is running.

use core::ffi::c_void;

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
