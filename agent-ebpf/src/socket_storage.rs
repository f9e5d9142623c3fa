//! Socket-local storage: values that live in a socket and are freed with it.

use core::ffi::c_void;

use agent_common::answer::Questions;
use agent_common::bound::BoundState;
use agent_common::protocol::http1::Walk;
use agent_common::socket::SocketState;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;

/// `BPF_MAP_TYPE_SK_STORAGE` with flags of our choice, which aya's type does not offer. The loader
/// reads the layout of this struct from BTF; its pointers are never followed.
#[repr(C)]
pub struct Storage<T, const FLAGS: usize> {
    r#type: *const [i32; 24],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; FLAGS],
}

/// `BPF_F_NO_PREALLOC | BPF_F_CLONE`: children of a listener inherit a copy.
pub type SocketStorage = Storage<SocketState, 0x201>;
/// `BPF_F_NO_PREALLOC`.
pub type BoundStorage = Storage<BoundState, 0x1>;
/// `BPF_F_NO_PREALLOC`.
pub type QuestionStorage = Storage<Questions, 0x1>;
/// `BPF_F_NO_PREALLOC`.
pub type WalkStorage = Storage<Walk, 0x1>;

// SAFETY: see the type: it has no state.
unsafe impl<T, const FLAGS: usize> Sync for Storage<T, FLAGS> {}

impl<T, const FLAGS: usize> Storage<T, FLAGS> {
    /// No map yet: the loader makes it.
    pub const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    /// The value of a socket, created from `initial` if `flags` say so.
    #[inline(always)]
    pub fn get(&self, sk: *const c_void, initial: *const T, flags: u64) -> Option<*mut T> {
        let map = core::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: the verifier checks the map, the socket pointer and the initial value.
        let state =
            unsafe { bpf_sk_storage_get(map, sk.cast_mut(), initial.cast_mut().cast(), flags) };
        if state.is_null() { None } else { Some(state.cast()) }
    }
}
