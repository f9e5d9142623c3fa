//! How programs get from a `struct sock` to its `struct tcp_sock`: by `bpf_rdonly_cast`, which the
//! verifier turns into a copy of a register, or by the helper `bpf_skc_to_tcp_sock`.
//!
//! The object has a placeholder, [`TCP_SOCK_CALL`], wherever it needs that. It is replaced in the
//! bytes of the object, because aya neither resolves kernel functions nor gives access to the
//! instructions between parsing and loading.

use agent_common::config::TCP_SOCK_CALL;
use anyhow::Context as _;
use aya_obj::generated::{BPF_CALL, BPF_JMP, BPF_PSEUDO_KFUNC_CALL, bpf_func_id};
use object::{Object as _, ObjectSection as _, SectionKind};

use super::btf::Btf;

/// The kernel function, since Linux 6.2.
const CAST: &str = "bpf_rdonly_cast";

/// What is called in the place of a placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The helper, which checks the socket.
    Helper,
    /// The kernel function with this number.
    Function(u32),
}

/// The number of the function that casts, if this kernel has it.
pub fn cast(btf: &Btf) -> Option<u32> {
    btf.function(CAST)
}

/// The number of the type that it casts to, if this kernel has both.
pub fn cast_to(btf: &Btf) -> Option<u32> {
    cast(btf).and_then(|_| btf.structure("tcp_sock"))
}

/// The object with this call in all places.
pub fn replace(object: &[u8], call: Call) -> anyhow::Result<Vec<u8>> {
    let mut replaced = object.to_vec();
    let file = object::File::parse(object).context("reading the kernel object")?;
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let (start, length) = section.file_range().context("a section of programs is empty")?;
        let range = start as usize..(start + length) as usize;
        let code = replaced.get_mut(range).context("a section lies outside the kernel object")?;
        for instruction in code.chunks_exact_mut(PLACEHOLDER.len()) {
            if *instruction == PLACEHOLDER {
                instruction.copy_from_slice(&call.instruction());
            }
        }
    }
    Ok(replaced)
}

const PLACEHOLDER: [u8; 8] = instruction(0, TCP_SOCK_CALL);

/// A call (include/uapi/linux/bpf.h, `struct bpf_insn`, little endian): opcode, registers with the
/// kind of call in the upper half, offset, number of what is called.
const fn instruction(kind: u32, number: u32) -> [u8; 8] {
    let [a, b, c, d] = number.to_le_bytes();
    [(BPF_JMP | BPF_CALL) as u8, (kind << 4) as u8, 0, 0, a, b, c, d]
}

// === impl Call ===

impl Call {
    const fn instruction(self) -> [u8; 8] {
        match self {
            Self::Helper => instruction(0, bpf_func_id::BPF_FUNC_skc_to_tcp_sock as u32),
            Self::Function(number) => instruction(BPF_PSEUDO_KFUNC_CALL, number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::object::OBJECT;
    use super::*;

    /// How often each call is in the programs of an object.
    fn calls(object: &[u8]) -> [usize; 3] {
        let object = aya_obj::Object::parse(object).unwrap();
        let instructions = object.functions.values().flat_map(|function| &function.instructions);
        let mut counts = [0; 3];
        for instruction in instructions {
            let is_call = u32::from(instruction.code) == BPF_JMP | BPF_CALL;
            let kind = u32::from(instruction.src_reg());
            match (is_call, kind, instruction.imm as u32) {
                (true, 0, TCP_SOCK_CALL) => counts[0] += 1,
                (true, 0, 137) => counts[1] += 1,
                (true, BPF_PSEUDO_KFUNC_CALL, 4711) => counts[2] += 1,
                _ => {}
            }
        }
        counts
    }

    #[test]
    fn every_placeholder_is_replaced_and_nothing_else() {
        let [placeholders, helper, _] = calls(OBJECT);
        assert!(placeholders > 10, "{placeholders} placeholders");
        assert_eq!(
            helper, 5,
            "bootstrap_tcp, both ways of bound_sockets and both walks check what they get"
        );
        let by_helper = replace(OBJECT, Call::Helper).unwrap();
        assert_eq!(calls(&by_helper), [0, helper + placeholders, 0]);
        let by_function = replace(OBJECT, Call::Function(4711)).unwrap();
        assert_eq!(calls(&by_function), [0, helper, placeholders]);
        let differ = OBJECT.iter().zip(&by_function).filter(|(before, after)| before != after);
        // Of an instruction: the kind of call, and two or three bytes of the number.
        assert!(differ.count() <= placeholders * 5);
        assert_eq!(by_function.len(), OBJECT.len());
    }

    #[test]
    fn from_linux_6_2_on_the_kernel_casts() {
        let Ok(btf) = Btf::of_running_kernel() else {
            println!("SKIPPED: this kernel publishes no BTF");
            return;
        };
        let version = super::super::preflight::version(&super::super::preflight::kernel_release());
        let casts = version.is_some_and(|version| version >= (6, 2));
        assert_eq!((cast(&btf).is_some(), cast_to(&btf).is_some()), (casts, casts));
    }
}
