//! Reads the kernel's type information (BTF, Documentation/bpf/btf.rst).
//!
//! Only what the loader needs: offsets of struct members, arguments of tracepoints, values of
//! enums, existence of functions. aya's parser keeps these private. The reader is total: a damaged
//! file gives an error or a missing answer, never a panic.

use std::collections::{HashMap, HashSet};

use thiserror::Error;

/// Where the kernel publishes its types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why a BTF image cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    /// Not a BTF image of this machine's byte order.
    #[error("not a BTF image")]
    BadHeader,
    /// A record points outside the image.
    #[error("BTF image is cut short at byte {0}")]
    Truncated(usize),
    /// A kind that this reader does not know, so its length is unknown.
    #[error("BTF kind {0} is not known to this version")]
    UnknownKind(u32),
}

const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;

/// Maximum nesting of types, beyond which they are considered a loop.
const MAX_DEPTH: usize = 32;

/// The position of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bits from the start of the outermost struct.
    pub bit_offset: u32,
    /// Width in bits if it is a bit field, else 0.
    pub bit_size: u32,
}

/// A parsed image: an index over the raw bytes.
pub struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Byte offset of every type in `types`; type ids start at 1, entry 0 is void.
    at: Vec<u32>,
    by_name: HashMap<(u32, Box<str>), u32>,
}

impl Btf {
    /// Reads the running kernel's types.
    pub fn of_running_kernel() -> anyhow::Result<Self> {
        use anyhow::Context as _;
        let image = std::fs::read(VMLINUX).with_context(|| format!("reading {VMLINUX}"))?;
        Self::parse(&image).with_context(|| format!("parsing {VMLINUX}"))
    }

    /// Parses an image.
    pub fn parse(image: &[u8]) -> Result<Self, BtfError> {
        let header = |at| read_u32(image, at).ok_or(BtfError::BadHeader);
        let magic = image.get(..2).ok_or(BtfError::BadHeader)?;
        if magic != 0xeb9f_u16.to_ne_bytes() {
            return Err(BtfError::BadHeader);
        }
        let start = header(4)? as usize;
        let section = |offset: u32, length: u32| {
            let from = start.checked_add(offset as usize)?;
            image.get(from..from.checked_add(length as usize)?)
        };
        let types = section(header(8)?, header(12)?).ok_or(BtfError::BadHeader)?.to_vec();
        let strings = section(header(16)?, header(20)?).ok_or(BtfError::BadHeader)?.to_vec();
        let mut btf = Self { types, strings, at: vec![0], by_name: HashMap::new() };
        btf.index()?;
        Ok(btf)
    }

    /// Where `path` (members separated by dots) lies in struct `name`. Members of anonymous
    /// structs and unions are found as C finds them.
    pub fn member(&self, name: &str, path: &str) -> Option<Member> {
        let mut id = self.find(KIND_STRUCT, name)?;
        let mut found = Member { bit_offset: 0, bit_size: 0 };
        for part in path.split('.') {
            let (member, member_type) = self.member_of(id, part, &mut HashSet::new(), 0)?;
            found.bit_offset = found.bit_offset.checked_add(member.bit_offset)?;
            found.bit_size = member.bit_size;
            id = self.resolve(member_type)?;
        }
        Some(found)
    }

    /// How many arguments a tracepoint passes to its probes, not counting the probe's own data;
    /// `None` if this kernel does not have it.
    pub fn tracepoint_arguments(&self, name: &str) -> Option<usize> {
        let typedef = self.find(KIND_TYPEDEF, &format!("btf_trace_{name}"))?;
        let pointer = self.resolve(self.word(typedef, 2)?)?;
        let proto = self.resolve(self.word(pointer, 2)?)?;
        (self.kind(proto)? == KIND_FUNC_PROTO)
            .then(|| self.vlen(proto).unwrap_or(0).saturating_sub(1))
    }

    /// Whether this kernel has a function of that name that programs could attach to.
    pub fn has_function(&self, name: &str) -> bool {
        self.function(name).is_some()
    }

    /// The number of a function.
    pub fn function(&self, name: &str) -> Option<u32> {
        self.find(KIND_FUNC, name)
    }

    /// The number of a struct.
    pub fn structure(&self, name: &str) -> Option<u32> {
        self.find(KIND_STRUCT, name)
    }

    /// The values of an enum.
    pub fn enum_values(&self, name: &str) -> Vec<(String, i64)> {
        let Some(id) = self.find(KIND_ENUM, name) else { return Vec::new() };
        (0..self.vlen(id).unwrap_or(0))
            .filter_map(|i| {
                let value = self.word(id, 3 + i * 2 + 1)?.cast_signed();
                Some((self.string(self.word(id, 3 + i * 2)?)?.to_owned(), i64::from(value)))
            })
            .collect()
    }

    fn index(&mut self) -> Result<(), BtfError> {
        let mut at = 0;
        while at < self.types.len() {
            let info = read_u32(&self.types, at + 4).ok_or(BtfError::Truncated(at))?;
            let (kind, vlen) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            let tail = match kind {
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | 19 => vlen * 12,
                KIND_ENUM | KIND_FUNC_PROTO => vlen * 8,
                1 | 14 | 17 => 4,
                15 => vlen * 12,
                KIND_PTR | 7..=12 | 16 | 18 => 0,
                other => return Err(BtfError::UnknownKind(other)),
            };
            let end = at + 12 + tail;
            if end > self.types.len() {
                return Err(BtfError::Truncated(at));
            }
            let id = self.at.len() as u32;
            self.at.push(at as u32);
            if matches!(kind, KIND_STRUCT | KIND_ENUM | KIND_TYPEDEF | KIND_FUNC) {
                let name = read_u32(&self.types, at).unwrap_or(0);
                if name != 0
                    && let Some(name) = self.string(name)
                {
                    let key = (kind, name.into());
                    self.by_name.entry(key).or_insert(id);
                }
            }
            at = end;
        }
        Ok(())
    }

    /// Finds a member by name, also inside anonymous members. A type in `searched` has no such
    /// member; without that set, types that contain each other would loop forever.
    fn member_of(
        &self,
        id: u32,
        name: &str,
        searched: &mut HashSet<u32>,
        depth: usize,
    ) -> Option<(Member, u32)> {
        let is_struct = matches!(self.kind(id)?, KIND_STRUCT | KIND_UNION);
        if !is_struct || depth > MAX_DEPTH || !searched.insert(id) {
            return None;
        }
        let has_bit_fields = self.word(id, 1)? >> 31 == 1;
        for i in 0..self.vlen(id)? {
            let member_name = self.string(self.word(id, 3 + i * 3)?)?;
            let member_type = self.word(id, 3 + i * 3 + 1)?;
            let raw = self.word(id, 3 + i * 3 + 2)?;
            let (bit_size, bit_offset) =
                if has_bit_fields { (raw >> 24, raw & 0x00ff_ffff) } else { (0, raw) };
            if member_name == name {
                return Some((Member { bit_offset, bit_size }, member_type));
            }
            if member_name.is_empty()
                && let Some(inner) = self.resolve(member_type)
                && let Some((member, member_type)) =
                    self.member_of(inner, name, searched, depth + 1)
            {
                let bit_offset = bit_offset.checked_add(member.bit_offset)?;
                return Some((Member { bit_offset, ..member }, member_type));
            }
        }
        None
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_DEPTH {
            match self.kind(id)? {
                // typedef, volatile, const, restrict, type tag
                8..=11 | 18 => id = self.word(id, 2)?,
                _ => return Some(id),
            }
        }
        None
    }

    fn find(&self, kind: u32, name: &str) -> Option<u32> {
        self.by_name.get(&(kind, name.into()) as &(u32, Box<str>)).copied()
    }

    fn kind(&self, id: u32) -> Option<u32> {
        Some((self.word(id, 1)? >> 24) & 0x1f)
    }

    fn vlen(&self, id: u32) -> Option<usize> {
        Some((self.word(id, 1)? & 0xffff) as usize)
    }

    /// The `n`th 32 bit word of a type's record.
    fn word(&self, id: u32, n: usize) -> Option<u32> {
        if id == 0 {
            return None;
        }
        let at = *self.at.get(id as usize)? as usize;
        read_u32(&self.types, at.checked_add(n.checked_mul(4)?)?)
    }

    fn string(&self, at: u32) -> Option<&str> {
        let tail = self.strings.get(at as usize..)?;
        let end = tail.iter().position(|b| *b == 0)?;
        std::str::from_utf8(tail.get(..end)?).ok()
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_running_kernel_answers() {
        let Ok(btf) = Btf::of_running_kernel() else {
            println!("SKIPPED: this kernel publishes no BTF");
            return;
        };
        assert_eq!(btf.member("sock_common", "skc_daddr").map(|m| m.bit_offset), Some(0));
        assert!(btf.member("net", "ns.inum").is_some());
        assert!(btf.member("tcp_sock", "first_tx_mstamp").is_some());
        assert_eq!(btf.member("sock_common", "skc_ipv6only").map(|m| m.bit_size), Some(1));
        assert_eq!(btf.member("sock", "no_such_member"), None);
        assert_eq!(btf.tracepoint_arguments("inet_sock_set_state"), Some(3));
        assert_eq!(btf.tracepoint_arguments("no_such_tracepoint"), None);
        assert!(btf.has_function("tcp_sendmsg"));
    }

    proptest! {
        #[test]
        fn parsing_is_total(mut image in prop::collection::vec(any::<u8>(), 0..400), magic in any::<bool>()) {
            if magic && image.len() > 24 {
                image[..2].copy_from_slice(&0xeb9f_u16.to_ne_bytes());
                for (i, word) in [24u32, 0, 200, 200, 100].iter().enumerate() {
                    image[4 + i * 4..8 + i * 4].copy_from_slice(&word.to_ne_bytes());
                }
            }
            if let Ok(btf) = Btf::parse(&image) {
                let _ = btf.member("a", "b.c");
                for id in 0..btf.at.len() as u32 + 2 {
                    let _ = btf.member_of(id, "x", &mut HashSet::new(), 0);
                    let _ = btf.resolve(id);
                }
            }
        }
    }
}
