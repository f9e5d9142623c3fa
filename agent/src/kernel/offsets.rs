//! Finds out what this kernel's structs look like and fills the knobs of the kernel programs.

use agent_common::address::{Range, from_ip};
use agent_common::knobs::{Knobs, MAX_RANGES, MAX_REASONS, MISSING, Offsets};
use agent_common::reset::{UNKNOWN, cause_of_reason};
use agent_common::wire::Wire as _;
use ipnet::IpNet;

use super::btf::Btf;

/// `SOCK_DONE` of include/net/sock.h, where it has been since Linux 2.6.
const SOCK_DONE: u8 = 1;
/// `SOCK_LINGER`, likewise.
const SOCK_LINGER: u8 = 4;

/// Resolves every field of [`Offsets::FIELDS`], except those in `masked`; what this kernel does
/// not have stays [`MISSING`]. Also returns the bit of the IPv6-only flag in its byte.
pub fn resolve(btf: &Btf, masked: &[String]) -> (Offsets, u8) {
    let mut offsets = Offsets::NONE;
    let mut v6_only_mask = 0;
    for (name, ty, path) in Offsets::FIELDS {
        if masked.iter().any(|mask| mask == name) {
            continue;
        }
        let Some(member) = btf.member(ty, path) else { continue };
        if member.bit_size == 1 {
            // The bit field we read by its byte; little-endian bit order.
            v6_only_mask = 1 << (member.bit_offset % 8);
        } else if member.bit_size != 0 || member.bit_offset % 8 != 0 {
            continue;
        }
        offsets.set(name, member.bit_offset / 8);
    }
    (offsets, v6_only_mask)
}

/// The names among `fields` that this kernel does not have.
pub fn missing(offsets: &Offsets, fields: &[&'static str]) -> Vec<&'static str> {
    let words = offsets.as_bytes().chunks_exact(4);
    Offsets::FIELDS
        .iter()
        .zip(words)
        .filter(|((name, ..), word)| *word == MISSING.to_ne_bytes() && fields.contains(name))
        .map(|((name, ..), _)| *name)
        .collect()
}

/// Everything the kernel programs are told before they are loaded.
pub fn knobs(btf: &Btf, masked: &[String], ranges: &[IpNet], shards: u32, requests: bool) -> Knobs {
    let (offsets, v6_only_mask) = resolve(btf, masked);
    let mut knobs =
        Knobs { offsets, shards, v6_only_mask, requests: requests.into(), ..Knobs::zeroed() };
    for (range, network) in knobs.ranges.iter_mut().zip(ranges.iter().take(MAX_RANGES)) {
        *range = range_of(network);
        knobs.range_count += 1;
    }
    knobs.causes = [UNKNOWN; MAX_REASONS];
    for (name, value) in btf.enum_values("sk_rst_reason") {
        if let Some(cause) =
            usize::try_from(value).ok().and_then(|value| knobs.causes.get_mut(value))
        {
            *cause = cause_of_reason(&name);
        }
    }
    let flags = btf.enum_values("sock_flags");
    let bit = |flag: &str| {
        let found = flags.iter().find(|(name, _)| name == flag);
        found.and_then(|(_, bit)| u8::try_from(*bit).ok())
    };
    knobs.sock_done_bit = bit("SOCK_DONE").unwrap_or(SOCK_DONE);
    knobs.sock_linger_bit = bit("SOCK_LINGER").unwrap_or(SOCK_LINGER);
    knobs.reset_has_reason = (btf.tracepoint_arguments("tcp_send_reset") == Some(3)).into();
    knobs
}

fn range_of(network: &IpNet) -> Range {
    let bits = u32::from(network.prefix_len());
    match network {
        IpNet::V4(v4) => Range::new(from_ip(v4.addr().into()), bits + 96),
        IpNet::V6(v6) => Range::new(from_ip(v6.addr().into()), bits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_field_is_missing_and_is_named() {
        let Ok(btf) = Btf::of_running_kernel() else {
            println!("SKIPPED: this kernel publishes no BTF");
            return;
        };
        let (offsets, _) = resolve(&btf, &["srtt_us".to_owned()]);
        assert_eq!(offsets.srtt_us, MISSING);
        assert_eq!(missing(&offsets, &["srtt_us", "daddr"]), ["srtt_us"]);
        let (offsets, mask) = resolve(&btf, &[]);
        assert_eq!(missing(&offsets, &["srtt_us", "daddr"]), [""; 0]);
        assert_eq!(mask.count_ones(), 1);
    }

    #[test]
    fn networks_become_ranges() {
        let range = range_of(&"10.0.0.0/8".parse().unwrap());
        assert!(range.contains(&from_ip("10.9.8.7".parse().unwrap())));
        assert!(!range.contains(&from_ip("11.0.0.1".parse().unwrap())));
    }
}
