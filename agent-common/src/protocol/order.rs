//! The order of bytes. What a host sends passes a cgroup's hook in order, and again if it is
//! retransmitted; what it receives passes before TCP has put it in order.
//!
//! A packet beyond a gap is not walked. That is harmless if all that was passed over lies in a body that
//! is skipped anyway; else the direction is lost once it reaches what was passed over.

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Nothing new: it was there before, or comes too early.
    Ignore,
    /// To be walked, without so many bytes at its beginning.
    Walk(u32),
    /// Something was missed that will not come again.
    Lost,
}

crate::wire! {
    /// How far a direction was walked.
    pub struct Order: 16 {
        /// The sequence number that comes next.
        pub next: u32,
        /// Packets came too early: where the first of them begins...
        pub early_from: u32,
        /// ...and where the last of them ends.
        pub early_to: u32,
        /// Whether there are any.
        pub has_early: u32,
    }
}

impl Order {
    /// A packet of `length` bytes, from 1, at `seq`. `skip` is how many of the next bytes are skipped; what
    /// a gap has taken of them is taken off.
    #[inline(always)]
    pub fn arrived(&mut self, seq: u32, length: u32, skip: &mut u64) -> Arrival {
        let ahead = seq.wrapping_sub(self.next);
        let end = seq.wrapping_add(length);
        if ahead as i32 > 0 {
            if *skip < u64::from(ahead) {
                self.is_early(seq, end);
                return Arrival::Ignore;
            }
            take(skip, ahead);
            self.next = end;
            return Arrival::Walk(0);
        }
        let known = self.next.wrapping_sub(seq);
        if known >= length {
            return Arrival::Ignore;
        }
        self.next = end;
        Arrival::Walk(known)
    }

    /// What was ready to be walked was walked: whether it goes on from here.
    #[inline(always)]
    pub fn walked(&mut self, skip: &mut u64) -> Arrival {
        if self.has_early == 0 || (self.next.wrapping_sub(self.early_from) as i32) < 0 {
            return Arrival::Ignore;
        }
        self.has_early = 0;
        let passed = self.early_to.wrapping_sub(self.next);
        if passed as i32 <= 0 {
            return Arrival::Ignore;
        }
        if *skip < u64::from(passed) {
            return Arrival::Lost;
        }
        take(skip, passed);
        self.next = self.early_to;
        Arrival::Ignore
    }

    /// Begins anew with a packet.
    #[inline(always)]
    pub fn restart(&mut self, seq: u32) {
        self.next = seq;
        self.has_early = 0;
    }

    /// Goes to the end of a packet that is not walked, if that is new.
    #[inline(always)]
    pub fn pass(&mut self, seq: u32, length: u32) {
        let end = seq.wrapping_add(length);
        if end.wrapping_sub(self.next) as i32 > 0 {
            self.next = end;
        }
        self.has_early = 0;
    }

    #[inline(always)]
    fn is_early(&mut self, from: u32, to: u32) {
        if self.has_early == 0 {
            self.has_early = 1;
            self.early_from = from;
            self.early_to = to;
            return;
        }
        if (from.wrapping_sub(self.early_from) as i32) < 0 {
            self.early_from = from;
        }
        if to.wrapping_sub(self.early_to) as i32 > 0 {
            self.early_to = to;
        }
    }
}

/// Takes bytes off what is skipped; all that follows stays all that follows.
#[inline(always)]
pub fn take(skip: &mut u64, bytes: u32) {
    if *skip != u64::MAX {
        *skip = skip.wrapping_sub(u64::from(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Wire as _;

    /// Packets (from, length) into a direction that skips `skip` bytes from 100 on.
    fn check(skip: u64, packets: &[(u32, u32)], expected: &[Arrival]) {
        let mut order = Order { next: 100, ..Order::zeroed() };
        let mut skip = skip;
        let arrived = packets.iter().map(|(seq, length)| {
            let arrival = order.arrived(*seq, *length, &mut skip);
            let Arrival::Walk(known) = arrival else { return arrival };
            skip = skip.saturating_sub(u64::from(length - known));
            if order.walked(&mut skip) == Arrival::Lost { Arrival::Lost } else { arrival }
        });
        let arrived: Vec<_> = arrived.collect();
        assert_eq!(arrived, expected);
    }

    #[test]
    fn a_gap_costs_nothing_unless_what_it_passes_over_was_to_be_read() {
        use Arrival::{Ignore, Lost, Walk};
        check(
            0,
            &[(100, 10), (110, 5), (100, 10), (105, 12)],
            &[Walk(0), Walk(0), Ignore, Walk(10)],
        );
        // Within a body that is skipped, the gap and what fills it.
        check(50, &[(120, 10), (100, 20), (130, 25)], &[Walk(0), Ignore, Walk(0)]);
        // The head was lost and comes again; what came before it is part of its body.
        check(0, &[(110, 10), (100, 10)], &[Ignore, Lost]);
        // What came early comes again, too.
        check(0, &[(110, 10), (100, 20)], &[Ignore, Walk(0)]);
    }

    #[test]
    fn numbers_wrap() {
        let (mut order, mut skip) = (Order { next: u32::MAX - 4, ..Order::zeroed() }, 0);
        assert_eq!(order.arrived(u32::MAX - 4, 10, &mut skip), Arrival::Walk(0));
        assert_eq!(order.next, 5);
        assert_eq!(order.arrived(u32::MAX, 3, &mut skip), Arrival::Ignore);
        assert_eq!(order.arrived(9, 3, &mut skip), Arrival::Ignore);
        assert_eq!((order.has_early, order.early_from, order.early_to), (1, 9, 12));
    }
}
