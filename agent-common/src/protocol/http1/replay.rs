//! The walk over slices in the place of packets: what tests and the fuzzer run, and what they find in it.

use std::collections::BTreeMap;

use super::{
    CLASS_NAMES, CLASSES, ENDED, Effect, GO_ON, LEFT, METHOD_NAMES, Place, UNANSWERED, WALKED,
    WINDOW, Walk, Window, drain, method_of, request_arrived, request_step, request_walked,
    response_sent, response_step,
};
use crate::ledger::REASON_NAMES;
use crate::wire::Wire as _;

/// A packet on the host.
struct Bytes<'a>(&'a [u8]);

impl Place for Bytes<'_> {
    unsafe fn load(&self, window: *mut Window, have: usize, offset: u32, length: usize) -> bool {
        let Some(from) = self.0.get(offset as usize..offset as usize + length) else {
            return false;
        };
        assert!(have + length <= WINDOW);
        // SAFETY: within the window, asserted just above.
        unsafe { window.cast::<u8>().add(have).copy_from(from.as_ptr(), length) };
        true
    }

    unsafe fn empty(&self, at: *mut u64, word: u64) -> bool {
        // SAFETY: the caller's contract.
        unsafe {
            at.read() == word && {
                at.write(0);
                true
            }
        }
    }

    unsafe fn drain(&self, walk: *mut Walk) -> u32 {
        // SAFETY: the caller's contract.
        unsafe { drain(walk, self) }
    }
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that began.
    pub seen: u32,
    /// Those that have ended, by number.
    pub numbers: BTreeMap<u32, u32>,
    /// Those that were lost, by reason.
    pub lost: BTreeMap<&'static str, u32>,
}

impl Counts {
    fn add(&mut self, effect: Effect) {
        self.seen += effect.seen;
        if let Some(number) = effect.number.checked_sub(1) {
            *self.numbers.entry(number).or_default() += 1;
        }
        if effect.lost > 0 {
            *self.lost.entry(REASON_NAMES[effect.reason as usize]).or_default() += effect.lost;
        }
    }

    /// Method, status and how often, and what was lost.
    pub fn said(&self) -> Vec<String> {
        let names = |number: u32| match number {
            UNANSWERED => "unanswered".to_owned(),
            _ => format!(
                "{} {}",
                METHOD_NAMES[method_of(number) as usize],
                CLASS_NAMES[number as usize % CLASSES]
            ),
        };
        let numbers = self.numbers.iter().map(|(number, n)| format!("{} {n}", names(*number)));
        let lost = self.lost.iter().map(|(reason, n)| format!("lost {reason} {n}"));
        numbers.chain(lost).collect()
    }

    /// Whether each request that began has ended or is open.
    pub fn is_whole(&self, open: u32) -> bool {
        self.seen == self.numbers.values().sum::<u32>() + self.lost.values().sum::<u32>() + open
    }
}

/// A connection whose packets are walked.
#[derive(Debug)]
pub struct Connection {
    walk: Box<Walk>,
    /// What was counted.
    pub counts: Counts,
    /// The sequence number that the client uses next...
    pub received: u32,
    /// ...and the server.
    pub sent: u32,
    now_us: u64,
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

impl Connection {
    /// A connection of which nothing was seen yet.
    pub fn new() -> Self {
        let walk = Box::new(Walk { stage: WALKED, ..Walk::zeroed() });
        let counts = Counts::default();
        // Soon to wrap.
        let (received, sent) = (u32::MAX - 7, 5);
        Self { walk, counts, received, sent, now_us: 10 }
    }

    /// The server receives what comes next.
    pub fn receive(&mut self, bytes: &[u8]) {
        let seq = self.received;
        self.received = seq.wrapping_add(bytes.len() as u32);
        self.receive_at(seq, bytes);
    }

    /// The same while a request is open of which nothing was seen.
    pub fn receive_within(&mut self, bytes: &[u8]) {
        let seq = self.received;
        self.received = seq.wrapping_add(bytes.len() as u32);
        self.arrive(seq, bytes, false);
    }

    /// The server receives a packet with this sequence number.
    pub fn receive_at(&mut self, seq: u32, bytes: &[u8]) {
        self.arrive(seq, bytes, true);
    }

    fn arrive(&mut self, seq: u32, bytes: &[u8], is_fresh: bool) {
        self.now_us += 1;
        let walk = &raw mut *self.walk;
        // SAFETY: a valid walk that nobody else has.
        unsafe {
            if (*walk).stage == LEFT || bytes.is_empty() {
                return;
            }
            if request_arrived(walk, seq, 0, bytes.len() as u32, is_fresh) {
                loop {
                    let effect = request_step(walk, &Bytes(bytes), self.now_us);
                    self.counts.add(effect);
                    if effect.is_done {
                        break;
                    }
                }
                request_walked(walk);
            }
        }
    }

    /// The server sends what comes next.
    pub fn send(&mut self, bytes: &[u8]) {
        let seq = self.sent;
        self.sent = seq.wrapping_add(bytes.len() as u32);
        self.send_at(seq, bytes);
    }

    /// The server sends a packet with this sequence number.
    pub fn send_at(&mut self, seq: u32, bytes: &[u8]) {
        self.now_us += 1;
        let walk = &raw mut *self.walk;
        // SAFETY: as above.
        unsafe {
            if (*walk).stage == LEFT || bytes.is_empty() {
                return;
            }
            let (go_on, effect) = response_sent(walk, seq, 0, bytes.len() as u32, &Bytes(bytes));
            self.counts.add(effect);
            if !go_on {
                return;
            }
            loop {
                let effect = response_step(walk, &Bytes(bytes), self.now_us);
                self.counts.add(effect);
                if effect.is_done {
                    break;
                }
            }
        }
    }

    /// The server closes.
    pub fn close(&mut self) {
        self.walk.stage = ENDED;
        // SAFETY: as above.
        for _ in 0..unsafe { drain(&raw mut *self.walk, &Bytes(&[])) } {
            self.counts.add(Effect { number: UNANSWERED + 1, ..GO_ON });
        }
    }

    /// How many requests are open.
    pub fn open(&self) -> u32 {
        self.walk.open.iter().filter(|word| **word != 0).count() as u32
    }
}
