//! Answers of DNS servers (RFC 1035) → the name that was asked for and its addresses. Nothing else
//! in a message is looked at, nothing else is kept. Total: whatever the bytes, an answer or an
//! error.

use std::net::IpAddr;

use crate::answer::AnswerHeader;
use crate::wire::Wire as _;

use super::DecodeError;

/// Longest name in text (RFC 1035, 2.3.4: 255 octets in a message).
const MAX_NAME: usize = 253;
/// Records looked at in one message.
const MAX_RECORDS: u16 = 64;
/// Longest chain of CNAMEs that is followed; resolvers follow eight to sixteen.
const MAX_CHAIN: usize = 16;

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
/// The server left out what did not fit (TC).
const IS_TRUNCATED: u8 = 0x02;
const IS_ANSWER: u8 = 0x80;

const SHORT: &str = "the length of a DNS message";
const NAME: &str = "a name in a DNS message";
const RECORD: &str = "a record in a DNS message";

/// A DNS server's answer to a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Network namespace of the program.
    pub netns: u32,
    /// Whose that is: [`crate::share::Tenant::origin`].
    pub origin: u64,
    /// CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// What was answered.
    pub resolution: Resolution,
}

/// A name and the addresses it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The name that was asked for, in lower case.
    pub name: String,
    /// Its addresses, behind whatever aliases, and how many seconds each is good for.
    pub addresses: Vec<(IpAddr, u32)>,
}

/// Reads one record of the ring of answers.
pub fn answer(bytes: &[u8]) -> Result<Answer, DecodeError> {
    let short = DecodeError::Short(bytes.len());
    let Some(header) = AnswerHeader::from_bytes(bytes) else { return Err(short) };
    let AnswerHeader { time_ns, origin, netns, length, copied, zero: _ } = header;
    let copied = copied as usize;
    let message = bytes.get(size_of::<AnswerHeader>()..).and_then(|rest| rest.get(..copied));
    let resolution = message_of(message.ok_or(short)?, length as usize)?;
    Ok(Answer { netns, origin, time_ns, resolution })
}

/// Reads a message of which these are the first bytes of `length`.
pub fn message_of(bytes: &[u8], length: usize) -> Result<Resolution, DecodeError> {
    let mut reader = Reader { bytes, at: 0 };
    let [_, _, flags, _] = reader.take()?;
    let [questions, answers, _, _] = [(); 4].map(|()| reader.number());
    if flags & IS_ANSWER == 0 || questions? != 1 {
        return Err(DecodeError::OutOfRange("the header of a DNS message"));
    }
    let name = reader.name()?;
    let [_, _, class @ ..] = reader.take::<4>()?;
    if name.is_empty() || u16::from_be_bytes(class) != CLASS_IN {
        return Err(DecodeError::OutOfRange("the question of a DNS message"));
    }
    let is_cut = flags & IS_TRUNCATED != 0 || bytes.len() < length;
    let mut records = Vec::new();
    for _ in 0..answers?.min(MAX_RECORDS) {
        match reader.record() {
            Ok(record) => records.extend(record),
            // What came before is whole.
            Err(_) if is_cut => break,
            Err(error) => return Err(error),
        }
    }
    Ok(follow(name, &records))
}

/// A record that matters.
struct Record {
    owner: String,
    ttl: u32,
    data: Data,
}

enum Data {
    Alias(String),
    Address(IpAddr),
}

/// Addresses of a name, through its aliases. An address is good for as long as all that leads to it.
fn follow(name: String, records: &[Record]) -> Resolution {
    let mut addresses = Vec::new();
    let (mut owner, mut least) = (name.as_str(), u32::MAX);
    let mut chain = vec![owner];
    while chain.len() <= MAX_CHAIN {
        let mut alias = None;
        for record in records.iter().filter(|record| record.owner == owner) {
            let ttl = least.min(record.ttl);
            match &record.data {
                Data::Address(address) => addresses.push((*address, ttl)),
                Data::Alias(to) => alias = Some((to.as_str(), ttl)),
            }
        }
        let Some((next, ttl)) = alias.filter(|(next, _)| !chain.contains(next)) else { break };
        (owner, least) = (next, ttl);
        chain.push(owner);
    }
    drop(chain);
    Resolution { name, addresses }
}

/// A bounded reader of a message.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

// === impl Reader ===

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let rest = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk());
        let taken = *rest.ok_or(DecodeError::OutOfRange(SHORT))?;
        self.at += N;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_be_bytes)
    }

    /// A record of the answer section, if it is of a kind that matters.
    fn record(&mut self) -> Result<Option<Record>, DecodeError> {
        let owner = self.name();
        // The name of a record that does not matter may be anything.
        if let Err(DecodeError::OutOfRange(SHORT)) = owner {
            return Err(DecodeError::OutOfRange(SHORT));
        }
        let (kind, class) = (self.number()?, self.number()?);
        let ttl = u32::from_be_bytes(self.take()?);
        let end = usize::from(self.number()?) + self.at;
        if end > self.bytes.len() {
            return Err(DecodeError::OutOfRange(SHORT));
        }
        let data = match (class, kind) {
            (CLASS_IN, TYPE_A) => Data::Address(self.take::<4>()?.into()),
            (CLASS_IN, TYPE_AAAA) => Data::Address(IpAddr::from(self.take::<16>()?).to_canonical()),
            (CLASS_IN, TYPE_CNAME) => Data::Alias(self.name()?),
            _ => {
                self.at = end;
                return Ok(None);
            }
        };
        if self.at != end {
            return Err(DecodeError::OutOfRange(RECORD));
        }
        // RFC 2181, 8: with the highest bit set it is zero.
        let ttl = if ttl > i32::MAX.unsigned_abs() { 0 } else { ttl };
        Ok(Some(Record { owner: owner?, ttl, data }))
    }

    /// A name, in lower case. One that no host has is an error; the reader is behind it all the
    /// same, if it ends.
    fn name(&mut self) -> Result<String, DecodeError> {
        let mut name = String::new();
        let mut is_sound = true;
        let mut jumps = Jumps { at: self.at, after: None, limit: self.at };
        loop {
            match jumps.byte(self.bytes)? {
                0 => break,
                length @ 1..=63 => {
                    let label = jumps.label(self.bytes, length.into())?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    for byte in label {
                        is_sound &= byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                        name.push(char::from(byte.to_ascii_lowercase()));
                    }
                    if name.len() > MAX_NAME {
                        return Err(DecodeError::OutOfRange(NAME));
                    }
                }
                high @ 0xc0.. => jumps.follow(self.bytes, high)?,
                _ => return Err(DecodeError::OutOfRange(NAME)),
            }
        }
        self.at = jumps.after.unwrap_or(jumps.at);
        if is_sound { Ok(name) } else { Err(DecodeError::OutOfRange(NAME)) }
    }
}

/// Where in a message a name goes on, when it points to what was said before.
struct Jumps {
    at: usize,
    /// Where to read on behind the name, once it has jumped.
    after: Option<usize>,
    /// Every jump leads before this, so that no two meet.
    limit: usize,
}

// === impl Jumps ===

impl Jumps {
    fn byte(&mut self, bytes: &[u8]) -> Result<u8, DecodeError> {
        let byte = bytes.get(self.at).ok_or(DecodeError::OutOfRange(SHORT))?;
        self.at += 1;
        Ok(*byte)
    }

    fn label<'a>(&mut self, bytes: &'a [u8], length: usize) -> Result<&'a [u8], DecodeError> {
        let label = bytes.get(self.at..).and_then(|rest| rest.get(..length));
        self.at += length;
        label.ok_or(DecodeError::OutOfRange(SHORT))
    }

    fn follow(&mut self, bytes: &[u8], high: u8) -> Result<(), DecodeError> {
        let low = self.byte(bytes)?;
        let target = usize::from(u16::from_be_bytes([high & 0x3f, low]));
        self.after.get_or_insert(self.at);
        if target >= self.limit {
            return Err(DecodeError::OutOfRange(NAME));
        }
        (self.at, self.limit) = (target, target);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message with the question `name` and these records (owner, type, TTL, data).
    fn message(name: &str, records: &[(&str, u16, u32, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 0x81, 0x80, 0, 1];
        bytes.extend((records.len() as u16).to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(wire(name));
        bytes.extend([0, 1, 0, 1]);
        for (owner, kind, ttl, data) in records {
            // The question's name is pointed to, as servers do.
            bytes.extend(if *owner == name { vec![0xc0, 12] } else { wire(owner) });
            bytes.extend(kind.to_be_bytes());
            bytes.extend(CLASS_IN.to_be_bytes());
            bytes.extend(ttl.to_be_bytes());
            bytes.extend((data.len() as u16).to_be_bytes());
            bytes.extend(data);
        }
        bytes
    }

    fn wire(name: &str) -> Vec<u8> {
        let labels = name.split('.').flat_map(|label| {
            std::iter::once(label.len() as u8).chain(label.bytes()).collect::<Vec<_>>()
        });
        labels.chain([0]).collect()
    }

    fn read(bytes: &[u8]) -> Result<Resolution, DecodeError> {
        message_of(bytes, bytes.len())
    }

    fn resolution(name: &str, addresses: &[(&str, u32)]) -> Resolution {
        let addresses = addresses.iter().map(|(ip, ttl)| (ip.parse().unwrap(), *ttl)).collect();
        Resolution { name: name.to_owned(), addresses }
    }

    #[test]
    fn a_chain_of_aliases_ends_at_the_name_that_was_asked_for() {
        let records = [
            ("Shop.Example", TYPE_CNAME, 300, wire("cdn.example.net")),
            ("cdn.example.net", TYPE_CNAME, 20, wire("edge7.example.net")),
            ("edge7.example.net", TYPE_A, 60, vec![192, 0, 2, 7]),
            (
                "edge7.example.net",
                TYPE_AAAA,
                10,
                "2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets().into(),
            ),
            ("elsewhere.example", TYPE_A, 60, vec![192, 0, 2, 9]),
        ];
        let expected = resolution("shop.example", &[("192.0.2.7", 20), ("2001:db8::7", 10)]);
        assert_eq!(read(&message("Shop.Example", &records)), Ok(expected.clone()));
        // In whatever order.
        let mut reversed = records.clone();
        reversed.reverse();
        let mut found = read(&message("Shop.Example", &reversed)).unwrap();
        found.addresses.reverse();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_does_not_matter_is_passed_over() {
        let records = [
            ("a.example", 46, 300, vec![1; 40]), // a signature
            ("*.we ird", 16, 300, b"\x03txt".to_vec()),
            ("a.example", TYPE_A, u32::MAX, vec![192, 0, 2, 1]),
        ];
        let found = read(&message("a.example", &records));
        assert_eq!(found, Ok(resolution("a.example", &[("192.0.2.1", 0)])));
        let mapped = [(
            "a.example",
            TYPE_AAAA,
            1,
            std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets().into(),
        )];
        let found = read(&message("a.example", &mapped));
        assert_eq!(found, Ok(resolution("a.example", &[("192.0.2.1", 1)])));
    }

    #[test]
    fn what_was_cut_off_is_read_as_far_as_it_goes() {
        let records = [1, 2].map(|last| ("a.example", TYPE_A, 60, vec![192, 0, 2, last]));
        let whole = message("a.example", &records);
        let cut = whole.get(..whole.len() - 3).unwrap();
        assert_eq!(read(cut), Err(DecodeError::OutOfRange(SHORT)));
        let expected = Ok(resolution("a.example", &[("192.0.2.1", 60)]));
        assert_eq!(message_of(cut, whole.len()), expected);
        let mut said_so = cut.to_vec();
        said_so[2] |= IS_TRUNCATED;
        assert_eq!(read(&said_so), expected);
    }

    #[test]
    fn a_message_that_is_none_is_refused() {
        let check =
            |bytes: &[u8], what| assert_eq!(read(bytes), Err(DecodeError::OutOfRange(what)));
        let good = message("a.example", &[("a.example", TYPE_A, 1, vec![1, 2, 3, 4])]);
        let changed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        check(&good[..11], SHORT);
        check(&changed(2, 0x01), "the header of a DNS message");
        check(&changed(5, 2), "the header of a DNS message");
        check(&changed(12, 0x40), NAME); // a kind of label that never came to be
        check(&changed(13, b' '), NAME);
        check(&changed(12, 0xc0), NAME); // a pointer forward
        check(&message("a.example", &[("a.example", TYPE_A, 1, vec![1, 2, 3])]), SHORT);
        check(&message("a.example", &[("a.example", TYPE_A, 1, vec![1; 5])]), RECORD);
        let label = "x".repeat(63);
        let long = [label.as_str(); 4].join(".");
        check(&message(&long, &[]), NAME);
    }

    #[test]
    fn pointers_and_aliases_that_go_in_circles_end() {
        let mut bytes = message("a.example", &[]);
        // The question's name points to itself, then to a label before itself.
        bytes.splice(12..14, [0xc0, 12]);
        assert!(read(&bytes).is_err());
        let around = [
            ("a.example", TYPE_CNAME, 1, wire("b.example")),
            ("b.example", TYPE_CNAME, 1, wire("a.example")),
        ];
        assert_eq!(read(&message("a.example", &around)), Ok(resolution("a.example", &[])));
    }

    #[test]
    fn a_record_is_read_with_its_front() {
        let message = message("a.example", &[("a.example", TYPE_A, 9, vec![192, 0, 2, 1])]);
        let length = message.len() as u32;
        let header =
            AnswerHeader { time_ns: 5, origin: 9, netns: 7, length, copied: length, zero: 0 };
        let mut record = header.as_bytes().to_vec();
        record.extend(&message);
        // The ring rounds records up to eight bytes.
        record.extend([0; 3]);
        let resolution = resolution("a.example", &[("192.0.2.1", 9)]);
        assert_eq!(answer(&record), Ok(Answer { netns: 7, origin: 9, time_ns: 5, resolution }));
        assert_eq!(answer(&record[..40]), Err(DecodeError::Short(40)));
    }

    proptest! {
        #[test]
        fn decoding_is_total(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in 0usize..60,
            value in any::<u8>(),
        ) {
            let _ = answer(&bytes);
            let _ = read(&bytes);
            let records = [
                ("a.example", TYPE_CNAME, 300, wire("b.example")),
                ("b.example", TYPE_A, 60, vec![192, 0, 2, 7]),
            ];
            let mut bytes = message("a.example", &records);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            let _ = read(&bytes);
        }
    }
}
