//! Ports that are refused to others than the service they are reserved for, and how the kernel
//! half decides.
//!
//! bind(2) cannot wait for user space, so user space writes down beforehand whom it knows to be
//! someone else, and refuses no others: an owner of sockets that has a name of its own
//! ([`VerdictKey`] with its [`OwnerKey`]), and whole cgroups that have only such ones (the same
//! with an empty command). Within such a cgroup a new process is still let in if its command is the
//! service's, or one that does not give a name yet.

use crate::owner::{OwnerKey, counts_arguments};

/// Known to be someone else.
pub const DENY: u32 = 1;
/// Known to be the service, whatever is known of its cgroup.
pub const ALLOW: u32 = 2;

/// Commands of a service that are known at most.
pub const COMMANDS: usize = 4;

crate::wire! {
    /// A port that is refused to others.
    pub struct EnforcedPort: 8 {
        /// Inode number of the network namespace.
        pub netns: u32,
        /// The port, host byte order.
        pub port: u16,
        /// IP protocol: 6 = TCP, 17 = UDP.
        pub protocol: u8,
        /// Always zero.
        pub zero: u8,
    }

    /// What is known of the service it is reserved for.
    pub struct Enforced: 64 {
        /// Commands it was seen with, or may have by its name; unused ones are zero.
        pub commands: [[u8; 16]; 4],
    }

    /// Who asks for which port.
    pub struct VerdictKey: 40 {
        /// Who; without a command (and arguments) everybody of the cgroup.
        pub owner: OwnerKey,
        /// Which port.
        pub port: EnforcedPort,
    }
}

const fn command(text: &[u8]) -> [u8; 16] {
    let mut bytes = [0; 16];
    let mut i = 0;
    while i < text.len() && i < 15 {
        bytes[i] = text[i];
        i += 1;
    }
    bytes
}

/// Programs that take ports on behalf of others: container engines and service managers. Who is
/// behind them cannot be read from the socket.
pub const GO_BETWEENS: [[u8; 16]; 9] = [
    command(b"docker-proxy"),
    command(b"dockerd"),
    command(b"containerd"),
    command(b"systemd"),
    command(b"conmon"),
    command(b"rootlessport"),
    command(b"rootlesskit"),
    command(b"slirp4netns"),
    command(b"pasta"),
];

/// Whether a command takes ports on behalf of others.
#[inline(always)]
pub fn is_go_between(comm: &[u8; 16]) -> bool {
    let mut i = 0;
    while i < GO_BETWEENS.len() {
        if same(&GO_BETWEENS[i], comm) {
            return true;
        }
        i += 1;
    }
    false
}

/// Whether a bind is refused. `exact` is the verdict on who asks, `of_cgroup` that on its cgroup;
/// 0 = none.
#[inline(always)]
pub fn is_denied(enforced: &Enforced, comm: &[u8; 16], exact: u32, of_cgroup: u32) -> bool {
    if exact != 0 {
        return exact == DENY;
    }
    if of_cgroup != DENY || counts_arguments(comm) || is_go_between(comm) {
        return false;
    }
    let mut i = 0;
    while i < COMMANDS {
        if same(&enforced.commands[i], comm) {
            return false;
        }
        i += 1;
    }
    true
}

/// Compares two words at once: a loop over bytes would be a call of memcmp in the kernel half.
#[inline(always)]
fn same(a: &[u8; 16], b: &[u8; 16]) -> bool {
    u128::from_ne_bytes(*a) == u128::from_ne_bytes(*b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_known_to_be_someone_else_is_refused() {
        let enforced =
            Enforced { commands: [command(b"postgres"), command(b"pg_ctl"), [0; 16], [0; 16]] };
        let check = |comm: &[u8], exact, of_cgroup, expected| {
            let comm = command(comm);
            assert_eq!(is_denied(&enforced, &comm, exact, of_cgroup), expected, "{comm:?}");
        };
        check(b"nc", 0, 0, false);
        check(b"nc", DENY, 0, true);
        check(b"nc", ALLOW, DENY, false);
        check(b"nc", 0, DENY, true);
        check(b"postgres", DENY, 0, true);
        check(b"postgres", 0, DENY, false);
        check(b"pg_ctl", 0, DENY, false);
        check(b"python3", 0, DENY, false);
        check(b"gunicorn: maste", 0, DENY, false);
        check(b"docker-proxy", 0, DENY, false);
        check(b"systemd", 0, DENY, false);
        check(b"systemd-resolved", 0, DENY, true);
    }
}
