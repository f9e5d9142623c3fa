//! Who acts: finds or takes the row of an owner.

use agent_common::owner::{
    ARGV_BYTES, DIRECTORIES, DIRECTORY_BYTES, Distinction, OWNER_OVERFLOW, OwnerKey, OwnerRow,
    PATH_BYTES, app_hash_of,
};
use agent_common::share::{CGROUP_LEVEL, Tenant};
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_pid_tgid,
    bpf_get_current_task_btf, bpf_probe_read_kernel_str, bpf_probe_read_user,
};

use crate::maps;
use crate::net::Net;
use crate::opaque::opaque;
use crate::sock::Task;
use crate::words;

/// The row of the task that is running; only meaningful in process context.
///
/// As a function of its own, for programs with room on the stack.
#[inline(always)]
pub fn current_apart(netns: u32, net: Net) -> u32 {
    current_owner(netns, net.0)
}

/// A global function of numbers: the verifier walks it once per program, and what follows once,
/// whatever happens here. Inlined, `bind4` exceeds the limit of Linux 6.1.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn current_owner(netns: u32, net: u64) -> u32 {
    current(netns, || Net(net))
}

/// The row of the task that is running; only meaningful in process context. `net` is asked for only
/// if a row is taken.
#[inline(always)]
pub fn current(netns: u32, net: impl FnOnce() -> Net) -> u32 {
    // SAFETY: no arguments; returns the running task.
    let task = Task(unsafe { bpf_get_current_task_btf() } as *const core::ffi::c_void);
    let comm = task.leader_comm();
    // SAFETY: no arguments.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    // SAFETY: no arguments.
    let pid_tgid = unsafe { bpf_get_current_pid_tgid() };
    let mut key = OwnerKey { netns, app: 0, cgroup, comm };
    // Most programs are known by their command name alone. Where it does not say enough, no row has
    // the hash 0.
    if let Some(row) = maps::owners().find(&key) {
        return row;
    }
    let distinction = Distinction::from_bits(opaque(Distinction::of(&comm).bits()));
    if distinction.by_arguments()
        && let Some(scratch) = maps::owner_scratch(pid_tgid as u32)
    {
        read_arguments(task, scratch);
        read_path(task, distinction, scratch);
        key.app = hash_program(distinction, scratch);
        if let Some(row) = maps::owners().find(&key) {
            return row;
        }
    }
    // Every owner keeps its arguments: the process may be gone before anybody asks.
    let Some(scratch) = maps::owner_scratch(pid_tgid as u32) else { return OWNER_OVERFLOW };
    if key.app == 0 {
        read_arguments(task, scratch);
        forget_path(scratch);
    }
    let tenant = || Tenant { cgroup: upper_cgroup(), origin: net().origin() };
    take(&key, tenant, (pid_tgid >> 32) as u32, Some(scratch))
}

/// The row of an owner given by its key, as user space or a packet knows it.
#[inline(always)]
pub fn by_key(key: &OwnerKey, tgid: u32, net: impl FnOnce() -> Net) -> u32 {
    match maps::owners().find(key) {
        Some(row) => row,
        None => take(key, || Tenant { cgroup: 0, origin: net().origin() }, tgid, None),
    }
}

/// Whose share what an owner does counts against.
#[inline(always)]
pub fn tenant(owner: u32) -> Tenant {
    // SAFETY: a valid map value; a row's tenant stays as long as somebody has its number.
    maps::owners().rows.get_ptr(owner).map_or(Tenant::OTHERS, |row| unsafe { (*row).tenant })
}

/// The ancestor of the running task's cgroup that stands for its tenant.
///
/// A global function of numbers: the verifier walks it once per program, not once per call.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn upper_cgroup() -> u64 {
    // SAFETY: no pointers.
    let (above, own) = unsafe {
        (
            bpf_get_current_ancestor_cgroup_id(CGROUP_LEVEL - 1),
            bpf_get_current_ancestor_cgroup_id(CGROUP_LEVEL),
        )
    };
    if own == 0 || maps::is_delegated(above) { above } else { own }
}

/// The row for what happens in a namespace without any task or socket.
#[inline(always)]
pub fn nobody(netns: u32, net: impl FnOnce() -> Net) -> u32 {
    by_key(&OwnerKey { netns, app: 0, cgroup: 0, comm: [0; 16] }, 0, net)
}

#[inline(always)]
fn take(
    key: &OwnerKey,
    tenant: impl FnOnce() -> Tenant,
    tgid: u32,
    arguments: Option<*const OwnerRow>,
) -> u32 {
    let tenant = tenant();
    let slot = maps::owners().take(
        key,
        || tenant,
        OWNER_OVERFLOW,
        |row| {
            // SAFETY: a valid map value of this program alone; the arguments are one of this thread's.
            unsafe {
                (*row).tgid = tgid;
                (*row).argv_len = 0;
                (*row).path = [0; PATH_BYTES];
                if let Some(from) = arguments {
                    (*row).argv_len = (*from).argv_len;
                    words::copy(&raw const (*from).argv, &raw mut (*row).argv);
                    words::copy(&raw const (*from).path, &raw mut (*row).path);
                }
            }
        },
    );
    if slot == OWNER_OVERFLOW { others_of_tenant(tenant.cgroup, tenant.origin) } else { slot }
}

/// The row of all owners of a tenant that found none.
///
/// A global function of numbers: the verifier walks it once per program, not once per call.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn others_of_tenant(cgroup: u64, origin: u64) -> u32 {
    let tenant = Tenant { cgroup, origin };
    let key = OwnerKey::others_of(tenant);
    maps::owners().find_or_take_others(&key, tenant, OWNER_OVERFLOW, |row| {
        // SAFETY: a valid map value of this program alone.
        unsafe {
            ((*row).tgid, (*row).argv_len) = (0, 0);
            (*row).path = [0; PATH_BYTES];
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

#[inline(always)]
fn forget_path(row: *mut OwnerRow) {
    // SAFETY: a valid map value.
    unsafe { (*row).path = [0; PATH_BYTES] };
}

/// Reads the last names of the path of the task's working directory; what could not be read is
/// zero.
#[inline(always)]
fn read_path(task: Task, distinction: Distinction, row: *mut OwnerRow) {
    forget_path(row);
    if !distinction.by_directory() {
        return;
    }
    let mut directory = task.working_directory();
    let mut i = 0;
    while i < DIRECTORIES {
        // SAFETY: a place within a valid map value; the helper checks the kernel's address at run
        // time, and ends what it writes with a zero.
        unsafe {
            let to = (&raw mut (*row).path).cast::<u8>().add(i * DIRECTORY_BYTES);
            bpf_probe_read_kernel_str(
                to.cast(),
                DIRECTORY_BYTES as u32,
                directory.name() as *const _,
            );
        }
        directory = directory.parent();
        i += 1;
    }
}

#[expect(clippy::cast_ptr_alignment, reason = "the arguments begin at a multiple of eight")]
#[inline(always)]
fn hash_program(distinction: Distinction, row: *const OwnerRow) -> u32 {
    // SAFETY: a valid map value of this CPU, aligned to eight bytes, as are its arguments, which
    // its path follows at once.
    app_hash_of(distinction, |i| unsafe {
        (&raw const (*row).argv).cast::<u64>().add(opaque(i)).read()
    })
}
