//! The few calls of bpf(2) that a measurement needs: an empty program, run-time statistics, links
//! to programs of an agent, and the loaded programs of others.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

const PROG_LOAD: libc::c_long = 5;
const PROG_GET_NEXT_ID: libc::c_long = 11;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const LINK_CREATE: libc::c_long = 28;
const ENABLE_STATS: libc::c_long = 32;

/// Program types that run at tracepoints: tracepoint, raw tracepoint, tracing (tp_btf, fentry).
const TRACING_TYPES: [u32; 3] = [5, 17, 26];
const RAW_TRACEPOINT: u64 = 17;

/// `r0 = 0; exit`.
const NOTHING: [u64; 2] = [0xb7, 0x95];

/// How often a program ran and for how long, while run-time statistics were on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    pub count: u64,
    pub nanoseconds: u64,
}

/// Loads a program that does nothing.
pub fn load_empty() -> io::Result<OwnedFd> {
    let license = c"GPL";
    // struct { prog_type, insn_cnt; insns; license; log…; kern_version, prog_flags; prog_name }
    let mut attr = [0; 8];
    attr[0] = RAW_TRACEPOINT | (NOTHING.len() as u64) << 32;
    attr[1] = NOTHING.as_ptr() as u64;
    attr[2] = license.as_ptr() as u64;
    attr[6] = u64::from_le_bytes(*b"empty\0\0\0");
    owned(bpf(PROG_LOAD, &mut attr))
}

/// Attaches a program to a tracepoint while the descriptor is open.
pub fn attach(program: &OwnedFd, tracepoint: &str) -> io::Result<OwnedFd> {
    let name = CString::new(tracepoint).map_err(io::Error::other)?;
    owned(bpf(RAW_TRACEPOINT_OPEN, &mut [name.as_ptr() as u64, program.as_raw_fd() as u64]))
}

/// A program by its id; it stays loaded, with its maps, while the descriptor is open.
pub fn program(id: u32) -> io::Result<OwnedFd> {
    owned(bpf(PROG_GET_FD_BY_ID, &mut [u64::from(id)]))
}

/// The type of a program, as the kernel numbers them.
pub fn program_type(program: &OwnedFd) -> io::Result<u32> {
    Ok(info(program)?[0] as u32)
}

/// Attaches a tracing program to the target that it was loaded for.
pub fn attach_tracing(program: &OwnedFd) -> io::Result<OwnedFd> {
    owned(bpf(RAW_TRACEPOINT_OPEN, &mut [0, program.as_raw_fd() as u64]))
}

/// Attaches a program to a cgroup.
pub fn attach_cgroup(program: &OwnedFd, cgroup: &OwnedFd, attach_type: u32) -> io::Result<OwnedFd> {
    let descriptors = program.as_raw_fd() as u64 | (cgroup.as_raw_fd() as u64) << 32;
    owned(bpf(LINK_CREATE, &mut [descriptors, u64::from(attach_type)]))
}

/// Enables run-time statistics while the descriptor is open.
pub fn enable_statistics() -> io::Result<OwnedFd> {
    owned(bpf(ENABLE_STATS, &mut [0]))
}

/// The statistics of a program.
pub fn runs(program: &OwnedFd) -> io::Result<Runs> {
    let info = info(program)?;
    // struct bpf_prog_info: run_time_ns and run_cnt are words 24 and 25.
    Ok(Runs { count: info[25], nanoseconds: info[24] })
}

/// How many programs at tracepoints and the like are in the kernel, of all processes.
pub fn tracing_programs() -> io::Result<usize> {
    let mut found = 0;
    let mut id = 0;
    loop {
        let mut attr = [id];
        match bpf(PROG_GET_NEXT_ID, &mut attr) {
            Ok(_) => id = attr[0] >> 32,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(found),
            Err(error) => return Err(error),
        }
        // A program may be unloaded between the two calls.
        let Ok(program) = owned(bpf(PROG_GET_FD_BY_ID, &mut [id])) else { continue };
        found += usize::from(TRACING_TYPES.contains(&program_type(&program)?));
    }
}

fn info(program: &OwnedFd) -> io::Result<[u64; 28]> {
    let mut info = [0; 28];
    let sizes = (size_of_val(&info) as u64) << 32 | program.as_raw_fd() as u64;
    bpf(OBJ_GET_INFO_BY_FD, &mut [sizes, (&raw mut info) as u64])?;
    Ok(info)
}

/// One bpf(2) call. `attr` is the first words of the union, in the layout of the command.
fn bpf(command: libc::c_long, attr: &mut [u64]) -> io::Result<i32> {
    // SAFETY: every caller builds `attr` as its command demands, with pointers that outlive the
    // call and are large enough for what the kernel reads or writes.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn owned(result: io::Result<i32>) -> io::Result<OwnedFd> {
    // SAFETY: the kernel just gave us this descriptor.
    result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}
