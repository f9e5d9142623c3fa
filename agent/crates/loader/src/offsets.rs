//! Resolves the offsets of kernel struct fields and fills the config of the BPF programs.

use agent_common::address::{Range, from_ip};
use agent_common::config::{
    Config, MAX_RANGES, MAX_REASONS, MISSING, Offsets, SECOND_ARGUMENT, SENDMMSG, SENDMSG, SENDTO,
    THIRD_ARGUMENT, WRITE, WRITEV,
};
use agent_common::reset::{UNKNOWN, cause_of_reason};
use agent_common::wire::Wire as _;
use ipnet::IpNet;

use super::btf::Btf;
use super::hooks::TABLE_ITERATION;
use super::load::{self, Options};
use super::maps;
use super::parts::{DNS_ANSWERS, LOOKUPS, RESPONSES, SOCKET_TABLE};
use super::tcp_sock;

/// `SOCK_DONE` of include/net/sock.h, where it has been since Linux 2.6.
const SOCK_DONE: u8 = 1;
/// `SOCK_DEAD`, likewise.
const SOCK_DEAD: u8 = 0;
/// `SOCK_LINGER`, likewise.
const SOCK_LINGER: u8 = 4;

/// `SOCK_RCU_FREE`, since 4.6.
const SOCK_RCU_FREE: u8 = 25;

/// Which bits of their bytes the bit fields are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    v6_only: u8,
    reuse: u8,
    reuse_port: u8,
    chrono_type: u8,
    kernel_socket: u8,
}

impl Masks {
    fn of(&mut self, field: &str) -> Option<&mut u8> {
        match field {
            "v6_only" => Some(&mut self.v6_only),
            "reuse" => Some(&mut self.reuse),
            "reuse_port" => Some(&mut self.reuse_port),
            "chrono_type" => Some(&mut self.chrono_type),
            "kernel_socket" => Some(&mut self.kernel_socket),
            _ => None,
        }
    }
}

/// Resolves every field of [`Offsets::FIELDS`], except those in `disabled`; missing fields stay
/// [`MISSING`]. Also returns the position of bit fields in their bytes.
pub fn resolve(btf: &Btf, disabled: &[String]) -> (Offsets, Masks) {
    let mut offsets = Offsets::NONE;
    let mut masks = Masks::default();
    for (name, ty, path) in Offsets::FIELDS {
        if disabled.iter().any(|mask| mask == name) {
            continue;
        }
        let Some(member) = btf.member(ty, path) else { continue };
        if let Some(mask) = masks.of(name) {
            // A bit field, which we read by its byte; little-endian bit order. Some kernels have a
            // whole byte in its place.
            let bits =
                if member.bit_size == 0 { 0xff } else { (1u32 << member.bit_size.min(8)) - 1 };
            *mask = (bits << (member.bit_offset % 8)) as u8;
        } else if member.bit_size != 0 || member.bit_offset % 8 != 0 {
            continue;
        }
        offsets.set(name, member.bit_offset / 8);
    }
    (offsets, masks)
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

/// The complete read-only configuration of the BPF programs.
pub fn config(btf: &Btf, options: &Options, shards: u32) -> Config {
    let (offsets, masks) = resolve(btf, &options.disabled);
    let mut config = Config {
        offsets,
        shards,
        v6_only_mask: masks.v6_only,
        reuse_mask: masks.reuse,
        reuse_port_mask: masks.reuse_port,
        chrono_type_mask: masks.chrono_type,
        kernel_socket_mask: masks.kernel_socket,
        jiffy_us: jiffy_us(),
        requests: options.requests.into(),
        dns: (options.dns && missing(&offsets, DNS_ANSWERS.fields).is_empty()).into(),
        fallback: load::is_preempted(options).into(),
        ..Config::zeroed()
    };
    config.responses =
        (options.responses && options.requests && missing(&offsets, RESPONSES.fields).is_empty())
            .into();
    config.lookups = (options.lookups
        && options.requests
        && sees_datagrams(btf, options)
        && [LOOKUPS.fields, DNS_ANSWERS.fields]
            .iter()
            .all(|fields| missing(&offsets, fields).is_empty()))
    .into();
    config.result_replaces_argument = cfg!(target_arch = "aarch64").into();
    config.offsets.syscall_argument =
        config.offsets.syscall_argument.saturating_add(SECOND_ARGUMENT);
    config.offsets.syscall_third = config.offsets.syscall_third.saturating_add(THIRD_ARGUMENT);
    for (place, number) in [
        (WRITE, libc::SYS_write),
        (SENDTO, libc::SYS_sendto),
        (WRITEV, libc::SYS_writev),
        (SENDMSG, libc::SYS_sendmsg),
        (SENDMMSG, libc::SYS_sendmmsg),
    ] {
        if let (Some(place), Ok(number)) = (config.sending.get_mut(place), u16::try_from(number)) {
            *place = number;
        }
    }
    let ranges = options.internal_ranges.iter().take(MAX_RANGES);
    for (range, network) in config.ranges.iter_mut().zip(ranges) {
        *range = range_of(network);
        config.range_count += 1;
    }
    config.causes = [UNKNOWN; MAX_REASONS];
    for (name, value) in btf.enum_values("sk_rst_reason") {
        if let Some(cause) =
            usize::try_from(value).ok().and_then(|value| config.causes.get_mut(value))
        {
            *cause = cause_of_reason(&name);
        }
    }
    let flags = btf.enum_values("sock_flags");
    let bit = |flag: &str| {
        let found = flags.iter().find(|(name, _)| name == flag);
        found.and_then(|(_, bit)| u8::try_from(*bit).ok())
    };
    config.sock_done_bit = bit("SOCK_DONE").unwrap_or(SOCK_DONE);
    config.sock_dead_bit = bit("SOCK_DEAD").unwrap_or(SOCK_DEAD);
    config.sock_linger_bit = bit("SOCK_LINGER").unwrap_or(SOCK_LINGER);
    config.sock_rcu_free_bit = bit("SOCK_RCU_FREE").unwrap_or(SOCK_RCU_FREE);
    config.capacities = maps::slots(options);
    config.tcp_sock_type = tcp_sock::cast_to(btf).unwrap_or(0);
    let has_iterations = ["iterate_sockets", TABLE_ITERATION]
        .iter()
        .all(|hook| !options.disabled.iter().any(|mask| mask == hook));
    // Where programs are preempted, a socket's birth may be skipped, and nothing shows it later.
    config.socket_table = (config.tcp_sock_type != 0
        && config.fallback == 0
        && has_iterations
        && missing(&offsets, SOCKET_TABLE.fields).is_empty())
    .into();
    config.reset_has_reason = (btf.tracepoint_arguments("tcp_send_reset") == Some(3)).into();
    config
}

/// Whether sends of sockets that do not speak TCP are seen: the tracepoint sees them, what stands for it on
/// older kernels does not.
pub fn sees_datagrams(btf: &Btf, options: &Options) -> bool {
    let is_disabled =
        |mask: &String| mask == SEND || mask.strip_prefix("way:").is_some_and(|way| way == SEND);
    btf.tracepoint_arguments(SEND).is_some() && !options.disabled.iter().any(is_disabled)
}

/// The tracepoint behind every send, since Linux 6.3.
const SEND: &str = "sock_send_length";

/// How long a jiffy is, microseconds: what the coarse clocks count by (`KTIME_LOW_RES`,
/// kernel/time/posix-timers.c). `HZ` itself is in no file that every host has.
fn jiffy_us() -> u32 {
    let mut tick = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `tick` is valid for the call, which writes nothing else.
    let result = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut tick) };
    let us = u32::try_from(tick.tv_nsec / 1000).unwrap_or(0);
    // No architecture's default is slower than 100 Hz or faster than 1000.
    if result == 0 && us > 0 { us } else { 4000 }
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
    fn a_disabled_field_is_missing_and_is_named() {
        let Ok(btf) = Btf::of_running_kernel() else {
            println!("SKIPPED: this kernel publishes no BTF");
            return;
        };
        let (offsets, _) = resolve(&btf, &["srtt_us".to_owned()]);
        assert_eq!(offsets.srtt_us, MISSING);
        assert_eq!(missing(&offsets, &["srtt_us", "daddr"]), ["srtt_us"]);
        let (offsets, masks) = resolve(&btf, &[]);
        assert_eq!(missing(&offsets, &["srtt_us", "daddr"]), [""; 0]);
        assert_eq!((masks.v6_only.count_ones(), masks.reuse_port.count_ones()), (1, 1));
        assert_eq!(masks.reuse.count_ones(), 4);
        assert_eq!(masks.reuse & masks.reuse_port & masks.v6_only, 0);
    }

    #[test]
    fn networks_become_ranges() {
        let range = range_of(&"10.0.0.0/8".parse().unwrap());
        assert!(range.contains(&from_ip("10.9.8.7".parse().unwrap())));
        assert!(!range.contains(&from_ip("11.0.0.1".parse().unwrap())));
    }
}
