//! The `wire!` macro: structs that may cross the kernel boundary.
//!
//! A wire struct is `repr(C)`, holds only integers and arrays of them, has exactly the size
//! written next to its name and no padding; all of it is checked at compile time. Any byte
//! pattern is a valid value, which is what makes [`Wire::from_bytes`] total.

/// A plain value whose every byte pattern is valid and which has no padding.
///
/// # Safety
/// Implementors must be `repr(C)` (or a primitive integer / array of such), without padding,
/// references or fields with invalid bit patterns. Use [`wire!`](crate::wire!), which proves it.
pub unsafe trait Wire: Copy + 'static {
    /// A value of all zero bytes.
    #[inline(always)]
    fn zeroed() -> Self {
        // SAFETY: every byte pattern of a `Wire` type is valid, all zeros included.
        unsafe { core::mem::zeroed() }
    }

    /// Reads a value from the front of `bytes`; `None` if there are too few of them.
    #[inline(always)]
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < size_of::<Self>() {
            return None;
        }
        // SAFETY: the length was checked, the read is unaligned, every byte pattern is valid.
        Some(unsafe { core::ptr::read_unaligned(bytes.as_ptr().cast::<Self>()) })
    }

    /// The bytes of the value, in the byte order of this machine.
    #[inline(always)]
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: `Self` has no padding, so all of its `size_of` bytes are initialised.
        unsafe {
            core::slice::from_raw_parts(core::ptr::from_ref(self).cast::<u8>(), size_of::<Self>())
        }
    }
}

macro_rules! primitive {
    ($($ty:ty),*) => { $(
        // SAFETY: primitive integers have no padding and no invalid bit pattern.
        unsafe impl Wire for $ty {}
    )* };
}
primitive!(u8, u16, u32, u64, i32, i64);

// SAFETY: an array of wire values has no padding between its elements.
unsafe impl<T: Wire, const N: usize> Wire for [T; N] {}

/// Declares structs that cross the kernel boundary: `pub struct Name: SIZE { field: integer }`.
#[macro_export]
macro_rules! wire {
    ($( $(#[$meta:meta])* pub struct $name:ident : $size:literal {
        $( $(#[$field_meta:meta])* pub $field:ident : $ty:ty ),* $(,)?
    } )*) => { $(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name { $( $(#[$field_meta])* pub $field : $ty, )* }

        const _: () = {
            assert!(
                size_of::<$name>() == $size,
                concat!("the size of ", stringify!($name), " is not the one declared after its name: ", $size)
            );
            assert!(
                0 $( + size_of::<$ty>() )* == $size,
                concat!("the layout of ", stringify!($name), " has padding: fill it with a field")
            );
            const fn every_field_is_wire<T: $crate::wire::Wire>() {}
            $( every_field_is_wire::<$ty>(); )*
        };

        impl Default for $name {
            fn default() -> Self {
                $crate::wire::Wire::zeroed()
            }
        }

        // SAFETY: repr(C), no padding and only `Wire` fields: asserted just above.
        unsafe impl $crate::wire::Wire for $name {}
    )* };
}

#[cfg(test)]
mod tests {
    use super::*;

    wire! {
        /// Test value.
        pub struct Sample: 16 { pub a: u64, pub b: u32, pub c: [u16; 2] }
    }

    #[test]
    fn bytes_round_trip_and_short_input_is_refused() {
        let value = Sample { a: 1, b: 2, c: [3, 4] };
        assert_eq!(Sample::from_bytes(value.as_bytes()), Some(value));
        assert_eq!(Sample::from_bytes(&value.as_bytes()[..15]), None);
        assert_eq!(Sample::zeroed(), Sample { a: 0, b: 0, c: [0, 0] });
    }
}
