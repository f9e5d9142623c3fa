//! DNS messages (RFC 1035), as far as addresses of a name need them.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::IpAddr;

/// Type of an IPv4 address.
pub(super) const A: u16 = 1;
/// Type of an IPv6 address (RFC 3596).
pub(super) const AAAA: u16 = 28;
/// The class of the Internet.
const IN: u16 = 1;

/// An answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// RCODE; 0 without an error.
    pub(super) code: u8,
    pub(super) addresses: Vec<IpAddr>,
}

/// Reads forward in a message, never beyond its end.
struct Reader<'a>(&'a [u8]);

/// A number that others do not guess.
pub(super) fn random_id() -> u16 {
    RandomState::new().build_hasher().finish() as u16
}

/// The question for the addresses of a name; `None` if it cannot be a name.
pub(super) fn query(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut bytes = id.to_be_bytes().to_vec();
    // Recursion desired; one question.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    if name.len() > 253 {
        return None;
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(IN.to_be_bytes());
    Some(bytes)
}

/// Reads the answer to the question with this number. The end of an answer that was cut off (TC) is
/// missing.
pub(super) fn read(bytes: &[u8], id: u16) -> Option<Answer> {
    let mut reader = Reader(bytes);
    if reader.number()? != id {
        return None;
    }
    let flags = reader.number()?;
    // A response (QR).
    if flags & 0x8000 == 0 {
        return None;
    }
    let (questions, answers) = (reader.number()?, reader.number()?);
    reader.skip(4)?;
    let mut answer = Answer { code: (flags & 0xf) as u8, addresses: Vec::new() };
    for _ in 0..questions {
        reader.skip_name()?;
        reader.skip(4)?;
    }
    for _ in 0..answers {
        let Some((kind, data)) = reader.record() else { break };
        match kind {
            A => answer.addresses.extend(<[u8; 4]>::try_from(data).map(IpAddr::from)),
            AAAA => answer.addresses.extend(<[u8; 16]>::try_from(data).map(IpAddr::from)),
            // CNAME: what it stands for follows.
            _ => {}
        }
    }
    Some(answer)
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn skip(&mut self, length: usize) -> Option<&'a [u8]> {
        let (skipped, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(skipped)
    }

    fn number(&mut self) -> Option<u16> {
        self.skip(2)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// Skips a name: labels, up to an empty one or a pointer.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            let length = *self.skip(1)?.first()?;
            match length {
                0 => return Some(()),
                64.. if length & 0xc0 == 0xc0 => return self.skip(1).map(drop),
                64.. => return None,
                _ => self.skip(length.into()).map(drop)?,
            }
        }
    }

    /// Type and data of a record.
    fn record(&mut self) -> Option<(u16, &'a [u8])> {
        self.skip_name()?;
        let kind = self.number()?;
        // Class and time to live.
        self.skip(6)?;
        let length = self.number()?;
        Some((kind, self.skip(length.into())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An answer with an alias and two addresses.
    fn answer(id: u16, code: u8) -> Vec<u8> {
        let mut bytes = query(id, "db.example", A).expect("a name");
        bytes[2] = 0x81;
        bytes[3] = 0x80 | code;
        bytes[7] = 3;
        let mut record = |kind: u16, data: &[u8]| {
            bytes.extend([0xc0, 12]);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 60]);
            bytes.extend((data.len() as u16).to_be_bytes());
            bytes.extend(data);
        };
        record(5, &[1, b'x', 0xc0, 12]);
        record(A, &[10, 0, 0, 9]);
        record(AAAA, &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        bytes
    }

    #[test]
    fn addresses_are_read_behind_aliases() {
        let bytes = answer(7, 0);
        let found = read(&bytes, 7).expect("an answer");
        let expected: Vec<IpAddr> =
            ["10.0.0.9", "fd00::9"].iter().map(|text| text.parse().expect("an address")).collect();
        assert_eq!(found, Answer { code: 0, addresses: expected });
        assert_eq!(read(&bytes, 8), None, "another question's");
        assert_eq!(read(&answer(7, 3), 7).map(|answer| answer.code), Some(3));
        assert_eq!(read(&query(7, "db", A).expect("a name"), 7), None, "a question");
    }

    #[test]
    fn what_cannot_be_a_name_is_not_asked_for() {
        for name in ["", "a..b", &"x".repeat(64), &"x.".repeat(200)] {
            assert_eq!(query(1, name, A), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..80,
        ) {
            let id = bytes.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
            let _ = read(&bytes, id);
            let whole = answer(7, 0);
            let _ = read(whole.get(..cut).unwrap_or(&whole), 7);
        }
    }
}
