//! Arrays of the kernel half in our memory: rows are read without system calls.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use agent_common::wire::Wire;

/// Rows mapped at a time.
const WINDOW_ROWS: usize = 128;

/// An array that the kernel writes and we read, word by word also written if it was mapped so. Windows of it are mapped when they are first
/// read: the kernel maps all pages of a window at once, and they count as our memory.
pub struct Mapped<V> {
    fd: OwnedFd,
    rows: usize,
    windows: Vec<Option<Window>>,
    protection: libc::c_int,
    types: PhantomData<fn() -> V>,
}

/// A mapped piece of an array.
struct Window {
    at: *mut libc::c_void,
    length: usize,
    /// Bytes from the start of the mapping to the window's first row.
    lead: usize,
}

// SAFETY: memory that stays mapped for the life of the value and is only accessed by volatile reads
// and atomic exchanges.
unsafe impl Send for Window {}

// === impl Mapped ===

impl<V: Wire> Mapped<V> {
    /// An array of so many rows; nothing of it is mapped yet.
    pub(super) fn new(fd: OwnedFd, rows: usize, protection: libc::c_int) -> Self {
        // The kernel rounds each value up to eight bytes; ours are multiples of it.
        debug_assert_eq!(size_of::<V>() % 8, 0);
        let windows = (0..rows.div_ceil(WINDOW_ROWS)).map(|_| None).collect();
        Self { fd, rows, windows, protection, types: PhantomData }
    }

    /// A copy of row `index`. Fields may be from slightly different moments.
    pub fn read(&mut self, index: usize) -> io::Result<V> {
        let row = self.row(index)?;
        // SAFETY: inside the mapping; the kernel may write meanwhile, hence volatile; every byte
        // pattern is a valid value.
        Ok(unsafe { row.read_volatile() })
    }

    /// The 64 bit word `offset` bytes into row `index`, without copying the row; what is read of
    /// the row afterwards is at least as new.
    pub fn word(&mut self, index: usize, offset: usize) -> io::Result<u64> {
        if !offset.is_multiple_of(8) || offset + 8 > size_of::<V>() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let row = self.row(index)?;
        // SAFETY: inside the row and aligned, both checked above.
        let word = unsafe { row.cast::<u64>().add(offset / 8).read_volatile() };
        fence(Ordering::Acquire);
        Ok(word)
    }

    /// Puts `new` in the place of the 64 bit word `offset` bytes into row `index`, at once; returns
    /// what was there. Only for what was mapped to be written.
    pub fn swap_word(&mut self, index: usize, offset: usize, new: u64) -> io::Result<u64> {
        let is_writable = self.protection & libc::PROT_WRITE != 0;
        if !is_writable || !offset.is_multiple_of(8) || offset + 8 > size_of::<V>() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let row = self.row(index)?;
        // SAFETY: inside the row, aligned and mapped to be written, all checked above; hooks access
        // the word atomically, too.
        let word = unsafe { AtomicU64::from_ptr(row.cast::<u64>().add(offset / 8).cast_mut()) };
        Ok(word.swap(new, Ordering::AcqRel))
    }

    fn row(&mut self, index: usize) -> io::Result<*const V> {
        let number = index / WINDOW_ROWS;
        let window = match self.windows.get_mut(number) {
            Some(window) if index < self.rows => window,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        if window.is_none() {
            let first = number * WINDOW_ROWS;
            let end = self.rows.min(first + WINDOW_ROWS);
            *window = Some(Window::map(
                self.fd.as_fd(),
                self.protection,
                first * size_of::<V>(),
                end * size_of::<V>(),
            )?);
        }
        let Some(window) = window else { return Err(io::ErrorKind::InvalidInput.into()) };
        let offset = window.lead + (index % WINDOW_ROWS) * size_of::<V>();
        // SAFETY: the window covers the row.
        Ok(unsafe { window.at.cast::<u8>().add(offset).cast() })
    }
}

impl Window {
    /// Maps the bytes from `start` to `end` of an array.
    fn map(
        fd: BorrowedFd<'_>,
        protection: libc::c_int,
        start: usize,
        end: usize,
    ) -> io::Result<Self> {
        // SAFETY: sysconf has no preconditions.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let lead = start % page;
        let length = end - start + lead;
        let offset =
            libc::off_t::try_from(start - lead).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a fresh mapping of our own descriptor; checked below.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                offset,
            )
        };
        if at == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self { at, length, lead })
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length.
        unsafe { libc::munmap(self.at, self.length) };
    }
}
