//! Who acts: finds or takes the row of an owner.

use agent_common::owner::{
    ARGV_BYTES, OWNER_OVERFLOW, OwnerKey, OwnerRow, app_hash_of, is_interpreter,
};
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_task_btf,
    bpf_probe_read_user,
};

use crate::maps;
use crate::opaque::opaque;
use crate::sock::Task;

/// The row of the task that is running; only meaningful in process context.
#[inline(always)]
pub fn current(netns: u32) -> u32 {
    // SAFETY: no arguments; returns the running task.
    let task = Task(unsafe { bpf_get_current_task_btf() } as *const core::ffi::c_void);
    let comm = task.leader_comm();
    // SAFETY: no arguments.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    // SAFETY: no arguments.
    let pid_tgid = unsafe { bpf_get_current_pid_tgid() };
    let mut key = OwnerKey { netns, app: 0, cgroup, comm };
    if is_interpreter(&comm)
        && let Some(scratch) = maps::owner_scratch(pid_tgid as u32)
    {
        read_arguments(task, scratch);
        key.app = hash_arguments(scratch);
    }
    if let Some(row) = maps::owners().find(&key) {
        return row;
    }
    // Every owner keeps its arguments: the process may be gone before anybody asks.
    let Some(scratch) = maps::owner_scratch(pid_tgid as u32) else { return OWNER_OVERFLOW };
    if key.app == 0 {
        read_arguments(task, scratch);
    }
    take(&key, (pid_tgid >> 32) as u32, Some(scratch))
}

/// The row of an owner given by its key, as user space or a packet knows it.
#[inline(always)]
pub fn by_key(key: &OwnerKey, tgid: u32) -> u32 {
    match maps::owners().find(key) {
        Some(row) => row,
        None => take(key, tgid, None),
    }
}

/// The row for what happens in a namespace without any task or socket.
#[inline(always)]
pub fn nobody(netns: u32) -> u32 {
    by_key(&OwnerKey { netns, app: 0, cgroup: 0, comm: [0; 16] }, 0)
}

#[inline(always)]
fn take(key: &OwnerKey, tgid: u32, arguments: Option<*const OwnerRow>) -> u32 {
    maps::owners().take(key, OWNER_OVERFLOW, |row| {
        // SAFETY: a valid map value that nobody else holds; the arguments are one of this thread's.
        unsafe {
            (*row).tgid = tgid;
            (*row).argv_len = 0;
            if let Some(from) = arguments {
                (*row).argv_len = (*from).argv_len;
                (*row).argv = (*from).argv;
            }
        }
    })
}

/// Reads the first bytes of the task's arguments; what could not be read is zero.
#[inline(always)]
fn read_arguments(task: Task, row: *mut OwnerRow) {
    let (start, end) = task.arguments();
    let mut length = end.wrapping_sub(start);
    if length > ARGV_BYTES as u64 {
        length = ARGV_BYTES as u64;
    }
    // SAFETY: a valid map value; the helper checks the user address at run time.
    unsafe {
        (*row).argv = [0; ARGV_BYTES];
        let read =
            bpf_probe_read_user((&raw mut (*row).argv).cast(), length as u32, start as *const _);
        (*row).argv_len = if read == 0 { length as u32 } else { 0 };
    }
}

#[expect(clippy::cast_ptr_alignment, reason = "the arguments begin at a multiple of eight")]
#[inline(always)]
fn hash_arguments(row: *const OwnerRow) -> u32 {
    // SAFETY: a valid map value of this CPU, aligned to eight bytes, as are its arguments.
    app_hash_of(|i| unsafe { (&raw const (*row).argv).cast::<u64>().add(opaque(i)).read() })
}
