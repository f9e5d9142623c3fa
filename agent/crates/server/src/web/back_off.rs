//! Which addresses sent wrong passwords, and how long each of them has to wait.
//!
//! The first wrong passwords cost nothing, because people mistype. Then each doubles the pause of
//! its address. The table is bounded; what it forgets under a flood from many addresses is still
//! limited by the share of CPU time that all comparisons together may take ([`super::passwords`]).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Wrong passwords of an address before it has to wait.
const FREE: u32 = 3;

/// The first pause; each further wrong password doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause: a user who shares the address of a guesser is not kept out for long.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An address is forgotten when it has been quiet this long after its pause.
const FORGET_AFTER: Duration = Duration::from_mins(2);

/// Comparisons of one address at the same time, so that one does not fill the queue.
const AT_ONCE: u32 = 4;

/// Maximum number of addresses.
pub(super) const ADDRESSES: usize = 1024;

/// The addresses with wrong passwords or running comparisons.
#[derive(Debug, Default)]
pub(super) struct BackOff(HashMap<IpAddr, Row>);

#[derive(Debug)]
struct Row {
    wrong: u32,
    comparing: u32,
    until: Instant,
}

impl BackOff {
    /// Begins a comparison for `peer`, or says how long it has to wait. [`Self::end`] follows.
    pub(super) fn begin(&mut self, peer: IpAddr, now: Instant) -> Result<(), Duration> {
        let peer = network(peer);
        if !self.0.contains_key(&peer) {
            self.make_room(now);
        }
        let row = self.0.entry(peer).or_insert(Row { wrong: 0, comparing: 0, until: now });
        if row.is_forgotten(now) {
            row.wrong = 0;
        }
        if let Some(wait) = row.until.checked_duration_since(now).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        if row.comparing >= AT_ONCE {
            return Err(FIRST_PAUSE);
        }
        row.comparing += 1;
        Ok(())
    }

    /// Ends a comparison: `right` is `None` if there was none. Returns how many wrong passwords
    /// this address has sent, if this was one.
    pub(super) fn end(&mut self, peer: IpAddr, right: Option<bool>, now: Instant) -> Option<u32> {
        let peer = network(peer);
        let row = self.0.get_mut(&peer)?;
        row.comparing = row.comparing.saturating_sub(1);
        match right {
            Some(false) => {
                row.wrong = row.wrong.saturating_add(1);
                row.until = row.until.max(now + pause(row.wrong));
                Some(row.wrong)
            }
            Some(true) => {
                (row.wrong, row.until) = (0, now);
                None
            }
            None => None,
        }
    }

    /// Removes what is forgotten, then whose pause ends first, until a row is free.
    fn make_room(&mut self, now: Instant) {
        if self.0.len() < ADDRESSES {
            return;
        }
        self.0.retain(|_, row| row.comparing > 0 || !row.is_forgotten(now));
        while self.0.len() >= ADDRESSES {
            let idle = self.0.iter().filter(|(_, row)| row.comparing == 0);
            let Some(first) = idle.min_by_key(|(_, row)| row.until).map(|(peer, _)| *peer) else {
                return;
            };
            self.0.remove(&first);
        }
    }
}

impl Row {
    fn is_forgotten(&self, now: Instant) -> bool {
        now >= self.until + FORGET_AFTER
    }
}

/// One row for an IPv4 address, and for the /64 that a single IPv6 host has to itself.
pub(super) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        four @ IpAddr::V4(_) => four,
    }
}

fn pause(wrong: u32) -> Duration {
    match wrong.checked_sub(FREE + 1) {
        Some(doublings) => FIRST_PAUSE.saturating_mul(1 << doublings.min(16)).min(LONGEST_PAUSE),
        None => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + last).into())
    }

    fn guess(table: &mut BackOff, peer: IpAddr, right: bool, now: Instant) -> Result<(), u64> {
        table.begin(peer, now).map_err(|wait| wait.as_secs())?;
        table.end(peer, Some(right), now);
        Ok(())
    }

    #[test]
    fn pauses_double_and_end_and_are_forgotten() {
        let (mut table, mut now) = (BackOff::default(), Instant::now());
        for _ in 0..4 {
            assert_eq!(guess(&mut table, peer(1), false, now), Ok(()));
        }
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(guess(&mut table, peer(1), true, now), Err(pause), "the pause is of all");
            assert_eq!(guess(&mut table, peer(2), true, now), Ok(()), "of another address");
            now += Duration::from_secs(pause);
            assert_eq!(guess(&mut table, peer(1), false, now), Ok(()));
        }
        now += LONGEST_PAUSE + FORGET_AFTER;
        for _ in 0..4 {
            assert_eq!(guess(&mut table, peer(1), false, now), Ok(()));
        }
        now += FIRST_PAUSE;
        assert_eq!(guess(&mut table, peer(1), true, now), Ok(()));
        for _ in 0..4 {
            assert_eq!(guess(&mut table, peer(1), false, now), Ok(()), "a right one begins anew");
        }
    }

    #[test]
    fn one_address_compares_a_few_at_once() {
        let (mut table, now) = (BackOff::default(), Instant::now());
        for _ in 0..AT_ONCE {
            assert_eq!(table.begin(peer(1), now), Ok(()));
        }
        assert_eq!(table.begin(peer(1), now), Err(FIRST_PAUSE));
        assert_eq!(table.begin(peer(2), now), Ok(()));
        assert_eq!(table.end(peer(1), None, now), None);
        assert_eq!(table.begin(peer(1), now), Ok(()));
    }

    #[test]
    fn hosts_of_one_ipv6_network_share_a_pause() {
        let (mut table, now) = (BackOff::default(), Instant::now());
        let peer = |text: &str| text.parse::<IpAddr>().expect("an address");
        for last in 0..4 {
            let one = peer(&format!("2001:db8::{last}"));
            assert_eq!(guess(&mut table, one, false, now), Ok(()));
        }
        assert_eq!(guess(&mut table, peer("2001:db8::9"), false, now), Err(1));
        assert_eq!(guess(&mut table, peer("2001:db8:0:1::9"), false, now), Ok(()));
        for _ in 0..4 {
            assert_eq!(guess(&mut table, peer("::ffff:192.0.2.1"), false, now), Ok(()));
        }
        assert_eq!(guess(&mut table, peer("192.0.2.1"), false, now), Err(1));
        assert_eq!(guess(&mut table, peer("::ffff:192.0.2.2"), false, now), Ok(()));
    }

    #[test]
    fn a_flood_from_many_addresses_fills_a_table_of_fixed_size() {
        let (mut table, now) = (BackOff::default(), Instant::now());
        for _ in 0..8 {
            let _ = guess(&mut table, peer(0), false, now);
        }
        for last in 1..3 * ADDRESSES as u32 {
            assert_eq!(guess(&mut table, peer(last), false, now), Ok(()));
            assert!(table.0.len() <= ADDRESSES);
        }
        assert_eq!(guess(&mut table, peer(0), false, now), Err(1), "the longest pause stays");
    }
}
