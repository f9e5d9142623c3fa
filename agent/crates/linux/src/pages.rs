//! The pages of the executable: those used only at startup are released.
//!
//! Loading BPF programs, reading BTF and finding runtimes runs code that is hardly used again, and
//! the kernel maps sixteen pages around each page that is touched. All of it stays resident until
//! memory is short.

use std::ffi::{c_int, c_void};
use std::slice;

/// Unmaps code and constants of this executable (dl_iterate_phdr(3), madvise(2)). They are clean
/// file pages: what is used again is mapped again, from the page cache.
pub fn give_back() {
    // SAFETY: `unmap` does not panic, and keeps nothing that it is given.
    unsafe { libc::dl_iterate_phdr(Some(unmap), std::ptr::null_mut()) };
}

/// Returns unused memory of the allocator to the kernel.
pub fn trim_heap() {
    // SAFETY: no preconditions.
    unsafe { libc::malloc_trim(0) };
}

/// Called for the executable first; its return value stops the walk, because libraries are shared
/// with others.
unsafe extern "C" fn unmap(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut c_void,
) -> c_int {
    const DONE: c_int = 1;
    // SAFETY: dl_iterate_phdr passes a valid object, whose program headers stay in place.
    let (object, headers) = unsafe {
        (&*object, slice::from_raw_parts((*object).dlpi_phdr, usize::from((*object).dlpi_phnum)))
    };
    for header in headers {
        // Writable segments may have been modified, at least by the loader; those changes would be
        // lost.
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        // SAFETY: no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let start = (object.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
        let before = start % page;
        let bytes = header.p_filesz as usize + before;
        // SAFETY: pages of a segment of this program, which the kernel has mapped from a file, unwritten:
        // they read as before. That it may refuse (pages locked in memory) does no harm.
        unsafe { libc::madvise((start - before) as *mut c_void, bytes, libc::MADV_DONTNEED) };
    }
    DONE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kilobytes of files that are mapped and resident.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:"));
        let kilobytes = line.expect("a line of files").trim().trim_end_matches(" kB");
        kilobytes.parse().expect("a number")
    }

    #[test]
    fn what_is_given_back_reads_as_before() {
        let text = include_str!("pages.rs");
        let copy = text.to_owned();
        let before = resident();
        give_back();
        let after = resident();
        assert!(after < before, "{before} kB, then {after} kB");
        assert_eq!(text, copy);
    }
}
