//! A thin layer over bpf(2) for what aya does not offer: batches, iterators over a map, pins of plain
//! descriptors. Every function is one system call on descriptors that we own.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use agent_common::wire::Wire;
use aya_obj::generated::{
    PERF_FLAG_FD_CLOEXEC, bpf_attach_type, bpf_cmd, bpf_map_info, bpf_prog_info, bpf_prog_type,
    perf_event_attr,
};

use super::mapped::Mapped;

/// A map of known key and value types.
pub struct Map<K, V> {
    fd: OwnedFd,
    /// How many rows it can hold.
    pub max_entries: u32,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Wire, V: Wire> Map<K, V> {
    /// Takes ownership of a map's descriptor; the kernel must agree on the sizes of key and value.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let bpf_map_info { key_size, value_size, max_entries, .. } = info(fd.as_fd())?;
        if key_size as usize != size_of::<K>() || value_size as usize != size_of::<V>() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "key {key_size} and value {value_size} bytes, expected {} and {}",
                    size_of::<K>(),
                    size_of::<V>()
                ),
            ));
        }
        Ok(Self { fd, max_entries, types: PhantomData })
    }

    /// Stores `value` under `key`.
    pub fn insert(&self, key: &K, value: &V) -> io::Result<()> {
        self.element(bpf_cmd::BPF_MAP_UPDATE_ELEM, Some(key), value.as_bytes().as_ptr() as u64)
            .map(drop)
    }

    /// Removes `key`; `false` if it was not there.
    pub fn remove(&self, key: &K) -> io::Result<bool> {
        match self.element(bpf_cmd::BPF_MAP_DELETE_ELEM, Some(key), 0) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The value under `key`.
    pub fn lookup(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = V::zeroed();
        match self.element(bpf_cmd::BPF_MAP_LOOKUP_ELEM, Some(key), (&raw mut value) as u64) {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The key after `key`, or the first.
    pub fn next_key(&self, key: Option<&K>) -> io::Result<Option<K>> {
        let mut next = K::zeroed();
        match self.element(bpf_cmd::BPF_MAP_GET_NEXT_KEY, key, (&raw mut next) as u64) {
            Ok(_) => Ok(Some(next)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The per-CPU values under `key`, one per possible CPU.
    pub fn lookup_per_cpu(&self, key: &K, cpus: usize) -> io::Result<Vec<V>> {
        // The kernel rounds each CPU's value up to eight bytes; ours are multiples of it.
        debug_assert_eq!(size_of::<V>() % 8, 0);
        let mut values = vec![V::zeroed(); cpus];
        self.element(bpf_cmd::BPF_MAP_LOOKUP_ELEM, Some(key), values.as_mut_ptr() as u64)?;
        Ok(values)
    }

    fn element(&self, command: bpf_cmd, key: Option<&K>, value: u64) -> io::Result<i32> {
        let key = key.map_or(0, |key| core::ptr::from_ref(key) as u64);
        bpf(command, &mut [self.fd.as_raw_fd() as u64, key, value, 0])
    }
}

impl<V: Wire> Map<u32, V> {
    /// Reads the rows of a `BPF_F_MMAPABLE` array without system calls.
    pub fn mapped(&self) -> io::Result<Mapped<V>> {
        self.mapped_for(libc::PROT_READ)
    }

    /// As [`Self::mapped`]; words can be exchanged, too.
    pub fn mapped_writable(&self) -> io::Result<Mapped<V>> {
        self.mapped_for(libc::PROT_READ | libc::PROT_WRITE)
    }

    fn mapped_for(&self, protection: libc::c_int) -> io::Result<Mapped<V>> {
        Ok(Mapped::new(self.fd.try_clone()?, self.max_entries as usize, protection))
    }
}

impl Map<(), u32> {
    /// Takes ownership of the descriptor of a stack of numbers.
    pub fn stack(fd: OwnedFd) -> io::Result<Self> {
        let bpf_map_info { max_entries, .. } = info(fd.as_fd())?;
        Ok(Self { fd, max_entries, types: PhantomData })
    }

    /// Takes the number on top.
    pub fn pop(&self) -> io::Result<Option<u32>> {
        let mut value = 0_u32;
        let attr = &mut [self.fd.as_raw_fd() as u64, 0, (&raw mut value) as u64, 0];
        match bpf(bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_ELEM, attr) {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a number on top.
    pub fn push(&self, value: u32) -> io::Result<()> {
        bpf(
            bpf_cmd::BPF_MAP_UPDATE_ELEM,
            &mut [self.fd.as_raw_fd() as u64, 0, (&raw const value) as u64, 0],
        )
        .map(drop)
    }
}

impl<K, V> AsFd for Map<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Attaches a loaded tracing program (tp_btf, fentry, fexit) where it was loaded for.
pub fn attach_tracing(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // struct { __u64 name; __u32 prog_fd; }
    owned(bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut [0, program.as_raw_fd() as u64]))
}

/// The attach type of a cgroup hook.
pub fn cgroup_attach_type(hook: &str) -> Option<bpf_attach_type> {
    match hook {
        "bind4" => Some(bpf_attach_type::BPF_CGROUP_INET4_BIND),
        "bind6" => Some(bpf_attach_type::BPF_CGROUP_INET6_BIND),
        "connect4" => Some(bpf_attach_type::BPF_CGROUP_INET4_CONNECT),
        "connect6" => Some(bpf_attach_type::BPF_CGROUP_INET6_CONNECT),
        "sendmsg4" => Some(bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG),
        "sendmsg6" => Some(bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG),
        "post_bind4" => Some(bpf_attach_type::BPF_CGROUP_INET4_POST_BIND),
        "sock_release" => Some(bpf_attach_type::BPF_CGROUP_INET_SOCK_RELEASE),
        "post_bind6" => Some(bpf_attach_type::BPF_CGROUP_INET6_POST_BIND),
        _ => None,
    }
}

/// Attaches a loaded cgroup program to a folder of the cgroup v2 tree, beside those that are
/// there; it stays as long as the link.
pub fn attach_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: bpf_attach_type,
) -> io::Result<OwnedFd> {
    // struct { prog_fd, target_fd; attach_type, flags; … }
    let descriptors = (cgroup.as_raw_fd() as u64) << 32 | program.as_raw_fd() as u64;
    owned(bpf(bpf_cmd::BPF_LINK_CREATE, &mut [descriptors, attach_type as u64]))
}

/// Attaches a loaded uprobe program to the instruction `offset` bytes into a file, in all processes;
/// it stays as long as the link. `kind` is the number of uprobes among perf events.
pub fn attach_uprobe(
    program: BorrowedFd<'_>,
    kind: u32,
    file: &Path,
    offset: u64,
) -> io::Result<OwnedFd> {
    let path = c_path(file)?;
    // SAFETY: integers and unions of integers.
    let mut attr: perf_event_attr = unsafe { core::mem::zeroed() };
    attr.type_ = kind;
    attr.size = size_of::<perf_event_attr>() as u32;
    attr.__bindgen_anon_3.uprobe_path = path.as_ptr() as u64;
    attr.__bindgen_anon_4.probe_offset = offset;
    // Of all processes; the processor does not matter to a uprobe, but one must be named.
    let (pid, cpu, group) = (-1, 0, -1);
    // SAFETY: the kernel reads `attr` and the path, which outlive the call.
    let event = unsafe {
        let flags = PERF_FLAG_FD_CLOEXEC;
        libc::syscall(libc::SYS_perf_event_open, &raw const attr, pid, cpu, group, flags)
    };
    if event < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor. The link keeps the event.
    let event = unsafe { OwnedFd::from_raw_fd(event as i32) };
    let descriptors = (event.as_raw_fd() as u64) << 32 | program.as_raw_fd() as u64;
    let attach_type = bpf_attach_type::BPF_PERF_EVENT as u64;
    owned(bpf(bpf_cmd::BPF_LINK_CREATE, &mut [descriptors, attach_type]))
}

/// Links an iterator program to its target; `map` is the map to iterate over, if it is one.
pub fn link_iterator(program: BorrowedFd<'_>, map: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    // struct { prog_fd, target_fd; attach_type, flags; iter_info; iter_info_len; }
    let iter_info = map.map_or(0, |map| map.as_raw_fd() as u64);
    let (at, length) = if map.is_some() { ((&raw const iter_info) as u64, 4) } else { (0, 0) };
    let attach_type = bpf_attach_type::BPF_TRACE_ITER as u64;
    owned(bpf(bpf_cmd::BPF_LINK_CREATE, &mut [program.as_raw_fd() as u64, attach_type, at, length]))
}

/// Opens one run of a linked iterator; reading the file runs the program.
pub fn open_iterator(link: BorrowedFd<'_>) -> io::Result<File> {
    owned(bpf(bpf_cmd::BPF_ITER_CREATE, &mut [link.as_raw_fd() as u64])).map(File::from)
}

/// Runs a program of type raw tracepoint that is attached nowhere, with these arguments; its result.
pub fn run(program: BorrowedFd<'_>, arguments: &[u64]) -> io::Result<u32> {
    // struct { prog_fd, retval; data_size_in, data_size_out; data_in; data_out; repeat, duration;
    // ctx_size_in, ctx_size_out; ctx_in; ctx_out; flags, cpu; batch_size }
    let (at, length) = (arguments.as_ptr() as u64, size_of_val(arguments) as u64);
    let mut attr = [program.as_raw_fd() as u64, 0, 0, 0, 0, length, at, 0, 0, 0];
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr)?;
    Ok((attr[0] >> 32) as u32)
}

/// Whether the kernel takes an iterator program; `function` is the number of its iterator's function.
/// Some kernels refuse iterators over maps, whatever the program does.
pub fn takes_iterator(function: u32) -> io::Result<()> {
    // r0 = 0; exit
    let code: [u64; 2] = [0xb7, 0x95];
    let words = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let mut attr = [0; 15];
    attr[0] = words(bpf_prog_type::BPF_PROG_TYPE_TRACING as u32, code.len() as u32);
    attr[1] = code.as_ptr() as u64;
    attr[2] = c"GPL".as_ptr() as u64;
    // prog_ifindex, expected_attach_type
    attr[8] = words(0, bpf_attach_type::BPF_TRACE_ITER as u32);
    // line_info_cnt, attach_btf_id
    attr[13] = words(0, function);
    owned(bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr)).map(drop)
}

/// Enables the kernel's run-time statistics while the descriptor is open.
pub fn enable_run_stats() -> io::Result<OwnedFd> {
    owned(bpf(bpf_cmd::BPF_ENABLE_STATS, &mut [0]))
}

/// Pins a map, program or link.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut [path.as_ptr() as u64, fd.as_raw_fd() as u64]).map(drop)
}

/// Opens the object pinned at `path`.
pub fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    owned(bpf(bpf_cmd::BPF_OBJ_GET, &mut [path.as_ptr() as u64, 0]))
}

/// The kernel's statistics of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramRuns {
    /// Time spent in it, nanoseconds, while run-time statistics were on.
    pub time_ns: u64,
    /// Runs, while run-time statistics were on.
    pub count: u64,
    /// Runs skipped because the program was already running on that CPU.
    pub misses: u64,
}

/// The runs of a program.
pub fn program_runs(program: BorrowedFd<'_>) -> io::Result<ProgramRuns> {
    let bpf_prog_info { run_time_ns, run_cnt, recursion_misses, .. } = info(program)?;
    Ok(ProgramRuns { time_ns: run_time_ns, count: run_cnt, misses: recursion_misses })
}

/// The name of a program; the kernel keeps 15 bytes of it.
pub fn program_name(program: BorrowedFd<'_>) -> io::Result<String> {
    let bpf_prog_info { name, .. } = info(program)?;
    let name: Vec<u8> = name.iter().map(|char| *char as u8).take_while(|byte| *byte != 0).collect();
    Ok(String::from_utf8_lossy(&name).into_owned())
}

/// The kernel's information about an object.
///
/// # Safety
/// All zeros, and everything the kernel writes, must be a valid value.
unsafe trait Info {}

// SAFETY: integers only.
unsafe impl Info for bpf_map_info {}
// SAFETY: integers only.
unsafe impl Info for bpf_prog_info {}

fn info<T: Info>(fd: BorrowedFd<'_>) -> io::Result<T> {
    // SAFETY: the trait's contract. A kernel that knows less of the struct leaves the rest zero.
    let mut info: T = unsafe { core::mem::zeroed() };
    let sizes = (size_of::<T>() as u64) << 32 | fd.as_raw_fd() as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut [sizes, (&raw mut info) as u64])?;
    Ok(info)
}

/// One bpf(2) call. `attr` is the first words of the union, in the layout of the command.
fn bpf(command: bpf_cmd, attr: &mut [u64]) -> io::Result<i32> {
    // SAFETY: every caller builds `attr` as its command demands, with pointers that outlive the
    // call and are large enough for what the kernel reads or writes.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, attr.as_mut_ptr(), size_of_val(attr))
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn owned(result: io::Result<i32>) -> io::Result<OwnedFd> {
    // SAFETY: the kernel just gave us this descriptor.
    result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}
