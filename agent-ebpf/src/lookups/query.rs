//! What a query asks for, in the memory of the program that sends it.

use agent_common::ledger::UNFRAMED;
use agent_common::lookup::{OTHER_TYPE, QueryHeader, question_type};

use crate::user_memory::{self, Message};

/// Number and type of question of a message; `None` if it is no query.
#[inline(always)]
pub(super) fn read(message: Message) -> Result<Option<(u16, u32)>, usize> {
    let Some(header) = user_memory::words::<3>(message.from).filter(|_| message.length >= HEADER)
    else {
        return Err(UNFRAMED);
    };
    let header = QueryHeader(header);
    if !header.is_query() {
        return Ok(None);
    }
    let mut question = OTHER_TYPE;
    if header.has_a_question() {
        question = asked_type(message.from.wrapping_add(HEADER.into()), message.length - HEADER);
        if question == UNREADABLE {
            return Err(UNFRAMED);
        }
    }
    Ok(Some((header.id(), question)))
}

/// How long the header of a message is.
const HEADER: u32 = agent_common::answer::DNS_HEADER as u32;
/// More labels than a name has: of the longest in use, reverse names of IPv6, there are 34.
const MAX_LABELS: u32 = 64;
/// No type of question.
const UNREADABLE: u32 = u32::MAX;

/// The type of a question that begins at an address of the running program's memory, before the
/// end of a message in `length` bytes; [`UNREADABLE`] if there is none.
///
/// A global function of numbers: the verifier walks it once per program.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn asked_type(from: u64, length: u32) -> u32 {
    let mut at = 0;
    let mut labels = 0;
    while labels < MAX_LABELS {
        if at >= length {
            return UNREADABLE;
        }
        let Some(label) = user_memory::byte(from.wrapping_add(u64::from(at))) else {
            return UNREADABLE;
        };
        if label == 0 {
            // The end of the name; type and class follow.
            if length - at < 5 {
                return UNREADABLE;
            }
            let Some([high, low]) = user_memory::bytes(from.wrapping_add(u64::from(at) + 1)) else {
                return UNREADABLE;
            };
            return question_type(u16::from_be_bytes([high, low]));
        }
        // Longer ones are none (RFC 1035, 4.1.4): a query has nothing to point to.
        if label > 63 {
            return UNREADABLE;
        }
        at += u32::from(label) + 1;
        labels += 1;
    }
    UNREADABLE
}
