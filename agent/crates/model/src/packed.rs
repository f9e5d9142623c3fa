//! What an edge counted in a few seconds, in a few bytes: pairs of an index and a number, in the
//! order of [`EdgeCounters::each`]. Of three hundred numbers some ten have moved, and most by less
//! than 128: that is thirty bytes instead of two and a half thousand.
//!
//! A pair is the distance from the index before and the number, both in base 128, least
//! significant first, with a high bit on every byte but the last (LEB128).

use agent_common::counters::EdgeCounters;

/// Packed counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Packed(Box<[u8]>);

/// The pairs of packed counters.
struct Pairs<'a> {
    bytes: &'a [u8],
    /// One more than the index of the last pair.
    next: u16,
}

/// Packs pairs.
#[derive(Default)]
struct Packer {
    bytes: Vec<u8>,
    next: u16,
}

// === impl Packed ===

impl Packed {
    /// What these counters have.
    pub(super) fn new(counters: &EdgeCounters) -> Self {
        let mut packer = Packer::default();
        counters.each(|index, n| packer.push(index, n));
        packer.finish()
    }

    /// The sum of two.
    pub(super) fn plus(&self, other: &Self) -> Self {
        let (mut mine, mut theirs) = (self.pairs().peekable(), other.pairs().peekable());
        let mut packer = Packer::default();
        loop {
            let pair = match (mine.peek().copied(), theirs.peek().copied()) {
                (Some((index, n)), Some((same, m))) if index == same => {
                    mine.next();
                    theirs.next();
                    (index, n.wrapping_add(m))
                }
                (Some(first), Some(second)) if first.0 < second.0 => {
                    mine.next();
                    first
                }
                (_, Some(pair)) => {
                    theirs.next();
                    pair
                }
                (Some(pair), None) => {
                    mine.next();
                    pair
                }
                (None, None) => return packer.finish(),
            };
            packer.push(pair.0, pair.1);
        }
    }

    /// Adds what was packed.
    pub(super) fn add_to(&self, counters: &mut EdgeCounters) {
        self.pairs().for_each(|(index, n)| counters.add_at(index, n));
    }

    /// Bytes in memory.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn pairs(&self) -> Pairs<'_> {
        Pairs { bytes: &self.0, next: 0 }
    }
}

// === impl Packer ===

impl Packer {
    fn push(&mut self, index: u16, n: u64) {
        self.number(u64::from(index - self.next));
        self.number(n);
        self.next = index + 1;
    }

    fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.bytes.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.bytes.push(n as u8);
    }

    fn finish(self) -> Packed {
        Packed(self.bytes.into_boxed_slice())
    }
}

// === impl Pairs ===

impl Pairs<'_> {
    fn number(&mut self) -> Option<u64> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            n |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                break;
            }
        }
        Some(n)
    }
}

impl Iterator for Pairs<'_> {
    type Item = (u16, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let distance = self.number()?;
        let index = self.next + distance as u16;
        self.next = index + 1;
        Some((index, self.number()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counters(bytes: u64, refused: u64, durations: &[u64]) -> EdgeCounters {
        let mut counters = EdgeCounters { sent_bytes: bytes, ..EdgeCounters::ZERO };
        counters.connects[1] = refused;
        for us in durations {
            counters.request.observe(*us);
        }
        counters
    }

    #[test]
    fn a_quiet_edge_takes_a_few_bytes() {
        assert_eq!(Packed::new(&EdgeCounters::ZERO).len(), 0);
        let busy = Packed::new(&counters(100_000, 1, &[800, 900, 1000]));
        assert!(busy.len() < 16, "{}", busy.len());
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked_and_sums_are_sums(
            a in (any::<u64>(), 0u64..300, prop::collection::vec(0u64..1 << 40, 0..9)),
            b in (any::<u64>(), 0u64..300, prop::collection::vec(0u64..1 << 40, 0..9)),
        ) {
            let (a, b) = (counters(a.0, a.1, &a.2), counters(b.0, b.1, &b.2));
            let mut unpacked = EdgeCounters::ZERO;
            Packed::new(&a).add_to(&mut unpacked);
            prop_assert_eq!(&unpacked, &a);
            let mut sum = a.clone();
            sum.merge(&b);
            let mut unpacked = EdgeCounters::ZERO;
            Packed::new(&a).plus(&Packed::new(&b)).add_to(&mut unpacked);
            prop_assert_eq!(&unpacked, &sum);
        }
    }
}
