//! Lists of ports as the kernel writes them (`8080,9148-9150`), and their meaning for a
//! reservation.
//!
//! A port inside the ephemeral range (`net.ipv4.ip_local_port_range`) may be assigned to any socket
//! that connects or binds port 0, unless `net.ipv4.ip_local_reserved_ports` excludes it
//! (Documentation/networking/ip-sysctl.rst). Both are per network namespace, for TCP and UDP.

use std::fmt::Write as _;

/// The port settings of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortRules {
    /// First and last ephemeral port.
    pub ephemeral: Option<(u16, u16)>,
    /// Excluded ranges, as written in the sysctl.
    pub kept_out: Vec<(u16, u16)>,
}

/// A problem of a reservation, and the command that fixes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// One sentence.
    pub problem: String,
    /// A command.
    pub fix: String,
}

impl PortRules {
    /// From the two files below /proc/sys/net/ipv4. What cannot be read is omitted: then there is
    /// no advice, rather than a wrong one.
    pub fn parse(local_port_range: &str, local_reserved_ports: &str) -> Self {
        let mut numbers = local_port_range.split_ascii_whitespace().map(|word| word.parse().ok());
        let ephemeral = match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(first), Some(last)) if first <= last => Some((first, last)),
            _ => None,
        };
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
        };
        Self { ephemeral, kept_out: local_reserved_ports.split(',').filter_map(range).collect() }
    }

    /// Whether the kernel may assign this port by itself.
    pub fn is_ephemeral(&self, port: u16) -> bool {
        self.ephemeral.is_some_and(|range| within(port, range))
            && !self.kept_out.iter().any(|range| within(port, *range))
    }

    /// How to exclude these ports from the ephemeral range. The sysctl is a whole list, so the
    /// command repeats its current content.
    pub fn advice(&self, ports: &[u16]) -> Option<Advice> {
        let (first, last) = self.ephemeral?;
        let mut exposed: Vec<u16> =
            ports.iter().copied().filter(|port| self.is_ephemeral(*port)).collect();
        exposed.sort_unstable();
        exposed.dedup();
        let subject = match exposed.as_slice() {
            [] => return None,
            [port] => format!("port {port} lies"),
            many => format!("ports {} lie", written(&merged(many.iter().map(|p| (*p, *p))))),
        };
        let list = merged(self.kept_out.iter().copied().chain(exposed.iter().map(|p| (*p, *p))));
        Some(Advice {
            problem: format!(
                "{subject} in the ephemeral range {first}-{last} (net.ipv4.ip_local_port_range): any program that connects somewhere may be given it as its local port"
            ),
            fix: format!("sysctl -w net.ipv4.ip_local_reserved_ports={}", written(&list)),
        })
    }
}

fn within(port: u16, (first, last): (u16, u16)) -> bool {
    (first..=last).contains(&port)
}

/// The same ports as few ranges, in order.
fn merged(ranges: impl Iterator<Item = (u16, u16)>) -> Vec<(u16, u16)> {
    let mut ranges: Vec<_> = ranges.filter(|(first, last)| first <= last).collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn written(ranges: &[(u16, u16)]) -> String {
    let mut text = String::new();
    for (first, last) in ranges {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing into a String cannot fail.
        let _ = if first == last {
            write!(text, "{comma}{first}")
        } else {
            write!(text, "{comma}{first}-{last}")
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_port_that_the_kernel_may_hand_out_gets_the_exact_line() {
        let check = |kept_out: &str, ports: &[u16], fix: Option<&str>| {
            let rules = PortRules::parse("32768\t60999\n", kept_out);
            let advice = rules.advice(ports).map(|advice| advice.fix);
            let line = fix.map(|list| format!("sysctl -w net.ipv4.ip_local_reserved_ports={list}"));
            assert_eq!(advice, line, "{kept_out:?} {ports:?}");
        };
        check("\n", &[5432], None);
        check("\n", &[40_000], Some("40000"));
        check("40000\n", &[40_000], None);
        check("39000-40000\n", &[40_000], None);
        check("8080,9148-9150\n", &[40_000], Some("8080,9148-9150,40000"));
        check("39999\n", &[40_000, 40_001, 5432], Some("39999-40001"));
        check("", &[60_999, 61_000], Some("60999"));
        let advice = PortRules::parse("1024 2000", "").advice(&[1500]).expect("exposed");
        assert!(advice.problem.starts_with("port 1500 lies in the ephemeral range 1024-2000"));
    }

    #[test]
    fn without_the_sysctls_there_is_no_advice() {
        for text in ["", "x y", "7", "9 3"] {
            assert_eq!(PortRules::parse(text, "").advice(&[40_000]), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn following_the_advice_fixes_it(
            ranges in proptest::collection::vec((any::<u16>(), any::<u16>()), 0..6),
            ports in proptest::collection::vec(any::<u16>(), 1..6),
        ) {
            let rules = PortRules { ephemeral: Some((32_768, 60_999)), kept_out: ranges };
            if let Some(advice) = rules.advice(&ports) {
                let (_, list) = advice.fix.split_once('=').expect("a list");
                let after = PortRules::parse("32768 60999", list);
                prop_assert_eq!(after.advice(&ports), None);
                for port in 0..=u16::MAX {
                    let kept = |rules: &PortRules| {
                        rules.kept_out.iter().any(|range| within(port, *range))
                    };
                    let asked = ports.contains(&port) && rules.is_ephemeral(port);
                    prop_assert_eq!(kept(&after), kept(&rules) || asked);
                }
            }
        }
    }
}
